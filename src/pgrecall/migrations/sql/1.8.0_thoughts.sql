-- A session of many thoughts: only those that change are looked at.

-- name: upkeep
-- Whoever writes the tables keeps the words, without rights on them. An outcome is none of them.
CREATE OR REPLACE FUNCTION pgrecall.keep_words() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan SET client_min_messages = warning
AS $keep_words$
DECLARE
    v_kind    text := TG_ARGV[0];
    v_parts   integer[] := '{1}';
    v_old     text[]; -- what the parts were and are, where that may differ
    v_new     text[];
    v_from    text; -- its project before and after
    v_to      text;
    v_old_id  uuid;
    v_new_id  uuid;
    v_before  integer := 0; -- how many thoughts there were and are
    v_after   integer := 0;
    v_moved   boolean;
    v_changed integer[];
    v_part    integer;
    v_text    text;
    v_change  bigint;
BEGIN
    -- To compare documents takes a tenth of what making texts of them takes.
    IF v_kind = 'episodes' THEN
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
            v_before := coalesce(cardinality(OLD.thought_history), 0);
        END IF;
        IF TG_OP <> 'DELETE' THEN
            v_to := NEW.project_id;
            v_new_id := NEW.session_id;
            v_after := coalesce(cardinality(NEW.thought_history), 0);
        END IF;
        SELECT coalesce(array_agg(t.part), '{}'),
               array_agg(CASE WHEN t.part > v_after THEN ''
                              WHEN t.part <= v_before THEN pgrecall.document_text(t.before) END),
               array_agg(CASE WHEN t.part <= v_after THEN pgrecall.document_text(t.after) END)
          INTO v_parts, v_old, v_new
          FROM unnest(OLD.thought_history, NEW.thought_history)
               WITH ORDINALITY AS t (before, after, part)
         WHERE t.before IS DISTINCT FROM t.after OR t.part > least(v_before, v_after)
               OR (v_from, v_old_id) IS DISTINCT FROM (v_to, v_new_id);
    END IF;
    v_moved := (v_from, v_old_id) IS DISTINCT FROM (v_to, v_new_id);
    v_changed := ARRAY(SELECT c.part FROM unnest(v_parts, v_old, v_new) AS c (part, before, after)
                        WHERE v_moved OR c.before IS DISTINCT FROM c.after);
    IF TG_OP <> 'INSERT' THEN
        WITH gone AS (
            DELETE FROM pgrecall.texts AS t
             WHERE t.project_id = v_from AND t.kind = v_kind AND t.id = v_old_id
               AND t.part = ANY (v_changed)
            RETURNING t.length, t.words
        )
        INSERT INTO pgrecall.word_changes (project_id, kind, texts, tokens, words)
        SELECT v_from, v_kind, -1, -g.length, strip(g.words) FROM gone AS g;
    END IF;
    FOR v_part, v_text IN
        SELECT c.part, c.after FROM unnest(v_parts, v_new) AS c (part, after)
         WHERE c.after IS NOT NULL AND c.part = ANY (v_changed)
    LOOP
        v_change := pgrecall.keep_text(v_to, v_kind, v_new_id, v_part, v_text);
        -- Now and then a writer counts, unless another does; one that must see only what was
        -- there when it began could fail by that. In a burst it is left to who merges.
        IF v_change % 1024 = 0 AND TG_TABLE_NAME <> 'recent_episodes'
           AND current_setting('transaction_isolation') = 'read committed' THEN
            PERFORM pgrecall.fold_words();
        END IF;
    END LOOP;
    RETURN NULL;
END
$keep_words$;
