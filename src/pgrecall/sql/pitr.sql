-- Point in time: WAL archiving, base backups, and looking at what was recovered.

-- name: server
SELECT system_identifier::text                              AS system_identifier,
       current_setting('server_version_num')::int / 10000   AS major,
       current_setting('server_version')                    AS version,
       pg_backend_pid()                                     AS backend_pid,
       pg_is_in_recovery()                                  AS in_recovery,
       (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS superuser,
       (SELECT rolname::text FROM pg_roles WHERE oid = 10)  AS bootstrap_role,
       (SELECT count(*) > 2 FROM pg_tablespace)             AS has_tablespaces,
       clock_timestamp()                                    AS now
  FROM pg_control_system()

-- name: timeline
SELECT timeline_id AS timeline, (SELECT setting::bigint FROM pg_settings
                                  WHERE name = 'wal_segment_size') AS segment_bytes
  FROM pg_control_checkpoint()

-- name: settings
SELECT current_setting('wal_level')                               AS wal_level,
       current_setting('archive_mode')                            AS archive_mode,
       current_setting('archive_library')                         AS archive_library,
       -- A superuser sees the command itself, "(disabled)" while archive_mode is off.
       (SELECT reset_val FROM pg_settings WHERE name = 'archive_command') AS archive_command,
       coalesce(current_setting('basic_archive.archive_directory', true), '')
                                                                  AS archive_directory,
       current_setting('summarize_wal')                           AS summarize_wal,
       (SELECT setting::int FROM pg_settings WHERE name = 'archive_timeout') AS archive_timeout

-- name: set_system
ALTER SYSTEM SET {name} = {value}

-- name: reset_system
ALTER SYSTEM RESET {name}

-- name: reload
SELECT pg_reload_conf()

-- name: mark
-- A commit, with its time: PostgreSQL stops recovering at the first commit after the wanted time.
SELECT pg_current_xact_id()::text AS transaction

-- name: current_segment
SELECT pg_walfile_name(pg_current_wal_insert_lsn()) AS segment, clock_timestamp() AS now

-- name: switch
SELECT pg_switch_wal()

-- name: archiver
SELECT archived_count, last_archived_wal, last_archived_time, failed_count, last_failed_wal,
       last_failed_time,
       coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false) AS failing
  FROM pg_stat_archiver

-- name: progress
SELECT phase, backup_streamed AS done, backup_total AS total FROM pg_stat_progress_basebackup

-- name: recovery
SELECT pg_is_in_recovery() AS in_recovery, pg_last_xact_replay_timestamp() AS last_commit

-- name: databases
SELECT datname::text AS name, pg_database_size(oid) AS bytes
  FROM pg_database
 WHERE datallowconn AND NOT datistemplate
 ORDER BY datname

-- name: tables
-- The memory's, then the largest others; "statement" counts one.
SELECT format('%s.%s', nspname, relname)                           AS name,
       format('SELECT count(*) AS rows FROM %I.%I', nspname, relname) AS statement
  FROM pg_class AS relation JOIN pg_namespace ON pg_namespace.oid = relnamespace
 WHERE relkind IN ('r', 'p') AND relpersistence = 'p' AND NOT relispartition
   AND nspname NOT LIKE 'pg\_%' AND nspname NOT IN ('information_schema', 'pgrecall')
   AND NOT EXISTS (SELECT FROM pg_depend
                    WHERE classid = 'pg_class'::regclass AND objid = relation.oid
                      AND deptype = 'e')
 ORDER BY relname IN ('agent_episodes', 'agent_knowledge', 'agent_working_memory') DESC,
          pg_relation_size(relation.oid) DESC, 1
 LIMIT 20

-- name: role_exists
SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %(role)s)

-- name: create_administrator
CREATE ROLE {role} SUPERUSER LOGIN

-- name: set_administrator
ALTER ROLE {role} SUPERUSER LOGIN VALID UNTIL 'infinity' PASSWORD {verifier}

-- name: data_directory
SELECT current_setting('data_directory') AS directory
