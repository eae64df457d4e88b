-- Search by words: BM25 over the texts of a kind.

-- name: statistics
-- The query for one word, which may hold any character.
CREATE OR REPLACE FUNCTION pgrecall.only(p_word text) RETURNS tsquery
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ('''' || replace(replace(p_word, '\', '\\'), '''', '''''') || '''')::tsquery;

-- The query for any of several words.
CREATE OR REPLACE FUNCTION pgrecall.any_of(p_words text[]) RETURNS tsquery
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (SELECT string_agg(pgrecall.only(word)::text, ' | ')::tsquery FROM unnest(p_words) AS word);

-- How many texts of the projects (NULL: of all) hold each word, those included that are not counted
-- in yet. The word '' stands for all texts, with the number of their words.
CREATE OR REPLACE FUNCTION pgrecall.word_statistics(p_kind text, p_projects text[], p_words text[])
RETURNS TABLE (word text, texts bigint, tokens bigint)
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $word_statistics$
    SELECT known.word, sum(known.texts)::bigint, sum(known.tokens)::bigint
      FROM (SELECT v.word, v.texts, v.tokens FROM pgrecall.vocabulary AS v
             WHERE p_projects IS NULL AND v.kind = p_kind AND v.word = ANY (p_words)
            UNION ALL
            SELECT c.word, c.texts, c.tokens FROM pgrecall.word_counts AS c
             WHERE c.project_id = ANY (p_projects) AND c.kind = p_kind AND c.word = ANY (p_words)
            UNION ALL
            SELECT w.word, n.texts, CASE w.word WHEN '' THEN n.tokens ELSE 0 END
              FROM pgrecall.word_changes AS n
              JOIN (SELECT word, CASE WHEN word <> '' THEN pgrecall.only(word) END AS query
                      FROM unnest(p_words) AS word OFFSET 0) AS w ON w.word = '' OR n.words @@ w.query
             WHERE n.kind = p_kind AND (p_projects IS NULL OR n.project_id = ANY (p_projects))
           ) AS known
     GROUP BY known.word
$word_statistics$;

-- name: terms
-- What a query asks for by words. Terms of one place stand for one word of the query: its forms in
-- several languages, or what it may be meant to be.
CREATE TYPE pgrecall.term AS (
    place  integer,
    word   text,
    weight double precision, -- 1, or how much of the misspelt word is in it
    texts  double precision, -- that hold it
    idf    double precision
);
CREATE TYPE pgrecall.wording AS (
    texts   double precision, -- how many there are
    average double precision, -- words in each
    terms   pgrecall.term[]   -- the rarest first
);

-- How much of a word is left in another, from 0 to 1: an edit of one character changes up to three
-- trigrams, so what is not shared tells how many there were (Ukkonen, Approximate string-matching with
-- q-grams, 1992).
CREATE OR REPLACE FUNCTION pgrecall.likeness(p_word text, p_other text) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT
RETURN (SELECT 1 - (greatest(mine, others) - shared) / 3 / length(p_word)
          FROM (SELECT mine, others, s * (mine + others) / (1 + s) AS shared
                  FROM (SELECT cardinality(show_trgm(p_word)) AS mine,
                               cardinality(show_trgm(p_other)) AS others,
                               similarity(p_word, p_other)::double precision AS s) AS n) AS trigrams);

-- Words that one may have meant by another, which no text holds: the likest of those that are counted
-- in.
CREATE OR REPLACE FUNCTION pgrecall.meant(p_kind text, p_projects text[], p_word text)
RETURNS TABLE (word text, weight double precision)
LANGUAGE sql STABLE SET search_path FROM CURRENT SET enable_seqscan = off
AS $meant$
    SELECT v.word, pgrecall.likeness(p_word, v.word) AS weight
      FROM pgrecall.vocabulary AS v
     WHERE v.kind = p_kind AND v.word % p_word AND similarity(v.word, p_word) >= 0.35
       AND (p_projects IS NULL
            OR EXISTS (SELECT FROM pgrecall.word_counts AS c
                        WHERE c.project_id = ANY (p_projects) AND c.kind = p_kind
                          AND c.word = v.word AND c.texts > 0))
     ORDER BY weight DESC, v.word
     LIMIT 3
$meant$;

CREATE OR REPLACE FUNCTION pgrecall.wording(p_kind text, p_projects text[], p_text text)
RETURNS pgrecall.wording
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan SET client_min_messages = warning
AS $wording$
DECLARE
    v_wording pgrecall.wording;
    v_words   text[];
    v_unknown integer[];
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
          FROM form AS f CROSS JOIN LATERAL pgrecall.meant(p_kind, p_projects, f.word) AS m
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

-- name: scoring
-- BM25 of a text w as an expression: for each word of the query what its rarity weighs, times how
-- much of it a text of this length holds, saturating, 1 for once in a text of average length (Robertson
-- and Zaragoza, The Probabilistic Relevance Framework, 2009; k1 = 1.2, b = 0.75). How often a text holds a word follows from ts_rank,
-- which for one word is the sum of 1/n^2 over its places, divided by pi^2/6: what is missing to 1 is
-- the rest of that series, 1 / (n + 1/2) nearly.
CREATE OR REPLACE FUNCTION pgrecall.bm25(p_wording pgrecall.wording) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE SET search_path FROM CURRENT
AS $bm25$
    SELECT coalesce(string_agg(CASE WHEN several THEN 'greatest(' || forms || ')' ELSE forms END,
                               ' + '), '0::double precision')
      FROM (SELECT count(*) > 1 AS several, string_agg(format(
                       '%L::double precision * (1 - 1 / (1 + round(1 / (1.64493406685::double precision '
                       '* (1 - ts_rank(''{1,1,1,1}'', w.words, %L)::double precision)) - 0.5) '
                       '/ (0.3::double precision + %L::double precision * w.length)))',
                       2.2 * t.weight * t.idf, pgrecall.only(t.word), 0.9 / p_wording.average),
                       ', ') AS forms
              FROM unnest(p_wording.terms) AS t GROUP BY t.place) AS places
$bm25$;

-- name: search
CREATE TYPE pgrecall.worded AS (
    ids        uuid[],
    parts      integer[],
    scores     double precision[],
    considered bigint,  -- texts that were scored
    complete   boolean, -- whether no text that was left out can have a better score
    plans      jsonb
);

-- Scores the texts that a query finds.
CREATE FUNCTION pgrecall.score_texts(
    p_scan text, p_query tsquery, p_count integer, p_most integer, p_explain boolean
) RETURNS pgrecall.worded
LANGUAGE plpgsql
AS $score_texts$
DECLARE
    v_found pgrecall.worded;
    v_plan  jsonb;
BEGIN
    EXECUTE 'SELECT coalesce(array_agg(id), ''{}''), array_agg(part), array_agg(score), '
            'coalesce(max(n), 0), false, ''[]''::jsonb FROM (SELECT *, count(*) OVER () AS n FROM ('
            || p_scan || ') AS s ORDER BY score DESC, id, part LIMIT $3) AS best'
       INTO v_found USING p_query, p_most, p_count;
    IF p_explain THEN
        EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ' || p_scan
           INTO v_plan USING p_query, p_most;
        v_found.plans := v_plan;
    END IF;
    RETURN v_found;
END
$score_texts$;

-- How many of the words, the rarest first, p_budget texts hold at most; one at least.
CREATE FUNCTION pgrecall.rarest(p_terms pgrecall.term[], p_budget double precision)
RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $rarest$
    SELECT greatest(count(*) FILTER (WHERE held <= p_budget), 1)::integer
      FROM (SELECT sum(t.texts) OVER (ORDER BY n) AS held
              FROM unnest(p_terms) WITH ORDINALITY AS t (place, word, weight, texts, idf, n)) AS sums
$rarest$;

CREATE FUNCTION pgrecall.two_of(p_words text[]) RETURNS tsquery
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (SELECT string_agg('(' || pgrecall.only(a.word)::text || ' & '
                          || pgrecall.only(b.word)::text || ')', ' | ')::tsquery
          FROM unnest(p_words) WITH ORDINALITY AS a (word, n)
          JOIN unnest(p_words) WITH ORDINALITY AS b (word, n) ON a.n < b.n);

-- The best texts by BM25: first those with the rarest words; and where these leave it open, and it is to
-- be thorough, the others that can still be better: those with two words, if one alone is worth less
-- than the score to beat (MaxScore: Turtle and Flood, 1995). Of either at most p_most are scored.
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
    IF v_found.complete OR NOT p_thorough OR v_rest = '{}' THEN
        RETURN v_found;
    END IF;
    v_more := pgrecall.score_texts(
        v_scan, v_scope && !!v_query
            && CASE WHEN v_least > (SELECT max(most) FROM unnest(v_rest) AS most)
                    THEN pgrecall.two_of(v_words[v_taken + 1:])
                    ELSE pgrecall.any_of(v_words[v_taken + 1:]) END,
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
