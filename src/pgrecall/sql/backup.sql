-- What backups are compared by, and what a restore puts back beside the dump.

-- name: snapshot
-- The state that the dump and everything in the manifest show.
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY

-- name: export_snapshot
SELECT pg_export_snapshot() AS snapshot, clock_timestamp() AS started_at

-- name: plain_output
-- Text is the same wherever it is made; a policy that would hide rows is an error, not fewer rows.
SELECT set_config('search_path', 'pg_catalog', false),
       set_config('TimeZone', 'UTC', false),
       set_config('DateStyle', 'ISO, YMD', false),
       set_config('IntervalStyle', 'iso_8601', false),
       set_config('extra_float_digits', '1', false),
       set_config('bytea_output', 'hex', false),
       set_config('lc_monetary', 'C', false),
       set_config('xmloption', 'content', false),
       set_config('statement_timeout', '0', false),
       set_config('row_security', 'off', false)

-- name: server
SELECT current_setting('server_version')                   AS version,
       current_setting('server_version_num')::int / 10000  AS major,
       pg_is_in_recovery()                                 AS in_recovery,
       current_database()                                  AS database,
       current_user                                        AS role,
       clock_timestamp()                                   AS now

-- name: database
SELECT pg_get_userbyid(datdba)          AS owner,
       pg_encoding_to_char(encoding)    AS encoding,
       CASE datlocprovider WHEN 'b' THEN 'builtin' WHEN 'i' THEN 'icu' ELSE 'libc' END
                                        AS locale_provider,
       coalesce(datlocale, datcollate)  AS locale
  FROM pg_database
 WHERE datname = current_database()

-- name: sizes
-- What each table with its long values, and each index, takes by the last vacuum: the work of a
-- dump and of a restore, roughly. The functions that measure it would wait for others' locks.
SELECT nspname || '.' || relation.relname AS name, relation.relkind = 'r' AS is_table,
       (relation.relpages + coalesce(long.relpages, 0)) * current_setting('block_size')::bigint
           AS bytes
  FROM pg_class AS relation
  JOIN pg_namespace ON pg_namespace.oid = relation.relnamespace
  LEFT JOIN pg_class AS long ON long.oid = relation.reltoastrelid
 WHERE relation.relkind IN ('r', 'i') AND relation.relpersistence <> 't'
   AND nspname NOT LIKE 'pg\_%' AND nspname NOT IN ('information_schema', 'pgrecall_pooler')
 ORDER BY 1

-- name: memory
-- The revision's column is asked for by name of the table, which an application's database lacks.
SELECT to_regclass('pgrecall.alembic_version') IS NOT NULL AS has_revision,
       (SELECT CASE WHEN atttypmod > 0 THEN atttypmod END
          FROM pg_attribute
         WHERE attrelid = to_regclass('public.agent_episodes') AND attname = 'embedding'
           AND NOT attisdropped)                           AS dimensions

-- name: extensions
SELECT extname AS name, extversion AS version, nspname AS schema
  FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
 WHERE extname <> 'plpgsql'
 ORDER BY extname

-- name: grants
SELECT CASE WHEN acl.grantee <> 0 THEN pg_get_userbyid(acl.grantee) END AS grantee,
       acl.privilege_type                                              AS privilege
  FROM pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba))) AS acl
 WHERE datname = current_database() AND acl.grantee <> datdba
 ORDER BY 1 NULLS FIRST, 2

-- name: settings
SELECT CASE WHEN setrole <> 0 THEN pg_get_userbyid(setrole) END AS role,
       split_part(setting, '=', 1)                              AS name,
       substr(setting, strpos(setting, '=') + 1)                AS value
  FROM pg_db_role_setting, unnest(setconfig) AS setting
 WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
 ORDER BY 1 NULLS FIRST, 2

-- name: roles
-- Everyone who owns, may use or carries a setting of something in this database.
WITH involved AS (
    SELECT DISTINCT refobjid AS oid
      FROM pg_shdepend
     WHERE refclassid = 'pg_authid'::regclass
       AND (dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
            OR (classid = 'pg_database'::regclass
                AND objid = (SELECT oid FROM pg_database WHERE datname = current_database())))
)
SELECT rolname AS name, rolcanlogin AS login, rolbypassrls AS bypass_rls,
       ARRAY(SELECT parent.rolname
               FROM pg_auth_members JOIN pg_roles AS parent ON parent.oid = roleid
              WHERE member = pg_roles.oid
              ORDER BY 1)::text[] AS member_of
  FROM pg_roles JOIN involved USING (oid)
 WHERE NOT rolsuper AND rolname NOT LIKE 'pg\_%'
 ORDER BY 1

-- name: tables
-- Every table with rows of its own, outside of extensions. "statement" counts and sums it up:
-- each row is hashed (SHA-256, its first 64 bits) over its columns as text and its vectors in
-- binary, and the sum modulo 2^64 of all rows does not depend on their order.
WITH candidate AS (
    SELECT relation.oid, nspname, relname, relforcerowsecurity
      FROM pg_class AS relation JOIN pg_namespace ON pg_namespace.oid = relnamespace
     WHERE relkind = 'r' AND relpersistence <> 't'
       AND nspname NOT LIKE 'pg\_%' AND nspname NOT IN ('information_schema', 'pgrecall_pooler')
       AND NOT EXISTS (SELECT FROM pg_depend
                        WHERE classid = 'pg_class'::regclass AND objid = relation.oid
                          AND deptype = 'e')
), columns AS (
    SELECT candidate.oid,
           string_agg(format('t.%I', attname), ', ' ORDER BY attnum)
               FILTER (WHERE NOT is_vector) AS plain,
           string_agg(format('coalesce(%s(t.%I), ''''::bytea)', sender, attname), ' || '
                      ORDER BY attnum) FILTER (WHERE is_vector) AS vectors,
           string_agg(format('(t.%I IS NOT NULL)::int', attname), ' + ' ORDER BY attnum)
               FILTER (WHERE is_vector) AS present
      FROM candidate
      JOIN pg_attribute ON attrelid = candidate.oid AND attnum > 0 AND NOT attisdropped
      JOIN pg_type ON pg_type.oid = atttypid
     CROSS JOIN LATERAL (
        SELECT typname IN ('vector', 'halfvec', 'sparsevec') AS is_vector,
               format('%I.%I', (SELECT nspname FROM pg_namespace WHERE oid = pronamespace), proname)
                   AS sender
          FROM pg_proc WHERE pg_proc.oid = typsend) AS form
     GROUP BY candidate.oid
)
SELECT nspname AS schema, relname AS name, vectors IS NOT NULL AS has_vectors,
       format($statement$
           SELECT count(*) AS rows,
                  (coalesce(sum(('x' || encode(substr(sha256(row_bytes), 1, 8), 'hex'))
                                ::bit(64)::bigint::numeric), 0) %% 18446744073709551616)::text
                      AS checksum,
                  coalesce(sum(present), 0)::bigint AS vectors,
                  (coalesce(sum(('x' || encode(substr(sha256(vector_bytes), 1, 8), 'hex'))
                                ::bit(64)::bigint::numeric)
                            FILTER (WHERE present > 0), 0) %% 18446744073709551616)::text
                      AS vector_checksum
             FROM (SELECT convert_to(ROW(%s)::text, 'UTF8') || vector_bytes AS row_bytes,
                          vector_bytes, present
                     FROM ONLY %I.%I AS t,
                          LATERAL (SELECT %s AS vector_bytes, %s AS present) AS vectors) AS t
           $statement$,
           coalesce(plain, ''), nspname, relname,
           coalesce(vectors, '''''::bytea'), coalesce(present, '0')) AS statement
  FROM candidate JOIN columns USING (oid)
 ORDER BY nspname, relname

-- name: indexes
SELECT indexrelid::regclass::text AS name, indisvalid AND indisready AS valid,
       relation.relname AS "table", nspname AS schema
  FROM pg_index
  JOIN pg_class AS relation ON relation.oid = indrelid
  JOIN pg_namespace ON pg_namespace.oid = relation.relnamespace
 WHERE nspname NOT LIKE 'pg\_%' AND nspname NOT IN ('information_schema', 'pgrecall_pooler')
 ORDER BY 1

-- name: constraints
SELECT format('%s.%s', conrelid::regclass, conname) AS name, convalidated AS valid
  FROM pg_constraint JOIN pg_namespace ON pg_namespace.oid = connamespace
 WHERE conrelid <> 0 AND contype <> 'n'
   AND nspname NOT LIKE 'pg\_%' AND nspname NOT IN ('information_schema', 'pgrecall_pooler')
 ORDER BY 1

-- name: probe_queries
-- Identifiers are random, so the first ones are random episodes.
SELECT episode_id::text AS episode_id
  FROM public.agent_episodes
 WHERE embedding IS NOT NULL
 ORDER BY agent_episodes.episode_id
 LIMIT %(queries)s

-- name: nearest
-- Ordered by the distance alone, so that the vector index can serve it where it is allowed to.
SELECT episode_id::text AS episode_id, distance
  FROM (SELECT episode_id, embedding OPERATOR(public.<=>)
               (SELECT query.embedding FROM public.agent_episodes AS query
                 WHERE query.episode_id = %(episode_id)s::uuid) AS distance
          FROM public.agent_episodes
         WHERE embedding IS NOT NULL
         ORDER BY 2
         LIMIT %(limit)s) AS found
 ORDER BY distance, episode_id

-- name: exactly
SELECT set_config('enable_indexscan', 'off', true), set_config('enable_seqscan', 'on', true)

-- name: by_index
SELECT set_config('enable_indexscan', 'on', true), set_config('enable_seqscan', 'off', true),
       set_config('hnsw.ef_search', '200', true)

-- name: hides_rows
-- Tables with policies that apply to whoever is connected.
SELECT format('%I.%I', nspname, relname) AS name
  FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
 WHERE relkind = 'r' AND row_security_active(pg_class.oid)
 ORDER BY 1

-- name: record_run
SELECT pgrecall.record_run(%(task)s, %(started_at)s, %(succeeded)s, %(bytes)s, %(detail)s,
                           clock_timestamp())

-- name: can_record
SELECT to_regprocedure('pgrecall.record_run(varchar,timestamptz,boolean,bigint,jsonb,timestamptz)')
       IS NOT NULL AS can

-- name: database_exists
SELECT EXISTS (SELECT FROM pg_database WHERE datname = %(database)s)

-- name: may_create
SELECT rolsuper AS superuser, rolcreatedb OR rolsuper AS databases, rolcreaterole OR rolsuper AS roles
  FROM pg_roles WHERE rolname = current_user

-- name: known_roles
SELECT rolname AS name FROM pg_roles

-- name: available_extensions
SELECT name FROM pg_available_extensions

-- name: create_role
CREATE ROLE {role}

-- name: allow_login
ALTER ROLE {role} LOGIN

-- name: bypass_rls
ALTER ROLE {role} BYPASSRLS

-- name: grant_role
GRANT {parent} TO {role}

-- name: create_database_builtin
CREATE DATABASE {database} TEMPLATE template0 ENCODING {encoding}
       LOCALE_PROVIDER builtin BUILTIN_LOCALE {locale} LC_COLLATE 'C' LC_CTYPE 'C'

-- name: create_database_libc
CREATE DATABASE {database} TEMPLATE template0 ENCODING {encoding}
       LOCALE_PROVIDER libc LOCALE {locale}

-- name: create_database_icu
CREATE DATABASE {database} TEMPLATE template0 ENCODING {encoding}
       LOCALE_PROVIDER icu ICU_LOCALE {locale}

-- name: close_database
REVOKE ALL ON DATABASE {database} FROM PUBLIC

-- name: give_database
ALTER DATABASE {database} OWNER TO {owner}

-- name: grant_database
GRANT {privilege} ON DATABASE {database} TO {grantee}

-- name: set_here
-- Then attached FROM CURRENT, since a list such as a search path cannot be given as one literal.
SELECT set_config(%(name)s, %(value)s, false)

-- name: set_database
ALTER DATABASE {database} SET {name} FROM CURRENT

-- name: set_role_in_database
ALTER ROLE {role} IN DATABASE {database} SET {name} FROM CURRENT

-- name: create_schema
CREATE SCHEMA IF NOT EXISTS {schema}

-- name: create_extension
CREATE EXTENSION IF NOT EXISTS {extension} SCHEMA {schema}

-- name: load_vector
LOAD 'vector'

-- name: vacuum
VACUUM (ANALYZE)

-- name: drop_database
DROP DATABASE IF EXISTS {database} WITH (FORCE)

-- name: rename_database
ALTER DATABASE {database} RENAME TO {name}

-- name: end_sessions
SELECT count(pg_terminate_backend(pid)) AS ended
  FROM pg_stat_activity
 WHERE datname = %(database)s AND pid <> pg_backend_pid()

-- name: stop_writes
ALTER DATABASE {database} SET default_transaction_read_only = on

-- name: allow_writes
ALTER DATABASE {database} RESET default_transaction_read_only

-- name: close_to_new_sessions
ALTER DATABASE {database} ALLOW_CONNECTIONS {allowed}

-- name: set_password
ALTER ROLE {role} LOGIN PASSWORD {verifier}
