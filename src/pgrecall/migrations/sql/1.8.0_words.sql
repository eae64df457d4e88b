-- Words among very many texts: what misspelt ones are meant to be, and what very common ones find.

-- name: one_edit
-- The words one edit away from another: a character left out, put in, changed, or two swapped. What
-- is put in are letters, digits and marks of identifiers, and the characters of the word itself.
CREATE OR REPLACE FUNCTION pgrecall.one_edit(p_word text) RETURNS text[]
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (
    WITH place AS (
        SELECT left(p_word, n) AS before, substr(p_word, n + 1) AS after
          FROM generate_series(0, length(p_word)) AS n
    ), letter AS (
        SELECT DISTINCT l.letter
          FROM string_to_table('abcdefghijklmnopqrstuvwxyz0123456789-_./' || p_word
                               || CASE WHEN p_word ~ '[а-яё]'
                                       THEN 'абвгдежзийклмнопрстуфхцчшщъыьэюяё' ELSE '' END,
                               NULL) AS l (letter)
    )
    SELECT array_agg(DISTINCT edit.word)
      FROM (SELECT p.before || substr(p.after, 2) FROM place AS p WHERE p.after <> ''
            UNION ALL
            SELECT p.before || substr(p.after, 2, 1) || left(p.after, 1) || substr(p.after, 3)
              FROM place AS p WHERE length(p.after) > 1
            UNION ALL
            SELECT p.before || l.letter || p.after FROM place AS p CROSS JOIN letter AS l
            UNION ALL
            SELECT p.before || l.letter || substr(p.after, 2)
              FROM place AS p CROSS JOIN letter AS l WHERE p.after <> ''
           ) AS edit (word)
     WHERE edit.word NOT IN (p_word, '')
);

-- name: meant
-- Words that others, which no text holds, may be meant to be: the likest of those that are counted
-- in. First those one edit away, each looked up by itself. Where there is none, and p_widely, those
-- that share trigrams; of words with digits, which name one thing each, other ones are no misspellings.
DROP FUNCTION pgrecall.meant(text, text[], text);
CREATE OR REPLACE FUNCTION pgrecall.near_words(p_kind text, p_projects text[], p_word text)
RETURNS SETOF text
LANGUAGE sql STABLE SET search_path FROM CURRENT SET enable_seqscan = off
AS $near_words$
    SELECT v.word FROM pgrecall.vocabulary AS v
     WHERE p_projects IS NULL AND v.kind = p_kind
       AND v.word = ANY (pgrecall.one_edit(p_word)) AND v.texts > 0
    UNION
    SELECT c.word FROM pgrecall.word_counts AS c
     WHERE c.project_id = ANY (p_projects) AND c.kind = p_kind
       AND c.word = ANY (pgrecall.one_edit(p_word)) AND c.texts > 0
$near_words$;

CREATE OR REPLACE FUNCTION pgrecall.alike_words(p_kind text, p_projects text[], p_word text)
RETURNS SETOF text
LANGUAGE sql STABLE SET search_path FROM CURRENT SET enable_seqscan = off
AS $alike_words$
    SELECT v.word
      FROM pgrecall.vocabulary AS v
     WHERE v.kind = p_kind AND v.word % p_word
       AND (p_projects IS NULL
            OR EXISTS (SELECT FROM pgrecall.word_counts AS c
                        WHERE c.project_id = ANY (p_projects) AND c.kind = p_kind
                          AND c.word = v.word AND c.texts > 0))
$alike_words$;

CREATE OR REPLACE FUNCTION pgrecall.meant(
    p_kind text, p_projects text[], p_word text, p_widely boolean
) RETURNS TABLE (word text, weight double precision)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $meant$
DECLARE
    v_words text[] := ARRAY(SELECT pgrecall.near_words(p_kind, p_projects, p_word));
BEGIN
    IF v_words = '{}' AND p_widely AND p_word !~ '[0-9]' THEN
        v_words := ARRAY(SELECT pgrecall.alike_words(p_kind, p_projects, p_word));
    END IF;
    RETURN QUERY
    SELECT n.word, pgrecall.likeness(p_word, n.word) AS weight
      FROM unnest(v_words) AS n (word)
     WHERE similarity(n.word, p_word) >= 0.35 -- of short words, one edit leaves too little
     ORDER BY weight DESC, n.word
     LIMIT 3;
END
$meant$;

-- name: wording
-- As before. Where several words are unknown they are of another subject rather than misspelt, and only
-- the nearest are looked for.
CREATE OR REPLACE FUNCTION pgrecall.wording(p_kind text, p_projects text[], p_text text)
RETURNS pgrecall.wording
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan SET client_min_messages = warning
AS $wording$
DECLARE
    v_wording pgrecall.wording;
BEGIN
    -- First the words as they are written, then what those that no text holds may stand for.
    WITH written AS MATERIALIZED (
        SELECT min(form.place) AS place, form.word
          FROM (SELECT w.positions[1] AS place, w.lexeme AS word
                  FROM pgrecall.languages AS l,
                       unnest(to_tsvector(l.language, pgrecall.parts(p_text))) AS w
                UNION ALL
                SELECT 100000 + row_number() OVER (), w.lexeme
                  FROM unnest(pgrecall.identifiers(p_text)) AS w) AS form
         GROUP BY form.word
    ), known AS MATERIALIZED (
        SELECT s.* FROM pgrecall.word_statistics(
            p_kind, p_projects, ARRAY(SELECT word FROM written) || ''::text) AS s
    ), form AS MATERIALIZED (
        SELECT w.place, w.word, 1::double precision AS weight, coalesce(k.texts, 0) AS texts,
               max(coalesce(k.texts, 0)) OVER (PARTITION BY w.place) > 0 AS held
          FROM written AS w LEFT JOIN known AS k USING (word)
    ), guess AS MATERIALIZED (
        SELECT f.place, m.word, m.weight
          FROM form AS f
          CROSS JOIN (SELECT count(DISTINCT place) FILTER (WHERE NOT held) = 1 AS alone FROM form) AS n
          CROSS JOIN LATERAL pgrecall.meant(p_kind, p_projects, f.word, n.alone) AS m
         WHERE NOT f.held AND length(f.word) >= 4
           AND NOT EXISTS (SELECT FROM written AS w WHERE w.word = m.word)
    ), term AS (
        SELECT f.place, f.word, f.weight, f.texts FROM form AS f WHERE f.texts > 0
        UNION ALL
        SELECT g.place, g.word, g.weight, s.texts
          FROM guess AS g JOIN pgrecall.word_statistics(
                   p_kind, p_projects, ARRAY(SELECT word FROM guess)) AS s USING (word)
         WHERE s.texts > 0
    )
    SELECT n.texts, n.tokens / n.texts,
           (SELECT array_agg(ROW(t.place, t.word, t.weight, t.texts,
                                 ln(1 + (n.texts - t.texts + 0.5) / (t.texts + 0.5))
                                )::pgrecall.term ORDER BY t.texts, t.weight DESC, t.word)
              FROM term AS t)
      INTO v_wording.texts, v_wording.average, v_wording.terms
      FROM (SELECT k.texts::double precision, k.tokens::double precision
              FROM known AS k WHERE k.word = '' AND k.texts > 0) AS n;
    v_wording.terms := coalesce(v_wording.terms, '{}');
    RETURN v_wording;
END
$wording$;

-- name: search
-- The best texts by BM25: first those with the rarest words; and where these leave it open, and it is to
-- be thorough, the others that can still be better: those with two words, if one alone is worth less
-- than the score to beat (MaxScore: Turtle and Flood, 1995). Of either at most p_most are scored. A
-- word that more than half of the texts hold, and more than that, finds none: they would be any.
CREATE OR REPLACE FUNCTION pgrecall.nearest_by_words(
    p_kind text, p_wording pgrecall.wording, p_projects text[], p_join text, p_count integer,
    p_most integer, p_thorough boolean, p_explain boolean
) RETURNS pgrecall.worded
LANGUAGE plpgsql SET search_path FROM CURRENT
SET enable_seqscan = off SET jit = off SET max_parallel_workers_per_gather = 0
AS $nearest_by_words$
DECLARE
    v_terms pgrecall.term[] := p_wording.terms;
    v_words text[] := ARRAY(SELECT word FROM unnest(p_wording.terms));
    v_taken integer := pgrecall.rarest(v_terms, greatest(10 * p_count, 1000));
    v_useful integer := (SELECT count(*) FROM unnest(p_wording.terms) AS t
                          WHERE t.texts <= greatest(p_most, p_wording.texts / 2));
    v_found pgrecall.worded;
    v_more  pgrecall.worded;
    v_scope tsquery;
    v_query tsquery;
    v_scan  text;
    v_rest  double precision[]; -- what each of the words not taken can give a text, at most
    v_least double precision;
BEGIN
    IF v_terms = '{}' THEN
        RETURN ROW('{}', '{}', '{}', 0, true, '[]')::pgrecall.worded;
    END IF;
    v_scope := pgrecall.any_of(CASE WHEN p_projects IS NULL THEN ARRAY['@' || p_kind]
        ELSE ARRAY(SELECT '@' || p_kind || '/' || project FROM unnest(p_projects) AS project) END);
    v_scan := format(
        'SELECT w.id, w.part, %s AS score FROM pgrecall.texts AS w%s WHERE w.words @@ $1 LIMIT $2',
        pgrecall.bm25(p_wording), p_join);
    v_query := pgrecall.any_of(v_words[:v_taken]);
    IF v_terms[1].texts > p_most AND cardinality(v_terms) > 1 THEN
        v_query := pgrecall.only(v_words[1]) && pgrecall.any_of(v_words[2:]);
    END IF;
    v_found := pgrecall.score_texts(v_scan, v_scope && v_query, p_count, p_most, p_explain);
    v_least := coalesce(v_found.scores[p_count], 0);
    v_rest := ARRAY(SELECT max(2.2 * t.weight * t.idf) FROM unnest(v_terms[v_taken + 1:]) AS t
                     GROUP BY t.place);
    v_found.complete := v_found.considered < p_most AND v_query = pgrecall.any_of(v_words)
        OR v_least >= (SELECT coalesce(sum(most), 0) FROM unnest(v_rest) AS most)
           AND v_found.considered < p_most AND v_terms[1].texts <= p_most;
    IF v_found.complete OR NOT p_thorough OR v_useful <= v_taken THEN
        RETURN v_found;
    END IF;
    v_more := pgrecall.score_texts(
        v_scan, v_scope && !!v_query
            && CASE WHEN v_least > (SELECT max(most) FROM unnest(v_rest) AS most)
                    THEN pgrecall.two_of(v_words[v_taken + 1:v_useful])
                    ELSE pgrecall.any_of(v_words[v_taken + 1:v_useful]) END,
        p_count, p_most, p_explain);
    SELECT array_agg(id), array_agg(part), array_agg(score)
      INTO v_found.ids, v_found.parts, v_found.scores
      FROM (SELECT * FROM unnest(v_found.ids || v_more.ids, v_found.parts || v_more.parts,
                                 v_found.scores || v_more.scores) AS n (id, part, score)
             ORDER BY score DESC, id, part LIMIT p_count) AS best;
    v_found.complete := v_found.considered < p_most AND v_more.considered < p_most
        AND v_terms[1].texts <= p_most;
    v_found.considered := v_found.considered + v_more.considered;
    v_found.plans := v_found.plans || v_more.plans;
    RETURN v_found;
END
$nearest_by_words$;
