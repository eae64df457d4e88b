-- Embeddings: their models, the queue of those to be made, and the change from one model to another.

-- name: models
SELECT m.model::integer AS number, m.dimensions, c.storage, m.identity, m.revision, m.embedder,
       m.renderer, m.serving, m.queued, m.coded, m.copied, m.served_at
FROM pgrecall.embedding_models AS m
LEFT JOIN LATERAL (
    SELECT format_type(atttypid, NULL) AS storage FROM pg_attribute
    WHERE attrelid = 'public.agent_episodes'::regclass
      AND attname = pgrecall.column_of(m.model)) AS c ON true
ORDER BY m.serving DESC, m.model

-- name: status
-- What waits for each model. Of the rate, whole minutes of the last five, and the one under way.
SELECT m.model::integer AS number, m.dimensions, m.identity, m.revision, m.embedder, m.renderer,
       m.serving, m.queued, m.served_at,
       (SELECT format_type(atttypid, NULL) FROM pg_attribute
         WHERE attrelid = 'public.agent_episodes'::regclass
           AND attname = pgrecall.column_of(m.model)) AS storage,
       (SELECT count(*) FROM pgrecall.embedding_queue AS q
         WHERE q.model = m.model AND q.refused IS NULL) AS waiting,
       (SELECT count(*) FROM pgrecall.embedding_queue AS q
         WHERE q.model = m.model AND q.refused IS NOT NULL) AS refused,
       (SELECT min(q.since) FROM pgrecall.embedding_queue AS q
         WHERE q.model = m.model AND q.refused IS NULL) AS oldest,
       (SELECT sum(w.stored) / extract(epoch FROM now() - min(w.minute))::float8
          FROM pgrecall.embedding_work AS w
         WHERE w.model = m.model AND w.minute > now() - interval '5 minutes') AS rate
FROM pgrecall.embedding_models AS m
ORDER BY m.serving DESC, m.model

-- name: rows
SELECT 'agent_episodes' AS relation, count(*) AS rows, count({column}) AS embedded
FROM public.agent_episodes
UNION ALL
SELECT 'agent_knowledge', count(*), count({column})
FROM public.agent_knowledge

-- name: refused
SELECT q.kind, q.id, q.refused AS reason, q.since
FROM pgrecall.embedding_queue AS q
WHERE q.refused IS NOT NULL
ORDER BY q.turn
LIMIT %(limit)s

-- name: retry
SELECT pgrecall.retry_refused() AS again

-- name: left
SELECT count(*) AS waiting FROM pgrecall.embedding_queue
WHERE model = %(model)s AND refused IS NULL

-- name: take
SELECT t.kind, t.id, t.first, t.second, t.third, t.description
FROM pgrecall.take_texts(%(model)s, %(count)s, %(lease)s * interval '1 second') AS t

-- name: store
SELECT pgrecall.store_vectors(
    %(model)s, %(kinds)s::text[], %(ids)s::uuid[], %(vectors)s::vector[], %(refused)s::text[]
    ) AS stored

-- name: copy
SELECT pgrecall.copy_vectors(%(model)s, %(count)s) AS taken

-- name: give_back
SELECT pgrecall.return_texts(
    %(model)s, %(kinds)s::text[], %(ids)s::uuid[], %(seconds)s * interval '1 second')

-- name: claim_change
SELECT pg_try_advisory_lock(hashtextextended('pgrecall.embeddings.switch', 0)) AS claimed

-- name: deferred
SELECT count(*) AS deferred FROM pgrecall.deferred_indexes

-- name: begin
SELECT pgrecall.begin_beside(%(identity)s, %(embedder)s, %(renderer)s, %(revision)s,
                             %(dimensions)s, %(storage)s, %(copied)s) AS model

-- name: queue_all
SELECT pgrecall.queue_all(%(model)s) AS queued

-- name: coded
UPDATE pgrecall.embedding_models SET coded = true WHERE model = %(model)s

-- name: be_brief
SELECT set_config('lock_timeout', %(milliseconds)s::text, true)

-- name: be_patient
SELECT set_config('lock_timeout', '0', false), set_config('statement_timeout', '0', false)

-- name: hold_writers
-- Readers go on.
LOCK TABLE public.agent_episodes, public.agent_knowledge IN SHARE ROW EXCLUSIVE MODE

-- name: swap
SELECT pgrecall.swap_models()

-- name: end
SELECT pgrecall.end_beside() AS model

-- name: forget_codes
WITH gone AS (
    DELETE FROM pgrecall.episode_codes WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM pgrecall.episode_codes WHERE model = %(model)s LIMIT 10000))
    RETURNING 1
), besides AS (
    DELETE FROM pgrecall.knowledge_codes WHERE model = %(model)s RETURNING 1
)
SELECT (SELECT count(*) FROM gone) + (SELECT count(*) FROM besides) AS gone

-- name: orphan_codes
-- Models that are gone and of which codes are left, as a change that was ended has just died.
SELECT DISTINCT c.model::integer AS model
FROM (SELECT model FROM pgrecall.knowledge_codes
      UNION ALL
      SELECT model FROM pgrecall.episode_codes) AS c
WHERE NOT EXISTS (SELECT FROM pgrecall.embedding_models AS m WHERE m.model = c.model)

-- name: beside_index
-- Parameters of the index that serves; whether there is a good one beside it already.
SELECT n.name, n.relation, served.indexrelid IS NOT NULL AS wanted,
       coalesce(c.reloptions, ARRAY[]::text[]) AS options,
       beside.indexrelid IS NOT NULL AS there, coalesce(beside.indisvalid, false) AS valid
FROM (VALUES ('idx_episodes_embedding', 'agent_episodes'),
             ('idx_knowledge_embedding', 'agent_knowledge')) AS n (name, relation)
LEFT JOIN pg_index AS served ON served.indexrelid = to_regclass('public.' || n.name)
LEFT JOIN pg_class AS c ON c.oid = served.indexrelid
LEFT JOIN pg_index AS beside ON beside.indexrelid = to_regclass('public.' || n.name || '_beside')

-- name: drop_index
DROP INDEX CONCURRENTLY IF EXISTS public.{index}

-- name: build_index
CREATE INDEX CONCURRENTLY {index} ON public.{relation}
USING hnsw (embedding_beside {operators}) WITH ({options})

-- name: building
SELECT p.phase, p.tuples_done::bigint AS done, greatest(p.tuples_total, c.reltuples)::bigint AS total
FROM pg_stat_progress_create_index AS p JOIN pg_class AS c ON c.oid = p.relid
WHERE p.datname = current_database() AND p.relid IN ('public.agent_episodes'::regclass,
                                                     'public.agent_knowledge'::regclass)

-- name: dependents
-- What follows a column by its number rather than by its name, and so would stay with the old one.
SELECT DISTINCT d.refobjid::regclass::text AS relation,
       pg_describe_object(d.classid, d.objid, d.objsubid) AS dependent
FROM pg_depend AS d
JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
LEFT JOIN pg_index AS i ON d.classid = 'pg_class'::regclass AND i.indexrelid = d.objid
WHERE d.refobjid IN ('public.agent_episodes'::regclass, 'public.agent_knowledge'::regclass)
  AND a.attname = 'embedding' AND d.refclassid = 'pg_class'::regclass
  AND (i.indexrelid IS NULL OR i.indexrelid NOT IN (
       SELECT oid FROM pg_class
        WHERE relname IN ('idx_episodes_embedding', 'idx_knowledge_embedding')))
ORDER BY relation, dependent

-- name: posed
-- Queries that agents posed, the newest first.
SELECT s.asked, s.query::text AS query
FROM pgrecall.recall_samples AS s
WHERE s.kind = 'episodes' AND s.asked IS NOT NULL
ORDER BY s.posed_at DESC
LIMIT %(count)s

-- name: situations
-- Episodes whose situations stand for queries.
SELECT e.episode_id AS id, e.perception, e.embedding::vector::text AS query
FROM unnest(pgrecall.sampled('episodes', NULL, %(count)s)) AS s (id)
JOIN public.agent_episodes AS e ON e.episode_id = s.id

-- name: search_by_index
SELECT set_config('enable_seqscan', 'off', true), set_config('hnsw.ef_search', '100', true)

-- name: search_exactly
SELECT set_config('enable_seqscan', 'on', true), set_config('enable_indexscan', 'off', true)

-- name: nearest
SELECT e.episode_id AS id, (e.{column} <=> %(query)s::vector)::float8 AS distance
FROM public.agent_episodes AS e
WHERE e.episode_id IS DISTINCT FROM %(id)s::uuid
ORDER BY e.{column} <=> %(query)s::vector
LIMIT %(count)s
