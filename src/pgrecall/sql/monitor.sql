-- What `pgrecall monitor` reads, as the monitor role: counts, sizes and times, never a row of an
-- agent. Each statement runs in a short transaction of its own, but for `console_pools`, a command
-- of PgBouncer's console, which is no database and takes no comment.

-- name: console_pools
SHOW POOLS

-- name: patience
-- In milliseconds.
SELECT set_config('statement_timeout', %(statement)s::text, true),
       set_config('lock_timeout', %(lock)s::text, true)

-- name: sizes
-- Rows as the statistics estimate them: counting would read the tables.
SELECT table_name, live_rows_estimated, dead_rows_estimated, table_bytes, index_bytes
FROM pgrecall.memory_size

-- name: database_size
SELECT pg_database_size(current_database()) AS bytes

-- name: embeddings
SELECT table_name, waiting,
       coalesce(greatest(extract(epoch FROM now() - oldest), 0), 0)::double precision AS oldest_age
FROM pgrecall.embeddings_waiting()

-- name: state
SELECT sessions_active, sessions_overdue, invalid_indexes, revision FROM pgrecall.memory_state

-- name: vector_indexes
SELECT index_name, usable, index_bytes FROM pgrecall.vector_index_state

-- name: connections
-- Of the whole server, since its limit is; the state of others' is hidden from ordinary roles.
SELECT CASE WHEN state IN ('active', 'idle') THEN state
            WHEN state LIKE 'idle in transaction%%' THEN 'idle_in_transaction'
            ELSE 'other' END AS state,
       count(*) AS count
FROM pg_stat_activity
WHERE datid IS NOT NULL
GROUP BY 1

-- name: server
SELECT current_setting('max_connections')::integer
       - current_setting('superuser_reserved_connections')::integer
       - coalesce(current_setting('reserved_connections', true), '0')::integer AS connections_max,
       (SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)
          FROM pg_stat_activity
         WHERE datid IS NOT NULL AND pid <> pg_backend_pid())::double precision
         AS oldest_transaction,
       pg_is_in_recovery() AS in_recovery,
       archiver.failed_count AS archive_failures,
       current_setting('archive_mode') <> 'off'
       AND archiver.last_failed_time > coalesce(archiver.last_archived_time, '-infinity')
         IS TRUE AS archive_failing
FROM pg_stat_archiver AS archiver

-- name: quality
-- Of the last hour; null where nothing was measured.
SELECT avg(recall_accuracy) AS recall, avg(precision) AS precision
FROM pgrecall.operations
WHERE recall_accuracy IS NOT NULL AND timestamp > now() - interval '1 hour'

-- name: last_sample
SELECT extract(epoch FROM max(timestamp))::double precision AS at
FROM pgrecall.operations
WHERE operation_type = 'sample'

-- name: learning
SELECT episodes, episodes_with_outcome, outcomes, outcome_quality_sum FROM pgrecall.learning_state

-- name: knowledge
SELECT knowledge_type, active, confidence_mean, times_applied, success_count, failure_count
FROM pgrecall.knowledge_state

-- name: tasks
SELECT task, last_failed,
       coalesce(extract(epoch FROM last_success_at), 0)::double precision AS last_success,
       last_success_seconds, last_success_bytes
FROM pgrecall.task_status
ORDER BY last_finished_at DESC NULLS FIRST

-- name: operations_until
-- Clients write their rows every few seconds, so what is younger is not complete yet.
SELECT clock_timestamp() - %(lag)s::double precision * interval '1 second' AS until

-- name: operations
-- Rows of one period, by the number of bounds (milliseconds) that their duration exceeds. What
-- the monitor writes itself, samples and probes, is left out, and so is what no clock can have
-- measured: rows written by hand may hold anything.
SELECT operation_type,
       (SELECT count(*) FROM unnest(%(bounds)s::double precision[]) AS bound
         WHERE duration_ms > bound) AS bucket,
       count(*) AS count,
       sum(duration_ms) AS milliseconds,
       coalesce(sum(greatest(results_count, 0)), 0) AS results
FROM pgrecall.operations
WHERE timestamp > %(after)s AND timestamp <= %(until)s
  AND recall_accuracy IS NULL AND operation_type <> 'sample'
  AND duration_ms >= 0 AND duration_ms < 'Infinity'
GROUP BY 1, 2

-- name: place
-- Where the server's files are, and one of its processes; the directory only for members of
-- pg_monitor.
SELECT pg_backend_pid() AS backend_pid,
       CASE WHEN pg_has_role('pg_read_all_settings', 'USAGE')
            THEN current_setting('data_directory') END AS data_directory

-- name: in_recovery
SELECT pg_is_in_recovery() AS in_recovery

-- name: record_sample
SELECT episode_count, strategy_count
FROM pgrecall.record_sample(%(memory_usage_mb)s::double precision,
                            %(cpu_percent)s::double precision)

-- name: rows_estimated
SELECT live_rows_estimated AS rows FROM pgrecall.memory_size WHERE table_name = 'agent_episodes'

-- name: probe_recall
SELECT duration_ms, exact_ms, results, recall_accuracy, precision
FROM pgrecall.probe_recall(%(queries)s, %(limit)s, %(budget_ms)s)
