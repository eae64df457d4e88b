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
VALUES (
    coalesce(%(knowledge_id)s::uuid, gen_random_uuid()), %(knowledge_type)s, %(content)s::jsonb,
    %(description)s, %(confidence)s, %(supporting_episodes)b::uuid[],
    %(contradicting_episodes)b::uuid[], %(embedding)b::vector, %(created_by)s, %(active)s,
    %(project_id)s)
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

-- name: ranking
SELECT found.candidates, hit.*
FROM (SELECT count(*) AS candidates FROM nearest) AS found
LEFT JOIN LATERAL (
    SELECT n.*,
           (1 - %(confidence_weight)s::float8) * n.similarity
           + %(confidence_weight)s::float8 * coalesce(n.confidence, 0.5) AS score
    FROM nearest AS n
    WHERE n.similarity >= %(min_similarity)s::float8
    ORDER BY score DESC, n.similarity DESC, n.knowledge_id
    LIMIT %(limit)s
) AS hit ON true
ORDER BY hit.score DESC, hit.similarity DESC, hit.knowledge_id

-- name: recall
WITH nearest AS MATERIALIZED (
    SELECT /* include: columns */,
           1 - (k.embedding <=> %(embedding)b::vector) AS similarity
    FROM public.agent_knowledge AS k
    WHERE k.embedding IS NOT NULL /* filters */
    ORDER BY k.embedding <=> %(embedding)b::vector
    LIMIT %(candidates)s
)
/* include: ranking */

-- name: recall_exact
WITH measured AS MATERIALIZED (
    SELECT k.knowledge_id, k.embedding <=> %(embedding)b::vector AS distance
    FROM public.agent_knowledge AS k
    WHERE k.embedding IS NOT NULL /* filters */
), closest AS MATERIALIZED (
    SELECT m.knowledge_id, m.distance
    FROM measured AS m
    ORDER BY m.distance, m.knowledge_id
    LIMIT %(candidates)s
), nearest AS MATERIALIZED (
    SELECT /* include: columns */, 1 - c.distance AS similarity
    FROM closest AS c
    JOIN public.agent_knowledge AS k USING (knowledge_id)
)
/* include: ranking */
