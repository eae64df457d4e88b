-- The vector indexes of episodes while many are loaded: put off, and built anew.

-- name: place
-- What a load is planned by. The codes tell how many vectors there are: at least, and about.
SELECT pg_backend_pid() AS backend_pid,
       (SELECT dimensions FROM pgrecall.embedding_models WHERE serving) AS dimensions,
       (SELECT count(*) FROM pgrecall.embedding_models WHERE NOT serving) > 0 AS switching,
       greatest(c.reltuples::bigint,
                (SELECT count(*) FROM (SELECT FROM pgrecall.episode_codes LIMIT 200000) AS s))
           AS present,
       pg_size_bytes(current_setting('maintenance_work_mem')) AS maintenance_work_mem,
       pg_size_bytes(current_setting('shared_buffers')) AS shared_buffers,
       current_setting('max_parallel_maintenance_workers')::integer AS workers,
       current_setting('dynamic_shared_memory_type') AS shared_memory_type,
       (SELECT oid FROM pg_database WHERE datname = current_database()) AS database,
       pg_postmaster_start_time() AS started,
       (SELECT count(*) FROM pgrecall.deferred_indexes) > 0 AS deferred
FROM pg_class AS c WHERE c.oid = 'pgrecall.episode_codes'::regclass

-- name: same_place
-- Whether another connection leads to the same database.
SELECT (SELECT oid FROM pg_database WHERE datname = current_database()) AS database,
       pg_postmaster_start_time() AS started

-- name: be_watchful
-- A build whose client has died ends soon, rather than going on for nobody.
SELECT set_config('client_connection_check_interval', '2s', false)

-- name: defer
-- Remembers the vector indexes of episodes, which are dropped in the same transaction.
INSERT INTO pgrecall.deferred_indexes (name, definition)
SELECT c.relname, pg_get_indexdef(c.oid)
FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indexrelid
JOIN pg_am AS a ON a.oid = c.relam
WHERE i.indrelid = 'public.agent_episodes'::regclass AND a.amname IN ('hnsw', 'ivfflat')
ON CONFLICT (name) DO UPDATE SET definition = EXCLUDED.definition
RETURNING name

-- name: drop_deferred
DROP INDEX public.{index}

-- name: deferred
SELECT d.name, d.since,
       regexp_replace(d.definition, '^CREATE INDEX', 'CREATE INDEX CONCURRENTLY') AS statement,
       i.indexrelid IS NOT NULL AS there,
       coalesce(i.indisvalid AND i.indisready AND i.indislive, false) AS valid
FROM pgrecall.deferred_indexes AS d
LEFT JOIN pg_index AS i ON i.indexrelid = to_regclass('public.' || quote_ident(d.name))
ORDER BY d.name

-- name: equip
-- The scan's least size would leave small tables, and vectors that lie aside, to one process.
SELECT set_config('maintenance_work_mem', %(memory)s::text || 'kB', false),
       set_config('max_parallel_maintenance_workers', %(workers)s::text, false),
       set_config('min_parallel_table_scan_size', '0', false)

-- name: built
DELETE FROM pgrecall.deferred_indexes WHERE name = %(name)s

-- name: analyze
ANALYZE public.agent_episodes, pgrecall.episode_codes

-- name: build_progress
SELECT p.phase, p.tuples_done::bigint AS done, p.blocks_done::bigint AS blocks,
       p.blocks_total::bigint AS all_blocks
FROM pg_stat_progress_create_index AS p
WHERE p.datname = current_database() AND p.pid = %(pid)s

-- name: time_index
SELECT building_ms, keeping_ms FROM pgrecall.time_index(%(rows)s)
