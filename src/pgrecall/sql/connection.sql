-- What a client asks once, when it opens.

-- name: backend
SELECT pg_backend_pid() AS backend_pid

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

-- name: model
-- What the vectors of the database are of.
SELECT m.model::integer AS number, m.dimensions, m.identity, m.revision, m.embedder, m.renderer
FROM pgrecall.embedding_models AS m WHERE m.serving

-- name: name_model
SELECT pgrecall.name_model(%(identity)s, %(embedder)s, %(renderer)s, %(revision)s) AS named

-- name: open_transaction
-- Does nothing; a driver that opens transactions by itself opens one for it.
SELECT
