-- What `pgrecall recall-check` and `doctor` run to compare recalls with the truth. Nothing of it
-- needs a session: settings hold for one transaction.

-- name: situation
SELECT pg_is_in_recovery() AS in_recovery,
       -- 40, pgvector's own default, stands for not set.
       coalesce(nullif(nullif(current_setting('hnsw.ef_search', true), ''), '40'), '100')::integer
         AS ef_search

-- name: posed
-- Queries that agents posed, the newest first.
SELECT kind, query::text AS query, wanted, filter::text AS filter, project_id, true AS posed
  FROM pgrecall.recall_samples
 WHERE vector_dims(query) = (SELECT dimensions FROM pgrecall.embedding_models WHERE serving)
 ORDER BY posed_at DESC
 LIMIT %(count)s

-- name: stored
-- Identifiers are random, so those that follow a random one are random episodes.
WITH start AS MATERIALIZED (SELECT gen_random_uuid() AS id)
SELECT 'episodes' AS kind, query, %(wanted)s::integer AS wanted, '{}' AS filter,
       NULL AS project_id, false AS posed
  FROM ((SELECT embedding::text AS query FROM public.agent_episodes
          WHERE episode_id >= (SELECT id FROM start) AND embedding IS NOT NULL
          ORDER BY episode_id LIMIT %(count)s)
        UNION ALL
        (SELECT embedding::text FROM public.agent_episodes
          WHERE episode_id < (SELECT id FROM start) AND embedding IS NOT NULL
          ORDER BY episode_id LIMIT %(count)s)) AS episodes
 LIMIT %(count)s

-- name: patience
SELECT set_config('statement_timeout', %(milliseconds)s::text, true)

-- name: ef_search
SELECT set_config('hnsw.ef_search', %(ef_search)s::text, true)

-- name: search
-- As a recall searches, before it ranks; by one route where one is named.
SELECT coalesce((near.hits).distances, '{}') AS distances,
       near.routes[cardinality(near.routes)] AS route,
       near.choose_ms + near.search_ms       AS milliseconds,
       (near.choice).ordering IS NOT NULL
       AND EXISTS (SELECT FROM pgrecall.route_costs(
                        (near.choice).rows, (near.choice).matching, %(wanted)s::integer,
                        vector_dims(%(query)s::vector),
                        ((near.choice).conditions <> '')::integer, (near.choice).joined) AS c
                    WHERE c.route = 'index' AND c.milliseconds IS NOT NULL) AS indexable
  FROM pgrecall.nearest(%(kind)s, %(query)s::vector, %(wanted)s, %(filter)s::jsonb,
                        %(route)s, false) AS near

-- name: record
-- As pgrecall.probe_recall writes it.
INSERT INTO public.agent_memory_metrics (
    operation_type, latency_ms, duration_ms, results_count, recall_accuracy, precision, project_id)
VALUES (%(operation)s, ceil(%(milliseconds)s::double precision), %(milliseconds)s, %(found)s,
        %(recall)s, %(precision)s, %(project_id)s)
RETURNING metric_id
