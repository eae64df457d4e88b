-- What `pgrecall verify` reads and tries. Nothing here writes to a table that others can see.

-- name: session
-- The extension may live in a schema of its own; definitions are printed as seen from this path.
SELECT set_config('search_path', 'public' || coalesce(
           (SELECT ', ' || quote_ident(nspname) FROM pg_extension
              JOIN pg_namespace ON pg_namespace.oid = extnamespace
             WHERE extname = 'vector' AND nspname <> 'public'), ''), true),
       set_config('lock_timeout', '5s', true),
       set_config('statement_timeout', '60s', true),
       set_config('temp_buffers', '64MB', true),
       set_config('client_min_messages', 'error', true)

-- name: pooled_session
-- The same for a session that others had before: temp_buffers can't change once it was used.
SELECT set_config('search_path', 'public' || coalesce(
           (SELECT ', ' || quote_ident(nspname) FROM pg_extension
              JOIN pg_namespace ON pg_namespace.oid = extnamespace
             WHERE extname = 'vector' AND nspname <> 'public'), ''), true),
       set_config('lock_timeout', '5s', true),
       set_config('statement_timeout', '60s', true),
       set_config('client_min_messages', 'error', true)

-- name: read_only
-- From here on only temporary tables can be written to, until the savepoint is rolled back.
SELECT set_config('transaction_read_only', 'on', true)

-- name: server
SELECT current_setting('server_version')                 AS version,
       current_setting('server_version_num')::integer    AS version_number,
       pg_backend_pid()                                  AS backend_pid,
       pg_is_in_recovery()                               AS in_recovery,
       current_database()::text                          AS database,
       current_user::text                                AS role,
       pg_encoding_to_char(encoding)::text               AS encoding,
       pg_get_userbyid(datdba)::text                     AS owner,
       -- A database that was renamed or copied keeps its roles, so the owner's name tells theirs.
       CASE WHEN pg_get_userbyid(datdba)::text LIKE '%\_owner'
            THEN left(pg_get_userbyid(datdba)::text, -length('_owner'))
            ELSE current_database()::text END            AS role_prefix,
       has_database_privilege(current_database(), 'CONNECT') AS may_connect,
       has_database_privilege(current_database(), 'CREATE')  AS may_create_schemas,
       has_schema_privilege('public', 'CREATE')          AS may_create_tables
  FROM pg_database
 WHERE datname = current_database()

-- name: extensions
SELECT extname::text AS name, extversion AS found FROM pg_extension
 WHERE extname IN ('vector', 'pg_trgm', 'uuid-ossp')

-- name: available_extensions
SELECT name::text AS name FROM pg_available_extensions
 WHERE name IN ('vector', 'pg_trgm', 'uuid-ossp')

-- name: tables
SELECT relname::text AS name,
       CASE relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table'
                    WHEN 'f' THEN 'foreign table' ELSE 'sequence' END
       || CASE WHEN relpersistence = 'u' THEN ', unlogged: emptied by a crash' ELSE '' END
          AS found
  FROM pg_class
 WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'f', 'S')
   AND NOT EXISTS (SELECT FROM pg_depend
                    WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid
                      AND deptype = 'e')

-- name: columns
SELECT relname || '.' || attname AS name,
       format_type(atttypid, atttypmod)
       || CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END
       || CASE WHEN attidentity <> '' THEN ' IDENTITY' ELSE '' END
       || CASE WHEN adbin IS NULL THEN ''
               WHEN attgenerated = 's' THEN
                    ' GENERATED ALWAYS AS (' || pg_get_expr(adbin, adrelid) || ') STORED'
               WHEN attgenerated = 'v' THEN
                    ' GENERATED ALWAYS AS (' || pg_get_expr(adbin, adrelid) || ') VIRTUAL'
               ELSE ' DEFAULT ' || pg_get_expr(adbin, adrelid) END AS found
  FROM pg_attribute
  JOIN pg_class ON pg_class.oid = attrelid
  LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
 WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
   AND attnum > 0 AND NOT attisdropped
   AND relname = ANY (%(tables)s)

-- name: constraints
-- NOT NULL is compared with the columns: PostgreSQL 18 lists it here as well, 17 does not.
SELECT relname || '.' || conname AS name,
       pg_get_constraintdef(pg_constraint.oid)
       || CASE WHEN convalidated THEN '' ELSE ' [not valid]' END AS found
  FROM pg_constraint
  JOIN pg_class ON pg_class.oid = conrelid
 WHERE relnamespace = 'public'::regnamespace AND contype <> 'n'
   AND relname = ANY (%(tables)s)

-- name: indexes
SELECT index.relname::text AS name,
       pg_get_indexdef(indexrelid)
       || CASE WHEN indisvalid AND indisready AND indislive THEN ''
               ELSE ' [invalid: never used by a query]' END AS found,
       indisvalid AND indisready AND indislive AS usable,
       amname = 'hnsw' AS is_hnsw
  FROM pg_index
  JOIN pg_class AS index ON index.oid = indexrelid
  JOIN pg_class AS relation ON relation.oid = indrelid
  JOIN pg_am ON pg_am.oid = index.relam
 WHERE relation.relnamespace = 'public'::regnamespace
   AND relation.relname = ANY (%(tables)s)

-- name: hnsw_indexes
-- In the whole database, as the specification counts them. Others' temporary tables don't count.
SELECT format('%I.%I', nspname, index.relname) AS name, pg_get_indexdef(index.oid) AS definition
  FROM pg_class AS index
  JOIN pg_am ON pg_am.oid = index.relam AND amname = 'hnsw'
  JOIN pg_namespace ON pg_namespace.oid = relnamespace
 WHERE index.relpersistence <> 't' AND index.relkind IN ('i', 'I')
 ORDER BY name

-- name: functions
SELECT proname || '(' || pg_get_function_arguments(pg_proc.oid) || ')' AS signature,
       proname::text AS name,
       '(' || pg_get_function_arguments(pg_proc.oid) || ') RETURNS '
       || pg_get_function_result(pg_proc.oid) || ' LANGUAGE ' || lanname
       || CASE WHEN prosecdef THEN ' SECURITY DEFINER' ELSE '' END AS found
  FROM pg_proc
  JOIN pg_language ON pg_language.oid = prolang
 WHERE pronamespace = 'public'::regnamespace AND prokind = 'f'
   AND NOT EXISTS (SELECT FROM pg_depend
                    WHERE classid = 'pg_proc'::regclass AND objid = pg_proc.oid
                      AND deptype = 'e')

-- name: view_columns
SELECT relname || '.' || attname AS name, format_type(atttypid, atttypmod) AS found
  FROM pg_attribute
  JOIN pg_class ON pg_class.oid = attrelid
 WHERE relnamespace = 'public'::regnamespace AND relkind IN ('v', 'm')
   AND attnum > 0 AND NOT attisdropped
   AND NOT EXISTS (SELECT FROM pg_depend
                    WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid
                      AND deptype = 'e')

-- name: view_definitions
SELECT relname::text AS name,
       btrim(regexp_replace(pg_get_viewdef(oid), '\s+', ' ', 'g')) AS found
  FROM pg_class
 WHERE relnamespace = 'public'::regnamespace AND relkind IN ('v', 'm')
   AND NOT EXISTS (SELECT FROM pg_depend
                    WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid
                      AND deptype = 'e')

-- name: triggers
SELECT relname || '.' || tgname AS name,
       pg_get_triggerdef(pg_trigger.oid)
       || CASE tgenabled WHEN 'D' THEN ' [disabled]' WHEN 'R' THEN ' [on replicas only]'
                         ELSE '' END AS found
  FROM pg_trigger
  JOIN pg_class ON pg_class.oid = tgrelid
 WHERE NOT tgisinternal AND relnamespace = 'public'::regnamespace
   AND relname = ANY (%(tables)s)

-- name: embedding_dimensions
SELECT relname::text AS relation, format_type(atttypid, atttypmod) AS type, atttypmod AS dimensions
  FROM pg_attribute
  JOIN pg_class ON pg_class.oid = attrelid
 WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
   AND attname = 'embedding' AND NOT attisdropped
   AND relname IN ('agent_episodes', 'agent_knowledge')
 ORDER BY relname

-- name: probe_table
-- Rolled back, so the name is free again whatever happens.
CREATE TABLE public.pgrecall_verify_probe (id integer)

-- name: drop_probe_table
DROP TABLE public.pgrecall_verify_probe

-- name: insert_nothing
-- No row is written, and still PostgreSQL checks that one could be: rights, read-only mode.
INSERT INTO public.{table} ({key}) SELECT {key} FROM public.{table} WHERE false

-- name: update_nothing
UPDATE public.{table} SET {key} = {key} WHERE false

-- name: delete_nothing
DELETE FROM public.{table} WHERE false

-- name: select_something
SELECT {key} FROM public.{table} LIMIT 1

-- name: missing_rights
-- Which of the given rights a role lacks; roles and objects that don't exist are left out.
SELECT role, kind, object, privilege
  FROM unnest(%(roles)s::text[], %(kinds)s::text[], %(objects)s::text[], %(privileges)s::text[])
       AS needed (role, kind, object, privilege)
  JOIN pg_roles ON rolname = role
 WHERE CASE kind
       WHEN 'database' THEN has_database_privilege(rolname, current_database(), privilege)
       WHEN 'schema'   THEN has_schema_privilege(rolname, to_regnamespace(object)::oid, privilege)
       WHEN 'function' THEN has_function_privilege(rolname, to_regprocedure(object)::oid, privilege)
       ELSE has_table_privilege(rolname, to_regclass(object)::oid, privilege)
       END IS FALSE
 ORDER BY role, kind, object, privilege

-- name: existing_roles
SELECT rolname::text AS name FROM pg_roles WHERE rolname = ANY (%(names)s)

-- name: default_privileges
-- What the tables' owner hands out on future objects of schema public.
SELECT CASE defaclobjtype WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences'
                          WHEN 'f' THEN 'functions' ELSE 'types' END AS kind,
       pg_get_userbyid(grantee)::text AS role, privilege_type::text AS privilege
  FROM pg_default_acl
 CROSS JOIN aclexplode(defaclacl)
 WHERE defaclnamespace = 'public'::regnamespace AND grantee <> 0
   AND defaclrole = (SELECT relowner FROM pg_class
                      WHERE oid = to_regclass('public.agent_episodes'))

-- name: single_users
-- Roles that act as the owner and were granted its tables by name too, as the specification does.
SELECT DISTINCT member.rolname::text AS name
  FROM pg_class
  JOIN pg_auth_members AS membership ON membership.roleid = relowner
  JOIN pg_roles AS member ON member.oid = membership.member AND NOT member.rolsuper
 CROSS JOIN aclexplode(relacl) AS entry
 WHERE pg_class.oid = to_regclass('public.agent_episodes') AND entry.grantee = member.oid
 ORDER BY name

-- name: make_twin
CREATE TEMPORARY TABLE {table} (LIKE public.{table} INCLUDING ALL EXCLUDING INDEXES)
    ON COMMIT DROP

-- name: twin_parts
-- What LIKE doesn't copy: indexes under their own names, and the specification's trigger if it is
-- enabled. Other triggers are not of the specification, and could do anything.
SELECT 'index' AS kind, pg_get_indexdef(indexrelid) AS definition
  FROM pg_index
 WHERE indrelid = to_regclass('public.' || %(table)s) AND indisvalid AND indisready
UNION ALL
SELECT 'trigger', pg_get_triggerdef(oid)
  FROM pg_trigger
 WHERE tgrelid = to_regclass('public.' || %(table)s) AND NOT tgisinternal
   AND tgname = 'trg_update_working_memory_timestamp' AND tgenabled IN ('O', 'A')

-- name: fill_twin
-- Each row has a vector of its own: the condition on i keeps the subquery from running only once.
INSERT INTO pg_temp.agent_episodes
       (project_id, perception, reasoning, action, embedding, agent_version, decision_source)
SELECT 'PERF-TEST-' || i, '{"test": true}', '{"test": true}', '{"test": true}',
       ARRAY(SELECT random() FROM generate_series(1, %(dimensions)s::integer)
              WHERE i IS NOT NULL)::vector,
       '1.0.0', 'rule_based_only'
  FROM generate_series(1, %(rows)s::integer) AS i

-- name: analyze_twin
ANALYZE pg_temp.agent_episodes

-- name: force_index
SELECT set_config('enable_seqscan', 'off', true)

-- name: search
-- The specification's query, on the temporary twin.
WITH query AS (
    SELECT ARRAY(SELECT random() FROM generate_series(1, %(dimensions)s::integer))::vector AS v
)
SELECT episode_id
  FROM pg_temp.agent_episodes
 ORDER BY embedding <=> (SELECT v FROM query)
 LIMIT 10

-- name: explain_search
EXPLAIN (FORMAT JSON)
WITH query AS (
    SELECT ARRAY(SELECT random() FROM generate_series(1, %(dimensions)s::integer))::vector AS v
)
SELECT episode_id
  FROM pg_temp.agent_episodes
 ORDER BY embedding <=> (SELECT v FROM query)
 LIMIT 10

-- name: explain_real_search
-- The same on the real table, which is only read.
EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)
WITH query AS (
    SELECT ARRAY(SELECT random() FROM generate_series(1, %(dimensions)s::integer))::vector AS v
)
SELECT episode_id
  FROM public.agent_episodes
 ORDER BY embedding <=> (SELECT v FROM query)
 LIMIT 10

-- name: ranked_search
-- With similarities, and the exact distance of the nearest row to compare with.
WITH query_vector AS (
    SELECT ARRAY(SELECT random() FROM generate_series(1, %(dimensions)s::integer))::vector AS vec
)
SELECT episode_id, 1 - (embedding <=> (SELECT vec FROM query_vector)) AS similarity
  FROM pg_temp.agent_episodes
 WHERE embedding IS NOT NULL
 ORDER BY embedding <=> (SELECT vec FROM query_vector)
 LIMIT 10

-- name: distance
SELECT '[1,2,3]'::vector <-> '[4,5,6]'::vector AS distance

-- name: insert_episodes
INSERT INTO pg_temp.agent_episodes
       (project_id, perception, reasoning, action, agent_version, decision_source)
VALUES ('TEST-001', '{"backlog_tasks": 10}', '{"decision": "create_sprint"}',
        '{"sprint_created": true}', '1.0.0', 'rule_based_only'),
       ('TEST-002', '{"backlog_tasks": 15}', '{"decision": "assign_tasks"}',
        '{"tasks_assigned": 5}', '1.0.0', 'rule_based_only')
RETURNING episode_id, "timestamp" = now() AS is_now, control_mode

-- name: refused_quality
INSERT INTO pg_temp.agent_episodes
       (project_id, perception, reasoning, action, agent_version, outcome_quality)
VALUES ('TEST', '{}', '{}', '{}', '1.0.0', 1.5)

-- name: refused_control_mode
INSERT INTO pg_temp.agent_episodes
       (project_id, perception, reasoning, action, agent_version, control_mode)
VALUES ('TEST', '{}', '{}', '{}', '1.0.0', 'unheard_of')

-- name: refused_confidence
INSERT INTO pg_temp.agent_knowledge
       (knowledge_type, content, description, confidence, supporting_episodes)
VALUES ('strategy', '{}', 'test', -0.1,
        ARRAY[gen_random_uuid(), gen_random_uuid(), gen_random_uuid()])

-- name: refused_knowledge_type
INSERT INTO pg_temp.agent_knowledge (knowledge_type, content, description, supporting_episodes)
VALUES ('rumour', '{}', 'test', ARRAY[gen_random_uuid(), gen_random_uuid(), gen_random_uuid()])

-- name: refused_two_episodes
INSERT INTO pg_temp.agent_knowledge (knowledge_type, content, description, supporting_episodes)
VALUES ('strategy', '{}', 'test', ARRAY[gen_random_uuid(), gen_random_uuid()])

-- name: refused_no_episodes
INSERT INTO pg_temp.agent_knowledge (knowledge_type, content, description)
VALUES ('strategy', '{}', 'test')

-- name: insert_sessions
INSERT INTO pg_temp.agent_working_memory
       (project_id, current_goal, expires_at, is_active, last_updated)
VALUES ('TEST', 'expired',  now() - interval '2 hours', true,  '2000-01-01'),
       ('TEST', 'live',     now() + interval '2 hours', true,  '2000-01-01'),
       ('TEST', 'closed',   now() - interval '2 hours', false, '2000-01-01'),
       ('TEST', 'unending', NULL,                       true,  '2000-01-01')

-- name: sessions
SELECT current_goal AS name, is_active, last_updated > '2000-01-01' AS touched
  FROM pg_temp.agent_working_memory

-- name: update_session
UPDATE pg_temp.agent_working_memory SET active_context = '{}' WHERE current_goal = 'live'

-- name: function_definition
SELECT pg_get_functiondef(to_regprocedure(%(signature)s)) AS definition

-- name: forget_settings
-- The copy runs under this session's search_path, in which temporary tables come first.
ALTER FUNCTION pg_temp.{function} RESET ALL

-- name: call_cleanup
SELECT public.cleanup_expired_working_memory()

-- name: call_cleanup_copy
SELECT pg_temp.cleanup_expired_working_memory()

-- name: call_record
SELECT public.record_memory_operation('recall_similar', 5, 3, 'TEST'),
       public.record_memory_operation('verify', 7, 0)

-- name: call_record_copy
SELECT pg_temp.record_memory_operation('recall_similar', 5, 3, 'TEST'),
       pg_temp.record_memory_operation('verify', 7, 0)

-- name: metrics
SELECT operation_type, latency_ms, results_count, project_id, "timestamp" = now() AS is_now
  FROM pg_temp.agent_memory_metrics
 ORDER BY operation_type

-- name: select_view
SELECT * FROM public.{view} LIMIT 1

-- name: identity
-- Tells one database of one running server from all others.
SELECT current_database()::text        AS database,
       (SELECT oid FROM pg_database WHERE datname = current_database())::bigint AS oid,
       pg_postmaster_start_time()::text AS started,
       current_setting('server_version') AS version,
       pg_backend_pid()                  AS backend_pid

-- name: set_local_probe
SELECT set_config('pgrecall.verify_probe', 'set', true)

-- name: read_probe
SELECT nullif(current_setting('pgrecall.verify_probe', true), '') AS probe

-- name: monitoring
-- The newest sample of the monitor, and what it measured of recall in the last hour.
SELECT sample.age, sample.episode_count, sample.strategy_count,
       (SELECT avg(recall_accuracy) FROM public.agent_memory_metrics
         WHERE recall_accuracy IS NOT NULL AND "timestamp" > now() - interval '1 hour') AS recall
  FROM (SELECT extract(epoch FROM now() - "timestamp")::double precision AS age,
               episode_count, strategy_count
          FROM public.agent_memory_metrics
         WHERE operation_type = 'sample' AND "timestamp" IS NOT NULL
         ORDER BY "timestamp" DESC LIMIT 1) AS sample

-- name: backups
SELECT status.task,
       extract(epoch FROM now() - last_success_at)::double precision AS age,
       last_success_bytes AS bytes,
       last_failed,
       CASE WHEN last_failed THEN
            (SELECT run.detail->>'error' FROM pgrecall.task_runs AS run
              WHERE run.task = status.task ORDER BY run.finished_at DESC LIMIT 1) END AS error
  FROM pgrecall.task_status AS status
 WHERE status.task IN ('backup', 'restore_drill')
