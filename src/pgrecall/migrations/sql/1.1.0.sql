-- What the specification's tables need beside it: idempotent imports, knowledge of one project,
-- exact durations; and a view for monitoring that shows sizes and counts, never rows.

-- name: columns
-- Columns without a default are added without touching the rows.
ALTER TABLE public.agent_episodes ADD COLUMN IF NOT EXISTS external_id varchar(200);
ALTER TABLE public.agent_knowledge ADD COLUMN IF NOT EXISTS project_id varchar(50);
ALTER TABLE public.agent_memory_metrics ADD COLUMN IF NOT EXISTS duration_ms double precision;
DO $types$
DECLARE
    -- Someone may have added a column of the same name already.
    other text := (
        SELECT string_agg(format('%s.%s is %s, not %s', attrelid::regclass, attname,
                                 format_type(atttypid, atttypmod), expected), '; ')
          FROM pg_attribute
          JOIN (VALUES ('public.agent_episodes'::regclass, 'external_id',
                        'character varying(200)'),
                       ('public.agent_knowledge'::regclass, 'project_id',
                        'character varying(50)'),
                       ('public.agent_memory_metrics'::regclass, 'duration_ms',
                        'double precision')) AS wanted (relation, name, expected)
            ON attrelid = relation AND attname = name
         WHERE format_type(atttypid, atttypmod) <> expected
    );
BEGIN
    IF other IS NOT NULL THEN
        RAISE EXCEPTION 'a column that this revision adds exists with another type: %', other
              USING ERRCODE = 'duplicate_column', HINT = 'rename or drop that column';
    END IF;
END
$types$;

-- name: drop_broken_index
-- A concurrent build that was cut short leaves an index that is never used, and IF NOT EXISTS
-- would take it for a good one.
DO $broken$
BEGIN
    IF EXISTS (
        SELECT FROM pg_index
         WHERE indexrelid = to_regclass('public.uq_episodes_external_id') AND NOT indisvalid
    ) THEN
        DROP INDEX public.uq_episodes_external_id;
    END IF;
END
$broken$;

-- name: be_patient
-- A concurrent build waits for every older transaction, and holds up nobody meanwhile.
SET lock_timeout = '10min';

-- name: external_id_index
-- The table may be large, and agents keep writing while it is read for the index.
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS uq_episodes_external_id
    ON public.agent_episodes (project_id, external_id) WHERE external_id IS NOT NULL;

-- name: be_brief
SET lock_timeout = '15s';

-- name: monitoring
-- Whoever leaves row_count out of the select list doesn't pay for counting.
CREATE OR REPLACE VIEW pgrecall.memory_size AS
SELECT relation.relname::text                       AS table_name,
       CASE relation.relname
            WHEN 'agent_episodes'       THEN (SELECT count(*) FROM public.agent_episodes)
            WHEN 'agent_knowledge'      THEN (SELECT count(*) FROM public.agent_knowledge)
            WHEN 'agent_working_memory' THEN (SELECT count(*) FROM public.agent_working_memory)
            ELSE (SELECT count(*) FROM public.agent_memory_metrics)
       END                                          AS row_count,
       pg_stat_get_live_tuples(relation.oid)        AS live_rows_estimated,
       pg_stat_get_dead_tuples(relation.oid)        AS dead_rows_estimated,
       pg_table_size(relation.oid)                  AS table_bytes,
       pg_indexes_size(relation.oid)                AS index_bytes,
       pg_total_relation_size(relation.oid)         AS total_bytes
  FROM pg_class AS relation
 WHERE relation.relnamespace = 'public'::regnamespace
   AND relation.relname IN ('agent_episodes', 'agent_knowledge',
                            'agent_working_memory', 'agent_memory_metrics');

-- name: record
INSERT INTO public.schema_version (version, description)
VALUES ('1.1.0', 'External ids of episodes, knowledge of one project, exact durations')
ON CONFLICT (version) DO NOTHING;
