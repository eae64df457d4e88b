-- Episodes: one row a decision. `/* include: x */` stands for the fragment named x of this file;
-- `/* filters */` for the filter fragments of a call, chosen from the closed set `filter_*`.

-- name: columns
e.episode_id, e.project_id, e.timestamp, e.perception, e.reasoning, e.action, e.outcome,
    e.outcome_quality, e.outcome_recorded_at, e.agent_version, e.control_mode, e.decision_source,
    e.sprint_id, e.chronicle_note_id, e.external_id, e.embedding IS NOT NULL AS embedded

-- name: filter_project_id
AND e.project_id = %(project_id)s

-- name: filter_project_ids
AND e.project_id = ANY (%(project_ids)s::text[])

-- name: filter_since
AND e.timestamp >= %(since)s

-- name: filter_until
AND e.timestamp < %(until)s

-- name: filter_sprint_id
AND e.sprint_id = %(sprint_id)s

-- name: filter_decision_source
AND e.decision_source = %(decision_source)s

-- name: filter_agent_version
AND e.agent_version = %(agent_version)s

-- name: filter_min_quality
AND e.outcome_quality >= %(min_quality)s

-- name: filter_max_quality
AND e.outcome_quality <= %(max_quality)s

-- name: filter_with_outcome
AND (e.outcome IS NOT NULL) = %(with_outcome)s

-- name: filter_perception
AND e.perception @> %(perception)s::jsonb

-- name: filter_reasoning
AND e.reasoning @> %(reasoning)s::jsonb

-- name: filter_action
AND e.action @> %(action)s::jsonb

-- name: filter_outcome
AND e.outcome @> %(outcome)s::jsonb

-- name: filter_after
AND (e.timestamp, e.episode_id) < (%(after_time)s, %(after_id)s)

-- name: new_rows
(
    episode_id, project_id, timestamp, perception, reasoning, action, outcome, outcome_quality,
    outcome_recorded_at, embedding, agent_version, control_mode, decision_source, sprint_id,
    chronicle_note_id, external_id)
SELECT n.episode_id, n.project_id, coalesce(n.at, now()), n.perception::jsonb, n.reasoning::jsonb,
       n.action::jsonb, n.outcome::jsonb, n.outcome_quality,
       CASE WHEN n.outcome IS NOT NULL OR n.outcome_quality IS NOT NULL THEN now() END,
       n.embedding, n.agent_version, n.control_mode, n.decision_source, n.sprint_id,
       n.chronicle_note_id, n.external_id
FROM (
    SELECT unnest(%(episode_ids)b::uuid[]) AS episode_id,
           unnest(%(project_ids)b::text[]) AS project_id,
           unnest(%(timestamps)b::timestamptz[]) AS at,
           unnest(%(perceptions)b::text[]) AS perception,
           unnest(%(reasonings)b::text[]) AS reasoning,
           unnest(%(actions)b::text[]) AS action,
           unnest(%(outcomes)b::text[]) AS outcome,
           unnest(%(qualities)b::float8[]) AS outcome_quality,
           unnest(%(embeddings)b::vector[]) AS embedding,
           unnest(%(agent_versions)b::text[]) AS agent_version,
           unnest(%(control_modes)b::text[]) AS control_mode,
           unnest(%(decision_sources)b::text[]) AS decision_source,
           unnest(%(sprint_ids)b::text[]) AS sprint_id,
           unnest(%(chronicle_note_ids)b::uuid[]) AS chronicle_note_id,
           unnest(%(external_ids)b::text[]) AS external_id
) AS n
WHERE (SELECT pgrecall.check_model(%(model)s::integer))

-- name: record
-- One statement for one episode and for many. Rows whose external_id or episode_id is taken are
-- left alone and not returned. Arrays of one length, unnested side by side, give row by row.
INSERT INTO public.agent_episodes /* include: new_rows */
  AND n.episode_id NOT IN (
      SELECT pgrecall.recent_among(%(episode_ids)b::uuid[], %(project_ids)b::text[],
                                   %(external_ids)b::text[]))
ON CONFLICT DO NOTHING
RETURNING episode_id, timestamp, outcome_recorded_at

-- name: record_burst
-- The same beside the vector index. Keys that were given may be taken by rows that are in it; those
-- made here are new.
INSERT INTO pgrecall.recent_episodes /* include: new_rows */
  AND n.episode_id NOT IN (
      SELECT pgrecall.claim_keys(%(keyed_ids)b::uuid[], %(keyed_projects)b::text[],
                                 %(keyed_external_ids)b::text[]))
ON CONFLICT DO NOTHING
RETURNING episode_id, timestamp, outcome_recorded_at

-- name: taken
-- The rows that stand where `record` was not allowed to write. Two look-ups, each by an index: an
-- OR over both would read the whole table. A row found by both comes twice.
SELECT /* include: columns */
FROM public.agent_episodes AS e
WHERE e.episode_id = ANY (%(episode_ids)b::uuid[])
UNION ALL
SELECT /* include: columns */
FROM unnest(%(project_ids)b::text[], %(external_ids)b::text[]) AS k(project_id, external_id)
JOIN public.agent_episodes AS e
  ON e.project_id = k.project_id AND e.external_id = k.external_id

-- name: record_outcome
UPDATE public.agent_episodes AS e
SET outcome = coalesce(%(outcome)s::jsonb, e.outcome),
    outcome_quality = coalesce(%(quality)s::float8, e.outcome_quality),
    outcome_recorded_at = now()
WHERE e.episode_id = %(episode_id)s /* filters */
RETURNING /* include: columns */

-- name: get
SELECT /* include: columns */
FROM public.agent_episodes AS e
WHERE e.episode_id = %(episode_id)s /* filters */

-- name: embeddings
SELECT e.episode_id, e.embedding::vector AS embedding
FROM public.agent_episodes AS e
WHERE e.episode_id = ANY (%(episode_ids)b::uuid[]) AND e.embedding IS NOT NULL /* filters */

-- name: list
SELECT /* include: columns */
FROM public.agent_episodes AS e
WHERE true /* filters */
ORDER BY e.timestamp DESC, e.episode_id DESC
LIMIT %(limit)s

-- name: count
SELECT count(*) AS count
FROM public.agent_episodes AS e
WHERE true /* filters */

-- name: lock
-- Holds the rows, so that no evidence can be added that points to them meanwhile.
SELECT e.episode_id
FROM public.agent_episodes AS e
WHERE e.episode_id = ANY (%(episode_ids)b::uuid[]) /* filters */
ORDER BY e.episode_id
FOR UPDATE

-- name: evidence_of
SELECT k.knowledge_id, k.description
FROM public.agent_knowledge AS k
WHERE k.supporting_episodes && %(episode_ids)b::uuid[]
   OR k.contradicting_episodes && %(episode_ids)b::uuid[]
ORDER BY k.knowledge_id
LIMIT 5

-- name: delete
DELETE FROM public.agent_episodes AS e
WHERE e.episode_id = ANY (%(episode_ids)b::uuid[]) /* filters */
RETURNING e.episode_id

-- name: neighbours
SELECT n.id AS neighbour_of, /* include: columns */
FROM pgrecall.neighbours(%(episode_ids)b::uuid[]) AS n
JOIN public.agent_episodes AS e ON e.episode_id = n.neighbour
ORDER BY e.timestamp, e.episode_id

-- name: recall
-- Routes, their choice and the ranking are functions of the database, for callers of SQL as well.
SELECT r.*
FROM pgrecall.recall_episodes(
    %(embedding)b::vector, %(limit)s::integer, %(filter)s::jsonb, %(min_similarity)s::float8,
    %(outcome_weight)s::float8, %(age_weight)s::float8, %(half_life)s::interval,
    %(diversity)s::float8, %(group)s::boolean, %(route)s::text, %(explain)s::boolean,
    %(text)s::text, %(context)s::boolean) AS r
-- Asked once, at the first row: the tables have been read by then. A condition on no column would be
-- asked before.
WHERE (SELECT pgrecall.check_model(%(model)s::integer)) OR r.episode_id IS NULL
