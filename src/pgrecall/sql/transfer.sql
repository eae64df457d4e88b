-- Import of episodes: outcomes that were missing.

-- name: fill_outcomes
-- Writes what is missing and never replaces what another has recorded meanwhile.
UPDATE public.agent_episodes AS e
SET outcome = coalesce(e.outcome, n.outcome::jsonb),
    outcome_quality = coalesce(e.outcome_quality, n.quality),
    outcome_recorded_at = now()
FROM unnest(%(episode_ids)b::uuid[], %(outcomes)b::text[], %(qualities)b::float8[])
    AS n(episode_id, outcome, quality)
WHERE e.episode_id = n.episode_id
  AND (e.outcome IS NULL OR n.outcome IS NULL OR e.outcome = n.outcome::jsonb)
  AND (e.outcome_quality IS NULL OR n.quality IS NULL OR e.outcome_quality = n.quality)
RETURNING e.episode_id
