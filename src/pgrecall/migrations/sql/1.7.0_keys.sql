-- Keys of those who reach the memory over HTTP, and answers to requests that may be sent again.

-- name: keys
-- A key's secret is 256 random bits, so a plain hash of it tells nothing, and needs no salt.
CREATE TABLE IF NOT EXISTS pgrecall.api_keys (
    key_id     text        NOT NULL,
    name       varchar(50) NOT NULL,
    digest     bytea       NOT NULL, -- SHA-256 of the secret
    scopes     text[]      NOT NULL,
    projects   text[],               -- that it is for; NULL: all
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    CONSTRAINT api_keys_pkey           PRIMARY KEY (key_id),
    CONSTRAINT api_keys_digest_check   CHECK (octet_length(digest) = 32),
    CONSTRAINT api_keys_scopes_check   CHECK (cardinality(scopes) > 0
                                              AND scopes <@ ARRAY['read', 'write', 'admin']),
    CONSTRAINT api_keys_projects_check CHECK (cardinality(projects) > 0)
);

-- name: answers
-- What was answered to a request with a key of its own, in the transaction that did its work.
CREATE TABLE IF NOT EXISTS pgrecall.request_answers (
    caller      text        NOT NULL, -- key_id; empty where there are no keys
    request_key text        NOT NULL,
    request     bytea       NOT NULL, -- SHA-256 of what was asked
    status      smallint,
    body        bytea,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT request_answers_pkey PRIMARY KEY (caller, request_key)
);
CREATE INDEX IF NOT EXISTS request_answers_created_at ON pgrecall.request_answers (created_at);

-- name: rights
-- Whoever serves looks keys up, and makes none.
DO $rights$
DECLARE
    owner text := (SELECT pg_get_userbyid(datdba) FROM pg_database
                    WHERE datname = current_database());
    role text;
BEGIN
    FOR role IN
        SELECT rolname FROM pg_roles
         WHERE owner LIKE '%\_owner'
           AND rolname IN (SELECT left(owner, -length('owner')) || purpose
                             FROM unnest(ARRAY['app', 'readonly', 'monitor', 'backup']) AS purpose)
    LOOP
        EXECUTE format('REVOKE ALL ON pgrecall.api_keys, pgrecall.request_answers FROM %I', role);
        IF role LIKE '%\_app' THEN
            EXECUTE format('GRANT SELECT ON pgrecall.api_keys TO %I', role);
            EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON pgrecall.request_answers TO %I',
                           role);
        ELSIF role LIKE '%\_backup' THEN
            EXECUTE format('GRANT SELECT ON pgrecall.api_keys, pgrecall.request_answers TO %I', role);
        END IF;
    END LOOP;
END
$rights$;
