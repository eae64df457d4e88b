-- Embeddings: which model made them, which are still to be made, and a second column of vectors
-- beside the first while one model follows another.

-- name: models
-- What a vector is of: the model and revision that made it, and what made the text that it read. All
-- vectors of a column are of one of these rows; those that serve are of the column "embedding".
ALTER TABLE pgrecall.embedding_models
    ADD COLUMN IF NOT EXISTS identity text,  -- provider and model; NULL: nobody said so far
    ADD COLUMN IF NOT EXISTS revision text,  -- of its weights; NULL where the embedder tells of none
    ADD COLUMN IF NOT EXISTS embedder text,  -- by which name it is had; NULL if only as an object
    ADD COLUMN IF NOT EXISTS renderer text,  -- what makes the texts, with its version
    ADD COLUMN IF NOT EXISTS queued boolean NOT NULL DEFAULT false, -- all rows, when it was prepared
    ADD COLUMN IF NOT EXISTS copied boolean NOT NULL DEFAULT false, -- from the model beside, not made
    ADD COLUMN IF NOT EXISTS served_at timestamptz; -- when it took over

-- Codes the same vector in half precision.
CREATE OR REPLACE FUNCTION pgrecall.code(p_vector halfvec, p_thresholds vector[]) RETURNS "bit"
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path FROM CURRENT
AS $code$
    SELECT pgrecall.code(p_vector::vector, p_thresholds)
$code$;

-- What agents asked for, to compare two models by.
ALTER TABLE pgrecall.recall_samples ADD COLUMN IF NOT EXISTS asked text;

-- Says what makes the vectors that serve, or what of it nobody said so far: by which name it is had,
-- and of which revision it is.
CREATE OR REPLACE FUNCTION pgrecall.name_model(
    p_identity text, p_embedder text, p_renderer text, p_revision text
) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT
AS $name_model$
    WITH named AS (
        UPDATE pgrecall.embedding_models
           SET identity = p_identity, renderer = p_renderer,
               embedder = coalesce(p_embedder, embedder), revision = coalesce(revision, p_revision)
         WHERE serving
           AND (identity IS NULL
                OR identity = p_identity AND renderer = p_renderer
                   AND (embedder IS NULL AND p_embedder IS NOT NULL
                        OR revision IS NULL AND p_revision IS NOT NULL))
        RETURNING model
    )
    SELECT EXISTS (SELECT FROM named)
$name_model$;

-- Whether a model serves. It is asked after the tables were read or locked for writing: from then on
-- another cannot take its place before the transaction ends.
CREATE OR REPLACE FUNCTION pgrecall.check_model(p_model integer) RETURNS boolean
LANGUAGE plpgsql SET search_path FROM CURRENT
AS $check_model$
BEGIN
    IF p_model IS NULL
       OR EXISTS (SELECT FROM pgrecall.embedding_models WHERE model = p_model AND serving) THEN
        RETURN true;
    END IF;
    RAISE EXCEPTION 'the vectors are of model %, which does not serve', p_model
          USING ERRCODE = 'PR001';
END
$check_model$;

-- name: queue
-- Vectors that are to be made. Whoever makes them takes some for a while; if he does not come back,
-- another may. A text that an embedder refuses stays, with its reason, until somebody looks after it.
CREATE TABLE IF NOT EXISTS pgrecall.embedding_queue (
    model       smallint    NOT NULL REFERENCES pgrecall.embedding_models ON DELETE CASCADE,
    kind        varchar(10) NOT NULL, -- episodes, knowledge
    id          uuid        NOT NULL,
    turn        bigint      GENERATED ALWAYS AS IDENTITY,
    since       timestamptz NOT NULL DEFAULT now(),
    taken_until timestamptz NOT NULL DEFAULT '-infinity',
    attempts    integer     NOT NULL DEFAULT 0,
    refused     text,
    CONSTRAINT embedding_queue_pkey PRIMARY KEY (model, kind, id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
CREATE INDEX IF NOT EXISTS embedding_queue_turns ON pgrecall.embedding_queue (model, turn)
    WHERE refused IS NULL;

-- How many vectors were stored in each minute.
CREATE TABLE IF NOT EXISTS pgrecall.embedding_work (
    model  smallint    NOT NULL REFERENCES pgrecall.embedding_models ON DELETE CASCADE,
    minute timestamptz NOT NULL,
    stored bigint      NOT NULL,
    CONSTRAINT embedding_work_pkey PRIMARY KEY (model, minute)
) WITH (fillfactor = 50);

-- The column that holds the vectors of a model.
CREATE OR REPLACE FUNCTION pgrecall.column_of(p_model integer) RETURNS text
LANGUAGE sql SET search_path FROM CURRENT
AS $column_of$
    SELECT CASE WHEN serving THEN 'embedding' ELSE 'embedding_beside' END
      FROM pgrecall.embedding_models WHERE model = p_model
$column_of$;

-- Takes texts whose vectors are to be made; those whose rows are gone, or have theirs, are forgotten.
CREATE OR REPLACE FUNCTION pgrecall.take_texts(p_model integer, p_count integer, p_lease interval)
RETURNS TABLE (kind varchar, id uuid, first jsonb, second jsonb, third jsonb, description text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan = off
AS $take_texts$
#variable_conflict use_column
DECLARE
    v_column text := pgrecall.column_of(p_model);
    v_kinds  text[];
    v_ids    uuid[];
BEGIN
    WITH taken AS (
        UPDATE pgrecall.embedding_queue AS q
           SET taken_until = clock_timestamp() + p_lease, attempts = q.attempts + 1
          FROM (SELECT model, kind, id FROM pgrecall.embedding_queue
                 WHERE model = p_model AND refused IS NULL AND taken_until < clock_timestamp()
                 ORDER BY turn LIMIT p_count FOR UPDATE SKIP LOCKED) AS n
         WHERE q.model = n.model AND q.kind = n.kind AND q.id = n.id
        RETURNING q.kind, q.id, q.turn
    )
    SELECT array_agg(t.kind ORDER BY t.turn), array_agg(t.id ORDER BY t.turn)
      INTO v_kinds, v_ids FROM taken AS t;
    EXECUTE format(
        'DELETE FROM pgrecall.embedding_queue AS q USING unnest($2, $3) AS t (kind, id) '
        'WHERE q.model = $1 AND q.kind = t.kind AND q.id = t.id '
        'AND NOT EXISTS (SELECT FROM public.agent_episodes AS e WHERE t.kind = ''episodes'' '
        'AND e.episode_id = t.id AND e.%1$I IS NULL) '
        'AND NOT EXISTS (SELECT FROM public.agent_knowledge AS k WHERE t.kind = ''knowledge'' '
        'AND k.knowledge_id = t.id AND k.%1$I IS NULL)', v_column)
      USING p_model, v_kinds, v_ids;
    RETURN QUERY EXECUTE format(
        'SELECT t.kind::varchar, t.id, coalesce(e.perception, k.content), e.reasoning, e.action, '
        'k.description FROM unnest($1, $2) WITH ORDINALITY AS t (kind, id, place) '
        'LEFT JOIN public.agent_episodes AS e '
        'ON t.kind = ''episodes'' AND e.episode_id = t.id AND e.%1$I IS NULL '
        'LEFT JOIN public.agent_knowledge AS k '
        'ON t.kind = ''knowledge'' AND k.knowledge_id = t.id AND k.%1$I IS NULL '
        'WHERE e.episode_id IS NOT NULL OR k.knowledge_id IS NOT NULL ORDER BY t.place', v_column)
      USING v_kinds, v_ids;
END
$take_texts$;

-- Stores vectors that were made, says of others why they were refused, and forgets those with neither:
-- of nothing there is no vector. Returns how many were stored.
CREATE OR REPLACE FUNCTION pgrecall.store_vectors(
    p_model integer, p_kinds text[], p_ids uuid[], p_vectors vector[], p_refused text[]
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan
AS $store_vectors$
DECLARE
    v_column text;
    v_stored bigint := 0;
    v_count  bigint;
BEGIN
    -- From here on the columns keep their models.
    LOCK TABLE public.agent_episodes, public.agent_knowledge IN ROW EXCLUSIVE MODE;
    v_column := pgrecall.column_of(p_model);
    IF v_column IS NULL THEN
        RETURN 0; -- the model was given up meanwhile
    END IF;
    IF 'episodes' = ANY (p_kinds) THEN
        EXECUTE format(
            'UPDATE public.agent_episodes AS t SET %1$I = n.vector '
            'FROM unnest($1, $2, $3) AS n (kind, id, vector) '
            'WHERE n.kind = ''episodes'' AND n.vector IS NOT NULL AND t.episode_id = n.id '
            'AND t.%1$I IS NULL', v_column) USING p_kinds, p_ids, p_vectors;
        GET DIAGNOSTICS v_stored = ROW_COUNT;
    END IF;
    IF 'knowledge' = ANY (p_kinds) THEN
        EXECUTE format(
            'UPDATE public.agent_knowledge AS t SET %1$I = n.vector '
            'FROM unnest($1, $2, $3) AS n (kind, id, vector) '
            'WHERE n.kind = ''knowledge'' AND n.vector IS NOT NULL AND t.knowledge_id = n.id '
            'AND t.%1$I IS NULL', v_column) USING p_kinds, p_ids, p_vectors;
        GET DIAGNOSTICS v_count = ROW_COUNT;
        v_stored := v_stored + v_count;
    END IF;
    INSERT INTO pgrecall.embedding_work AS w (model, minute, stored)
    SELECT p_model, date_trunc('minute', clock_timestamp()), v_stored WHERE v_stored > 0
    ON CONFLICT (model, minute) DO UPDATE SET stored = w.stored + EXCLUDED.stored;
    DELETE FROM pgrecall.embedding_work
     WHERE model = p_model AND minute < clock_timestamp() - interval '1 hour';
    UPDATE pgrecall.embedding_queue AS q SET refused = n.refused
      FROM unnest(p_kinds, p_ids, p_refused) AS n (kind, id, refused)
     WHERE q.model = p_model AND q.kind = n.kind AND q.id = n.id AND n.refused IS NOT NULL;
    DELETE FROM pgrecall.embedding_queue AS q
     USING unnest(p_kinds, p_ids, p_refused) AS n (kind, id, refused)
     WHERE q.model = p_model AND q.kind = n.kind AND q.id = n.id AND n.refused IS NULL;
    RETURN v_stored;
END
$store_vectors$;

-- Gives texts back that were taken, to be taken again after a while.
CREATE OR REPLACE FUNCTION pgrecall.return_texts(
    p_model integer, p_kinds text[], p_ids uuid[], p_after interval
) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT
AS $return_texts$
    UPDATE pgrecall.embedding_queue AS q SET taken_until = clock_timestamp() + p_after
      FROM unnest(p_kinds, p_ids) AS n (kind, id)
     WHERE q.model = p_model AND q.kind = n.kind AND q.id = n.id
$return_texts$;

-- Lets texts that were refused be tried again.
CREATE OR REPLACE FUNCTION pgrecall.retry_refused() RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT
AS $retry_refused$
    WITH again AS (
        UPDATE pgrecall.embedding_queue SET refused = NULL, taken_until = '-infinity'
         WHERE refused IS NOT NULL RETURNING 1
    )
    SELECT count(*) FROM again
$retry_refused$;

-- name: upkeep
-- A row without a vector is to get one; its codes and its place in the queue follow it.
CREATE OR REPLACE FUNCTION pgrecall.code_new_episodes() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan
AS $code_new_episodes$
BEGIN
    INSERT INTO pgrecall.episode_codes (project_id, model, episode_id, code)
    SELECT n.project_id, m.model, n.episode_id, pgrecall.code(n.embedding, m.thresholds)
      FROM new_rows AS n JOIN pgrecall.embedding_models AS m
           ON m.serving AND vector_dims(n.embedding) = m.dimensions
    ON CONFLICT (project_id, model, episode_id) DO UPDATE SET code = EXCLUDED.code;
    INSERT INTO pgrecall.embedding_queue (model, kind, id)
    SELECT m.model, 'episodes', n.episode_id
      FROM new_rows AS n JOIN pgrecall.embedding_models AS m ON m.serving
     WHERE n.embedding IS NULL
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$code_new_episodes$;

CREATE OR REPLACE FUNCTION pgrecall.code_changed_episode() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan
AS $code_changed_episode$
BEGIN
    -- Asked here rather than in the trigger, which would forbid to change the column's type.
    IF NEW.embedding IS DISTINCT FROM OLD.embedding OR NEW.project_id <> OLD.project_id
       OR NEW.episode_id <> OLD.episode_id THEN
        DELETE FROM pgrecall.episode_codes
         WHERE project_id = OLD.project_id AND episode_id = OLD.episode_id
           AND model = (SELECT model FROM pgrecall.embedding_models WHERE serving);
        UPDATE pgrecall.episode_codes SET project_id = NEW.project_id, episode_id = NEW.episode_id
         WHERE project_id = OLD.project_id AND episode_id = OLD.episode_id
           AND (NEW.project_id, NEW.episode_id) <> (OLD.project_id, OLD.episode_id);
        INSERT INTO pgrecall.episode_codes (project_id, model, episode_id, code)
        SELECT NEW.project_id, model, NEW.episode_id,
               pgrecall.code(NEW.embedding, thresholds)
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
$code_changed_episode$;

CREATE OR REPLACE FUNCTION pgrecall.code_new_knowledge() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan
AS $code_new_knowledge$
BEGIN
    INSERT INTO pgrecall.knowledge_codes (project_id, model, knowledge_id, code)
    SELECT coalesce(n.project_id, ''), m.model, n.knowledge_id,
           pgrecall.code(n.embedding, m.thresholds)
      FROM new_rows AS n JOIN pgrecall.embedding_models AS m
           ON m.serving AND vector_dims(n.embedding) = m.dimensions
    ON CONFLICT (project_id, model, knowledge_id) DO UPDATE SET code = EXCLUDED.code;
    INSERT INTO pgrecall.embedding_queue (model, kind, id)
    SELECT m.model, 'knowledge', n.knowledge_id
      FROM new_rows AS n JOIN pgrecall.embedding_models AS m ON m.serving
     WHERE n.embedding IS NULL
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$code_new_knowledge$;

CREATE OR REPLACE FUNCTION pgrecall.code_changed_knowledge() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan
AS $code_changed_knowledge$
BEGIN
    IF NEW.embedding IS DISTINCT FROM OLD.embedding
       OR NEW.project_id IS DISTINCT FROM OLD.project_id
       OR NEW.knowledge_id <> OLD.knowledge_id THEN
        DELETE FROM pgrecall.knowledge_codes
         WHERE project_id = coalesce(OLD.project_id, '') AND knowledge_id = OLD.knowledge_id
           AND model = (SELECT model FROM pgrecall.embedding_models WHERE serving);
        UPDATE pgrecall.knowledge_codes
           SET project_id = coalesce(NEW.project_id, ''), knowledge_id = NEW.knowledge_id
         WHERE project_id = coalesce(OLD.project_id, '') AND knowledge_id = OLD.knowledge_id
           AND (NEW.project_id, NEW.knowledge_id) IS DISTINCT FROM (OLD.project_id,
                                                                    OLD.knowledge_id);
        INSERT INTO pgrecall.knowledge_codes (project_id, model, knowledge_id, code)
        SELECT coalesce(NEW.project_id, ''), model, NEW.knowledge_id,
               pgrecall.code(NEW.embedding, thresholds)
          FROM pgrecall.embedding_models
         WHERE serving AND vector_dims(NEW.embedding) = dimensions;
        INSERT INTO pgrecall.embedding_queue (model, kind, id)
        SELECT model, 'knowledge', NEW.knowledge_id
          FROM pgrecall.embedding_models WHERE serving AND NEW.embedding IS NULL
        ON CONFLICT DO NOTHING;
        DELETE FROM pgrecall.embedding_queue
         WHERE kind = 'knowledge' AND id = NEW.knowledge_id AND NEW.embedding IS NOT NULL
           AND model = (SELECT model FROM pgrecall.embedding_models WHERE serving);
    END IF;
    RETURN NULL;
END
$code_changed_knowledge$;

-- name: waiting
-- What waits for its vector, where somebody makes them; refused texts are told apart.
CREATE OR REPLACE FUNCTION pgrecall.embeddings_waiting()
RETURNS TABLE (table_name text, waiting bigint, oldest timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $embeddings_waiting$
    SELECT n.table_name, count(q.id), min(q.since)
      FROM (VALUES ('agent_episodes', 'episodes'), ('agent_knowledge', 'knowledge'))
               AS n (table_name, kind)
      LEFT JOIN pgrecall.embedding_models AS m ON m.serving AND m.identity IS NOT NULL
      LEFT JOIN pgrecall.embedding_queue AS q
             ON q.model = m.model AND q.kind = n.kind AND q.refused IS NULL
     GROUP BY n.table_name
$embeddings_waiting$;

-- name: drop_no_embedding_index
-- The queue tells it now; an index on the column would stay with the old one when models change.
DROP INDEX CONCURRENTLY IF EXISTS public.idx_episodes_no_embedding;

-- name: beside
-- While a model stands beside the one that serves: what is new waits for its vector, and a vector that
-- comes has its code. A model is followed and preceded by columns of the same name, so these never
-- change.
CREATE OR REPLACE FUNCTION pgrecall.queue_beside() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
AS $queue_beside$
BEGIN
    EXECUTE format(
        'INSERT INTO pgrecall.embedding_queue (model, kind, id) '
        'SELECT m.model, %L, n.%I FROM new_rows AS n '
        'JOIN pgrecall.embedding_models AS m ON NOT m.serving AND NOT m.copied '
        'WHERE n.embedding_beside IS NULL ON CONFLICT DO NOTHING', TG_ARGV[0], TG_ARGV[1]);
    RETURN NULL;
END
$queue_beside$;

-- Where the vectors beside are copies, a row has both from the first.
CREATE OR REPLACE FUNCTION pgrecall.copy_beside() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT
AS $copy_beside$
BEGIN
    NEW.embedding_beside := NEW.embedding;
    RETURN NEW;
END
$copy_beside$;

-- name: changing
-- How a change begins and ends, and how vectors that come are coded, stands in 1.6.0, where recent rows
-- take part in it.

-- Queues what was there before a change began. An update finds room for the new version of a row in its
-- page once the version before it has gone; so the rows of a page take turns, one in each round, and
-- only the first of a full page has to leave it and enter every index anew.
CREATE OR REPLACE FUNCTION pgrecall.queue_all(p_model integer) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT
AS $queue_all$
DECLARE
    v_copied boolean := (SELECT copied FROM pgrecall.embedding_models WHERE model = p_model);
    v_queued bigint;
BEGIN
    INSERT INTO pgrecall.embedding_queue (model, kind, id)
    SELECT p_model, n.kind, n.id
      FROM (SELECT 'knowledge' AS kind, knowledge_id AS id, ctid::text::point AS place,
                   embedding IS NOT NULL AS has_vector
              FROM public.agent_knowledge WHERE embedding_beside IS NULL
            UNION ALL
            SELECT 'episodes', episode_id, ctid::text::point, embedding IS NOT NULL
              FROM public.agent_episodes WHERE embedding_beside IS NULL) AS n
     WHERE n.has_vector OR NOT v_copied
     ORDER BY n.kind DESC, n.place[1], n.place[0]
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS v_queued = ROW_COUNT;
    UPDATE pgrecall.embedding_models SET queued = true WHERE model = p_model;
    RETURN v_queued;
END
$queue_all$;

-- Copies some of the queued vectors into the other storage; returns how many rows it took.
CREATE OR REPLACE FUNCTION pgrecall.copy_vectors(p_model integer, p_count integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET enable_seqscan = off
AS $copy_vectors$
DECLARE
    v_episodes  uuid[];
    v_knowledge uuid[];
BEGIN
    -- From here on the columns keep their models.
    LOCK TABLE public.agent_episodes, public.agent_knowledge IN ROW EXCLUSIVE MODE;
    IF NOT EXISTS (SELECT FROM pgrecall.embedding_models
                    WHERE model = p_model AND copied AND NOT serving) THEN
        RETURN 0;
    END IF;
    WITH taken AS (
        DELETE FROM pgrecall.embedding_queue AS q
         USING (SELECT model, kind, id FROM pgrecall.embedding_queue
                 WHERE model = p_model AND refused IS NULL
                 ORDER BY turn LIMIT p_count FOR UPDATE SKIP LOCKED) AS n
         WHERE q.model = n.model AND q.kind = n.kind AND q.id = n.id
        RETURNING q.kind, q.id
    )
    SELECT coalesce(array_agg(id) FILTER (WHERE kind = 'episodes'), '{}'),
           coalesce(array_agg(id) FILTER (WHERE kind = 'knowledge'), '{}')
      INTO v_episodes, v_knowledge FROM taken;
    UPDATE public.agent_episodes SET embedding_beside = embedding
     WHERE episode_id = ANY (v_episodes) AND embedding_beside IS NULL;
    UPDATE public.agent_knowledge SET embedding_beside = embedding
     WHERE knowledge_id = ANY (v_knowledge) AND embedding_beside IS NULL;
    RETURN cardinality(v_episodes) + cardinality(v_knowledge);
END
$copy_vectors$;

-- Lets the model beside serve, and the one that served stand beside; done twice it is undone. Of the
-- indexes only names change. Who waits for a lock makes others wait: lock_timeout is to be short.
CREATE OR REPLACE FUNCTION pgrecall.swap_models() RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT
AS $swap_models$
DECLARE
    v_served integer := (SELECT model FROM pgrecall.embedding_models WHERE serving);
    v_name   text;
BEGIN
    LOCK TABLE public.agent_episodes, public.agent_knowledge IN ACCESS EXCLUSIVE MODE;
    FOREACH v_name IN ARRAY ARRAY['agent_episodes', 'agent_knowledge'] LOOP
        EXECUTE format('ALTER TABLE public.%I RENAME embedding TO embedding_aside', v_name);
        EXECUTE format('ALTER TABLE public.%I RENAME embedding_beside TO embedding', v_name);
        EXECUTE format('ALTER TABLE public.%I RENAME embedding_aside TO embedding_beside', v_name);
    END LOOP;
    FOREACH v_name IN ARRAY ARRAY['idx_episodes_embedding', 'idx_knowledge_embedding'] LOOP
        EXECUTE format('ALTER INDEX IF EXISTS public.%I RENAME TO %I', v_name, v_name || '_aside');
        EXECUTE format('ALTER INDEX IF EXISTS public.%I RENAME TO %I', v_name || '_beside', v_name);
        EXECUTE format('ALTER INDEX IF EXISTS public.%I RENAME TO %I', v_name || '_aside',
                       v_name || '_beside');
    END LOOP;
    -- Copies are not made: what waits for its vector gets that of the model that serves.
    UPDATE pgrecall.embedding_queue SET model = m.model
      FROM pgrecall.embedding_models AS m WHERE embedding_queue.model = v_served
       AND m.copied AND m.model <> v_served;
    UPDATE pgrecall.embedding_models SET serving = false WHERE model = v_served;
    UPDATE pgrecall.embedding_models SET serving = true, served_at = now()
     WHERE model <> v_served;
    -- Queries of the one are none of the other.
    DELETE FROM pgrecall.recall_samples;
    -- Other sessions hold plans for the type that the column had; whose function changes plans anew.
    FOR v_name IN
        SELECT DISTINCT tgfoid::regprocedure::text FROM pg_trigger
         WHERE NOT tgisinternal AND tgfoid IN (SELECT oid FROM pg_proc
                                                WHERE pronamespace = 'pgrecall'::regnamespace)
    LOOP
        EXECUTE format('ALTER FUNCTION %s COST 100', v_name);
    END LOOP;
END
$swap_models$;

-- name: fill
-- What has no vector so far. Where nobody makes vectors, they wait until somebody does.
INSERT INTO pgrecall.embedding_queue (model, kind, id)
SELECT m.model, n.kind, n.id
  FROM pgrecall.embedding_models AS m
 CROSS JOIN (SELECT 'episodes' AS kind, episode_id AS id FROM public.agent_episodes
              WHERE embedding IS NULL
             UNION ALL
             SELECT 'knowledge', knowledge_id FROM public.agent_knowledge
              WHERE embedding IS NULL) AS n
 WHERE m.serving
ON CONFLICT DO NOTHING;

-- name: rights
-- Agents and workers take texts and store vectors by these functions alone.
REVOKE ALL ON FUNCTION
    pgrecall.name_model(text, text, text, text), pgrecall.take_texts(integer, integer, interval),
    pgrecall.store_vectors(integer, text[], uuid[], vector[], text[]),
    pgrecall.return_texts(integer, text[], uuid[], interval), pgrecall.retry_refused(),
    pgrecall.copy_vectors(integer, integer) FROM PUBLIC;
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
        EXECUTE format('REVOKE ALL ON pgrecall.embedding_queue, pgrecall.embedding_work FROM %I',
                       role);
        EXECUTE format('GRANT SELECT ON pgrecall.embedding_models, pgrecall.embedding_queue, '
                       'pgrecall.embedding_work TO %I', role);
        IF role LIKE '%\_app' THEN
            EXECUTE format(
                'GRANT EXECUTE ON FUNCTION pgrecall.name_model(text, text, text, text), '
                'pgrecall.take_texts(integer, integer, interval), '
                'pgrecall.store_vectors(integer, text[], uuid[], vector[], text[]), '
                'pgrecall.return_texts(integer, text[], uuid[], interval), '
                'pgrecall.retry_refused(), pgrecall.copy_vectors(integer, integer) TO %I', role);
        END IF;
    END LOOP;
END
$rights$;

-- name: record
INSERT INTO public.schema_version (version, description)
VALUES ('1.5.0', 'Models of embeddings, a queue of those to be made, and a second column beside')
ON CONFLICT (version) DO NOTHING;
