-- Keys of those who reach the memory over HTTP.

-- name: columns
k.key_id, k.name, k.scopes, k.projects, k.created_at, k.expires_at, k.revoked_at

-- name: create
INSERT INTO pgrecall.api_keys AS k (key_id, name, digest, scopes, projects, expires_at)
VALUES (%(key_id)s, %(name)s, %(digest)s, %(scopes)s, %(projects)s, %(expires_at)s)
RETURNING /* include: columns */

-- name: list
SELECT /* include: columns */
FROM pgrecall.api_keys AS k
ORDER BY k.created_at, k.key_id

-- name: revoke
UPDATE pgrecall.api_keys AS k
SET revoked_at = coalesce(k.revoked_at, now())
WHERE k.key_id = %(key_id)s
RETURNING /* include: columns */
