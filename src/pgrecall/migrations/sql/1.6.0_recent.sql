-- Recent episodes: what a burst brings stands beside the vector index, and enters it in the background.

-- name: tables
-- A part of agent_episodes, whose rows are read, changed and deleted as all others, without an index on
-- vectors, which costs most of a write. Columns and checks are the table's own.
CREATE TABLE IF NOT EXISTS pgrecall.recent_episodes (
    CONSTRAINT recent_episodes_pkey PRIMARY KEY (episode_id)
) INHERITS (public.agent_episodes)
    WITH (autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_threshold = 500);
CREATE UNIQUE INDEX IF NOT EXISTS uq_recent_external_id
    ON pgrecall.recent_episodes (project_id, external_id) WHERE external_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS recent_episodes_project_time
    ON pgrecall.recent_episodes (project_id, timestamp DESC);

-- Their codes: one bit for each value, whether it is above 0, all of which a recall looks at.
CREATE TABLE IF NOT EXISTS pgrecall.recent_codes (
    episode_id uuid        NOT NULL,
    model      smallint    NOT NULL,
    project_id varchar(50) NOT NULL,
    code       "bit"       NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_threshold = 500);
ALTER TABLE pgrecall.recent_codes ALTER COLUMN code SET STORAGE PLAIN;
-- A kind of index that leads to single rows only: the rest is always read as a whole.
CREATE INDEX IF NOT EXISTS recent_codes_episode ON pgrecall.recent_codes USING hash (episode_id);

-- name: keys
-- Whether any row may be among the recent ones; costs nothing to ask.
CREATE OR REPLACE FUNCTION pgrecall.any_recent() RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN pg_relation_size('pgrecall.recent_episodes') > 0;

-- Which of new rows stand among the recent ones already, by episode_id or external_id.
CREATE OR REPLACE FUNCTION pgrecall.recent_among(
    p_ids uuid[], p_projects text[], p_external_ids text[]
) RETURNS SETOF uuid
LANGUAGE plpgsql SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
AS $recent_among$
BEGIN
    IF pgrecall.any_recent() THEN
        RETURN QUERY
        SELECT r.episode_id FROM ONLY pgrecall.recent_episodes AS r
         WHERE r.episode_id = ANY (p_ids)
        UNION ALL
        SELECT n.id FROM unnest(p_ids, p_projects, p_external_ids) AS n (id, project, external)
         CROSS JOIN LATERAL (SELECT FROM ONLY pgrecall.recent_episodes AS r
                              WHERE r.project_id = n.project AND r.external_id = n.external
                             OFFSET 0) AS r;
    END IF;
END
$recent_among$;

-- Which of rows that are to be recent stand somewhere already. Keys that no recent row has are entered in
-- the unique indexes of agent_episodes, and their rows deleted again: whoever writes the same key
-- meanwhile waits for the end of this transaction, as for that of any other, and this one for theirs.
CREATE OR REPLACE FUNCTION pgrecall.claim_keys(
    p_ids uuid[], p_projects text[], p_external_ids text[]
) RETURNS SETOF uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
AS $claim_keys$
DECLARE
    v_taken uuid[] := ARRAY(SELECT pgrecall.recent_among(p_ids, p_projects, p_external_ids));
    v_free  uuid[];
BEGIN
    IF p_ids = '{}' THEN
        RETURN;
    END IF;
    PERFORM set_config('pgrecall.moving', 'keys', true);
    WITH claimed AS (
        INSERT INTO public.agent_episodes (episode_id, project_id, perception, reasoning, action,
                                           agent_version, external_id)
        SELECT n.id, n.project, '{}', '{}', '{}', '', n.external
          FROM unnest(p_ids, p_projects, p_external_ids) AS n (id, project, external)
         WHERE n.id <> ALL (v_taken)
        ON CONFLICT DO NOTHING RETURNING episode_id
    )
    SELECT coalesce(array_agg(c.episode_id), '{}') INTO v_free FROM claimed AS c;
    DELETE FROM ONLY public.agent_episodes AS e WHERE e.episode_id = ANY (v_free);
    PERFORM set_config('pgrecall.moving', '', true);
    RETURN QUERY SELECT unnest(p_ids) EXCEPT SELECT unnest(v_free);
END
$claim_keys$;

-- Refuses new rows whose keys came in among the recent ones while they were written.
CREATE OR REPLACE FUNCTION pgrecall.refuse_recent() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan
AS $refuse_recent$
DECLARE
    v_taken uuid;
BEGIN
    SELECT t INTO v_taken
      FROM (SELECT array_agg(n.episode_id) AS ids, array_agg(n.project_id::text) AS projects,
                   array_agg(n.external_id::text) AS external_ids FROM new_rows AS n) AS n,
           pgrecall.recent_among(n.ids, n.projects, n.external_ids) AS t LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'duplicate key: episode % has the episode_id or the external_id of one '
                        'that was recorded in a burst', v_taken
              USING ERRCODE = 'unique_violation', HINT = 'look for it before you insert it',
                    SCHEMA = 'pgrecall', TABLE = 'recent_episodes';
    END IF;
    RETURN NULL;
END
$refuse_recent$;

-- name: upkeep
-- What code_new_episodes() and code_changed_episode() are to the others.
CREATE OR REPLACE FUNCTION pgrecall.code_new_recent() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan
AS $code_new_recent$
BEGIN
    INSERT INTO pgrecall.recent_codes (episode_id, model, project_id, code)
    SELECT n.episode_id, m.model, n.project_id, binary_quantize(n.embedding)
      FROM new_rows AS n JOIN pgrecall.embedding_models AS m
           ON m.serving AND vector_dims(n.embedding) = m.dimensions;
    INSERT INTO pgrecall.embedding_queue (model, kind, id)
    SELECT m.model, 'episodes', n.episode_id
      FROM new_rows AS n JOIN pgrecall.embedding_models AS m ON m.serving
     WHERE n.embedding IS NULL
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$code_new_recent$;

CREATE OR REPLACE FUNCTION pgrecall.code_changed_recent() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
AS $code_changed_recent$
BEGIN
    IF NEW.embedding IS DISTINCT FROM OLD.embedding OR NEW.project_id <> OLD.project_id
       OR NEW.episode_id <> OLD.episode_id THEN
        DELETE FROM pgrecall.recent_codes
         WHERE episode_id = OLD.episode_id
           AND model = (SELECT model FROM pgrecall.embedding_models WHERE serving);
        UPDATE pgrecall.recent_codes SET project_id = NEW.project_id, episode_id = NEW.episode_id
         WHERE episode_id = OLD.episode_id
           AND (NEW.project_id, NEW.episode_id) <> (OLD.project_id, OLD.episode_id);
        INSERT INTO pgrecall.recent_codes (episode_id, model, project_id, code)
        SELECT NEW.episode_id, model, NEW.project_id, binary_quantize(NEW.embedding)
          FROM pgrecall.embedding_models
         WHERE serving AND vector_dims(NEW.embedding) = dimensions;
        INSERT INTO pgrecall.embedding_queue (model, kind, id)
        SELECT model, 'episodes', NEW.episode_id
          FROM pgrecall.embedding_models WHERE serving AND NEW.embedding IS NULL
        ON CONFLICT DO NOTHING;
        DELETE FROM pgrecall.embedding_queue
         WHERE kind = 'episodes' AND id = NEW.episode_id AND NEW.embedding IS NOT NULL
           AND model = (SELECT model FROM pgrecall.embedding_models WHERE serving);
    END IF;
    RETURN NULL;
END
$code_changed_recent$;

CREATE OR REPLACE FUNCTION pgrecall.forget_episode_codes() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
AS $forget_episode_codes$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        TRUNCATE pgrecall.episode_codes, pgrecall.recent_codes;
        RETURN NULL;
    END IF;
    DELETE FROM pgrecall.episode_codes AS c USING old_rows AS o
     WHERE c.project_id = o.project_id AND c.episode_id = o.episode_id;
    IF pgrecall.any_recent() THEN
        DELETE FROM pgrecall.recent_codes AS c USING old_rows AS o
         WHERE c.episode_id = o.episode_id;
    END IF;
    RETURN NULL;
END
$forget_episode_codes$;

-- name: triggers
-- A row that is moved keeps its words; one that only claims its keys has neither words nor a vector.
CREATE OR REPLACE TRIGGER pgrecall_codes_new AFTER INSERT ON public.agent_episodes
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT
    WHEN (current_setting('pgrecall.moving', true) IS DISTINCT FROM 'keys')
    EXECUTE FUNCTION pgrecall.code_new_episodes();
CREATE OR REPLACE TRIGGER pgrecall_codes_gone AFTER DELETE ON public.agent_episodes
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT
    WHEN (current_setting('pgrecall.moving', true) IS DISTINCT FROM 'keys')
    EXECUTE FUNCTION pgrecall.forget_episode_codes();
CREATE OR REPLACE TRIGGER pgrecall_words AFTER INSERT OR UPDATE OR DELETE ON public.agent_episodes
    FOR EACH ROW WHEN (coalesce(current_setting('pgrecall.moving', true), '') = '')
    EXECUTE FUNCTION pgrecall.keep_words('episodes');
CREATE OR REPLACE TRIGGER pgrecall_recent AFTER INSERT ON public.agent_episodes
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT
    WHEN (coalesce(current_setting('pgrecall.moving', true), '') = ''
          AND pg_relation_size('pgrecall.recent_episodes') > 0)
    EXECUTE FUNCTION pgrecall.refuse_recent();
-- Of a statement on agent_episodes its own triggers for statements see recent rows as well; of one on
-- recent rows alone, these.
CREATE OR REPLACE TRIGGER pgrecall_codes_new AFTER INSERT ON pgrecall.recent_episodes
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT
    EXECUTE FUNCTION pgrecall.code_new_recent();
CREATE OR REPLACE TRIGGER pgrecall_codes_changed AFTER UPDATE ON pgrecall.recent_episodes
    FOR EACH ROW EXECUTE FUNCTION pgrecall.code_changed_recent();
CREATE OR REPLACE TRIGGER pgrecall_codes_gone AFTER DELETE ON pgrecall.recent_episodes
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT
    WHEN (coalesce(current_setting('pgrecall.moving', true), '') = '')
    EXECUTE FUNCTION pgrecall.forget_episode_codes();
CREATE OR REPLACE TRIGGER pgrecall_words
    AFTER INSERT OR UPDATE OR DELETE ON pgrecall.recent_episodes
    FOR EACH ROW WHEN (coalesce(current_setting('pgrecall.moving', true), '') = '')
    EXECUTE FUNCTION pgrecall.keep_words('episodes');

-- name: merging
-- Lets some recent rows enter the vector index. Their copies are made first, which is slow and
-- seen by nobody; then, for the milliseconds of the rest, writers to recent rows wait. What was changed
-- meanwhile is left for the next time, so that no change is lost. Returns how many rows were moved; NULL
-- while another merges, or writers did not let it in.
CREATE OR REPLACE FUNCTION pgrecall.merge_recent(p_count integer DEFAULT 100) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
SET lock_timeout = '100ms' SET plan_cache_mode = force_custom_plan
AS $merge_recent$
DECLARE
    v_ids      uuid[];
    v_places   tid[];
    v_versions text[];
    v_columns  text;
    v_moved    uuid[];
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('pgrecall.merge_recent', 0)) THEN
        RETURN NULL;
    END IF;
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'recent rows are merged in transactions of their own, not in one that is %',
              current_setting('transaction_isolation') USING ERRCODE = 'active_sql_transaction';
    END IF;
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO v_columns
      FROM pg_attribute
     WHERE attrelid = 'public.agent_episodes'::regclass AND attnum > 0 AND NOT attisdropped;
    PERFORM set_config('pgrecall.moving', 'rows', true);
    EXECUTE format(
        'WITH batch AS MATERIALIZED (SELECT r.ctid AS place, r.xmin::text AS version, r.* '
        'FROM ONLY pgrecall.recent_episodes AS r LIMIT $1), copied AS ('
        'INSERT INTO public.agent_episodes (%1$s) SELECT %1$s FROM batch '
        'ON CONFLICT DO NOTHING RETURNING episode_id) '
        'SELECT array_agg(b.episode_id), array_agg(b.place), array_agg(b.version) '
        'FROM batch AS b JOIN copied AS c USING (episode_id)', v_columns)
       INTO v_ids, v_places, v_versions USING p_count;
    IF v_ids IS NULL THEN
        PERFORM set_config('pgrecall.moving', '', true);
        RETURN 0;
    END IF;
    FOR attempt IN 1..50 LOOP
        BEGIN
            LOCK TABLE ONLY pgrecall.recent_episodes IN EXCLUSIVE MODE;
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            IF attempt = 50 THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(0.02 * attempt);
        END;
    END LOOP;
    WITH gone AS (
        DELETE FROM ONLY pgrecall.recent_episodes AS r
         USING unnest(v_ids, v_places, v_versions) AS n (id, place, version)
         WHERE r.episode_id = n.id AND r.ctid = n.place AND r.xmin::text = n.version
        RETURNING r.episode_id
    )
    SELECT coalesce(array_agg(g.episode_id), '{}') INTO v_moved FROM gone AS g;
    DELETE FROM ONLY public.agent_episodes AS e
     WHERE e.episode_id = ANY (v_ids) AND e.episode_id <> ALL (v_moved);
    DELETE FROM pgrecall.recent_codes AS c WHERE c.episode_id = ANY (v_moved);
    IF EXISTS (SELECT FROM pgrecall.embedding_models WHERE NOT serving) THEN
        EXECUTE 'INSERT INTO pgrecall.episode_codes (project_id, model, episode_id, code) '
                'SELECT e.project_id, m.model, e.episode_id, '
                'pgrecall.code(e.embedding_beside::vector, m.thresholds) '
                'FROM ONLY public.agent_episodes AS e JOIN pgrecall.embedding_models AS m '
                'ON NOT m.serving AND e.embedding_beside IS NOT NULL '
                'WHERE e.episode_id = ANY ($1) ON CONFLICT DO NOTHING' USING v_moved;
    END IF;
    PERFORM set_config('pgrecall.moving', '', true);
    RETURN cardinality(v_moved);
END
$merge_recent$;

-- name: changing
-- A change of model goes on while there are recent rows, which have their vectors of both as all others.
CREATE OR REPLACE FUNCTION pgrecall.code_beside() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
AS $code_beside$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF NEW.embedding_beside IS NOT DISTINCT FROM OLD.embedding_beside THEN
            RETURN NULL;
        END IF;
    END IF;
    IF TG_ARGV[0] = 'episodes' THEN
        INSERT INTO pgrecall.episode_codes (project_id, model, episode_id, code)
        SELECT NEW.project_id, m.model, NEW.episode_id,
               pgrecall.code(NEW.embedding_beside, m.thresholds)
          FROM pgrecall.embedding_models AS m
         WHERE NOT m.serving AND NEW.embedding_beside IS NOT NULL
        ON CONFLICT (project_id, model, episode_id) DO UPDATE SET code = EXCLUDED.code;
    ELSIF TG_ARGV[0] = 'recent' THEN
        DELETE FROM pgrecall.recent_codes
         WHERE episode_id = NEW.episode_id
           AND model = (SELECT model FROM pgrecall.embedding_models WHERE NOT serving);
        INSERT INTO pgrecall.recent_codes (episode_id, model, project_id, code)
        SELECT NEW.episode_id, m.model, NEW.project_id, binary_quantize(NEW.embedding_beside)
          FROM pgrecall.embedding_models AS m
         WHERE NOT m.serving AND NEW.embedding_beside IS NOT NULL;
    ELSE
        INSERT INTO pgrecall.knowledge_codes (project_id, model, knowledge_id, code)
        SELECT coalesce(NEW.project_id, ''), m.model, NEW.knowledge_id,
               pgrecall.code(NEW.embedding_beside, m.thresholds)
          FROM pgrecall.embedding_models AS m
         WHERE NOT m.serving AND NEW.embedding_beside IS NOT NULL
        ON CONFLICT (project_id, model, knowledge_id) DO UPDATE SET code = EXCLUDED.code;
    END IF;
    RETURN NULL;
END
$code_beside$;

-- Begins a change of model: columns and triggers for the new one, in no time. Returns its number. Of
-- the model that serves, in another storage, vectors are copied. Recent rows inherit the column.
CREATE OR REPLACE FUNCTION pgrecall.begin_beside(
    p_identity text, p_embedder text, p_renderer text, p_revision text, p_dimensions integer,
    p_storage text, p_copied boolean
) RETURNS integer
LANGUAGE plpgsql SET search_path FROM CURRENT
AS $begin_beside$
DECLARE
    v_model integer;
    v_table record;
BEGIN
    UPDATE pgrecall.embedding_models SET copied = p_copied WHERE serving;
    INSERT INTO pgrecall.embedding_models
           (dimensions, thresholds, serving, coded, identity, embedder, renderer, revision, copied)
    VALUES (p_dimensions, pgrecall.thresholds(p_dimensions), false, false, p_identity, p_embedder,
            p_renderer, p_revision, p_copied)
    RETURNING model INTO v_model;
    FOR v_table IN
        SELECT * FROM (VALUES ('public.agent_episodes', 'episodes', 'episodes', 'episode_id'),
                              ('public.agent_knowledge', 'knowledge', 'knowledge', 'knowledge_id'),
                              ('pgrecall.recent_episodes', 'recent', 'episodes', 'episode_id'))
                   AS n (name, codes, kind, id)
    LOOP
        IF v_table.codes <> 'recent' THEN
            EXECUTE format('ALTER TABLE %s ADD COLUMN embedding_beside %I(%s)',
                           v_table.name, p_storage, p_dimensions);
        END IF;
        EXECUTE format(
            'CREATE TRIGGER pgrecall_beside_new AFTER INSERT ON %s '
            'REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT '
            'WHEN (current_setting(''pgrecall.moving'', true) IS DISTINCT FROM ''keys'') '
            'EXECUTE FUNCTION pgrecall.queue_beside(%L, %L)',
            v_table.name, v_table.kind, v_table.id);
        EXECUTE format(
            'CREATE TRIGGER pgrecall_beside_changed AFTER UPDATE%s ON %s '
            'FOR EACH ROW EXECUTE FUNCTION pgrecall.code_beside(%L)',
            CASE WHEN p_copied THEN ' OR INSERT' END, v_table.name, v_table.codes);
        IF p_copied THEN
            EXECUTE format(
                'CREATE TRIGGER pgrecall_beside_copied BEFORE INSERT OR UPDATE ON %s '
                'FOR EACH ROW EXECUTE FUNCTION pgrecall.copy_beside()', v_table.name);
        END IF;
    END LOOP;
    RETURN v_model;
END
$begin_beside$;

-- Ends a change of model: what stands beside goes, the old one or the new one. Returns its number, whose
-- codes are to be deleted.
CREATE OR REPLACE FUNCTION pgrecall.end_beside() RETURNS integer
LANGUAGE plpgsql SET search_path FROM CURRENT
AS $end_beside$
DECLARE
    v_model integer;
    v_name  text;
BEGIN
    FOREACH v_name IN ARRAY ARRAY['public.agent_episodes', 'public.agent_knowledge',
                                  'pgrecall.recent_episodes'] LOOP
        EXECUTE format('DROP TRIGGER IF EXISTS pgrecall_beside_new ON %s', v_name);
        EXECUTE format('DROP TRIGGER IF EXISTS pgrecall_beside_changed ON %s', v_name);
        EXECUTE format('DROP TRIGGER IF EXISTS pgrecall_beside_copied ON %s', v_name);
    END LOOP;
    ALTER TABLE public.agent_episodes DROP COLUMN IF EXISTS embedding_beside;
    ALTER TABLE public.agent_knowledge DROP COLUMN IF EXISTS embedding_beside;
    UPDATE pgrecall.embedding_models SET copied = false WHERE serving;
    DELETE FROM pgrecall.embedding_models WHERE NOT serving RETURNING model INTO v_model;
    DELETE FROM pgrecall.recent_codes WHERE model = v_model;
    RETURN v_model;
END
$end_beside$;

-- name: rights
-- Recent rows are read as all others, and brought by agents; their codes are kept by triggers.
REVOKE ALL ON FUNCTION pgrecall.claim_keys(uuid[], text[], text[]), pgrecall.refuse_recent(),
    pgrecall.code_new_recent(), pgrecall.code_changed_recent(), pgrecall.merge_recent(integer)
    FROM PUBLIC;
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
        EXECUTE format('REVOKE ALL ON pgrecall.recent_episodes, pgrecall.recent_codes FROM %I', role);
        IF role NOT LIKE '%\_monitor' THEN
            EXECUTE format('GRANT SELECT ON pgrecall.recent_episodes, pgrecall.recent_codes TO %I',
                           role);
        END IF;
        IF role LIKE '%\_app' THEN
            EXECUTE format('GRANT INSERT ON pgrecall.recent_episodes TO %I', role);
            -- Who merges tidies up.
            EXECUTE format('GRANT MAINTAIN ON pgrecall.recent_episodes, pgrecall.recent_codes TO %I',
                           role);
            EXECUTE format('GRANT EXECUTE ON FUNCTION pgrecall.claim_keys(uuid[], text[], text[]), '
                           'pgrecall.merge_recent(integer) TO %I', role);
        END IF;
    END LOOP;
END
$rights$;
