-- What `pgrecall serve` asks for beside what its client does.

-- name: key
SELECT k.key_id, k.digest, k.scopes, k.projects, k.expires_at, k.revoked_at
FROM pgrecall.api_keys AS k
WHERE k.key_id = %(key_id)s

-- name: any_key
-- Also one that is over: who revokes the last key does not mean to let everybody in.
SELECT EXISTS (SELECT FROM pgrecall.api_keys) AS found

-- name: revision
SELECT v.version_num::text AS revision FROM pgrecall.alembic_version AS v

-- name: foreign_episodes
-- Those that are no episodes of these projects.
SELECT n.episode_id
FROM unnest(%(episode_ids)b::uuid[]) AS n (episode_id)
WHERE NOT EXISTS (
    SELECT FROM public.agent_episodes AS e
    WHERE e.episode_id = n.episode_id AND e.project_id = ANY (%(project_ids)b::text[]))

-- name: lock_session
SELECT s.session_id
FROM public.agent_working_memory AS s
WHERE s.session_id = %(session_id)s
FOR UPDATE

-- name: claim
-- Waits for another request with the same key that is under way, and finds its answer then.
INSERT INTO pgrecall.request_answers (caller, request_key, request)
VALUES (%(caller)s, %(request_key)s, %(request)s)
ON CONFLICT (caller, request_key) DO NOTHING
RETURNING request_key

-- name: keep
UPDATE pgrecall.request_answers AS a
SET status = %(status)s::smallint, body = %(body)b::bytea
WHERE a.caller = %(caller)s AND a.request_key = %(request_key)s

-- name: standing
SELECT a.request, a.status::integer AS status, a.body
FROM pgrecall.request_answers AS a
WHERE a.caller = %(caller)s AND a.request_key = %(request_key)s

-- name: forget
DELETE FROM pgrecall.request_answers AS a
WHERE a.created_at < now() - make_interval(hours => %(hours)s::integer)
