-- Import and export of episodes: what is known already, and outcomes that were missing.

-- name: standing
-- Two index lookups rather than one condition with OR, which would read the whole table.
SELECT e.episode_id, e.project_id, e.timestamp, e.perception, e.reasoning, e.action, e.outcome,
       e.outcome_quality, e.outcome_recorded_at, e.agent_version, e.control_mode,
       e.decision_source, e.sprint_id, e.chronicle_note_id, e.external_id,
       e.embedding IS NOT NULL AS embedded
FROM public.agent_episodes AS e
WHERE e.episode_id = ANY (%(episode_ids)s::uuid[])
UNION ALL
SELECT e.episode_id, e.project_id, e.timestamp, e.perception, e.reasoning, e.action, e.outcome,
       e.outcome_quality, e.outcome_recorded_at, e.agent_version, e.control_mode,
       e.decision_source, e.sprint_id, e.chronicle_note_id, e.external_id,
       e.embedding IS NOT NULL AS embedded
FROM unnest(%(project_ids)s::text[], %(external_ids)s::text[]) AS n(project_id, external_id)
JOIN public.agent_episodes AS e
    ON e.project_id = n.project_id AND e.external_id = n.external_id

-- name: fill_outcomes
-- Writes what is missing and never replaces what another has recorded meanwhile.
UPDATE public.agent_episodes AS e
SET outcome = coalesce(e.outcome, n.outcome::jsonb),
    outcome_quality = coalesce(e.outcome_quality, n.quality),
    outcome_recorded_at = now()
FROM unnest(%(episode_ids)s::uuid[], %(outcomes)s::text[], %(qualities)s::float8[])
    AS n(episode_id, outcome, quality)
WHERE e.episode_id = n.episode_id
  AND (e.outcome IS NULL OR n.outcome IS NULL OR e.outcome = n.outcome::jsonb)
  AND (e.outcome_quality IS NULL OR n.quality IS NULL OR e.outcome_quality = n.quality)
RETURNING e.episode_id
