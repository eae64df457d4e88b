-- What a client asks once, when it opens.

-- name: describe
SELECT current_setting('server_version_num')::integer AS server_version,
       pg_backend_pid() AS backend_pid,
       pg_is_in_recovery() AS in_recovery,
       to_regclass('pgrecall.alembic_version') IS NOT NULL AS provisioned,
       to_regclass('public.agent_episodes') IS NOT NULL AS has_episodes,
       (SELECT a.atttypmod FROM pg_attribute AS a
        WHERE a.attrelid = to_regclass('public.agent_episodes') AND a.attname = 'embedding'
        ) AS dimensions

-- name: revision
SELECT v.version_num AS revision FROM pgrecall.alembic_version AS v

-- name: vector_settings
-- The cast loads the vector library, without which its settings are unknown to the session.
SELECT '[1]'::vector IS NOT NULL AS loaded,
       current_setting('hnsw.iterative_scan', true) AS iterative_scan,
       current_setting('hnsw.ef_search', true)::integer AS ef_search,
       current_setting('plan_cache_mode') AS plan_cache_mode

-- name: local_settings
SELECT set_config('hnsw.iterative_scan', 'relaxed_order', true),
       set_config('hnsw.ef_search', '100', true),
       set_config('plan_cache_mode', 'force_custom_plan', true)
