-- Items: documents that a framework keeps by key, in namespaces.

-- name: items
-- Ordered by the bytes of their labels, the namespaces below one lie beside each other. Vectors are
-- searched one by one, so they may be of any length, and a list of several belongs to one item.
CREATE TABLE IF NOT EXISTS pgrecall.items (
    project_id varchar(50)        NOT NULL,
    namespace  text[] COLLATE "C" NOT NULL,
    key        text   COLLATE "C" NOT NULL,
    value      jsonb              NOT NULL,
    vectors    vector[]           NOT NULL DEFAULT '{}', -- of its texts, to be found by
    model      text,                                     -- what made them; NULL: the caller's own
    ttl        interval,                                 -- how long it lives after a write or read
    expires_at timestamptz,
    created_at timestamptz        NOT NULL DEFAULT now(),
    updated_at timestamptz        NOT NULL DEFAULT now(),
    CONSTRAINT items_pkey            PRIMARY KEY (project_id, namespace, key),
    CONSTRAINT items_namespace_check CHECK (cardinality(namespace) > 0
                                            AND array_position(namespace, NULL) IS NULL),
    CONSTRAINT items_ttl_check       CHECK (ttl > interval '0')
);
-- Numbers that look random would only be tried to compress.
ALTER TABLE pgrecall.items ALTER COLUMN vectors SET STORAGE EXTERNAL;
CREATE INDEX IF NOT EXISTS items_expires_at
    ON pgrecall.items (project_id, expires_at) WHERE expires_at IS NOT NULL;

-- name: rights
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
        EXECUTE format('REVOKE ALL ON pgrecall.items FROM %I', role);
        IF role LIKE '%\_app' THEN
            EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON pgrecall.items TO %I', role);
        ELSIF role LIKE '%\_readonly' OR role LIKE '%\_backup' THEN
            EXECUTE format('GRANT SELECT ON pgrecall.items TO %I', role);
        END IF;
    END LOOP;
END
$rights$;

-- name: record
INSERT INTO public.schema_version (version, description)
VALUES ('1.8.0', 'Items, which frameworks keep by key; misspelt words among very many')
ON CONFLICT (version) DO NOTHING;
