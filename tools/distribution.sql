-- What tools/distribution_check.py asks of a provisioned database.

-- name: tables
SELECT format('%s.%s', n.nspname, c.relname) AS name,
       p.attname IS NOT NULL AS has_project,
       p.attnotnull AS has_always,
       format_type(p.atttypid, p.atttypmod) AS type,
       ARRAY(SELECT a.attname::text FROM pg_attribute AS a
              WHERE a.attrelid = c.oid AND a.attidentity <> '' AND a.atttypid <> 'bigint'::regtype)
           AS short_identities
  FROM pg_class AS c
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
  LEFT JOIN pg_attribute AS p ON p.attrelid = c.oid AND p.attname = 'project_id'
 WHERE n.nspname IN ('public', 'pgrecall') AND c.relkind IN ('r', 'p')
   AND NOT EXISTS (SELECT FROM pg_depend
                    WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
 ORDER BY n.nspname DESC, c.relname

-- name: keys
SELECT format('%s.%s', n.nspname, c.relname) AS table_name, k.relname::text AS name,
       ARRAY(SELECT pg_get_indexdef(i.indexrelid, place, true)
               FROM generate_series(1, i.indnkeyatts) AS place) AS columns
  FROM pg_index AS i
  JOIN pg_class AS k ON k.oid = i.indexrelid
  JOIN pg_class AS c ON c.oid = i.indrelid
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE n.nspname IN ('public', 'pgrecall') AND (i.indisunique OR i.indisexclusion)
 ORDER BY k.relname

-- name: foreign_keys
SELECT conrelid::regclass::text AS table_name, confrelid::regclass::text AS target
  FROM pg_constraint
 WHERE contype = 'f' AND connamespace IN ('public'::regnamespace, 'pgrecall'::regnamespace)
 ORDER BY conname

-- name: triggers
SELECT format('%s.%s', n.nspname, c.relname) AS table_name, t.tgname::text AS name,
       t.tgtype::integer & 1 = 1 AS each_row,
       t.tgtype::integer & 2 = 2 AS before,
       f.proname::text AS function
  FROM pg_trigger AS t
  JOIN pg_class AS c ON c.oid = t.tgrelid
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_proc AS f ON f.oid = t.tgfoid
 WHERE n.nspname IN ('public', 'pgrecall') AND NOT t.tgisinternal
 ORDER BY c.relname, t.tgname

-- name: functions
SELECT f.proname::text AS name,
       pg_get_functiondef(f.oid) AS definition,
       (SELECT lanname::text FROM pg_language WHERE oid = f.prolang) AS language,
       f.prorettype = 'trigger'::regtype AS is_trigger,
       coalesce(f.proargnames[:f.pronargs], '{}') AS arguments
  FROM pg_proc AS f
 WHERE f.pronamespace IN ('public'::regnamespace, 'pgrecall'::regnamespace)
   AND f.prokind IN ('f', 'p')
   AND NOT EXISTS (SELECT FROM pg_depend
                    WHERE classid = 'pg_proc'::regclass AND objid = f.oid AND deptype = 'e')
 ORDER BY f.proname, f.oid
