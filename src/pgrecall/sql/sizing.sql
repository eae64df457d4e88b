-- What a memory takes, and what it will take: `pgrecall doctor --sizing`.

-- name: memory
SELECT (SELECT count(*) FROM public.agent_episodes)                        AS rows,
       (SELECT count(embedding) FROM public.agent_episodes)                AS vectors,
       column_.storage, column_.dimensions,
       pg_table_size('public.agent_episodes')                              AS table_bytes,
       (SELECT sum(pg_relation_size(indexrelid)) FROM pg_index
         WHERE indrelid = 'public.agent_episodes'::regclass
           AND indexrelid IS DISTINCT FROM to_regclass('public.idx_episodes_embedding')
       )::bigint                                                           AS plain_index_bytes,
       pg_relation_size(to_regclass('public.idx_episodes_embedding'))      AS vector_index_bytes,
       pg_total_relation_size('pgrecall.episode_codes')                    AS code_bytes,
       pg_relation_size('pgrecall.episode_codes_pkey')                     AS code_index_bytes,
       (pg_total_relation_size('pgrecall.texts')
        + pg_total_relation_size('pgrecall.word_counts')
        + pg_total_relation_size('pgrecall.vocabulary'))                   AS word_bytes,
       coalesce(substring(array_to_string(c.reloptions, ',') FROM '\mm=(\d+)'), '16')::integer
                                                                           AS m,
       coalesce(substring(array_to_string(c.reloptions, ',')
                          FROM 'ef_construction=(\d+)'), '64')::integer    AS ef_construction,
       pg_backend_pid()                                                    AS backend_pid,
       pg_size_bytes(current_setting('shared_buffers'))                    AS shared_buffers,
       pg_size_bytes(current_setting('maintenance_work_mem'))              AS maintenance_work_mem,
       current_setting('max_parallel_maintenance_workers')::integer        AS workers,
       (SELECT avg(recall_accuracy) FROM public.agent_memory_metrics
         WHERE recall_accuracy IS NOT NULL
           AND "timestamp" > now() - interval '7 days')                    AS recall
  FROM (SELECT format_type(atttypid, NULL) AS storage, atttypmod AS dimensions FROM pg_attribute
         WHERE attrelid = 'public.agent_episodes'::regclass AND attname = 'embedding') AS column_
  LEFT JOIN pg_class AS c ON c.oid = to_regclass('public.idx_episodes_embedding')

-- name: sample
-- Stored vectors, or random ones where there are too few.
CREATE TEMPORARY TABLE pgrecall_sizing ON COMMIT DROP AS
WITH stored AS MATERIALIZED (
    SELECT e.embedding::vector AS whole
      FROM unnest(pgrecall.sampled('episodes', NULL, {count})) AS s (id)
      JOIN public.agent_episodes AS e ON e.episode_id = s.id
     WHERE e.embedding IS NOT NULL
)
SELECT row_number() OVER () AS id, n.whole, n.whole::halfvec({dimensions}) AS half
  FROM (SELECT whole::vector({dimensions}) FROM stored
        UNION ALL
        SELECT ARRAY(SELECT random() - 0.5 + i * 0
                       FROM generate_series(1, {dimensions}))::vector({dimensions})
          FROM generate_series(1, {count} - (SELECT count(*) FROM stored)) AS i) AS n

-- name: room
SELECT set_config('maintenance_work_mem', '256MB', true)

-- name: build
CREATE INDEX {index} ON pg_temp.pgrecall_sizing
USING hnsw ({column} {operators}) WITH (m = {m}, ef_construction = {ef_construction})

-- name: rounding
-- Of the ten nearest among the sample, how many are the same in half precision.
SELECT avg(shared.share)::float8 AS kept
  FROM (SELECT id, whole, half FROM pg_temp.pgrecall_sizing ORDER BY id LIMIT %(queries)s) AS q
 CROSS JOIN LATERAL (
       SELECT count(*) / 10.0 AS share
         FROM (SELECT id FROM pg_temp.pgrecall_sizing AS s WHERE s.id <> q.id
                ORDER BY (s.whole <=> q.whole) + 0 LIMIT 10) AS wholes
         JOIN (SELECT id FROM pg_temp.pgrecall_sizing AS s WHERE s.id <> q.id
                ORDER BY (s.half <=> q.half) + 0 LIMIT 10) AS halves USING (id)) AS shared
