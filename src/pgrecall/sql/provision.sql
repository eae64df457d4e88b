-- What `pgrecall init` and `pgrecall destroy` read and change. A template's {braces} are filled by
-- psycopg.sql with quoted identifiers; statements that PostgreSQL composes itself, with format(),
-- come back as rows.

-- name: server
SELECT current_setting('server_version_num')::int AS version_number,
       current_setting('server_version')          AS version,
       pg_backend_pid()                           AS backend_pid,
       pg_is_in_recovery()                        AS standby,
       rolname                                    AS admin,
       rolsuper                                   AS superuser,
       rolcreatedb OR rolsuper                    AS can_create_databases,
       rolcreaterole OR rolsuper                  AS can_create_roles,
       rolbypassrls OR rolsuper                   AS can_bypass_rls,
       -- The administrators of managed services may create extensions without being superuser.
       EXISTS (SELECT FROM pg_roles AS managed
                WHERE managed.rolname IN ('rds_superuser', 'cloudsqlsuperuser',
                                          'azure_pg_admin', 'alloydbsuperuser')
                  AND pg_has_role(managed.oid, 'USAGE')) AS managed_admin
  FROM pg_roles
 WHERE rolname = current_user

-- name: available_extensions
SELECT available.name, available.default_version, bool_or(version.trusted) AS trusted
  FROM pg_available_extensions AS available
  JOIN pg_available_extension_versions AS version
    ON version.name = available.name AND version.version = available.default_version
 WHERE available.name IN ('vector', 'pg_trgm', 'uuid-ossp')
 GROUP BY available.name, available.default_version

-- name: database
SELECT pg_encoding_to_char(encoding) AS encoding,
       owner.rolname                 AS owner,
       owner.rolsuper                AS owner_is_superuser,
       pg_has_role(owner.oid, 'USAGE') AS may_act_as_owner,
       datallowconn                  AS accepts_connections,
       datistemplate                 AS is_template,
       datacl IS NULL                AS default_privileges,
       coalesce(datlocale, datcollate) AS locale
  FROM pg_database
  JOIN pg_roles AS owner ON owner.oid = datdba
 WHERE datname = %(database)s

-- name: roles
SELECT rolname AS name, rolcanlogin AS can_login, rolbypassrls AS bypasses_rls,
       rolsuper AS superuser,
       pg_has_role(oid, 'USAGE WITH ADMIN OPTION') AS may_administer
  FROM pg_roles
 WHERE rolname = ANY (%(names)s)

-- name: is_member
-- Directly, with the rights inherited and the role settable.
SELECT EXISTS (
    SELECT FROM pg_auth_members AS membership
     WHERE membership.roleid = (SELECT oid FROM pg_roles WHERE rolname = %(role)s)
       AND membership.member = (SELECT oid FROM pg_roles WHERE rolname = %(member)s)
       AND membership.inherit_option AND membership.set_option)

-- name: try_lock
SELECT pg_try_advisory_lock(1885827442, hashtext(%(database)s))

-- name: probe_locale
-- Runs in a transaction that is rolled back: PostgreSQL has no other way to ask.
CREATE COLLATION pg_temp.pgrecall_probe (provider = libc, locale = {locale})

-- name: create_database_libc
CREATE DATABASE {database} WITH OWNER {owner} TEMPLATE template0 ENCODING 'UTF8'
       LOCALE_PROVIDER libc LOCALE {locale}

-- name: create_database_builtin
CREATE DATABASE {database} WITH OWNER {owner} TEMPLATE template0 ENCODING 'UTF8'
       LOCALE_PROVIDER builtin BUILTIN_LOCALE {locale} LC_COLLATE {libc} LC_CTYPE {libc}

-- name: close_database
REVOKE ALL ON DATABASE {database} FROM PUBLIC

-- name: public_may_connect
SELECT EXISTS (
    SELECT FROM pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba)))
     WHERE datname = current_database() AND grantee = 0)

-- name: create_role
CREATE ROLE {role} LOGIN PASSWORD {verifier}

-- name: set_password
ALTER ROLE {role} PASSWORD {verifier}

-- name: allow_login
ALTER ROLE {role} LOGIN

-- name: bypass_rls
ALTER ROLE {role} BYPASSRLS

-- name: grant_membership
GRANT {role} TO {member} WITH INHERIT TRUE, SET TRUE

-- name: set_role
SET ROLE {role}

-- name: reset_role
RESET ROLE

-- name: installed_extensions
SELECT extname AS name, extversion AS version, nspname AS schema
  FROM pg_extension
  JOIN pg_namespace ON pg_namespace.oid = extnamespace
 WHERE extname IN ('vector', 'pg_trgm', 'uuid-ossp')

-- name: create_extension
CREATE EXTENSION IF NOT EXISTS {extension}

-- name: create_schema
CREATE SCHEMA IF NOT EXISTS pgrecall AUTHORIZATION {owner}

-- name: schema_exists
SELECT to_regnamespace('pgrecall') IS NOT NULL

-- name: lock_timeout
SET lock_timeout = '15s'

-- name: load_vector
-- Settings named hnsw.* exist once the library is loaded; only then may others than superusers
-- attach them to roles.
SELECT {schema}.vector_in('[1]', 0, -1)

-- name: role_settings
SELECT rolname AS role, split_part(setting, '=', 1) AS name,
       substr(setting, strpos(setting, '=') + 1) AS value
  FROM pg_db_role_setting
  JOIN pg_roles ON pg_roles.oid = setrole
  JOIN pg_database ON pg_database.oid = setdatabase
 CROSS JOIN unnest(setconfig) AS setting
 WHERE datname = current_database()

-- name: set_role_setting
ALTER ROLE {role} IN DATABASE {database} SET {name} = {value}

-- name: database_search_path
SELECT EXISTS (
    SELECT FROM pg_db_role_setting, unnest(setconfig) AS setting
     WHERE setrole = 0 AND setting LIKE 'search_path=%'
       AND setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()))

-- name: set_database_search_path
ALTER DATABASE {database} SET search_path = "$user", public, {schema}

-- name: objects_missing
-- What the specification's SQL makes, and isn't there.
SELECT kind, name
  FROM (VALUES
        ('table', 'agent_episodes'), ('table', 'agent_knowledge'),
        ('table', 'agent_working_memory'), ('table', 'agent_memory_metrics'),
        ('table', 'schema_version'),
        ('index', 'idx_episodes_project_time'), ('index', 'idx_episodes_quality'),
        ('index', 'idx_episodes_decision_source'), ('index', 'idx_episodes_sprint'),
        ('index', 'idx_episodes_no_outcome'),
        ('index', 'idx_knowledge_type_confidence'), ('index', 'idx_knowledge_success_rate'),
        ('index', 'idx_knowledge_last_applied'),
        ('index', 'idx_working_memory_project'), ('index', 'idx_working_memory_expiry'),
        ('index', 'idx_working_memory_user'),
        ('index', 'idx_memory_metrics_timestamp'), ('index', 'idx_memory_metrics_operation'),
        ('view', 'v_episode_quality_by_project'), ('view', 'v_strategy_effectiveness'),
        ('view', 'v_memory_system_health'),
        ('function', 'cleanup_expired_working_memory()'),
        ('function', 'update_working_memory_timestamp()'),
        ('function', 'record_memory_operation(character varying,integer,integer,character varying)'),
        ('trigger', 'trg_update_working_memory_timestamp')
       ) AS expected (kind, name)
 WHERE CASE kind
       WHEN 'function' THEN to_regprocedure('public.' || name) IS NULL
       WHEN 'trigger'  THEN NOT EXISTS (
            SELECT FROM pg_trigger WHERE tgname = name
               AND tgrelid = to_regclass('public.agent_working_memory'))
       ELSE NOT EXISTS (
            SELECT FROM pg_class
             WHERE relname = name AND relnamespace = 'public'::regnamespace
               AND relkind = ANY (CASE kind WHEN 'table' THEN '{r,p}'::"char"[]
                                            WHEN 'index' THEN '{i,I}'::"char"[]
                                            ELSE '{v}'::"char"[] END))
       END

-- name: objects_in_the_way
-- Relations of another kind under a name that the schema needs.
SELECT format('%s is a %s', relname,
              CASE relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' WHEN 'm' THEN
              'materialized view' WHEN 'i' THEN 'index' ELSE 'relation of another kind' END) AS what
  FROM pg_class
 WHERE relnamespace = 'public'::regnamespace
   AND ((relname IN ('agent_episodes', 'agent_knowledge', 'agent_working_memory',
                     'agent_memory_metrics', 'schema_version') AND relkind NOT IN ('r', 'p'))
     OR (relname IN ('v_episode_quality_by_project', 'v_strategy_effectiveness',
                     'v_memory_system_health') AND relkind <> 'v'))

-- name: columns_unlike
-- Columns of existing tables that are missing or have another type than the schema needs.
SELECT format('%s.%s %s', expected.relation, expected.name,
              CASE WHEN attname IS NULL THEN 'is missing'
                   ELSE format('is %s, not %s', format_type(atttypid, atttypmod), expected.type)
              END) AS what
  FROM (VALUES
        ('agent_episodes', 'episode_id', 'uuid'),
        ('agent_episodes', 'project_id', 'character varying(50)'),
        ('agent_episodes', 'timestamp', 'timestamp with time zone'),
        ('agent_episodes', 'perception', 'jsonb'), ('agent_episodes', 'reasoning', 'jsonb'),
        ('agent_episodes', 'action', 'jsonb'), ('agent_episodes', 'outcome', 'jsonb'),
        ('agent_episodes', 'outcome_quality', 'double precision'),
        ('agent_episodes', 'outcome_recorded_at', 'timestamp with time zone'),
        ('agent_episodes', 'embedding', 'vector'),
        ('agent_episodes', 'agent_version', 'character varying(20)'),
        ('agent_episodes', 'control_mode', 'character varying(50)'),
        ('agent_episodes', 'decision_source', 'character varying(50)'),
        ('agent_episodes', 'sprint_id', 'character varying(50)'),
        ('agent_episodes', 'chronicle_note_id', 'uuid'),
        ('agent_knowledge', 'knowledge_id', 'uuid'),
        ('agent_knowledge', 'knowledge_type', 'character varying(50)'),
        ('agent_knowledge', 'content', 'jsonb'), ('agent_knowledge', 'description', 'text'),
        ('agent_knowledge', 'confidence', 'double precision'),
        ('agent_knowledge', 'supporting_episodes', 'uuid[]'),
        ('agent_knowledge', 'contradicting_episodes', 'uuid[]'),
        ('agent_knowledge', 'times_applied', 'integer'),
        ('agent_knowledge', 'success_count', 'integer'),
        ('agent_knowledge', 'failure_count', 'integer'),
        ('agent_knowledge', 'success_rate', 'double precision'),
        ('agent_knowledge', 'created_at', 'timestamp with time zone'),
        ('agent_knowledge', 'last_validated', 'timestamp with time zone'),
        ('agent_knowledge', 'last_applied', 'timestamp with time zone'),
        ('agent_knowledge', 'embedding', 'vector'),
        ('agent_knowledge', 'created_by', 'character varying(50)'),
        ('agent_knowledge', 'is_active', 'boolean'),
        ('agent_working_memory', 'session_id', 'uuid'),
        ('agent_working_memory', 'project_id', 'character varying(50)'),
        ('agent_working_memory', 'user_id', 'character varying(100)'),
        ('agent_working_memory', 'current_goal', 'text'),
        ('agent_working_memory', 'active_context', 'jsonb'),
        ('agent_working_memory', 'thought_history', 'jsonb[]'),
        ('agent_working_memory', 'created_at', 'timestamp with time zone'),
        ('agent_working_memory', 'last_updated', 'timestamp with time zone'),
        ('agent_working_memory', 'expires_at', 'timestamp with time zone'),
        ('agent_working_memory', 'is_active', 'boolean'),
        ('agent_working_memory', 'related_episodes', 'uuid[]'),
        ('agent_memory_metrics', 'metric_id', 'uuid'),
        ('agent_memory_metrics', 'timestamp', 'timestamp with time zone'),
        ('agent_memory_metrics', 'operation_type', 'character varying(50)'),
        ('agent_memory_metrics', 'latency_ms', 'integer'),
        ('agent_memory_metrics', 'results_count', 'integer'),
        ('agent_memory_metrics', 'recall_accuracy', 'double precision'),
        ('agent_memory_metrics', 'precision', 'double precision'),
        ('agent_memory_metrics', 'memory_usage_mb', 'double precision'),
        ('agent_memory_metrics', 'cpu_percent', 'double precision'),
        ('agent_memory_metrics', 'project_id', 'character varying(50)'),
        ('agent_memory_metrics', 'episode_count', 'integer'),
        ('agent_memory_metrics', 'strategy_count', 'integer'),
        ('schema_version', 'version', 'character varying(20)'),
        ('schema_version', 'applied_at', 'timestamp with time zone'),
        ('schema_version', 'description', 'text')
       ) AS expected (relation, name, type)
  JOIN pg_class ON relname = expected.relation AND relnamespace = 'public'::regnamespace
   AND relkind IN ('r', 'p')
  LEFT JOIN pg_attribute ON attrelid = pg_class.oid AND attname = expected.name
       AND attnum > 0 AND NOT attisdropped
  LEFT JOIN pg_type ON pg_type.oid = atttypid
 WHERE attname IS NULL
    OR CASE expected.type WHEN 'vector' THEN typname ELSE format_type(atttypid, atttypmod) END
       <> expected.type

-- name: dimensions
SELECT relname AS relation, atttypmod AS dimensions
  FROM pg_attribute
  JOIN pg_class ON pg_class.oid = attrelid
 WHERE relnamespace = 'public'::regnamespace AND attname = 'embedding' AND NOT attisdropped
   AND relname IN ('agent_episodes', 'agent_knowledge') AND relkind IN ('r', 'p')

-- name: other_relations
-- Whether anything that is not an extension's lies in the database.
SELECT EXISTS (
    SELECT FROM pg_class
      JOIN pg_namespace ON pg_namespace.oid = relnamespace
     WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'pgrecall')
       AND nspname NOT LIKE 'pg\_toast%' AND nspname NOT LIKE 'pg\_temp%'
       AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'e'))

-- name: vector_indexes
SELECT expected.name, indisvalid AS valid
  FROM (VALUES ('idx_episodes_embedding'), ('idx_knowledge_embedding')) AS expected (name)
  LEFT JOIN pg_index ON indexrelid = to_regclass('public.' || expected.name)

-- name: evidence
SELECT (SELECT pg_get_constraintdef(oid) FROM pg_constraint
         WHERE conrelid = 'public.agent_knowledge'::regclass
           AND conname = 'chk_min_supporting_episodes') AS definition,
       (SELECT count(*) FROM public.agent_knowledge
         WHERE NOT (is_active IS NOT TRUE OR cardinality(supporting_episodes) >= 3)) AS violations

-- name: ownership
-- Objects of ours that another role owns, with the statements that hand them over. The previous
-- owner's rights were implied by owning; they are granted by name so that they stay.
WITH object AS (
    SELECT CASE relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END AS kind,
           format('%%I.%%I', nspname, relname) AS name, relowner AS owner
      FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
     WHERE relkind IN ('r', 'p', 'v')
       AND (nspname = 'pgrecall' OR nspname = 'public' AND relname IN (
            'agent_episodes', 'agent_knowledge', 'agent_working_memory', 'agent_memory_metrics',
            'schema_version', 'v_episode_quality_by_project', 'v_strategy_effectiveness',
            'v_memory_system_health'))
    UNION ALL
    SELECT 'FUNCTION', format('%%I.%%I(%%s)', nspname, proname,
                              pg_get_function_identity_arguments(pg_proc.oid)), proowner
      FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace
     WHERE nspname = 'public' AND pg_proc.oid IN (
            to_regprocedure('public.cleanup_expired_working_memory()'),
            to_regprocedure('public.update_working_memory_timestamp()'),
            to_regprocedure('public.record_memory_operation(varchar,integer,integer,varchar)'))
    UNION ALL
    SELECT 'SCHEMA', 'pgrecall', nspowner FROM pg_namespace WHERE nspname = 'pgrecall'
    UNION ALL
    SELECT 'DATABASE', format('%%I', datname), datdba FROM pg_database
     WHERE datname = current_database()
)
SELECT kind, name, previous.rolname AS previous, previous.rolsuper AS previous_is_superuser,
       pg_has_role(previous.oid, 'USAGE') AS may_take,
       format('ALTER %%s %%s OWNER TO %%I', kind, name, %(owner)s::text) AS take,
       format('GRANT ALL ON %%s %%s TO %%I',
              CASE kind WHEN 'VIEW' THEN 'TABLE' ELSE kind END, name, previous.rolname) AS keep
  FROM object JOIN pg_roles AS previous ON previous.oid = object.owner
 WHERE previous.rolname <> %(owner)s
 -- Only the database's owner may create in its schemas, so the database goes first.
 ORDER BY kind <> 'DATABASE', kind <> 'SCHEMA', name

-- name: inherited_defaults
-- Default privileges of the previous owners, for what the new owner will create.
SELECT DISTINCT format(
           'ALTER DEFAULT PRIVILEGES FOR ROLE %%I IN SCHEMA %%I GRANT %%s ON %%s TO %%s',
           %(owner)s::text, nspname, privilege_type,
           CASE defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' ELSE 'FUNCTIONS' END,
           CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(grantee.rolname) END) AS statement
  FROM pg_default_acl
  JOIN pg_roles AS previous ON previous.oid = defaclrole AND previous.rolname = ANY (%(previous)s)
  JOIN pg_namespace ON pg_namespace.oid = defaclnamespace AND nspname = 'public'
 CROSS JOIN aclexplode(defaclacl) AS granted
  LEFT JOIN pg_roles AS grantee ON grantee.oid = granted.grantee
 WHERE defaclobjtype IN ('r', 'S', 'f')
 ORDER BY statement

-- name: grants
-- Statements that make the wanted grants true. A wanted row names kind, object, role and
-- privilege ('ALL' is taken apart here); a role in `exact` also loses what isn't wanted on the
-- objects named in its rows. Nothing comes back when all is as it should be.
WITH wanted AS (
    SELECT kind, object, grantee, privilege
      FROM unnest(%(kinds)s::text[], %(objects)s::text[], %(grantees)s::text[],
                  %(privileges)s::text[]) AS given (kind, object, grantee, given)
     CROSS JOIN LATERAL (
           SELECT given.given AS privilege WHERE given.given <> 'ALL'
           UNION ALL
           SELECT privilege_type
             FROM aclexplode(acldefault(CASE kind WHEN 'TABLE' THEN 'r' WHEN 'SEQUENCES' THEN 's'
                                        WHEN 'TABLES' THEN 'r' WHEN 'SCHEMA' THEN 'n'
                                        WHEN 'DATABASE' THEN 'd' ELSE 'f' END::"char", 10))
            WHERE given.given = 'ALL' AND grantee <> 0) AS expanded
), held AS (
    SELECT 'TABLE' AS kind, format('%%I.%%I', nspname, relname) AS object, relacl AS acl
      FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
     WHERE nspname IN ('public', 'pgrecall') AND relkind IN ('r', 'p', 'v')
    UNION ALL
    SELECT 'FUNCTION', format('%%I.%%I(%%s)', nspname, proname,
                              replace(oidvectortypes(proargtypes), ', ', ',')), proacl
      FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace
     WHERE nspname IN ('public', 'pgrecall')
    UNION ALL
    SELECT 'SCHEMA', format('%%I', nspname), nspacl FROM pg_namespace
    UNION ALL
    -- Quoted always, as the caller quotes it.
    SELECT 'DATABASE', '"' || replace(datname, '"', '""') || '"', datacl FROM pg_database
    UNION ALL
    SELECT CASE defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES'
                              ELSE 'FUNCTIONS' END, format('%%I', nspname), defaclacl
      FROM pg_default_acl
      JOIN pg_namespace ON pg_namespace.oid = defaclnamespace
      JOIN pg_roles ON pg_roles.oid = defaclrole AND rolname = %(owner)s
), granted AS (
    SELECT held.kind, held.object, rolname::text AS grantee, privilege_type AS privilege
      FROM held CROSS JOIN aclexplode(acl) AS entry
      JOIN pg_roles ON pg_roles.oid = entry.grantee
), difference AS (
    SELECT 'GRANT' AS verb, 'TO' AS preposition, missing.*
      FROM (SELECT * FROM wanted EXCEPT SELECT * FROM granted) AS missing
    UNION ALL
    SELECT 'REVOKE', 'FROM', surplus.*
      FROM (SELECT * FROM granted
             WHERE grantee = ANY (%(exact)s)
               AND (kind, object, grantee) IN (SELECT kind, object, grantee FROM wanted)
            EXCEPT SELECT * FROM wanted) AS surplus
)
SELECT grantee, verb, kind, object, string_agg(privilege, ', ' ORDER BY privilege) AS privileges,
       CASE WHEN kind IN ('TABLES', 'SEQUENCES', 'FUNCTIONS')
            THEN format('ALTER DEFAULT PRIVILEGES FOR ROLE %%I IN SCHEMA %%s %%s %%s ON %%s %%s %%I',
                        %(owner)s::text, object, verb,
                        string_agg(privilege, ', ' ORDER BY privilege), kind, preposition, grantee)
            ELSE format('%%s %%s ON %%s %%s %%s %%I', verb,
                        string_agg(privilege, ', ' ORDER BY privilege), kind, object, preposition,
                        grantee)
       END AS statement
  FROM difference
 GROUP BY grantee, verb, preposition, kind, object
 ORDER BY grantee, kind, object, verb

-- name: may_create_in_public
SELECT nspowner = 'pg_database_owner'::regrole OR EXISTS (
           SELECT FROM pg_roles
            WHERE rolname = %(owner)s AND has_schema_privilege(pg_roles.oid, 'public', 'CREATE'))
  FROM pg_namespace
 WHERE nspname = 'public'

-- name: open_public
GRANT USAGE, CREATE ON SCHEMA public TO {owner}

-- name: held_elsewhere
-- What our roles own or were granted outside of the database that is to be dropped.
SELECT role.rolname AS role,
       coalesce(pg_database.datname, shared.datname, 'the cluster') AS place
  FROM pg_shdepend AS dependency
  JOIN pg_roles AS role ON role.oid = dependency.refobjid
  LEFT JOIN pg_database ON pg_database.oid = dependency.dbid
  LEFT JOIN pg_database AS shared
    ON dependency.classid = 'pg_database'::regclass AND shared.oid = dependency.objid
 WHERE dependency.refclassid = 'pg_authid'::regclass
   AND role.rolname = ANY (%(names)s)
   -- Memberships and settings go with the role.
   AND dependency.classid NOT IN ('pg_auth_members'::regclass, 'pg_db_role_setting'::regclass)
   AND coalesce(pg_database.datname, shared.datname, '') <> %(database)s
 GROUP BY 1, 2
 ORDER BY 1, 2

-- name: drop_database
DROP DATABASE {database}

-- name: drop_database_force
DROP DATABASE {database} WITH (FORCE)

-- name: drop_role
DROP ROLE {role}
