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

-- name: staleness
-- How far a standby is behind. While it receives, what it has replayed is all there is, as far as it
-- can know; else its last transaction tells how old its picture is. Who may not read statistics still
-- sees whether a receiver runs, only not of what. greatest() would take NULL, not known, for 0.
SELECT s.standby, s.receiving,
       CASE WHEN NOT s.standby OR s.receiving AND s.bytes = 0 THEN 0
            WHEN s.age < 0 THEN 0 -- the clocks differ
            ELSE s.age END::float8 AS seconds,
       CASE WHEN s.standby THEN s.bytes ELSE 0 END AS bytes
FROM (
    SELECT r.standby,
           EXISTS (SELECT FROM pg_stat_wal_receiver AS w WHERE w.pid IS NOT NULL) AS receiving,
           extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) AS age,
           CASE WHEN r.received < r.replayed THEN 0 -- it restored from an archive what it lacked
                ELSE pg_wal_lsn_diff(r.received, r.replayed) END::bigint AS bytes
    FROM (SELECT pg_is_in_recovery() AS standby, pg_last_wal_receive_lsn() AS received,
                 pg_last_wal_replay_lsn() AS replayed) AS r
) AS s

-- name: open_transaction
-- Does nothing; a driver that opens transactions by itself opens one for it.
SELECT
