-- Monitoring. Its role sees counts, sizes and times through the views below, never a row of an
-- agent; what it writes, it writes through two functions.

-- name: drop_broken_indexes
-- A concurrent build that was cut short leaves an index that is never used, and IF NOT EXISTS
-- would take it for a good one.
DO $broken$
DECLARE
    broken regclass;
BEGIN
    FOR broken IN
        SELECT indexrelid::regclass FROM pg_index
         WHERE indexrelid IN (to_regclass('public.idx_episodes_no_embedding'),
                              to_regclass('public.idx_memory_metrics_accuracy'))
           AND NOT indisvalid
    LOOP
        EXECUTE format('DROP INDEX %s', broken);
    END LOOP;
END
$broken$;

-- name: be_patient
-- A concurrent build waits for every older transaction, and holds up nobody meanwhile.
SET lock_timeout = '10min';

-- name: no_embedding_index
-- How many episodes wait for their vector, and since when, without reading those that have one.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_episodes_no_embedding
    ON public.agent_episodes (timestamp) WHERE embedding IS NULL;

-- name: accuracy_index
-- Few rows say how much the index found; they stand among one for each operation.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_memory_metrics_accuracy
    ON public.agent_memory_metrics (timestamp) WHERE recall_accuracy IS NOT NULL;

-- name: be_brief
SET lock_timeout = '15s';

-- name: task_runs
-- What operators' tasks did: backups, restore drills, whatever else has a beginning and an end.
CREATE TABLE IF NOT EXISTS pgrecall.task_runs (
    run_id      uuid        DEFAULT gen_random_uuid() PRIMARY KEY,
    task        varchar(50) NOT NULL,
    started_at  timestamptz NOT NULL,
    finished_at timestamptz NOT NULL DEFAULT now(),
    succeeded   boolean     NOT NULL,
    bytes       bigint,
    detail      jsonb,
    CONSTRAINT task_runs_task_check   CHECK (task ~ '^[a-z][a-z0-9_]*$'),
    CONSTRAINT task_runs_period_check CHECK (finished_at >= started_at),
    CONSTRAINT task_runs_bytes_check  CHECK (bytes >= 0)
);
CREATE INDEX IF NOT EXISTS task_runs_task_finished_at
    ON pgrecall.task_runs (task, finished_at DESC);

-- name: waiting
-- What has no vector yet. A function, since a view on the column would forbid to change its type,
-- as a change of the embedding model does.
CREATE OR REPLACE FUNCTION pgrecall.embeddings_waiting()
RETURNS TABLE (table_name text, waiting bigint, oldest timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $embeddings_waiting$
    SELECT 'agent_episodes', count(*), min(timestamp)
      FROM public.agent_episodes WHERE embedding IS NULL
    UNION ALL
    SELECT 'agent_knowledge', count(*), min(created_at)
      FROM public.agent_knowledge WHERE embedding IS NULL AND is_active;
$embeddings_waiting$;

-- name: views
CREATE OR REPLACE VIEW pgrecall.memory_state AS
SELECT sessions.active                 AS sessions_active,
       sessions.overdue                AS sessions_overdue,
       -- One that is being built right now is not broken.
       (SELECT count(*) FROM pg_index
          JOIN pg_class AS index ON index.oid = indexrelid
         WHERE NOT (indisvalid AND indisready AND indislive)
           AND index.relnamespace IN ('public'::regnamespace, 'pgrecall'::regnamespace)
           AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index AS build
                            WHERE build.index_relid = indexrelid)) AS invalid_indexes,
       (SELECT version_num::text FROM pgrecall.alembic_version) AS revision
  FROM (SELECT count(*) FILTER (WHERE expires_at IS NULL OR expires_at >= now()) AS active,
               count(*) FILTER (WHERE expires_at < now()) AS overdue
          FROM public.agent_working_memory WHERE is_active) AS sessions;

-- The two vector indexes, also when one is missing.
CREATE OR REPLACE VIEW pgrecall.vector_index_state AS
SELECT wanted.name                                                  AS index_name,
       coalesce(indisvalid AND indisready AND indislive, false)     AS usable,
       coalesce(pg_relation_size(to_regclass('public.' || wanted.name)), 0) AS index_bytes
  FROM (VALUES ('idx_episodes_embedding'), ('idx_knowledge_embedding')) AS wanted (name)
  LEFT JOIN pg_index ON indexrelid = to_regclass('public.' || wanted.name);

-- What operations cost, without saying whose they were. Rows written by hand may lack the exact
-- duration.
CREATE OR REPLACE VIEW pgrecall.operations AS
SELECT timestamp, operation_type::text AS operation_type,
       coalesce(duration_ms, latency_ms) AS duration_ms, results_count, recall_accuracy, precision
  FROM public.agent_memory_metrics;

-- Reads every episode once.
CREATE OR REPLACE VIEW pgrecall.learning_state AS
SELECT count(*)                          AS episodes,
       count(outcome)                    AS episodes_with_outcome,
       count(outcome_quality)            AS outcomes,
       coalesce(sum(outcome_quality), 0) AS outcome_quality_sum
  FROM public.agent_episodes;

CREATE OR REPLACE VIEW pgrecall.knowledge_state AS
SELECT kind.name                             AS knowledge_type,
       count(knowledge_id)                   AS active,
       avg(confidence)                       AS confidence_mean,
       coalesce(sum(times_applied), 0)       AS times_applied,
       coalesce(sum(success_count), 0)       AS success_count,
       coalesce(sum(failure_count), 0)       AS failure_count
  FROM (VALUES ('strategy'), ('pattern'), ('constraint'), ('heuristic')) AS kind (name)
  LEFT JOIN public.agent_knowledge ON knowledge_type = kind.name AND is_active
 GROUP BY kind.name;

-- Backups and restore drills are listed even if there never was one, so that this shows.
CREATE OR REPLACE VIEW pgrecall.task_status AS
SELECT known.task,
       last.finished_at                AS last_finished_at,
       coalesce(NOT last.succeeded, false) AS last_failed,
       good.finished_at                AS last_success_at,
       extract(epoch FROM good.finished_at - good.started_at)::double precision
                                       AS last_success_seconds,
       good.bytes                      AS last_success_bytes
  FROM (SELECT DISTINCT task::text FROM pgrecall.task_runs
        UNION VALUES ('backup'), ('restore_drill')) AS known (task)
  LEFT JOIN LATERAL (SELECT run.finished_at, run.succeeded FROM pgrecall.task_runs AS run
                      WHERE run.task = known.task
                      ORDER BY run.finished_at DESC LIMIT 1) AS last ON true
  LEFT JOIN LATERAL (SELECT run.started_at, run.finished_at, run.bytes
                       FROM pgrecall.task_runs AS run
                      WHERE run.task = known.task AND run.succeeded
                      ORDER BY run.finished_at DESC LIMIT 1) AS good ON true;

-- name: functions
-- They run with the owner's rights, so their search path is fixed: that of this migration.
CREATE OR REPLACE FUNCTION pgrecall.record_run(
    p_task        varchar,
    p_started_at  timestamptz,
    p_succeeded   boolean     DEFAULT true,
    p_bytes       bigint      DEFAULT NULL,
    p_detail      jsonb       DEFAULT NULL,
    p_finished_at timestamptz DEFAULT now()
) RETURNS uuid
LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT
AS $record_run$
    -- More than a year is nobody's worry, and keeps the table small without a job of its own.
    DELETE FROM pgrecall.task_runs
     WHERE task = p_task AND finished_at < now() - interval '400 days';
    INSERT INTO pgrecall.task_runs (task, started_at, finished_at, succeeded, bytes, detail)
    VALUES (p_task, p_started_at, p_finished_at, p_succeeded, p_bytes, p_detail)
    RETURNING run_id;
$record_run$;

CREATE OR REPLACE FUNCTION pgrecall.record_sample(
    p_memory_usage_mb double precision,
    p_cpu_percent     double precision
) RETURNS TABLE (episode_count integer, strategy_count integer)
LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT
AS $record_sample$
    INSERT INTO public.agent_memory_metrics (
        operation_type, memory_usage_mb, cpu_percent, episode_count, strategy_count)
    VALUES ('sample', p_memory_usage_mb, p_cpu_percent,
            (SELECT count(*) FROM public.agent_episodes),
            (SELECT count(*) FROM public.agent_knowledge WHERE is_active))
    RETURNING episode_count, strategy_count;
$record_sample$;

-- Recalls stored vectors through the index and exactly, and writes down how much of the truth the
-- index found. Settings are the caller's, as they are for a recall of its own. The exact search
-- reads the whole table: whoever calls this bounds it with p_budget_ms and a statement_timeout.
CREATE OR REPLACE FUNCTION pgrecall.probe_recall(
    p_queries   integer          DEFAULT 3,
    p_limit     integer          DEFAULT 10,
    p_budget_ms double precision DEFAULT 1000
) RETURNS TABLE (duration_ms double precision, exact_ms double precision, results integer,
                 recall_accuracy double precision, "precision" double precision)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
AS $probe_recall$
#variable_conflict use_column
DECLARE
    v_begun  timestamptz := clock_timestamp();
    v_start  timestamptz;
    v_from   uuid;
    v_query  vector;
    v_found  double precision[];
    v_truth  double precision[];
    v_right  integer;
BEGIN
    FOR i IN 1..p_queries LOOP
        EXIT WHEN extract(epoch FROM clock_timestamp() - v_begun) * 1000 > p_budget_ms;
        -- Identifiers are random, so the next after a random one is a random episode.
        v_from := gen_random_uuid();
        SELECT e.embedding INTO v_query FROM public.agent_episodes AS e
         WHERE e.episode_id >= v_from AND e.embedding IS NOT NULL
         ORDER BY e.episode_id LIMIT 1;
        IF v_query IS NULL THEN
            SELECT e.embedding INTO v_query FROM public.agent_episodes AS e
             WHERE e.embedding IS NOT NULL ORDER BY e.episode_id LIMIT 1;
        END IF;
        EXIT WHEN v_query IS NULL;

        v_start := clock_timestamp();
        v_found := ARRAY(SELECT e.embedding <=> v_query FROM public.agent_episodes AS e
                          WHERE e.embedding IS NOT NULL
                          ORDER BY e.embedding <=> v_query LIMIT p_limit);
        duration_ms := extract(epoch FROM clock_timestamp() - v_start) * 1000;

        v_start := clock_timestamp();
        v_truth := ARRAY(WITH measured AS MATERIALIZED (
                             SELECT e.embedding <=> v_query AS distance
                               FROM public.agent_episodes AS e WHERE e.embedding IS NOT NULL)
                         SELECT distance FROM measured ORDER BY distance LIMIT p_limit);
        exact_ms := extract(epoch FROM clock_timestamp() - v_start) * 1000;

        -- By distance rather than by row: of several that are equally near, any is right.
        v_right := (SELECT count(*) FROM unnest(v_found) AS distance
                     WHERE distance <= v_truth[cardinality(v_truth)]);
        results := cardinality(v_found);
        recall_accuracy := v_right::double precision / nullif(cardinality(v_truth), 0);
        "precision" := v_right::double precision / nullif(results, 0);
        INSERT INTO public.agent_memory_metrics AS m (
            operation_type, latency_ms, duration_ms, results_count, recall_accuracy, precision)
        VALUES ('recall_similar', ceil(duration_ms), duration_ms, results, recall_accuracy,
                "precision");
        RETURN NEXT;
    END LOOP;
END
$probe_recall$;

-- name: rights
-- Functions are everybody's unless that is taken back. The roles are named after the database's
-- owner; where they are others, `pgrecall init` grants what is missing.
REVOKE ALL ON FUNCTION
    pgrecall.record_run(varchar, timestamptz, boolean, bigint, jsonb, timestamptz),
    pgrecall.embeddings_waiting(), pgrecall.record_sample(double precision, double precision),
    pgrecall.probe_recall(integer, integer, double precision) FROM PUBLIC;
DO $rights$
DECLARE
    owner text := (SELECT pg_get_userbyid(datdba) FROM pg_database
                    WHERE datname = current_database());
    role text;
    views text := 'pgrecall.memory_state, pgrecall.vector_index_state, pgrecall.operations, '
                  'pgrecall.learning_state, pgrecall.knowledge_state, pgrecall.task_status';
    run text := 'pgrecall.record_run(varchar, timestamptz, boolean, bigint, jsonb, timestamptz)';
    probes text := 'pgrecall.embeddings_waiting(), '
                   'pgrecall.record_sample(double precision, double precision), '
                   'pgrecall.probe_recall(integer, integer, double precision)';
BEGIN
    FOR role IN
        SELECT rolname FROM pg_roles
         WHERE owner LIKE '%\_owner'
           AND rolname IN (SELECT left(owner, -length('owner')) || purpose
                             FROM unnest(ARRAY['app', 'readonly', 'monitor', 'backup']) AS purpose)
    LOOP
        EXECUTE format('REVOKE ALL ON pgrecall.task_runs, %s FROM %I', views, role);
        EXECUTE format('GRANT SELECT ON %s TO %I', views, role);
        IF role NOT LIKE '%\_monitor' THEN
            EXECUTE format('GRANT SELECT ON pgrecall.task_runs TO %I', role);
        END IF;
        IF role LIKE '%\_app' OR role LIKE '%\_backup' THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', run, role);
        END IF;
        IF role LIKE '%\_app' OR role LIKE '%\_monitor' THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', probes, role);
        END IF;
    END LOOP;
END
$rights$;

-- name: record
INSERT INTO public.schema_version (version, description)
VALUES ('1.2.0', 'Views, samples and probes for monitoring; runs of operators'' tasks')
ON CONFLICT (version) DO NOTHING;
