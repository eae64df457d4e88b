-- What the embedded server asks about itself.

-- name: clients
-- Who else is connected, by role and application; background processes are not clients.
SELECT coalesce(usename::text, '') AS role,
       coalesce(application_name, '') AS application,
       count(*) AS connections
FROM pg_stat_activity
WHERE backend_type IN ('client backend', 'walsender')
  AND pid <> pg_backend_pid()
GROUP BY 1, 2
ORDER BY 3 DESC, 1, 2;
