-- Sessions: an agent's working memory, which expires.

-- name: columns
s.session_id, s.project_id, s.user_id, s.current_goal, s.active_context, s.thought_history,
    s.created_at, s.last_updated, s.expires_at, s.is_active, s.related_episodes

-- name: live
(s.is_active IS TRUE AND s.expires_at > now())

-- name: filter_project_id
AND s.project_id = %(project_id)s

-- name: filter_user_id
AND s.user_id = %(user_id)s

-- name: filter_active
AND /* include: live */ = %(active)s

-- name: filter_after
AND (coalesce(s.last_updated, 'epoch'), s.session_id) < (%(after_time)s, %(after_id)s)

-- name: open
INSERT INTO public.agent_working_memory AS s (
    session_id, project_id, user_id, current_goal, active_context, expires_at)
VALUES (
    coalesce(%(session_id)s::uuid, gen_random_uuid()), %(project_id)s, %(user_id)s, %(goal)s,
    %(context)s::jsonb, now() + %(ttl)s::interval)
RETURNING /* include: columns */

-- name: resume
-- One statement, so that of two who begin the same session at once the second goes on with it.
-- A row of another project is left alone, and none is returned.
INSERT INTO public.agent_working_memory AS s (
    session_id, project_id, user_id, current_goal, active_context, thought_history, expires_at)
VALUES (
    %(session_id)s, %(project_id)s, %(user_id)s, %(goal)s, %(context)s::jsonb,
    %(thoughts)s::jsonb[], now() + %(ttl)s::interval)
ON CONFLICT (session_id) DO UPDATE
SET (user_id, current_goal, active_context, thought_history, related_episodes, created_at) = (
        SELECT coalesce(s.user_id, excluded.user_id),
               coalesce(excluded.current_goal, s.current_goal),
               CASE WHEN excluded.active_context IS NULL THEN s.active_context
                    ELSE coalesce(s.active_context, '{}') || excluded.active_context END,
               s.thought_history || excluded.thought_history,
               s.related_episodes,
               s.created_at
        WHERE /* include: live */
        UNION ALL
        SELECT excluded.user_id, excluded.current_goal, excluded.active_context,
               excluded.thought_history, excluded.related_episodes, now()
        WHERE /* include: live */ IS NOT TRUE),
    expires_at = excluded.expires_at,
    is_active = true
WHERE s.project_id = excluded.project_id
RETURNING /* include: columns */

-- name: get
SELECT /* include: columns */
FROM public.agent_working_memory AS s
WHERE s.session_id = %(session_id)s /* filters */

-- name: list
SELECT /* include: columns */
FROM public.agent_working_memory AS s
WHERE true /* filters */
ORDER BY coalesce(s.last_updated, 'epoch') DESC, s.session_id DESC
LIMIT %(limit)s

-- name: recall
SELECT r.*
FROM pgrecall.recall_thoughts(%(text)s::text, %(limit)s::integer, %(filter)s::jsonb) AS r

-- name: update
-- One statement for every change of a live session, so that each is atomic: context is merged
-- key by key at its top level, thoughts and episodes are appended, the rest replaced if given.
UPDATE public.agent_working_memory AS s
SET active_context = CASE
        WHEN %(context)s::jsonb IS NULL THEN s.active_context
        ELSE coalesce(s.active_context, '{}') || %(context)s::jsonb END,
    thought_history = s.thought_history || %(thoughts)s::jsonb[],
    related_episodes = CASE
        WHEN %(episode_id)s::uuid IS NULL
             OR %(episode_id)s::uuid = ANY (coalesce(s.related_episodes, '{}'))
        THEN s.related_episodes
        ELSE array_append(s.related_episodes, %(episode_id)s::uuid) END,
    current_goal = coalesce(%(goal)s::text, s.current_goal),
    expires_at = CASE
        WHEN %(ttl)s::interval IS NULL THEN s.expires_at ELSE now() + %(ttl)s::interval END
WHERE s.session_id = %(session_id)s AND /* include: live */ /* filters */
RETURNING /* include: columns */

-- name: thoughts
SELECT CASE
    WHEN %(limit)s::bigint IS NULL THEN s.thought_history
    ELSE s.thought_history[
        (array_upper(s.thought_history, 1) - %(limit)s::bigint + 1)::integer :] END AS thoughts
FROM public.agent_working_memory AS s
WHERE s.session_id = %(session_id)s AND /* include: live */ /* filters */

-- name: pop_thought
-- The lock comes first: a second caller waits, and reads what the first has left.
WITH last AS (
    SELECT s.session_id,
           s.thought_history[array_upper(s.thought_history, 1)] AS thought,
           trim_array(s.thought_history, least(1, cardinality(s.thought_history))) AS others
    FROM public.agent_working_memory AS s
    WHERE s.session_id = %(session_id)s AND /* include: live */ /* filters */
    FOR UPDATE
), popped AS (
    UPDATE public.agent_working_memory AS s
    SET thought_history = last.others
    FROM last
    WHERE s.session_id = last.session_id AND s.thought_history <> '{}'
)
SELECT last.thought FROM last

-- name: clear_thoughts
UPDATE public.agent_working_memory AS s
SET thought_history = '{}'
WHERE s.session_id = %(session_id)s AND /* include: live */ /* filters */
RETURNING /* include: columns */

-- name: close
UPDATE public.agent_working_memory AS s
SET is_active = false
WHERE s.session_id = %(session_id)s /* filters */
RETURNING /* include: columns */

-- name: expire
UPDATE public.agent_working_memory AS s
SET is_active = false
WHERE s.expires_at < now() AND s.is_active /* filters */

-- name: delete
DELETE FROM public.agent_working_memory AS s
WHERE s.session_id = %(session_id)s /* filters */
