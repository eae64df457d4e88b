-- Knowledge: what was learned, with the episodes for and against it.

-- name: columns
k.knowledge_id, k.knowledge_type, k.content, k.description, k.confidence, k.supporting_episodes,
    k.contradicting_episodes, k.times_applied, k.success_count, k.failure_count, k.success_rate,
    k.created_at, k.last_validated, k.last_applied, k.created_by, k.is_active, k.project_id,
    k.embedding IS NOT NULL AS embedded

-- name: filter_project_id
-- What is shared by all projects belongs to each of them.
AND (k.project_id = %(project_id)s OR k.project_id IS NULL)

-- name: filter_knowledge_type
AND k.knowledge_type = %(knowledge_type)s

-- name: filter_active
AND (k.is_active IS TRUE) = %(active)s

-- name: filter_min_confidence
AND k.confidence >= %(min_confidence)s

-- name: filter_after
AND (coalesce(k.created_at, 'epoch'), k.knowledge_id) < (%(after_time)s, %(after_id)s)

-- name: hold_evidence
-- Locks the episodes, so that none can be deleted before the evidence is written.
SELECT e.episode_id
FROM public.agent_episodes AS e
WHERE e.episode_id = ANY (%(episode_ids)b::uuid[])
FOR KEY SHARE

-- name: add
INSERT INTO public.agent_knowledge AS k (
    knowledge_id, knowledge_type, content, description, confidence, supporting_episodes,
    contradicting_episodes, embedding, created_by, is_active, project_id)
SELECT coalesce(%(knowledge_id)s::uuid, gen_random_uuid()), %(knowledge_type)s, %(content)s::jsonb,
       %(description)s, %(confidence)s, %(supporting_episodes)b::uuid[],
       %(contradicting_episodes)b::uuid[], %(embedding)b::vector, %(created_by)s, %(active)s,
       %(project_id)s
WHERE (SELECT pgrecall.check_model(%(model)s::integer))
RETURNING /* include: columns */

-- name: get
SELECT /* include: columns */
FROM public.agent_knowledge AS k
WHERE k.knowledge_id = %(knowledge_id)s /* filters */

-- name: list
SELECT /* include: columns */
FROM public.agent_knowledge AS k
WHERE true /* filters */
ORDER BY coalesce(k.created_at, 'epoch') DESC, k.knowledge_id DESC
LIMIT %(limit)s

-- name: apply
-- Counters move in the one statement, so that concurrent applications add up. An episode given
-- as evidence joins the side that it speaks for, once.
UPDATE public.agent_knowledge AS k
SET times_applied = coalesce(k.times_applied, 0) + 1,
    success_count = coalesce(k.success_count, 0) + (%(success)s::boolean)::int,
    failure_count = coalesce(k.failure_count, 0) + (NOT %(success)s::boolean)::int,
    last_applied = now(),
    supporting_episodes = CASE
        WHEN %(success)s::boolean AND %(episode_id)s::uuid IS NOT NULL
             AND NOT %(episode_id)s::uuid = ANY (k.supporting_episodes)
        THEN array_append(k.supporting_episodes, %(episode_id)s::uuid)
        ELSE k.supporting_episodes END,
    contradicting_episodes = CASE
        WHEN NOT %(success)s::boolean AND %(episode_id)s::uuid IS NOT NULL
             AND NOT %(episode_id)s::uuid = ANY (coalesce(k.contradicting_episodes, '{}'))
        THEN array_append(k.contradicting_episodes, %(episode_id)s::uuid)
        ELSE k.contradicting_episodes END
WHERE k.knowledge_id = %(knowledge_id)s AND k.is_active IS TRUE /* filters */
RETURNING /* include: columns */

-- name: retire
UPDATE public.agent_knowledge AS k
SET is_active = false
WHERE k.knowledge_id = %(knowledge_id)s /* filters */
RETURNING /* include: columns */

-- name: delete
DELETE FROM public.agent_knowledge AS k
WHERE k.knowledge_id = %(knowledge_id)s /* filters */

-- name: recall
SELECT r.*
FROM pgrecall.recall_knowledge(
    %(embedding)b::vector, %(limit)s::integer, %(filter)s::jsonb, %(min_similarity)s::float8,
    %(confidence_weight)s::float8, %(age_weight)s::float8, %(half_life)s::interval,
    %(diversity)s::float8, %(route)s::text, %(explain)s::boolean, %(text)s::text) AS r
-- Asked once, at the first row, as for episodes.
WHERE (SELECT pgrecall.check_model(%(model)s::integer)) OR r.knowledge_id IS NULL
