-- What `pgrecall pooler config` reads and changes. A template's {braces} are filled by psycopg.sql
-- with quoted identifiers.

-- name: lock_timeout
SET lock_timeout = '15s'

-- name: databases
SELECT datname::text AS name, datallowconn AS accepts_connections
  FROM pg_database
 WHERE datname = ANY (%(names)s)

-- name: verifiers
-- The SCRAM verifiers of login roles; null where the password is kept otherwise, or there is none.
SELECT rolname::text AS name, rolcanlogin AS can_login,
       rolsuper OR rolreplication AS privileged,
       CASE WHEN rolpassword LIKE 'SCRAM-SHA-256$%%' THEN rolpassword END AS verifier
  FROM pg_authid
 WHERE rolname = ANY (%(names)s)

-- name: may_connect
SELECT has_database_privilege(%(role)s, current_database(), 'CONNECT')

-- name: let_in
GRANT CONNECT ON DATABASE {database} TO {role}

-- name: lookup
-- What stands in the schema of the lookup. It must be a superuser's: who owns a schema can replace
-- the functions in it.
SELECT to_regnamespace('pgrecall_pooler') IS NOT NULL AS has_schema,
       to_regprocedure('pgrecall_pooler.lookup(text)') IS NOT NULL AS has_function,
       (SELECT rolsuper FROM pg_namespace JOIN pg_roles ON pg_roles.oid = nspowner
         WHERE nspname = 'pgrecall_pooler') AS schema_is_safe,
       (SELECT rolsuper AND prosecdef AND proconfig = '{"search_path=pg_catalog, pg_temp"}'
          FROM pg_proc JOIN pg_roles ON pg_roles.oid = proowner
         WHERE pg_proc.oid = to_regprocedure('pgrecall_pooler.lookup(text)')) AS function_is_safe,
       (SELECT prosrc FROM pg_proc
         WHERE oid = to_regprocedure('pgrecall_pooler.lookup(text)')) AS body

-- name: lookup_rights
-- Whether the role may use the lookup, and whether everybody may.
SELECT has_schema_privilege(%(role)s, 'pgrecall_pooler', 'USAGE')
           AND has_function_privilege(%(role)s, 'pgrecall_pooler.lookup(text)', 'EXECUTE') AS open,
       EXISTS (SELECT FROM pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner)))
                WHERE pg_proc.oid = to_regprocedure('pgrecall_pooler.lookup(text)')
                  AND grantee = 0) AS open_to_all

-- name: create_schema
CREATE SCHEMA pgrecall_pooler

-- name: drop_lookup
DROP FUNCTION IF EXISTS pgrecall_pooler.lookup(text)

-- name: drop_schema
DROP SCHEMA IF EXISTS pgrecall_pooler

-- name: create_lookup
-- What a pooler needs to let a client in: its SCRAM verifier, of which the password cannot be told.
-- Not of those who may do everything, nor of those whose time has run out.
CREATE FUNCTION pgrecall_pooler.lookup(p_name text)
RETURNS TABLE (name text, verifier text)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $lookup$
SELECT rolname::text, rolpassword
  FROM pg_catalog.pg_authid
 WHERE rolname = p_name
   AND rolcanlogin AND NOT rolsuper AND NOT rolreplication
   AND (rolvaliduntil IS NULL OR rolvaliduntil > clock_timestamp())
   AND rolpassword LIKE 'SCRAM-SHA-256$%'
$lookup$

-- name: open_schema
GRANT USAGE ON SCHEMA pgrecall_pooler TO {role}

-- name: close_lookup
REVOKE ALL ON FUNCTION pgrecall_pooler.lookup(text) FROM PUBLIC

-- name: open_lookup
GRANT EXECUTE ON FUNCTION pgrecall_pooler.lookup(text) TO {role}

-- name: auth_query
-- What PgBouncer asks, with the name that a client gave.
SELECT name, verifier FROM pgrecall_pooler.lookup($1)

-- name: identity
-- Tells one database of one running server from all others, even from a copy of its files.
SELECT (SELECT oid FROM pg_database WHERE datname = current_database())::bigint AS oid,
       pg_postmaster_start_time()::text AS started,
       (SELECT system_identifier FROM pg_control_system())::text AS system,
       pg_backend_pid() AS backend_pid

-- name: drop_owned
-- The rights of the role in this database.
DROP OWNED BY {role}

-- name: places
-- Databases, the memory's own aside, in which the pooler's role was given something, and whether
-- it owns something there.
SELECT coalesce(inside.datname, itself.datname)::text AS name,
       bool_or(dependency.deptype = 'o') AS owns
  FROM pg_shdepend AS dependency
  JOIN pg_roles AS role ON role.oid = dependency.refobjid
  LEFT JOIN pg_database AS inside ON inside.oid = dependency.dbid
  LEFT JOIN pg_database AS itself
    ON dependency.classid = 'pg_database'::regclass AND itself.oid = dependency.objid
 WHERE dependency.refclassid = 'pg_authid'::regclass AND role.rolname = %(role)s
   AND coalesce(inside.datname, itself.datname) <> %(database)s
 GROUP BY 1

-- name: lookup_in_use
-- Whether another pooler's role may use the lookup here.
SELECT EXISTS (SELECT FROM pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner)))
                WHERE pg_proc.oid = to_regprocedure('pgrecall_pooler.lookup(text)')
                  AND grantee <> proowner)

-- name: room
-- Connections that roles without special rights share.
SELECT current_setting('max_connections')::integer
       - current_setting('superuser_reserved_connections')::integer
       - current_setting('reserved_connections')::integer
