-- name: try_lock
-- Asked for again and again instead of waited for: a session that waits inside a statement holds
-- a snapshot, which a concurrent index build of the session with the lock would wait for in turn.
SELECT pg_try_advisory_lock(7305124609127335)

-- name: unlock
SELECT pg_advisory_unlock(7305124609127335)

-- name: lock_or_fail
-- For the printed script, which cannot ask again.
DO $lock$
BEGIN
    IF NOT pg_try_advisory_lock(7305124609127335) THEN
        RAISE EXCEPTION 'another migration of this database is running'
              USING HINT = 'run this script again when it has ended';
    END IF;
END
$lock$

-- name: session
-- The vector type may have been installed into a schema of its own.
SELECT set_config('lock_timeout', '15s', false),
       set_config('client_min_messages', 'warning', false),
       set_config('search_path', 'public' || coalesce(
           (SELECT ', ' || quote_ident(nspname) FROM pg_extension
              JOIN pg_namespace ON pg_namespace.oid = extnamespace
             WHERE extname = 'vector' AND nspname <> 'public'), '') || ', pg_temp', false)

-- name: create_schema
CREATE SCHEMA IF NOT EXISTS pgrecall

-- name: schema_exists
SELECT to_regnamespace('pgrecall') IS NOT NULL

-- name: set_role
SET ROLE {role}

-- name: server
SELECT pg_backend_pid(), pg_is_in_recovery()

-- name: version_table_exists
SELECT to_regclass('pgrecall.alembic_version') IS NOT NULL

-- name: version
SELECT version_num FROM pgrecall.alembic_version

-- name: dimensions
SELECT atttypmod FROM pg_attribute
 WHERE attrelid = to_regclass('public.agent_episodes') AND attname = 'embedding'
   AND NOT attisdropped
