-- Bulk import: vector indexes that are put off while rows are loaded.

-- name: deferred
-- Indexes that an import has dropped and is to build again, so that whoever comes after it can.
CREATE TABLE IF NOT EXISTS pgrecall.deferred_indexes (
    name       name        NOT NULL,
    definition text        NOT NULL, -- the statement that makes it
    since      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT deferred_indexes_pkey PRIMARY KEY (name)
);

-- name: timing
-- How long a vector takes here, in milliseconds: in the building of an index of so many by one
-- process, and when it comes to such an index later. What is made for that is gone at the end.
CREATE OR REPLACE FUNCTION pgrecall.time_index(
    p_rows integer, OUT building_ms double precision, OUT keeping_ms double precision
)
LANGUAGE plpgsql SET search_path FROM CURRENT SET max_parallel_maintenance_workers = 0
AS $time_index$
DECLARE
    v_more  integer := ceil(p_rows / 4.0);
    v_begun timestamptz;
BEGIN
    CREATE TABLE pgrecall.index_sample AS
    SELECT embedding FROM public.agent_episodes WHERE embedding IS NOT NULL LIMIT p_rows + v_more;
    CREATE TABLE pgrecall.index_sample_more AS
    WITH more AS (
        DELETE FROM pgrecall.index_sample WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM pgrecall.index_sample LIMIT v_more)) RETURNING embedding)
    SELECT embedding FROM more;
    v_begun := clock_timestamp();
    EXECUTE format('CREATE INDEX ON pgrecall.index_sample USING hnsw (embedding %s)',
                   (SELECT format_type(atttypid, NULL) || '_cosine_ops' FROM pg_attribute
                     WHERE attrelid = 'public.agent_episodes'::regclass
                       AND attname = 'embedding'));
    building_ms := extract(epoch FROM clock_timestamp() - v_begun) * 1000 / p_rows;
    v_begun := clock_timestamp();
    INSERT INTO pgrecall.index_sample SELECT embedding FROM pgrecall.index_sample_more;
    keeping_ms := extract(epoch FROM clock_timestamp() - v_begun) * 1000 / v_more;
    DROP TABLE pgrecall.index_sample, pgrecall.index_sample_more;
END
$time_index$;
REVOKE ALL ON FUNCTION pgrecall.time_index(integer) FROM PUBLIC;

-- name: deferred_rights
DO $deferred_rights$
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
        EXECUTE format('REVOKE ALL ON pgrecall.deferred_indexes FROM %I', role);
        EXECUTE format('GRANT SELECT ON pgrecall.deferred_indexes TO %I', role);
        EXECUTE format('REVOKE ALL ON FUNCTION pgrecall.time_index(integer) FROM %I', role);
    END LOOP;
END
$deferred_rights$;
