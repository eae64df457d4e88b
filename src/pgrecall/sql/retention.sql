-- Deleting what is old, a few rows at a time.

-- name: old
-- How many there are, by project: their index then finds them in order.
SELECT e.project_id, count(*) AS episodes
FROM public.agent_episodes AS e
WHERE e.timestamp < %(before)s
  AND (%(project_id)s::text IS NULL OR e.project_id = %(project_id)s)
GROUP BY e.project_id
ORDER BY e.project_id

-- name: hold
-- The next few, held so that none becomes evidence meanwhile; who is at one keeps it.
SELECT e.episode_id, e.timestamp
FROM public.agent_episodes AS e
WHERE e.project_id = %(project_id)s AND e.timestamp < %(before)s
  AND (e.timestamp, e.episode_id) > (%(after)s, %(after_id)s)
ORDER BY e.timestamp, e.episode_id
LIMIT %(count)s
FOR UPDATE SKIP LOCKED

-- name: delete
-- What knowledge rests on is kept.
WITH kept AS (
    SELECT unnest(k.supporting_episodes || k.contradicting_episodes) AS episode_id
    FROM public.agent_knowledge AS k
    WHERE k.supporting_episodes && %(episode_ids)s::uuid[]
       OR k.contradicting_episodes && %(episode_ids)s::uuid[]
)
DELETE FROM public.agent_episodes AS e
WHERE e.episode_id = ANY (%(episode_ids)s::uuid[])
  AND NOT EXISTS (SELECT FROM kept WHERE kept.episode_id = e.episode_id)
RETURNING e.episode_id
