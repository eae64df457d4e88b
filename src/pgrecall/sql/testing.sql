-- Databases for tests: copies of one that was provisioned once.

-- name: clone
CREATE DATABASE {clone} TEMPLATE {template} OWNER {owner}

-- name: close_to_public
REVOKE ALL ON DATABASE {clone} FROM PUBLIC

-- name: let_in
GRANT CONNECT, TEMPORARY ON DATABASE {clone} TO {role}

-- name: role_settings
SELECT r.rolname AS role, split_part(c.setting, '=', 1) AS name,
       substr(c.setting, strpos(c.setting, '=') + 1) AS value
FROM pg_db_role_setting AS s
JOIN pg_database AS d ON d.oid = s.setdatabase
JOIN pg_roles AS r ON r.oid = s.setrole
CROSS JOIN LATERAL unnest(s.setconfig) AS c(setting)
WHERE d.datname = %(template)s

-- name: set_role_setting
ALTER ROLE {role} IN DATABASE {clone} SET {name} = {value}

-- name: drop
DROP DATABASE IF EXISTS {clone} WITH (FORCE)
