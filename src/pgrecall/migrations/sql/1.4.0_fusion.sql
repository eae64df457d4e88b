-- Fusion: what words and vectors say about a row, in one unit, and what its neighbours add to it.

-- name: filtering
-- The projects that a filter admits; NULL for all. A project's knowledge is its own and what all share.
CREATE FUNCTION pgrecall.filter_projects(p_kind text, p_filter jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE
RETURN CASE
    WHEN p_kind <> 'episodes' THEN CASE WHEN p_filter ->> 'project_id' IS NOT NULL
        THEN ARRAY['', p_filter ->> 'project_id'] END
    WHEN p_filter ->> 'project_id' IS NOT NULL THEN CASE
        WHEN coalesce(p_filter -> 'project_ids', 'null') IN ('null')
             OR p_filter -> 'project_ids' ? (p_filter ->> 'project_id')
        THEN ARRAY[p_filter ->> 'project_id'] ELSE '{}' END
    WHEN jsonb_typeof(p_filter -> 'project_ids') = 'array' THEN ARRAY(
        SELECT DISTINCT jsonb_array_elements_text(p_filter -> 'project_ids')) END;

-- name: judging
CREATE TYPE pgrecall.judged AS (
    id       uuid,
    distance double precision, -- NULL without a vector
    words    double precision, -- BM25
    worth    double precision,
    at       timestamptz,
    matches  boolean           -- whether the filter admits it
);

-- Measures rows by their vectors and by their words.
CREATE FUNCTION pgrecall.judge(
    p_kind text, p_ids uuid[], p_query vector, p_wording pgrecall.wording, p_conditions text
) RETURNS pgrecall.judged[]
LANGUAGE plpgsql SET search_path FROM CURRENT
AS $judge$
DECLARE
    v_source record := pgrecall.source(p_kind);
    v_judged pgrecall.judged[];
BEGIN
    EXECUTE format(
        'SELECT array_agg(ROW(n.id, nullif(n.distance, ''NaN''), %s, n.worth, n.at, '
        'coalesce(true%s, false))::pgrecall.judged) '
        'FROM unnest($2) AS asked (id) JOIN %s AS t ON t.%I = asked.id '
        'CROSS JOIN LATERAL (SELECT %s) AS n '
        'LEFT JOIN pgrecall.texts AS w '
        'ON w.project_id = %s AND w.kind = %L AND w.id = t.%I AND w.part = 1',
        pgrecall.bm25(p_wording), p_conditions, v_source.relation, v_source.id, v_source.columns,
        v_source.project, p_kind, v_source.id)
       INTO v_judged USING p_query, p_ids;
    RETURN coalesce(v_judged, '{}');
END
$judge$;

-- name: background
-- Identifiers at even distances between two, by 60 of their bits.
CREATE FUNCTION pgrecall.evenly(p_low uuid, p_high uuid, p_count integer) RETURNS SETOF uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $evenly$
    SELECT rpad(lpad(to_hex((low + step * ((high - low) / p_count))::bigint), 15, '0'), 32, '0')::uuid
      FROM (SELECT ('x' || left(replace(p_low::text, '-', ''), 15))::bit(60)::bigint AS low,
                   ('x' || left(replace(p_high::text, '-', ''), 15))::bit(60)::bigint AS high) AS ends
     CROSS JOIN generate_series(0, p_count - 1) AS step
     WHERE p_low IS NOT NULL
$evenly$;

-- Rows taken evenly in the order of their identifiers, from all or from each project: the same ones
-- each time, as long as none comes or goes.
CREATE FUNCTION pgrecall.sampled(p_kind text, p_projects text[], p_count integer) RETURNS uuid[]
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
AS $sampled$
BEGIN
    IF p_projects IS NOT NULL THEN
        RETURN ARRAY(
            SELECT DISTINCT t.id
              FROM unnest(p_projects[:p_count]) AS project
             CROSS JOIN LATERAL pgrecall.evenly(
                 (SELECT id FROM pgrecall.texts WHERE project_id = project AND kind = p_kind
                   ORDER BY id LIMIT 1),
                 (SELECT id FROM pgrecall.texts WHERE project_id = project AND kind = p_kind
                   ORDER BY id DESC LIMIT 1),
                 greatest(p_count / greatest(cardinality(p_projects), 1), 1)) AS begin
             CROSS JOIN LATERAL (SELECT id FROM pgrecall.texts WHERE project_id = project
                                    AND kind = p_kind AND id >= begin ORDER BY id LIMIT 1) AS t);
    ELSIF p_kind = 'episodes' THEN
        RETURN ARRAY(
            SELECT DISTINCT e.episode_id
              FROM pgrecall.evenly(
                 (SELECT episode_id FROM public.agent_episodes ORDER BY episode_id LIMIT 1),
                 (SELECT episode_id FROM public.agent_episodes ORDER BY episode_id DESC LIMIT 1),
                 p_count) AS begin
             CROSS JOIN LATERAL (SELECT episode_id FROM public.agent_episodes
                                  WHERE episode_id >= begin ORDER BY episode_id LIMIT 1) AS e);
    END IF;
    RETURN ARRAY(
        SELECT DISTINCT k.knowledge_id
          FROM pgrecall.evenly(
             (SELECT knowledge_id FROM public.agent_knowledge ORDER BY knowledge_id LIMIT 1),
             (SELECT knowledge_id FROM public.agent_knowledge ORDER BY knowledge_id DESC LIMIT 1),
             p_count) AS begin
         CROSS JOIN LATERAL (SELECT knowledge_id FROM public.agent_knowledge
                              WHERE knowledge_id >= begin ORDER BY knowledge_id LIMIT 1) AS k);
END
$sampled$;

-- A deviation, in spreads that a sample of 32 has, as that of a normal distribution which is as
-- improbable: the sample tells mean and spread only nearly, so Student's t is what tells of others
-- (Wallace, Bounds on normal approximations to Student's and the chi-square distributions, 1959). What
-- is beyond all doubt, six spreads, goes on by ones.
CREATE FUNCTION pgrecall.as_normal(p_deviation double precision) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN sign(p_deviation) * (249 / 251.0::double precision)
           * sqrt(31 * ln(1 + least(abs(p_deviation), 8.36) ^ 2 / 31))
       + greatest(p_deviation - 8.36, 0);

-- The inverse.
CREATE FUNCTION pgrecall.as_sampled(p_deviation double precision) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN sign(p_deviation)
           * sqrt(31 * (exp((least(abs(p_deviation), 6) * 251 / 249) ^ 2 / 31) - 1))
       + greatest(p_deviation - 6, 0);

-- What each row's own words and vector say for it, in nats. How improbable a similarity is by chance,
-- p, follows from the distribution of the similarities that a sample has. But among many something is
-- always improbable: p speaks for a relation by 1 / (-e p ln p) at most (Sellke, Bayarri and Berger,
-- Calibration of p values, 2001), of which the logarithm is taken.
CREATE FUNCTION pgrecall.evidence(
    p_rows pgrecall.judged[], p_mean double precision, p_spread double precision,
    p_chance double precision
) RETURNS TABLE (
    id uuid, distance double precision, words double precision, worth double precision,
    at timestamptz, matches boolean, evidence double precision)
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $evidence$
    SELECT j.id, j.distance, j.words, j.worth, j.at, j.matches,
           j.words / p_chance
           + CASE WHEN j.improbable > 1 THEN j.improbable - ln(j.improbable) - 1 ELSE 0 END
      FROM (SELECT d.*, CASE WHEN d.deviation IS NOT NULL THEN
                        -ln(erfc(least(pgrecall.as_normal(d.deviation), 30) / sqrt(2)) / 2)
                        END AS improbable
              FROM (SELECT r.*, (1 - r.distance - p_mean) / p_spread AS deviation
                      FROM unnest(p_rows) AS r OFFSET 0) AS d OFFSET 0) AS j
$evidence$;

-- How many spreads above the mean a similarity lies that says so many nats. One step of Newton from
-- the bounds that Chatzigeorgiou gives (2013), then Abramowitz and Stegun, Handbook of Mathematical
-- Functions, 26.2.23; to 0.001.
CREATE FUNCTION pgrecall.deviation(p_nats double precision) RETURNS double precision
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $deviation$
DECLARE
    v_nats double precision := greatest(p_nats, 1e-6);
    v_near double precision := 1 + sqrt(2 * v_nats) + v_nats * 5 / 6;
    v_improbable double precision :=
        v_near - (v_near - ln(v_near) - 1 - v_nats) / (1 - 1 / v_near);
    v_upper boolean := v_improbable > ln(2);
    t double precision :=
        sqrt(-2 * CASE WHEN v_upper THEN -v_improbable ELSE ln(1 - exp(-v_improbable)) END);
BEGIN
    RETURN pgrecall.as_sampled(
        CASE WHEN v_upper THEN 1 ELSE -1 END
        * (t - (2.515517 + 0.802853 * t + 0.010328 * t ^ 2)
               / (1 + 1.432788 * t + 0.189269 * t ^ 2 + 0.001308 * t ^ 3)));
END
$deviation$;

-- name: neighbours
-- The episodes next in time, two before and two after, in the same project and sprint.
CREATE FUNCTION pgrecall.neighbours(p_ids uuid[])
RETURNS TABLE (id uuid, neighbour uuid, distance bigint)
LANGUAGE sql STABLE SET search_path FROM CURRENT
AS $neighbours$
    SELECT e.episode_id, n.episode_id, n.distance
      FROM public.agent_episodes AS e
     CROSS JOIN LATERAL (
         (SELECT l.episode_id, l.sprint_id, row_number() OVER (ORDER BY l.timestamp) AS distance
            FROM public.agent_episodes AS l
           WHERE l.project_id = e.project_id AND l.timestamp > e.timestamp
           ORDER BY l.timestamp LIMIT 2)
         UNION ALL
         (SELECT b.episode_id, b.sprint_id, row_number() OVER (ORDER BY b.timestamp DESC)
            FROM public.agent_episodes AS b
           WHERE b.project_id = e.project_id AND b.timestamp < e.timestamp
           ORDER BY b.timestamp DESC LIMIT 2)) AS n
     WHERE e.episode_id = ANY (p_ids) AND n.sprint_id IS NOT DISTINCT FROM e.sprint_id
$neighbours$;

-- name: fusing
-- What was found, as one list. A row's evidence is what its words say (BM25, whose rarities are nats)
-- and what its similarity says. Words that often occur together say less than the sum of their
-- rarities: if they said n nats rightly, a text would have them by chance with e^-n, and one nat on
-- average. Where the texts of the sample have more than that, all are divided by what those have. Of a
-- neighbour's evidence it is lent as much as the evidence of neighbours goes together in this search:
-- the slope of one on the other, through the mean of the sample, between 0 and 1/2. Relevance is the
-- similarity that alone would say as much; without a vector to look for, the share of what the words
-- could say at most.
CREATE FUNCTION pgrecall.fuse(
    p_kind text, p_hits pgrecall.found, p_worded pgrecall.worded, p_query vector,
    p_wording pgrecall.wording, p_projects text[], p_conditions text, p_count integer,
    p_context boolean, OUT hits pgrecall.found, OUT told jsonb)
LANGUAGE plpgsql SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
AS $fuse$
DECLARE
    v_pool    uuid[] := ARRAY(SELECT unnest((p_hits).ids) UNION SELECT unnest((p_worded).ids));
    v_sample  uuid[] := pgrecall.sampled(p_kind, p_projects, 32);
    v_judged  pgrecall.judged[];
    v_mean    double precision;
    v_spread  double precision;
    v_chance  double precision; -- what words say for the sample, 1 at least
    v_usual   double precision; -- evidence of the sample
    v_most    double precision; -- what the words can say
    v_best    uuid[];
    v_from    uuid[] := '{}'; -- pairs of neighbours, and how far they are from each other
    v_to      uuid[] := '{}';
    v_far     bigint[] := '{}';
    v_lends   double precision[];
BEGIN
    v_judged := pgrecall.judge(
        p_kind, ARRAY(SELECT unnest(v_pool) UNION SELECT unnest(v_sample)), p_query, p_wording,
        p_conditions);
    SELECT coalesce(avg(1 - j.distance), 0),
           greatest(stddev_samp(1 - j.distance), 1 / sqrt(coalesce(vector_dims(p_query), 1))),
           CASE WHEN p_query IS NULL THEN 1 ELSE greatest(avg(j.words), 1) END
      INTO v_mean, v_spread, v_chance
      FROM unnest(v_judged) AS j WHERE j.id = ANY (v_sample);
    SELECT coalesce(avg(e.evidence), 0) INTO v_usual
      FROM pgrecall.evidence(v_judged, v_mean, v_spread, v_chance) AS e WHERE e.id = ANY (v_sample);
    SELECT sum(place.most) INTO v_most
      FROM (SELECT max(2.2 * t.weight * t.idf) AS most FROM unnest((p_wording).terms) AS t
             GROUP BY t.place) AS place;
    IF p_context THEN
        v_best := ARRAY(SELECT e.id
                          FROM pgrecall.evidence(v_judged, v_mean, v_spread, v_chance) AS e
                         WHERE e.id = ANY (v_pool) AND e.matches
                         ORDER BY e.evidence DESC, e.distance, e.id
                         LIMIT greatest(p_count / 3, 10));
        SELECT coalesce(array_agg(n.id), '{}'), coalesce(array_agg(n.neighbour), '{}'),
               coalesce(array_agg(n.distance), '{}')
          INTO v_from, v_to, v_far FROM pgrecall.neighbours(v_best) AS n;
        v_judged := v_judged || pgrecall.judge(
            p_kind, ARRAY(SELECT unnest(v_to) EXCEPT SELECT j.id FROM unnest(v_judged) AS j),
            p_query, p_wording, p_conditions);
    END IF;

    WITH row AS MATERIALIZED (
        SELECT e.* FROM pgrecall.evidence(v_judged, v_mean, v_spread, v_chance) AS e
    ), pair AS MATERIALIZED (
        SELECT n.a, n.b, n.far, x.evidence - v_usual AS one, y.evidence - v_usual AS other
          FROM unnest(v_from, v_to, v_far) AS n (a, b, far)
          JOIN row AS x ON x.id = n.a JOIN row AS y ON y.id = n.b
    ), lend AS MATERIALIZED (
        SELECT p.far, least(greatest(sum(p.one * p.other) / nullif(sum(p.one ^ 2), 0), 0), 0.5)
                      AS share
          FROM pair AS p GROUP BY p.far
    ), lent AS MATERIALIZED (
        SELECT n.a AS id, sum(l.share * y.evidence) AS evidence
          FROM (SELECT a, b, far FROM pair UNION SELECT b, a, far FROM pair) AS n
          JOIN lend AS l USING (far) JOIN row AS y ON y.id = n.b GROUP BY n.a
    ), best AS (
        SELECT r.*, coalesce(l.evidence, 0) AS lent, r.evidence + coalesce(l.evidence, 0) AS total
          FROM row AS r LEFT JOIN lent AS l USING (id)
         WHERE r.matches AND (r.id = ANY (v_pool) OR r.id = ANY (v_to))
         ORDER BY total DESC, r.distance, r.id LIMIT p_count
    )
    SELECT coalesce(array_agg(b.id), '{}'), array_agg(b.distance), array_agg(b.worth),
           array_agg(b.at), array_agg(b.words / v_chance), array_agg(b.lent), array_agg(b.total),
           array_agg(CASE
               WHEN p_query IS NULL THEN b.total / v_most
               WHEN b.words + b.lent = 0 THEN 1 - b.distance
               ELSE greatest(1 - b.distance, v_mean + v_spread * pgrecall.deviation(b.total))
               END),
           (SELECT array_agg(l.share ORDER BY l.far) FROM lend AS l)
      INTO hits.ids, hits.distances, hits.worths, hits.times, hits.words, hits.lent,
           hits.evidence, hits.relevance, v_lends
      FROM best AS b WHERE b.total > 0 OR b.distance IS NOT NULL;
    hits.complete := true;
    hits.plans := coalesce((p_hits).plans, '[]') || coalesce((p_worded).plans, '[]');
    told := jsonb_build_object(
        'mean', v_mean, 'spread', v_spread, 'chance', v_chance, 'lends', coalesce(v_lends, '{}'),
        'considered', (p_worded).considered, 'complete', (p_worded).complete,
        'texts', (p_wording).texts, 'average', (p_wording).average,
        'terms', (SELECT coalesce(jsonb_agg(jsonb_build_object(
                             'word', t.word, 'weight', t.weight, 'texts', t.texts, 'idf', t.idf)
                             ORDER BY t.place, t.weight DESC), '[]')
                    FROM unnest((p_wording).terms) AS t));
END
$fuse$;

-- Searches by words, by a vector, or by both.
CREATE FUNCTION pgrecall.gather(
    p_kind text, p_query vector, p_text text, p_count integer, p_filter jsonb, p_route text,
    p_context boolean, p_explain boolean, OUT hits pgrecall.found, OUT routes text[],
    OUT choice pgrecall.choice, OUT choose_ms double precision, OUT search_ms double precision,
    OUT told jsonb)
LANGUAGE plpgsql SET search_path FROM CURRENT
AS $gather$
DECLARE
    v_near     record;
    v_projects text[] := pgrecall.filter_projects(p_kind, p_filter);
    v_wording  pgrecall.wording;
    v_worded   pgrecall.worded;
    v_fused    record;
    v_begun    timestamptz;
    v_source   record := pgrecall.source(p_kind);
BEGIN
    IF p_query IS NOT NULL THEN
        v_near := pgrecall.nearest(p_kind, p_query, p_count, p_filter, p_route, p_explain);
        hits := v_near.hits;
        routes := v_near.routes;
        choice := v_near.choice;
        choose_ms := v_near.choose_ms;
        search_ms := v_near.search_ms;
    ELSE
        choice.conditions := pgrecall.filter_conditions(p_kind, p_filter);
        choose_ms := 0;
        search_ms := 0;
    END IF;
    v_begun := clock_timestamp();
    v_wording := pgrecall.wording(p_kind, v_projects, p_text);
    v_worded := pgrecall.nearest_by_words(
        p_kind, v_wording, v_projects,
        CASE WHEN p_kind = 'episodes' AND p_filter - ARRAY['project_id', 'project_ids'] = '{}'
             THEN '' ELSE format(' JOIN %s AS t ON t.%I = w.id%s', v_source.relation, v_source.id,
                                 choice.conditions) END,
        p_count, CASE WHEN p_query IS NULL THEN 5000 ELSE 2000 END, p_query IS NULL, p_explain);
    v_fused := pgrecall.fuse(p_kind, hits, v_worded, p_query, v_wording, v_projects,
                             choice.conditions, p_count, p_context AND p_kind = 'episodes');
    hits := v_fused.hits;
    told := v_fused.told || jsonb_build_object(
        'milliseconds', extract(epoch FROM clock_timestamp() - v_begun) * 1000);
END
$gather$;
