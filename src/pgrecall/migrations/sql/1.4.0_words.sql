-- Words of the memory: what they are, how they follow their rows, and how often they occur.

-- name: languages
-- Languages of the memory: their words are reduced to stems, and their stop words left out.
CREATE TABLE IF NOT EXISTS pgrecall.languages (
    language regconfig PRIMARY KEY
);
INSERT INTO pgrecall.languages (language)
SELECT 'pg_catalog.english' WHERE NOT EXISTS (SELECT FROM pgrecall.languages);

-- name: words
-- Takes apart what the parser of PostgreSQL would keep together or read as a sign.
CREATE OR REPLACE FUNCTION pgrecall.parts(p_text text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN regexp_replace(
    CASE WHEN p_text ~ '[[:lower:]][[:upper:]]'
         THEN regexp_replace(p_text, '([[:lower:]])([[:upper:]])', '\1 \2', 'g')
         ELSE p_text END,
    '[-_./:@#\\?=&+~%]', ' ', 'g');

-- Identifiers, numbers, paths and names of code, whole.
CREATE OR REPLACE FUNCTION pgrecall.identifiers(p_text text) RETURNS tsvector
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN array_to_tsvector(ARRAY(
    SELECT DISTINCT lower(found[1])
      FROM regexp_matches(p_text, '([[:alnum:]]+(?:[-_./:@#]+[[:alnum:]]+)+'
                                  '|[[:lower:]]+[[:upper:]][[:alnum:]]*)', 'g') AS found
     WHERE length(found[1]) <= 100));

-- The words of a text: stems in the language whose stop words it has most of, and identifiers.
CREATE OR REPLACE FUNCTION pgrecall.words(p_text text) RETURNS tsvector
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (SELECT words
          FROM (SELECT language, to_tsvector(language, pgrecall.parts(p_text)) AS words
                  FROM pgrecall.languages OFFSET 0) AS readings
         ORDER BY length(words), language LIMIT 1)
       || pgrecall.identifiers(p_text);

-- How many words a text has.
CREATE OR REPLACE FUNCTION pgrecall.tokens(p_words tsvector) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (SELECT coalesce(sum(coalesce(cardinality(positions), 1)), 0) FROM unnest(p_words));

-- Where a text belongs: to its kind, and to its kind in its project. No word begins like that.
CREATE OR REPLACE FUNCTION pgrecall.scopes(p_kind text, p_project text) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ARRAY['@' || p_kind, '@' || p_kind || '/' || p_project];

-- Documents as text. What JSON escapes parts words.
CREATE OR REPLACE FUNCTION pgrecall.document_text(VARIADIC p_documents jsonb[]) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (SELECT left(CASE WHEN strpos(whole, '\') = 0 THEN whole
                    ELSE regexp_replace(whole, '\\(?:u[0-9a-f]{4}|.)', ' ', 'g') END, 200000)
          FROM array_to_string(p_documents, ' ') AS whole);

-- name: texts
-- The words of each text, with the scopes that it belongs to: its kind, and its kind in its project.
CREATE TABLE IF NOT EXISTS pgrecall.texts (
    project_id varchar(50) NOT NULL, -- '' where all projects share it
    kind       varchar(10) NOT NULL, -- episodes, knowledge, thoughts
    id         uuid        NOT NULL,
    part       integer     NOT NULL, -- 1, or the number of the thought
    length     integer     NOT NULL, -- words in it
    words      tsvector    NOT NULL,
    CONSTRAINT texts_pkey PRIMARY KEY (project_id, kind, id, part)
) WITH (toast_tuple_target = 8160, autovacuum_vacuum_insert_scale_factor = 0.05,
        autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE pgrecall.texts ALTER COLUMN words SET STORAGE EXTERNAL;
CREATE INDEX IF NOT EXISTS texts_words ON pgrecall.texts USING gin (words)
    WITH (fastupdate = on, gin_pending_list_limit = 256);

-- name: counts
-- In how many texts of a project a word occurs. The word '' stands for all of them: how many texts,
-- and how many words in them.
CREATE TABLE IF NOT EXISTS pgrecall.word_counts (
    project_id varchar(50) NOT NULL,
    kind       varchar(10) NOT NULL,
    word       text        NOT NULL,
    texts      bigint      NOT NULL,
    tokens     bigint      NOT NULL DEFAULT 0,
    CONSTRAINT word_counts_pkey PRIMARY KEY (project_id, kind, word)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
-- The same of all projects together.
CREATE TABLE IF NOT EXISTS pgrecall.vocabulary (
    kind   varchar(10) NOT NULL,
    word   text        NOT NULL,
    texts  bigint      NOT NULL,
    tokens bigint      NOT NULL DEFAULT 0,
    CONSTRAINT vocabulary_pkey PRIMARY KEY (kind, word)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX IF NOT EXISTS vocabulary_trigrams ON pgrecall.vocabulary USING gin (word gin_trgm_ops);

-- What is not counted in yet. Writers only append here, so that none waits for another.
CREATE TABLE IF NOT EXISTS pgrecall.word_changes (
    project_id varchar(50) NOT NULL,
    change     bigint      GENERATED ALWAYS AS IDENTITY,
    kind       varchar(10) NOT NULL,
    texts      integer     NOT NULL, -- 1 for a text that came, -1 for one that went
    tokens     integer     NOT NULL,
    words      tsvector    NOT NULL,
    CONSTRAINT word_changes_pkey PRIMARY KEY (project_id, kind, change)
) WITH (toast_tuple_target = 8160, autovacuum_vacuum_scale_factor = 0,
        autovacuum_vacuum_threshold = 1000);

-- name: folding
-- Counts in what has changed, not all at once if a burst has left much; one at a time, and nobody waits.
-- Returns how many changes it were, and NULL while another does it. A word that no text holds any
-- more is forgotten.
CREATE OR REPLACE FUNCTION pgrecall.fold_words() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
SET plan_cache_mode = force_custom_plan SET enable_seqscan = on
AS $fold_words$
DECLARE
    v_folded integer;
    v_sums   pgrecall.word_counts[];
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('pgrecall.fold_words', 0)) THEN
        RETURN NULL;
    END IF;
    WITH gone AS (
        DELETE FROM pgrecall.word_changes
         WHERE ctid = ANY (ARRAY(SELECT ctid FROM pgrecall.word_changes LIMIT 4096)) RETURNING *
    ), sums AS (
        SELECT g.project_id, g.kind, w.word, sum(g.texts)::bigint AS texts, 0::bigint AS tokens
          FROM gone AS g CROSS JOIN LATERAL unnest(tsvector_to_array(g.words)) AS w (word)
         WHERE w.word NOT LIKE '@%'
         GROUP BY g.project_id, g.kind, w.word
        UNION ALL
        SELECT g.project_id, g.kind, '', sum(g.texts), sum(g.tokens)
          FROM gone AS g GROUP BY g.project_id, g.kind
    )
    SELECT (SELECT count(*) FROM gone), (SELECT array_agg(s::pgrecall.word_counts) FROM sums AS s)
      INTO v_folded, v_sums;
    MERGE INTO pgrecall.word_counts AS c
    USING unnest(v_sums) AS s
       ON c.project_id = s.project_id AND c.kind = s.kind AND c.word = s.word
     WHEN MATCHED AND c.texts + s.texts = 0 THEN DELETE
     WHEN MATCHED THEN UPDATE SET texts = c.texts + s.texts, tokens = c.tokens + s.tokens
     WHEN NOT MATCHED AND s.texts <> 0 THEN INSERT VALUES (s.project_id, s.kind, s.word, s.texts,
                                                           s.tokens);
    MERGE INTO pgrecall.vocabulary AS v
    USING (SELECT s.kind, s.word, sum(s.texts)::bigint AS texts, sum(s.tokens)::bigint AS tokens
             FROM unnest(v_sums) AS s GROUP BY s.kind, s.word) AS s
       ON v.kind = s.kind AND v.word = s.word
     WHEN MATCHED AND v.texts + s.texts = 0 THEN DELETE
     WHEN MATCHED THEN UPDATE SET texts = v.texts + s.texts, tokens = v.tokens + s.tokens
     WHEN NOT MATCHED AND s.texts <> 0 THEN INSERT VALUES (s.kind, s.word, s.texts, s.tokens);
    RETURN v_folded;
END
$fold_words$;

-- name: upkeep
-- Keeps the words of a text that is not there yet; returns the number of the change.
CREATE OR REPLACE FUNCTION pgrecall.keep_text(
    p_project text, p_kind text, p_id uuid, p_part integer, p_text text
) RETURNS bigint
LANGUAGE sql SET search_path FROM CURRENT
AS $keep_text$
    WITH come AS (
        INSERT INTO pgrecall.texts AS t (project_id, kind, id, part, length, words)
        SELECT p_project, p_kind, p_id, p_part, pgrecall.tokens(n.words),
               n.words || array_to_tsvector(pgrecall.scopes(p_kind, p_project))
          FROM (SELECT pgrecall.words(p_text) AS words OFFSET 0) AS n
        ON CONFLICT DO NOTHING
        RETURNING t.length, t.words
    )
    INSERT INTO pgrecall.word_changes (project_id, kind, texts, tokens, words)
    SELECT p_project, p_kind, 1, c.length, strip(c.words) FROM come AS c
    RETURNING change
$keep_text$;

-- Whoever writes the tables keeps the words, without rights on them. An outcome is none of them.
CREATE OR REPLACE FUNCTION pgrecall.keep_words() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan SET client_min_messages = warning
AS $keep_words$
DECLARE
    v_kind    text := TG_ARGV[0];
    v_old     text[] := '{}'; -- its texts before and after
    v_new     text[] := '{}';
    v_from    text; -- its project before and after
    v_to      text;
    v_old_id  uuid;
    v_new_id  uuid;
    v_moved   boolean;
    v_change  bigint;
BEGIN
    IF v_kind = 'episodes' THEN
        -- To compare documents takes a tenth of what making texts of them takes.
        IF TG_OP = 'UPDATE' AND NEW.perception = OLD.perception AND NEW.reasoning = OLD.reasoning
           AND NEW.action = OLD.action AND NEW.project_id = OLD.project_id
           AND NEW.episode_id = OLD.episode_id THEN
            RETURN NULL;
        END IF;
        IF TG_OP <> 'INSERT' THEN
            v_from := OLD.project_id;
            v_old_id := OLD.episode_id;
            v_old := ARRAY[pgrecall.document_text(OLD.perception, OLD.reasoning, OLD.action)];
        END IF;
        IF TG_OP <> 'DELETE' THEN
            v_to := NEW.project_id;
            v_new_id := NEW.episode_id;
            v_new := ARRAY[pgrecall.document_text(NEW.perception, NEW.reasoning, NEW.action)];
        END IF;
    ELSIF v_kind = 'knowledge' THEN
        IF TG_OP <> 'INSERT' THEN
            v_from := coalesce(OLD.project_id, '');
            v_old_id := OLD.knowledge_id;
            v_old := ARRAY[OLD.description || ' ' || pgrecall.document_text(OLD.content)];
        END IF;
        IF TG_OP <> 'DELETE' THEN
            v_to := coalesce(NEW.project_id, '');
            v_new_id := NEW.knowledge_id;
            v_new := ARRAY[NEW.description || ' ' || pgrecall.document_text(NEW.content)];
        END IF;
    ELSE
        IF TG_OP <> 'INSERT' THEN
            v_from := OLD.project_id;
            v_old_id := OLD.session_id;
            v_old := ARRAY(SELECT pgrecall.document_text(thought)
                             FROM unnest(OLD.thought_history) AS thought);
        END IF;
        IF TG_OP <> 'DELETE' THEN
            v_to := NEW.project_id;
            v_new_id := NEW.session_id;
            v_new := ARRAY(SELECT pgrecall.document_text(thought)
                             FROM unnest(NEW.thought_history) AS thought);
        END IF;
    END IF;
    v_moved := (v_from, v_old_id) IS DISTINCT FROM (v_to, v_new_id);
    IF NOT v_moved AND v_old IS NOT DISTINCT FROM v_new THEN
        RETURN NULL;
    END IF;
    IF v_old <> '{}' THEN
        WITH gone AS (
            DELETE FROM pgrecall.texts AS t
             WHERE t.project_id = v_from AND t.kind = v_kind AND t.id = v_old_id
               AND (v_moved OR v_old[t.part] IS DISTINCT FROM v_new[t.part])
            RETURNING t.length, t.words
        )
        INSERT INTO pgrecall.word_changes (project_id, kind, texts, tokens, words)
        SELECT v_from, v_kind, -1, -g.length, strip(g.words) FROM gone AS g;
    END IF;
    FOR i IN 1..cardinality(v_new) LOOP
        IF v_moved OR v_old[i] IS DISTINCT FROM v_new[i] THEN
            v_change := pgrecall.keep_text(v_to, v_kind, v_new_id, i, v_new[i]);
            -- Now and then a writer counts, unless another does; one that must see only what was
            -- there when it began could fail by that. In a burst it is left to who merges.
            IF v_change % 1024 = 0 AND TG_TABLE_NAME <> 'recent_episodes'
               AND current_setting('transaction_isolation') = 'read committed' THEN
                PERFORM pgrecall.fold_words();
            END IF;
        END IF;
    END LOOP;
    RETURN NULL;
END
$keep_words$;

-- TRUNCATE fires no trigger for each row.
CREATE OR REPLACE FUNCTION pgrecall.forget_words() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
AS $forget_words$
BEGIN
    DELETE FROM pgrecall.word_changes WHERE kind = TG_ARGV[0];
    DELETE FROM pgrecall.texts WHERE kind = TG_ARGV[0];
    DELETE FROM pgrecall.word_counts WHERE kind = TG_ARGV[0];
    DELETE FROM pgrecall.vocabulary WHERE kind = TG_ARGV[0];
    RETURN NULL;
END
$forget_words$;

-- name: triggers
CREATE OR REPLACE TRIGGER pgrecall_words AFTER INSERT OR UPDATE OR DELETE ON public.agent_episodes
    FOR EACH ROW EXECUTE FUNCTION pgrecall.keep_words('episodes');
CREATE OR REPLACE TRIGGER pgrecall_words AFTER INSERT OR UPDATE OR DELETE ON public.agent_knowledge
    FOR EACH ROW EXECUTE FUNCTION pgrecall.keep_words('knowledge');
CREATE OR REPLACE TRIGGER pgrecall_words
    AFTER INSERT OR UPDATE OR DELETE ON public.agent_working_memory
    FOR EACH ROW EXECUTE FUNCTION pgrecall.keep_words('thoughts');

CREATE OR REPLACE TRIGGER pgrecall_words_emptied AFTER TRUNCATE ON public.agent_episodes
    FOR EACH STATEMENT EXECUTE FUNCTION pgrecall.forget_words('episodes');
CREATE OR REPLACE TRIGGER pgrecall_words_emptied AFTER TRUNCATE ON public.agent_knowledge
    FOR EACH STATEMENT EXECUTE FUNCTION pgrecall.forget_words('knowledge');
CREATE OR REPLACE TRIGGER pgrecall_words_emptied AFTER TRUNCATE ON public.agent_working_memory
    FOR EACH STATEMENT EXECUTE FUNCTION pgrecall.forget_words('thoughts');

-- name: text_all
-- Forgets the words of texts, of whose rows nobody writes meanwhile.
CREATE OR REPLACE FUNCTION pgrecall.forget_texts(p_kind text, p_projects text[], p_ids uuid[])
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT
AS $forget_texts$
    WITH gone AS (
        DELETE FROM pgrecall.texts AS t
         USING unnest(p_projects, p_ids) AS n (project_id, id)
         WHERE t.project_id = n.project_id AND t.kind = p_kind AND t.id = n.id
        RETURNING t.*
    )
    INSERT INTO pgrecall.word_changes (project_id, kind, texts, tokens, words)
    SELECT g.project_id, g.kind, -1, -g.length, strip(g.words) FROM gone AS g
$forget_texts$;

-- Reads what is there, a batch at a time, while agents go on writing: what was not read yet, or all of
-- it anew. Rows are locked meanwhile, so that none changes between being read and its words being kept.
CREATE OR REPLACE PROCEDURE pgrecall.text_all(
    p_anew boolean DEFAULT false, p_batch integer DEFAULT 1000)
LANGUAGE plpgsql
AS $text_all$
DECLARE
    v_kind     text;
    v_after    uuid;
    v_ids      uuid[];
    v_projects text[];
    v_texts    text[];
    v_parts    integer[];
BEGIN
    FOREACH v_kind IN ARRAY ARRAY['episodes', 'knowledge', 'thoughts'] LOOP
        v_after := NULL;
        LOOP
            IF v_kind = 'episodes' THEN
                SELECT array_agg(b.id), array_agg(b.project), array_agg(b.text), array_agg(1)
                  INTO v_ids, v_projects, v_texts, v_parts
                  FROM (SELECT e.episode_id AS id, e.project_id AS project, pgrecall.document_text(
                                   e.perception, e.reasoning, e.action) AS text
                          FROM public.agent_episodes AS e
                         WHERE v_after IS NULL OR e.episode_id > v_after
                         ORDER BY e.episode_id LIMIT p_batch FOR NO KEY UPDATE) AS b;
            ELSIF v_kind = 'knowledge' THEN
                SELECT array_agg(b.id), array_agg(b.project), array_agg(b.text), array_agg(1)
                  INTO v_ids, v_projects, v_texts, v_parts
                  FROM (SELECT k.knowledge_id AS id, coalesce(k.project_id, '') AS project,
                               k.description || ' ' || pgrecall.document_text(k.content) AS text
                          FROM public.agent_knowledge AS k
                         WHERE v_after IS NULL OR k.knowledge_id > v_after
                         ORDER BY k.knowledge_id LIMIT p_batch FOR NO KEY UPDATE) AS b;
            ELSE
                SELECT array_agg(b.id), array_agg(b.project),
                       array_agg(pgrecall.document_text(t.thought)), array_agg(t.part)
                  INTO v_ids, v_projects, v_texts, v_parts
                  FROM (SELECT s.session_id AS id, s.project_id AS project, s.thought_history
                          FROM public.agent_working_memory AS s
                         WHERE v_after IS NULL OR s.session_id > v_after
                         ORDER BY s.session_id LIMIT p_batch FOR NO KEY UPDATE) AS b
                  LEFT JOIN LATERAL unnest(b.thought_history) WITH ORDINALITY AS t (thought, part)
                            ON true;
            END IF;
            EXIT WHEN v_ids IS NULL;
            IF p_anew THEN
                PERFORM pgrecall.forget_texts(v_kind, v_projects, v_ids);
            END IF;
            PERFORM pgrecall.keep_text(n.project, v_kind, n.id, n.part, n.text)
               FROM unnest(v_projects, v_ids, v_parts, v_texts) AS n (project, id, part, text)
              WHERE n.part IS NOT NULL;
            v_after := (SELECT id FROM unnest(v_ids) AS id ORDER BY id DESC LIMIT 1);
            PERFORM pgrecall.fold_words();
            COMMIT;
        END LOOP;
    END LOOP;
END
$text_all$;

-- Sets the languages of the memory, and reads all texts anew.
CREATE OR REPLACE PROCEDURE pgrecall.set_languages(VARIADIC p_languages regconfig[])
LANGUAGE plpgsql
AS $set_languages$
BEGIN
    DELETE FROM pgrecall.languages WHERE language <> ALL (p_languages);
    INSERT INTO pgrecall.languages SELECT unnest(p_languages) ON CONFLICT DO NOTHING;
    COMMIT;
    CALL pgrecall.text_all(p_anew => true);
END
$set_languages$;

-- name: text_all_now
CALL pgrecall.text_all();

-- name: analyze
ANALYZE pgrecall.texts, pgrecall.word_counts, pgrecall.vocabulary;
