-- Recall: what was found is ranked, grouped, varied and accounted for; and measured.

-- name: ranking
-- What was found, with its score: a weighted mean of similarity, worth (an outcome's quality or a
-- confidence; 0.5 where it is not known) and recency, which halves in every half-life.
CREATE FUNCTION pgrecall.rank(
    p_hits pgrecall.found, p_min_similarity double precision, p_worth_weight double precision,
    p_age_weight double precision, p_half_life interval
) RETURNS TABLE (id uuid, similarity double precision, worth double precision,
                 recency double precision, score double precision, repeats uuid[])
LANGUAGE sql STABLE
AS $rank$
    SELECT id, similarity, worth, recency,
           (1 - p_worth_weight - p_age_weight) * similarity + p_worth_weight * worth
               + p_age_weight * recency,
           repeats
      FROM (SELECT n.id, 1 - n.distance AS similarity, coalesce(n.worth, 0.5) AS worth,
                   power(0.5, greatest(extract(epoch FROM now() - n.at), 0)::double precision
                              / extract(epoch FROM p_half_life)::double precision) AS recency,
                   coalesce(n.repeats, '{}')::uuid[] AS repeats
              FROM unnest((p_hits).ids, (p_hits).distances, (p_hits).worths, (p_hits).times,
                          (p_hits).repeats) AS n (id, distance, worth, at, repeats)
             WHERE 1 - n.distance >= p_min_similarity) AS terms
$rank$;

-- The best of them in their order: by score, or as they were chosen.
CREATE FUNCTION pgrecall.best(
    p_hits pgrecall.found, p_min_similarity double precision, p_worth_weight double precision,
    p_age_weight double precision, p_half_life interval, p_chosen uuid[], p_limit integer
) RETURNS TABLE (place bigint, id uuid, similarity double precision, worth double precision,
                 recency double precision, score double precision, repeats uuid[])
LANGUAGE sql STABLE
AS $best$
    SELECT row_number() OVER (ORDER BY array_position(p_chosen, r.id), r.score DESC,
                                       r.similarity DESC, r.id) AS place, r.*
      FROM pgrecall.rank(p_hits, p_min_similarity, p_worth_weight, p_age_weight, p_half_life) AS r
     WHERE p_chosen IS NULL OR r.id = ANY (p_chosen)
     ORDER BY place
     LIMIT p_limit
$best$;

-- Decisions that repeat another, word by word and vector by vector, become one: the newest whose
-- outcome is known, with the mean of the outcomes and the identifiers of the others.
CREATE FUNCTION pgrecall.group_repeats(p_hits pgrecall.found) RETURNS pgrecall.found
LANGUAGE sql STABLE
AS $group_repeats$
    SELECT ROW(coalesce(array_agg(ids[1]), '{}'), array_agg(distance), array_agg(worth),
               array_agg(at), array_agg(ids[2:]::text), (p_hits).complete,
               (p_hits).plans)::pgrecall.found
      FROM (SELECT array_agg(n.id ORDER BY n.worth IS NULL, n.at DESC, n.id) AS ids, n.distance,
                   avg(n.worth) AS worth, max(n.at) AS at
              FROM unnest((p_hits).ids, (p_hits).distances, (p_hits).worths, (p_hits).times)
                       AS n (id, distance, worth, at)
              JOIN public.agent_episodes AS e ON e.episode_id = n.id
             GROUP BY n.distance, e.project_id, e.perception, e.reasoning, e.action) AS grouped
$group_repeats$;

-- Picks hits that are good and unlike each other, in that order: maximal marginal relevance
-- (Carbonell and Goldstein, SIGIR 1998), whose lambda is 1 - p_diversity.
CREATE FUNCTION pgrecall.diversify(
    p_kind text, p_hits pgrecall.found, p_min_similarity double precision,
    p_worth_weight double precision, p_age_weight double precision, p_half_life interval,
    p_diversity double precision, p_limit integer
) RETURNS uuid[]
LANGUAGE plpgsql
AS $diversify$
DECLARE
    v_source  record := pgrecall.source(p_kind);
    v_ids     uuid[];
    v_scores  double precision[];
    v_vectors vector[];
    v_closest double precision[];
    v_left    boolean[];
    v_chosen  uuid[] := '{}';
    v_gain    double precision;
    v_most    double precision;
    v_best    integer;
BEGIN
    SELECT array_agg(r.id ORDER BY r.score DESC, r.id),
           array_agg(r.score ORDER BY r.score DESC, r.id),
           array_agg(-1::double precision), array_agg(true)
      INTO v_ids, v_scores, v_closest, v_left
      FROM pgrecall.rank(p_hits, p_min_similarity, p_worth_weight, p_age_weight, p_half_life) AS r;
    EXECUTE format('SELECT array_agg(t.embedding ORDER BY n.position) '
                   'FROM unnest($1) WITH ORDINALITY AS n (id, position) JOIN %s AS t ON t.%I = n.id',
                   v_source.relation, v_source.id)
       INTO v_vectors USING v_ids;
    WHILE cardinality(v_chosen) < least(p_limit, cardinality(v_vectors)) LOOP
        v_best := NULL;
        FOR i IN 1..cardinality(v_vectors) LOOP
            v_gain := (1 - p_diversity) * v_scores[i]
                      - CASE WHEN v_chosen = '{}' THEN 0 ELSE p_diversity * v_closest[i] END;
            IF v_left[i] AND (v_best IS NULL OR v_gain > v_most) THEN
                v_best := i;
                v_most := v_gain;
            END IF;
        END LOOP;
        v_chosen := v_chosen || v_ids[v_best];
        v_left[v_best] := false;
        FOR i IN 1..cardinality(v_vectors) LOOP
            v_closest[i] := greatest(v_closest[i], 1 - (v_vectors[i] <=> v_vectors[v_best]));
        END LOOP;
    END LOOP;
    RETURN v_chosen;
END
$diversify$;

-- What a recall did, and why: the steps of its plans, without the vectors that they name.
CREATE FUNCTION pgrecall.account(
    p_routes text[], p_choice pgrecall.choice, p_wanted integer, p_dimensions integer,
    p_plans jsonb, p_choose_ms double precision, p_search_ms double precision
) RETURNS jsonb
LANGUAGE sql STABLE
AS $account$
    WITH node AS (
        SELECT position, value ->> 'Node Type' AS step,
               coalesce(value ->> 'Relation Name', value ->> 'CTE Name') AS "on",
               value ->> 'Index Name' AS index, loops,
               round((value ->> 'Actual Rows')::numeric * loops) AS rows,
               round(coalesce(value ->> 'Rows Removed by Filter', '0')::numeric * loops) AS removed,
               round((value ->> 'Actual Total Time')::numeric * loops, 3) AS milliseconds
          FROM jsonb_path_query(p_plans, 'strict $.** ? (exists(@."Node Type"))', silent => true)
                   WITH ORDINALITY AS nodes (value, position),
               LATERAL (SELECT (value ->> 'Actual Loops')::numeric AS loops) AS times
    )
    SELECT jsonb_build_object(
        'route', p_routes[cardinality(p_routes)],
        'tried', p_routes,
        'wanted', p_wanted,
        'rows', round((p_choice).rows),
        'matching', round((p_choice).matching),
        'considered', coalesce(sum(rows + removed) FILTER (
            WHERE step LIKE '%Scan' AND "on" IN ('agent_episodes', 'agent_knowledge',
                                                 'episode_codes', 'knowledge_codes')), 0),
        'expected_ms', (SELECT jsonb_object_agg(c.route, round(c.milliseconds::numeric, 2))
                          FROM pgrecall.route_costs(
                              (p_choice).rows, (p_choice).matching, p_wanted, p_dimensions,
                              ((p_choice).conditions <> '')::integer, (p_choice).joined) AS c),
        'indexed', (p_choice).ordering IS NOT NULL,
        'coded', coalesce((p_choice).coded, false),
        'choose_ms', p_choose_ms,
        'search_ms', p_search_ms,
        'plan', coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
            'step', step, 'on', "on", 'index', index, 'rows', rows, 'removed', removed,
            'milliseconds', milliseconds)) ORDER BY position), '[]'))
      FROM node
$account$;

-- name: recall
CREATE FUNCTION pgrecall.recall_episodes(
    p_query          vector,
    p_limit          integer          DEFAULT 10,
    p_filter         jsonb            DEFAULT '{}',
    p_min_similarity double precision DEFAULT -1,
    p_outcome_weight double precision DEFAULT 0.15,
    p_age_weight     double precision DEFAULT 0,
    p_half_life      interval         DEFAULT '30 days',
    p_diversity      double precision DEFAULT 0,
    p_group          boolean          DEFAULT true,
    p_route          text             DEFAULT NULL,
    p_explain        boolean          DEFAULT false
) RETURNS TABLE (
    episode_id uuid, project_id varchar, "timestamp" timestamptz, perception jsonb,
    reasoning jsonb, action jsonb, outcome jsonb, outcome_quality double precision,
    outcome_recorded_at timestamptz, agent_version varchar, control_mode varchar,
    decision_source varchar, sprint_id varchar, chronicle_note_id uuid, external_id varchar,
    embedded boolean, similarity double precision, worth double precision,
    recency double precision, score double precision, repeats uuid[], account jsonb)
LANGUAGE plpgsql SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan
AS $recall_episodes$
#variable_conflict use_column
DECLARE
    -- More than are asked for, where one from further back may come to the front.
    v_wanted  integer := CASE WHEN p_outcome_weight > 0 OR p_age_weight > 0 OR p_diversity > 0
                              THEN 3 * p_limit ELSE p_limit END;
    v_near    record;
    v_hits    pgrecall.found;
    v_chosen  uuid[];
    v_account jsonb;
BEGIN
    LOOP
        v_near := pgrecall.nearest('episodes', p_query, v_wanted, p_filter, p_route, p_explain);
        v_hits := v_near.hits;
        EXIT WHEN NOT p_group OR cardinality(v_hits.ids)
                                 = (SELECT count(DISTINCT d) FROM unnest(v_hits.distances) AS d);
        v_hits := pgrecall.group_repeats(v_hits);
        -- Where much repeats itself, it takes more of them to have enough that differ.
        EXIT WHEN cardinality(v_hits.ids) >= p_limit
               OR cardinality((v_near.hits).ids) < v_wanted;
        v_wanted := 4 * v_wanted;
    END LOOP;
    IF p_diversity > 0 THEN
        v_chosen := pgrecall.diversify('episodes', v_hits, p_min_similarity, p_outcome_weight,
                                       p_age_weight, p_half_life, p_diversity, p_limit);
    END IF;
    IF p_explain THEN
        v_account := pgrecall.account(v_near.routes, v_near.choice, v_wanted,
                                      vector_dims(p_query), v_hits.plans, v_near.choose_ms,
                                      v_near.search_ms);
    END IF;
    RETURN QUERY
    SELECT e.episode_id, e.project_id, e.timestamp, e.perception, e.reasoning, e.action, e.outcome,
           e.outcome_quality, e.outcome_recorded_at, e.agent_version, e.control_mode,
           e.decision_source, e.sprint_id, e.chronicle_note_id, e.external_id,
           e.embedding IS NOT NULL, best.similarity, best.worth, best.recency, best.score,
           best.repeats, v_account
      FROM pgrecall.best(v_hits, p_min_similarity, p_outcome_weight, p_age_weight, p_half_life,
                         v_chosen, p_limit) AS best
      JOIN public.agent_episodes AS e ON e.episode_id = best.id
     ORDER BY best.place;
    IF p_explain AND NOT FOUND THEN
        -- There is an account even of a recall that found nothing.
        account := v_account;
        RETURN NEXT;
    END IF;
END
$recall_episodes$;

CREATE FUNCTION pgrecall.recall_knowledge(
    p_query             vector,
    p_limit             integer          DEFAULT 10,
    p_filter            jsonb            DEFAULT '{"active": true}',
    p_min_similarity    double precision DEFAULT -1,
    p_confidence_weight double precision DEFAULT 0.15,
    p_age_weight        double precision DEFAULT 0,
    p_half_life         interval         DEFAULT '30 days',
    p_diversity         double precision DEFAULT 0,
    p_route             text             DEFAULT NULL,
    p_explain           boolean          DEFAULT false
) RETURNS TABLE (
    knowledge_id uuid, knowledge_type varchar, content jsonb, description text,
    confidence double precision, supporting_episodes uuid[], contradicting_episodes uuid[],
    times_applied integer, success_count integer, failure_count integer,
    success_rate double precision, created_at timestamptz, last_validated timestamptz,
    last_applied timestamptz, created_by varchar, is_active boolean, project_id varchar,
    embedded boolean, similarity double precision, worth double precision,
    recency double precision, score double precision, account jsonb)
LANGUAGE plpgsql SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan
AS $recall_knowledge$
#variable_conflict use_column
DECLARE
    v_wanted  integer := CASE WHEN p_confidence_weight > 0 OR p_age_weight > 0 OR p_diversity > 0
                              THEN 3 * p_limit ELSE p_limit END;
    v_near    record := pgrecall.nearest('knowledge', p_query, v_wanted, p_filter, p_route,
                                         p_explain);
    v_hits    pgrecall.found := v_near.hits;
    v_chosen  uuid[];
    v_account jsonb;
BEGIN
    IF p_diversity > 0 THEN
        v_chosen := pgrecall.diversify('knowledge', v_hits, p_min_similarity, p_confidence_weight,
                                       p_age_weight, p_half_life, p_diversity, p_limit);
    END IF;
    IF p_explain THEN
        v_account := pgrecall.account(v_near.routes, v_near.choice, v_wanted,
                                      vector_dims(p_query), v_hits.plans, v_near.choose_ms,
                                      v_near.search_ms);
    END IF;
    RETURN QUERY
    SELECT k.knowledge_id, k.knowledge_type, k.content, k.description, k.confidence,
           k.supporting_episodes, k.contradicting_episodes, k.times_applied, k.success_count,
           k.failure_count, k.success_rate, k.created_at, k.last_validated, k.last_applied,
           k.created_by, k.is_active, k.project_id, k.embedding IS NOT NULL, best.similarity,
           best.worth, best.recency, best.score, v_account
      FROM pgrecall.best(v_hits, p_min_similarity, p_confidence_weight, p_age_weight, p_half_life,
                         v_chosen, p_limit) AS best
      JOIN public.agent_knowledge AS k ON k.knowledge_id = best.id
     ORDER BY best.place;
    IF p_explain AND NOT FOUND THEN
        account := v_account;
        RETURN NEXT;
    END IF;
END
$recall_knowledge$;

-- name: measuring
-- Queries that agents posed, a few of them, to be posed again exactly. Nobody waits for that.
CREATE TABLE IF NOT EXISTS pgrecall.recall_samples (
    sample_id  uuid        DEFAULT gen_random_uuid() PRIMARY KEY,
    posed_at   timestamptz NOT NULL DEFAULT now(),
    kind       varchar(20) NOT NULL,
    query      vector      NOT NULL,
    wanted     integer     NOT NULL,
    filter     jsonb       NOT NULL,
    project_id varchar(50),
    checked_at timestamptz
);
CREATE INDEX IF NOT EXISTS recall_samples_unchecked
    ON pgrecall.recall_samples (posed_at DESC) WHERE checked_at IS NULL;

-- Poses queries as a recall would and exactly, and writes down how much of the truth was found:
-- the newest that agents posed and that were not checked yet, then stored vectors. The exact search
-- may read the whole table: p_budget_ms and a statement_timeout bound it.
DROP FUNCTION IF EXISTS pgrecall.probe_recall(integer, integer, double precision);
CREATE FUNCTION pgrecall.probe_recall(
    p_queries   integer          DEFAULT 3,
    p_limit     integer          DEFAULT 10,
    p_budget_ms double precision DEFAULT 1000
) RETURNS TABLE (duration_ms double precision, exact_ms double precision, results integer,
                 recall_accuracy double precision, "precision" double precision,
                 kind text, route text, filter jsonb, posed boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan
AS $probe_recall$
#variable_conflict use_column
DECLARE
    v_begun  timestamptz := clock_timestamp();
    v_start  timestamptz;
    v_from   uuid;
    v_asked  pgrecall.recall_samples;
    v_near   record;
    v_truth  double precision[];
    v_right  integer;
BEGIN
    DELETE FROM pgrecall.recall_samples WHERE posed_at < now() - interval '7 days';
    FOR i IN 1..p_queries LOOP
        EXIT WHEN extract(epoch FROM clock_timestamp() - v_begun) * 1000 > p_budget_ms;
        UPDATE pgrecall.recall_samples AS s SET checked_at = clock_timestamp()
         WHERE s.sample_id = (SELECT n.sample_id FROM pgrecall.recall_samples AS n
                               WHERE n.checked_at IS NULL
                                 AND vector_dims(n.query) = (SELECT m.dimensions
                                      FROM pgrecall.embedding_models AS m WHERE m.serving)
                               ORDER BY n.posed_at DESC LIMIT 1 FOR UPDATE SKIP LOCKED)
        RETURNING s.* INTO v_asked;
        posed := FOUND;
        IF NOT FOUND THEN
            -- Identifiers are random, so the next after a random one is a random episode.
            v_from := gen_random_uuid();
            SELECT e.embedding INTO v_asked.query FROM public.agent_episodes AS e
             WHERE e.episode_id >= v_from AND e.embedding IS NOT NULL
             ORDER BY e.episode_id LIMIT 1;
            IF v_asked.query IS NULL THEN
                SELECT e.embedding INTO v_asked.query FROM public.agent_episodes AS e
                 WHERE e.embedding IS NOT NULL ORDER BY e.episode_id LIMIT 1;
            END IF;
            EXIT WHEN v_asked.query IS NULL;
            v_asked.kind := 'episodes';
            v_asked.wanted := p_limit;
            v_asked.filter := '{}';
            v_asked.project_id := NULL;
        END IF;

        v_start := clock_timestamp();
        v_near := pgrecall.nearest(v_asked.kind, v_asked.query, v_asked.wanted, v_asked.filter,
                                   NULL, false);
        duration_ms := extract(epoch FROM clock_timestamp() - v_start) * 1000;
        v_start := clock_timestamp();
        v_truth := ((pgrecall.nearest(v_asked.kind, v_asked.query, v_asked.wanted,
                                      v_asked.filter, 'exact', false)).hits).distances;
        exact_ms := extract(epoch FROM clock_timestamp() - v_start) * 1000;

        -- By distance rather than by row: of several that are equally near, any is right.
        v_right := (SELECT count(*) FROM unnest((v_near.hits).distances) AS distance
                     WHERE distance <= v_truth[cardinality(v_truth)]);
        results := coalesce(cardinality((v_near.hits).ids), 0);
        recall_accuracy := v_right::double precision / nullif(cardinality(v_truth), 0);
        "precision" := v_right::double precision / nullif(results, 0);
        kind := v_asked.kind;
        route := v_near.routes[cardinality(v_near.routes)];
        filter := v_asked.filter;
        -- Where nothing matches there is nothing to find.
        INSERT INTO public.agent_memory_metrics AS m (
            operation_type, latency_ms, duration_ms, results_count, recall_accuracy, precision,
            project_id)
        SELECT CASE v_asked.kind WHEN 'episodes' THEN 'recall_similar' ELSE 'recall_knowledge' END,
               ceil(duration_ms), duration_ms, results, recall_accuracy, "precision",
               v_asked.project_id
         WHERE recall_accuracy IS NOT NULL;
        RETURN NEXT;
    END LOOP;
END
$probe_recall$;

-- name: rights
-- Trigger functions and those with the owner's rights are for whom they are meant; codes and
-- samples are kept by them, and read where recalls are made.
REVOKE ALL ON FUNCTION
    pgrecall.code_new_episodes(), pgrecall.code_changed_episode(), pgrecall.forget_episode_codes(),
    pgrecall.code_new_knowledge(), pgrecall.code_changed_knowledge(),
    pgrecall.forget_knowledge_codes(),
    pgrecall.probe_recall(integer, integer, double precision) FROM PUBLIC;
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
        EXECUTE format('REVOKE ALL ON pgrecall.embedding_models, pgrecall.episode_codes, '
                       'pgrecall.knowledge_codes, pgrecall.recall_samples FROM %I', role);
        EXECUTE format('GRANT SELECT ON pgrecall.embedding_models TO %I', role);
        IF role NOT LIKE '%\_monitor' THEN
            EXECUTE format('GRANT SELECT ON pgrecall.episode_codes, pgrecall.knowledge_codes TO %I',
                           role);
        END IF;
        IF role LIKE '%\_readonly' OR role LIKE '%\_backup' THEN
            EXECUTE format('GRANT SELECT ON pgrecall.recall_samples TO %I', role);
        END IF;
        IF role LIKE '%\_app' THEN
            EXECUTE format('GRANT SELECT, INSERT ON pgrecall.recall_samples TO %I', role);
        END IF;
        IF role LIKE '%\_app' OR role LIKE '%\_monitor' THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION pgrecall.probe_recall('
                           'integer, integer, double precision) TO %I', role);
        END IF;
    END LOOP;
END
$rights$;

-- name: record
INSERT INTO public.schema_version (version, description)
VALUES ('1.3.0', 'Routes of a recall, codes of vectors, samples of queries')
ON CONFLICT (version) DO NOTHING;
