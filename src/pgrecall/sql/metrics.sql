-- Metrics: one row an operation or a sample.

-- name: columns
m.metric_id, m.timestamp, m.operation_type, m.latency_ms, m.results_count, m.recall_accuracy,
    m.precision, m.memory_usage_mb, m.cpu_percent, m.project_id, m.episode_count,
    m.strategy_count, m.duration_ms

-- name: filter_project_id
AND m.project_id = %(project_id)s

-- name: filter_operation_type
AND m.operation_type = %(operation_type)s

-- name: filter_since
AND m.timestamp >= %(since)s

-- name: filter_until
AND m.timestamp < %(until)s

-- name: filter_after
AND (m.timestamp, m.metric_id) < (%(after_time)s, %(after_id)s)

-- name: record
INSERT INTO public.agent_memory_metrics (
    timestamp, operation_type, latency_ms, results_count, project_id, duration_ms)
SELECT n.at, n.operation_type, ceil(n.duration_ms)::integer, n.results_count, n.project_id,
       n.duration_ms
FROM unnest(
    %(timestamps)b::timestamptz[], %(operation_types)b::text[], %(durations_ms)b::float8[],
    %(results_counts)b::integer[], %(project_ids)b::text[]
) AS n(at, operation_type, duration_ms, results_count, project_id)

-- name: fold_words
SELECT pgrecall.fold_words() AS folded

-- name: list
-- Rows without a time, which only hand-written statements make, belong to no period.
SELECT /* include: columns */
FROM public.agent_memory_metrics AS m
WHERE m.timestamp IS NOT NULL /* filters */
ORDER BY m.timestamp DESC, m.metric_id DESC
LIMIT %(limit)s

-- name: summary
-- Rows written by other clients may lack the exact duration; theirs counts in whole milliseconds.
SELECT m.operation_type::text AS operation_type, count(*) AS count,
       avg(coalesce(m.duration_ms, m.latency_ms)) AS mean_ms,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY coalesce(m.duration_ms, m.latency_ms)) AS p50_ms,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY coalesce(m.duration_ms, m.latency_ms)) AS p95_ms,
       max(coalesce(m.duration_ms, m.latency_ms)) AS max_ms
FROM public.agent_memory_metrics AS m
WHERE m.operation_type IS NOT NULL AND coalesce(m.duration_ms, m.latency_ms) IS NOT NULL
    /* filters */
GROUP BY m.operation_type
ORDER BY m.operation_type

-- name: totals
SELECT t.* FROM pgrecall.memory_stats(%(project_id)s) AS t

-- name: prune
-- A batch at a time, so that no transaction is long.
DELETE FROM public.agent_memory_metrics AS d
WHERE d.metric_id IN (
    SELECT m.metric_id FROM public.agent_memory_metrics AS m
    WHERE m.timestamp < %(before)s /* filters */
    ORDER BY m.timestamp
    LIMIT %(limit)s)

-- name: sample
-- Queries that were posed, to be posed again exactly by whoever watches.
INSERT INTO pgrecall.recall_samples (kind, query, wanted, filter, project_id, asked)
SELECT n.kind, n.query, n.wanted, n.filter::jsonb, n.project_id, n.asked
FROM (
    SELECT unnest(%(kinds)b::text[]) AS kind, unnest(%(queries)b::vector[]) AS query,
           unnest(%(limits)b::integer[]) AS wanted, unnest(%(filters)b::text[]) AS filter,
           unnest(%(project_ids)b::text[]) AS project_id, unnest(%(asked)b::text[]) AS asked
) AS n
