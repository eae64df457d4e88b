-- What `pgrecall doctor` reads. Nothing here changes anything.

-- name: session
SELECT set_config('lock_timeout', '5s', true),
       set_config('statement_timeout', '60s', true),
       set_config('transaction_read_only', 'on', true)

-- name: server
SELECT current_setting('server_version')                         AS version,
       current_setting('server_version_num')::integer            AS version_number,
       current_database()::text                                  AS database,
       current_user::text                                        AS role,
       -- A database that was renamed or copied keeps its roles, so the owner's name tells theirs.
       CASE WHEN pg_get_userbyid(datdba)::text LIKE '%\_owner'
            THEN left(pg_get_userbyid(datdba)::text, -length('_owner'))
            ELSE current_database()::text END                    AS role_prefix,
       (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS superuser,
       pg_backend_pid()                                          AS backend_pid,
       pg_is_in_recovery()                                       AS in_recovery,
       current_setting('data_checksums') = 'on'                  AS checksums,
       current_setting('fsync') = 'on'                           AS fsync,
       current_setting('full_page_writes') = 'on'                AS full_page_writes,
       current_setting('synchronous_commit')                     AS synchronous_commit,
       pg_size_bytes(current_setting('maintenance_work_mem'))    AS maintenance_work_mem,
       current_setting('max_parallel_maintenance_workers')::integer AS maintenance_workers,
       current_setting('dynamic_shared_memory_type')             AS shared_memory_type,
       pg_size_bytes(current_setting('shared_buffers'))          AS shared_buffers,
       current_setting('random_page_cost')::double precision     AS random_page_cost,
       current_setting('max_connections')::integer
       - current_setting('superuser_reserved_connections')::integer
       - coalesce(current_setting('reserved_connections', true), '0')::integer AS connections,
       -- What kind a backend is stays hidden from ordinary roles, its database doesn't.
       (SELECT count(*) FROM pg_stat_activity WHERE datid IS NOT NULL) AS connections_used,
       current_setting('password_encryption')                    AS password_encryption,
       datcollversion                                            AS collation_recorded,
       pg_database_collation_actual_version(pg_database.oid)     AS collation_actual,
       to_regclass('public.agent_episodes') IS NOT NULL          AS has_episodes,
       to_regclass('public.agent_knowledge') IS NOT NULL         AS has_knowledge,
       to_regclass('public.schema_version') IS NOT NULL          AS has_schema_version,
       to_regclass('pgrecall.alembic_version') IS NOT NULL       AS has_revision,
       to_regclass('pgrecall.recall_samples') IS NOT NULL
       AND to_regclass('public.agent_memory_metrics') IS NOT NULL AS has_codes,
       to_regclass('pgrecall.recent_episodes') IS NOT NULL       AS has_recent,
       to_regclass('pgrecall.word_changes') IS NOT NULL          AS has_words,
       to_regclass('pgrecall.deferred_indexes') IS NOT NULL      AS has_deferred
  FROM pg_database
 WHERE datname = current_database()

-- name: extensions
SELECT available.name::text AS name, extversion AS installed, default_version AS available
  FROM pg_available_extensions AS available
  LEFT JOIN pg_extension ON extname = available.name
 WHERE extname IS NOT NULL OR available.name IN ('vector', 'pg_trgm', 'uuid-ossp')
 ORDER BY name

-- name: indexes
SELECT format('%I.%I', nspname, index.relname) AS name,
       amname::text                            AS method,
       indisvalid AND indisready AND indislive AS usable,
       pg_relation_size(indexrelid)            AS bytes
  FROM pg_index
  JOIN pg_class AS index ON index.oid = indexrelid
  JOIN pg_namespace ON pg_namespace.oid = index.relnamespace
  JOIN pg_am ON pg_am.oid = index.relam
 WHERE index.relkind = 'i' AND index.relpersistence <> 't'
   AND nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
 ORDER BY name

-- name: deferred
-- Indexes that an import has put off, and whether one is at work; the lock is that of
-- `claim_change` in embeddings.sql.
SELECT format('public.%I', d.name) AS name, d.since,
       EXISTS (SELECT FROM pg_locks
                WHERE locktype = 'advisory' AND granted AND objsubid = 1
                  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                  AND (classid::bigint << 32) | objid::bigint
                      = hashtextextended('pgrecall.embeddings.switch', 0)) AS at_work
  FROM pgrecall.deferred_indexes AS d
 ORDER BY name

-- name: columns
SELECT format('%s.%s', relname, attname)     AS name,
       format_type(atttypid, atttypmod)      AS type,
       nullif(atttypmod, -1)                 AS dimensions
  FROM pg_attribute
  JOIN pg_class ON pg_class.oid = attrelid
 WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
   AND relname IN ('agent_episodes', 'agent_knowledge')
   AND attname = 'embedding' AND NOT attisdropped
 ORDER BY name

-- name: roles
SELECT purpose,
       rolname::text  AS name,
       rolsuper       AS superuser,
       rolcreaterole  AS create_role,
       rolcreatedb    AS create_database,
       rolreplication AS replication,
       rolbypassrls   AS bypass_rls,
       has_schema_privilege(rolname, 'public', 'CREATE') AS creates_in_public,
       ARRAY(SELECT format('%I.%I', nspname, relname)
               FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
              WHERE relowner = pg_roles.oid AND relkind IN ('r', 'p', 'v', 'm')
              ORDER BY 1) AS owns,
       ARRAY(SELECT split_part(setting, '=', 1)
               FROM pg_db_role_setting, unnest(setconfig) AS setting
              WHERE setrole IN (pg_roles.oid, 0)
                AND setdatabase IN (0, (SELECT oid FROM pg_database
                                         WHERE datname = current_database()))) AS settings
  FROM unnest(ARRAY['owner', 'app', 'readonly', 'monitor', 'backup']) AS purpose
  JOIN pg_database ON datname = current_database()
  JOIN pg_roles ON rolname = CASE WHEN pg_get_userbyid(datdba)::text LIKE '%\_owner'
                                  THEN left(pg_get_userbyid(datdba)::text, -length('_owner'))
                                  ELSE current_database()::text END || '_' || purpose
 ORDER BY name

-- name: passwords
-- Login roles whose password is kept in a weaker form; for superusers only.
SELECT rolname::text AS name
  FROM pg_authid
 WHERE rolcanlogin AND rolpassword IS NOT NULL AND rolpassword NOT LIKE 'SCRAM-SHA-256$%'
 ORDER BY name

-- name: public_rights
-- What everybody may do with the memory.
SELECT 'schema public' AS object, privilege_type::text AS privilege
  FROM pg_namespace
 CROSS JOIN aclexplode(coalesce(nspacl, acldefault('n', nspowner)))
 WHERE nspname = 'public' AND grantee = 0 AND privilege_type = 'CREATE'
UNION ALL
SELECT format('%I.%I', nspname, relname), privilege_type::text
  FROM pg_class
  JOIN pg_namespace ON pg_namespace.oid = relnamespace
 CROSS JOIN aclexplode(relacl)
 WHERE nspname IN ('public', 'pgrecall') AND relkind IN ('r', 'p', 'v', 'm') AND grantee = 0
   AND NOT EXISTS (SELECT FROM pg_depend
                    WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid
                      AND deptype = 'e')
 ORDER BY object, privilege

-- name: tables
SELECT format('%I.%I', schemaname, relname) AS name,
       n_live_tup AS live,
       n_dead_tup AS dead,
       n_mod_since_analyze AS changed,
       greatest(last_analyze, last_autoanalyze) IS NOT NULL AS analyzed
  FROM pg_stat_user_tables
 WHERE schemaname IN ('public', 'pgrecall')
 ORDER BY name

-- name: evidence_constraint
SELECT pg_get_constraintdef(oid) AS definition
  FROM pg_constraint
 WHERE conrelid = to_regclass('public.agent_knowledge')
   AND conname = 'chk_min_supporting_episodes'

-- name: lacking_evidence
-- Active knowledge with fewer than three supporting episodes: the first ids, and how many.
SELECT ids[1:5]::text[] AS first, coalesce(cardinality(ids), 0) AS count
  FROM (SELECT array_agg(knowledge_id ORDER BY knowledge_id) AS ids
          FROM public.agent_knowledge
         WHERE is_active AND cardinality(supporting_episodes) < 3) AS lacking

-- name: dangling_evidence
-- Active knowledge that points at episodes which are gone: the first ids, and how many.
SELECT ids[1:5]::text[] AS first, coalesce(cardinality(ids), 0) AS count
  FROM (SELECT array_agg(knowledge_id ORDER BY knowledge_id) AS ids
          FROM public.agent_knowledge AS knowledge
         WHERE is_active
           AND EXISTS (SELECT FROM unnest(supporting_episodes
                                          || coalesce(contradicting_episodes, '{}')) AS evidence
                        WHERE evidence IS NOT NULL
                          AND NOT EXISTS (SELECT FROM public.agent_episodes
                                           WHERE episode_id = evidence))) AS dangling

-- name: revision
SELECT version_num::text AS revision FROM pgrecall.alembic_version

-- name: schema_versions
SELECT version::text AS version FROM public.schema_version ORDER BY version

-- name: accuracy
-- How much of the truth recalls of the last week found, where it was measured.
SELECT count(*) AS queries, avg(recall_accuracy) AS recall, avg(precision) AS precision,
       count(*) FILTER (WHERE recall_accuracy = 0) AS nothing_right,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_ms) AS median_ms
  FROM public.agent_memory_metrics
 WHERE recall_accuracy IS NOT NULL AND timestamp > now() - interval '7 days'

-- name: searched_indexes
-- The vector indexes that recalls can search, with what they were built with.
SELECT quote_ident(index.relname) AS name,
       CASE WHEN owner.relname = 'agent_episodes' THEN 'episodes' ELSE 'knowledge' END AS kind,
       owner.relname::text AS table_name,
       pg_relation_size(index.oid) AS bytes,
       (SELECT atttypmod FROM pg_attribute
         WHERE attrelid = owner.oid AND attname = 'embedding') AS dimensions,
       (SELECT format_type(atttypid, NULL) = 'halfvec' FROM pg_attribute
         WHERE attrelid = index.oid AND attnum = 1) AS halved,
       coalesce(substring(array_to_string(index.reloptions, ',') FROM '\mm=(\d+)'), '16')::integer
         AS m,
       coalesce(substring(array_to_string(index.reloptions, ',')
                          FROM 'ef_construction=(\d+)'), '64')::integer AS ef_construction
  FROM pg_index
  JOIN pg_class AS index ON index.oid = indexrelid
  JOIN pg_class AS owner ON owner.oid = indrelid
  JOIN pg_am ON pg_am.oid = index.relam
 WHERE owner.oid IN (to_regclass('public.agent_episodes'), to_regclass('public.agent_knowledge'))
   AND amname = 'hnsw' AND indisvalid AND indpred IS NULL
 ORDER BY name

-- name: role_ef_search
-- What the application role searches the index with; 40, pgvector's own default, counts as not set.
SELECT coalesce(nullif(max(split_part(setting, '=', 2)), '40'), '100')::integer AS ef_search
  FROM pg_db_role_setting
  JOIN pg_database ON datname = current_database()
  JOIN pg_roles ON pg_roles.oid = setrole AND rolname = %(role)s
 CROSS JOIN unnest(setconfig) AS setting
 WHERE setdatabase = pg_database.oid AND split_part(setting, '=', 1) = 'hnsw.ef_search'

-- name: models
SELECT model, dimensions, coded FROM pgrecall.embedding_models WHERE serving

-- name: vectors
-- Some vectors with what they were made of.
SELECT e.episode_id AS id, e.perception, e.reasoning, e.action, e.embedding::vector AS vector
  FROM unnest(pgrecall.sampled('episodes', NULL, %(count)s)) AS s (id)
  JOIN public.agent_episodes AS e ON e.episode_id = s.id
 WHERE e.embedding IS NOT NULL

-- name: recent
-- Rows that bursts brought and nobody has merged, not more than matter.
SELECT count(*) AS rows FROM (SELECT FROM ONLY pgrecall.recent_episodes LIMIT %(most)s) AS n

-- name: patience
SELECT set_config('statement_timeout', %(milliseconds)s::text, true)

-- name: codes
-- Vectors without their code, and codes without their vector: some, not more than matter. A code is
-- made anew for a few vectors, to see whether it is still theirs.
WITH serving AS (
    SELECT model, pgrecall.thresholds(dimensions) AS thresholds, dimensions
      FROM pgrecall.embedding_models WHERE serving
), looked_at AS MATERIALIZED (
    SELECT embedding, code
      FROM (SELECT episode_id, project_id, embedding FROM public.agent_episodes
             WHERE embedding IS NOT NULL ORDER BY episode_id LIMIT %(compared)s) AS episodes
      JOIN pgrecall.episode_codes AS c USING (episode_id, project_id)
     WHERE c.model = (SELECT model FROM serving)
     UNION ALL
    SELECT embedding, code
      FROM (SELECT knowledge_id, coalesce(project_id, '') AS project_id, embedding
              FROM public.agent_knowledge
             WHERE embedding IS NOT NULL ORDER BY knowledge_id LIMIT %(compared)s) AS knowledge
      JOIN pgrecall.knowledge_codes AS c USING (knowledge_id, project_id)
     WHERE c.model = (SELECT model FROM serving)
)
SELECT (SELECT count(*)
          FROM (SELECT FROM ONLY public.agent_episodes AS e
                 WHERE embedding IS NOT NULL
                   AND NOT EXISTS (SELECT FROM pgrecall.episode_codes AS c
                                    WHERE c.episode_id = e.episode_id
                                      AND c.project_id = e.project_id
                                      AND c.model = (SELECT model FROM serving))
                 LIMIT %(most)s) AS missing) AS episodes_missing,
       (SELECT count(*)
          FROM (SELECT FROM pgrecall.episode_codes AS c
                 WHERE model = (SELECT model FROM serving)
                   AND NOT EXISTS (SELECT FROM public.agent_episodes AS e
                                    WHERE e.episode_id = c.episode_id
                                      AND e.project_id = c.project_id
                                      AND e.embedding IS NOT NULL)
                 LIMIT %(most)s) AS orphaned) AS episodes_orphaned,
       (SELECT count(*)
          FROM (SELECT FROM public.agent_knowledge AS k
                 WHERE embedding IS NOT NULL
                   AND NOT EXISTS (SELECT FROM pgrecall.knowledge_codes AS c
                                    WHERE c.knowledge_id = k.knowledge_id
                                      AND c.project_id = coalesce(k.project_id, '')
                                      AND c.model = (SELECT model FROM serving))
                 LIMIT %(most)s) AS missing) AS knowledge_missing,
       (SELECT count(*)
          FROM (SELECT FROM pgrecall.knowledge_codes AS c
                 WHERE model = (SELECT model FROM serving)
                   AND NOT EXISTS (SELECT FROM public.agent_knowledge AS k
                                    WHERE k.knowledge_id = c.knowledge_id
                                      AND coalesce(k.project_id, '') = c.project_id
                                      AND k.embedding IS NOT NULL)
                 LIMIT %(most)s) AS orphaned) AS knowledge_orphaned,
       (SELECT count(*) FROM looked_at, serving
         WHERE vector_dims(embedding) = dimensions
           AND code <> pgrecall.code(embedding, thresholds)) AS stale,
       (SELECT count(*) FROM looked_at) AS compared

-- name: triggers
-- Those that keep the codes, whether they are there or not.
SELECT relation.name AS table_name, wanted.name, tgenabled IS NOT NULL AS present,
       coalesce(tgenabled IN ('O', 'A'), false) AS enabled
  FROM (VALUES ('agent_episodes'), ('agent_knowledge')) AS relation (name)
 CROSS JOIN (VALUES ('pgrecall_codes_new'), ('pgrecall_codes_changed'),
                    ('pgrecall_codes_gone'), ('pgrecall_codes_emptied')) AS wanted (name)
  LEFT JOIN pg_trigger
    ON tgrelid = to_regclass('public.' || relation.name) AND tgname = wanted.name
 ORDER BY relation.name, wanted.name

-- name: word_triggers
SELECT relation.name AS table_name, wanted.name, tgenabled IS NOT NULL AS present,
       coalesce(tgenabled IN ('O', 'A'), false) AS enabled
  FROM (VALUES ('agent_episodes'), ('agent_knowledge'), ('agent_working_memory'))
           AS relation (name)
 CROSS JOIN (VALUES ('pgrecall_words'), ('pgrecall_words_emptied')) AS wanted (name)
  LEFT JOIN pg_trigger
    ON tgrelid = to_regclass('public.' || relation.name) AND tgname = wanted.name
 ORDER BY relation.name, wanted.name

-- name: words
-- Rows without words and words without rows: some, not more than matter; and what waits to be
-- counted in.
SELECT (SELECT count(*)
          FROM (SELECT FROM public.agent_episodes AS e
                 WHERE NOT EXISTS (SELECT FROM pgrecall.texts AS t
                                    WHERE t.project_id = e.project_id AND t.kind = 'episodes'
                                      AND t.id = e.episode_id)
                UNION ALL
                SELECT FROM public.agent_knowledge AS k
                 WHERE NOT EXISTS (SELECT FROM pgrecall.texts AS t
                                    WHERE t.project_id = coalesce(k.project_id, '')
                                      AND t.kind = 'knowledge' AND t.id = k.knowledge_id)
                 LIMIT %(most)s) AS without_words) AS missing,
       (SELECT count(*)
          FROM (SELECT FROM pgrecall.texts AS t
                 WHERE t.kind = 'episodes'
                   AND NOT EXISTS (SELECT FROM public.agent_episodes AS e
                                    WHERE e.episode_id = t.id AND e.project_id = t.project_id)
                UNION ALL
                SELECT FROM pgrecall.texts AS t
                 WHERE t.kind = 'knowledge'
                   AND NOT EXISTS (SELECT FROM public.agent_knowledge AS k
                                    WHERE k.knowledge_id = t.id
                                      AND coalesce(k.project_id, '') = t.project_id)
                 LIMIT %(most)s) AS without_row) AS orphaned,
       (SELECT count(*) FROM pgrecall.word_changes) AS waiting
