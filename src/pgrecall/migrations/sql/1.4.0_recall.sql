-- Recall by words and vectors: what was found is ranked, grouped, varied and accounted for.

-- name: found
-- Besides: BM25, what neighbours lent, and all evidence together, in nats; and what that makes of the
-- similarity. NULL where only vectors were compared.
ALTER TYPE pgrecall.found ADD ATTRIBUTE words double precision[],
    ADD ATTRIBUTE lent double precision[], ADD ATTRIBUTE evidence double precision[],
    ADD ATTRIBUTE relevance double precision[];

-- name: conditions
-- The filter as conditions on the table t. Values become literals, so that every plan is made for
-- them; a name that is no filter is refused.
CREATE OR REPLACE FUNCTION pgrecall.filter_conditions(p_kind text, p_filter jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE
AS $filter_conditions$
DECLARE
    v_conditions text := '';
    v_name       text;
    v_value      jsonb;
    v_text       text;
BEGIN
    IF p_filter = '{}' THEN
        RETURN '';
    END IF;
    IF jsonb_typeof(p_filter) <> 'object' THEN
        RAISE EXCEPTION 'the filter is % instead of an object', p_filter
              USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR v_name, v_value, v_text IN
        SELECT key, value, p_filter ->> key FROM jsonb_each(p_filter) WHERE value <> 'null'
    LOOP
        v_conditions := v_conditions || CASE p_kind || '.' || v_name
            WHEN 'episodes.project_id' THEN format(' AND t.project_id = %L', v_text)
            WHEN 'episodes.project_ids' THEN format(' AND t.project_id = ANY (%L::text[])',
                ARRAY(SELECT jsonb_array_elements_text(v_value)))
            WHEN 'episodes.since' THEN format(' AND t.timestamp >= %L::timestamptz', v_text)
            WHEN 'episodes.until' THEN format(' AND t.timestamp < %L::timestamptz', v_text)
            WHEN 'episodes.sprint_id' THEN format(' AND t.sprint_id = %L', v_text)
            WHEN 'episodes.decision_source' THEN format(' AND t.decision_source = %L', v_text)
            WHEN 'episodes.agent_version' THEN format(' AND t.agent_version = %L', v_text)
            WHEN 'episodes.min_quality' THEN
                format(' AND t.outcome_quality >= %L::double precision', v_text)
            WHEN 'episodes.max_quality' THEN
                format(' AND t.outcome_quality <= %L::double precision', v_text)
            WHEN 'episodes.with_outcome' THEN
                format(' AND (t.outcome IS NOT NULL) = %L::boolean', v_text)
            WHEN 'episodes.perception' THEN format(' AND t.perception @> %L::jsonb', v_value)
            WHEN 'episodes.reasoning' THEN format(' AND t.reasoning @> %L::jsonb', v_value)
            WHEN 'episodes.action' THEN format(' AND t.action @> %L::jsonb', v_value)
            WHEN 'episodes.outcome' THEN format(' AND t.outcome @> %L::jsonb', v_value)
            -- A project's own, and what all share.
            WHEN 'knowledge.project_id' THEN
                format(' AND (t.project_id = %L OR t.project_id IS NULL)', v_text)
            WHEN 'knowledge.knowledge_type' THEN format(' AND t.knowledge_type = %L', v_text)
            WHEN 'knowledge.active' THEN format(' AND (t.is_active IS TRUE) = %L::boolean', v_text)
            WHEN 'knowledge.min_confidence' THEN
                format(' AND t.confidence >= %L::double precision', v_text)
            WHEN 'knowledge.content' THEN format(' AND t.content @> %L::jsonb', v_value)
            WHEN 'thoughts.project_id' THEN format(' AND t.project_id = %L', v_text)
            WHEN 'thoughts.user_id' THEN format(' AND t.user_id = %L', v_text)
            WHEN 'thoughts.active' THEN
                format(' AND (t.is_active IS TRUE AND t.expires_at > now()) = %L::boolean', v_text)
            ELSE NULL
        END;
        IF v_conditions IS NULL THEN
            RAISE EXCEPTION '% is no filter of %', v_name, p_kind
                  USING ERRCODE = 'invalid_parameter_value';
        END IF;
    END LOOP;
    RETURN v_conditions;
END
$filter_conditions$;

-- name: ranking
DROP FUNCTION pgrecall.best(pgrecall.found, double precision, double precision, double precision,
                            interval, uuid[], integer);
DROP FUNCTION pgrecall.rank(pgrecall.found, double precision, double precision, double precision,
                            interval);
-- What was found, with its score: a weighted mean of relevance, worth (an outcome's quality or a
-- confidence; 0.5 where it is not known) and recency, which halves in every half-life. Relevance is
-- the similarity, unless words were looked at.
CREATE FUNCTION pgrecall.rank(
    p_hits pgrecall.found, p_min_similarity double precision, p_worth_weight double precision,
    p_age_weight double precision, p_half_life interval
) RETURNS TABLE (id uuid, similarity double precision, worth double precision,
                 recency double precision, score double precision, repeats uuid[],
                 relevance double precision, words double precision, lent double precision,
                 evidence double precision)
LANGUAGE sql STABLE
AS $rank$
    SELECT id, similarity, worth, recency,
           (1 - p_worth_weight - p_age_weight) * relevance + p_worth_weight * worth
               + p_age_weight * recency,
           repeats, relevance, words, lent, evidence
      FROM (SELECT n.id, 1 - n.distance AS similarity, coalesce(n.worth, 0.5) AS worth,
                   power(0.5, greatest(extract(epoch FROM now() - n.at), 0)::double precision
                              / extract(epoch FROM p_half_life)::double precision) AS recency,
                   coalesce(n.repeats, '{}')::uuid[] AS repeats,
                   coalesce(n.relevance, 1 - n.distance) AS relevance,
                   n.words, n.lent, n.evidence
              FROM unnest((p_hits).ids, (p_hits).distances, (p_hits).worths, (p_hits).times,
                          (p_hits).repeats, (p_hits).words, (p_hits).lent, (p_hits).evidence,
                          (p_hits).relevance)
                       AS n (id, distance, worth, at, repeats, words, lent, evidence, relevance)
           ) AS terms
     WHERE p_min_similarity <= -1 OR similarity >= p_min_similarity
$rank$;

-- The best of them in their order: by score, or as they were chosen.
CREATE FUNCTION pgrecall.best(
    p_hits pgrecall.found, p_min_similarity double precision, p_worth_weight double precision,
    p_age_weight double precision, p_half_life interval, p_chosen uuid[], p_limit integer
) RETURNS TABLE (place bigint, id uuid, similarity double precision, worth double precision,
                 recency double precision, score double precision, repeats uuid[],
                 relevance double precision, words double precision, lent double precision,
                 evidence double precision)
LANGUAGE sql STABLE
AS $best$
    SELECT row_number() OVER (ORDER BY array_position(p_chosen, r.id), r.score DESC,
                                       r.relevance DESC, r.id) AS place, r.*
      FROM pgrecall.rank(p_hits, p_min_similarity, p_worth_weight, p_age_weight, p_half_life) AS r
     WHERE p_chosen IS NULL OR r.id = ANY (p_chosen)
     ORDER BY place
     LIMIT p_limit
$best$;

-- Decisions that repeat another, word by word and vector by vector, become one: the newest whose
-- outcome is known, with the mean of the outcomes and the identifiers of the others.
CREATE OR REPLACE FUNCTION pgrecall.group_repeats(p_hits pgrecall.found) RETURNS pgrecall.found
LANGUAGE sql STABLE
AS $group_repeats$
    SELECT ROW(coalesce(array_agg(ids[1]), '{}'), array_agg(distance), array_agg(worth),
               array_agg(at), array_agg(ids[2:]::text), (p_hits).complete, (p_hits).plans,
               array_agg(words), array_agg(lent), array_agg(evidence),
               array_agg(relevance))::pgrecall.found
      FROM (SELECT array_agg(n.id ORDER BY n.worth IS NULL, n.at DESC, n.id) AS ids, n.distance,
                   avg(n.worth) AS worth, max(n.at) AS at, max(n.words) AS words,
                   max(n.lent) AS lent, max(n.evidence) AS evidence,
                   max(n.relevance) AS relevance
              FROM unnest((p_hits).ids, (p_hits).distances, (p_hits).worths, (p_hits).times,
                          (p_hits).words, (p_hits).lent, (p_hits).evidence, (p_hits).relevance)
                       AS n (id, distance, worth, at, words, lent, evidence, relevance)
             CROSS JOIN LATERAL (SELECT one.project_id, one.perception, one.reasoning, one.action
                                   FROM public.agent_episodes AS one
                                  WHERE one.episode_id = n.id OFFSET 0) AS e
             GROUP BY n.distance, e.project_id, e.perception, e.reasoning, e.action) AS grouped
$group_repeats$;

-- Picks hits that are good and unlike each other, in that order: maximal marginal relevance
-- (Carbonell and Goldstein, SIGIR 1998), whose lambda is 1 - p_diversity. What has no vector is like
-- nothing else.
CREATE OR REPLACE FUNCTION pgrecall.diversify(
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
            v_closest[i] := greatest(v_closest[i],
                                       coalesce(1 - (v_vectors[i] <=> v_vectors[v_best]), 0));
        END LOOP;
    END LOOP;
    RETURN v_chosen;
END
$diversify$;

-- name: accounting
-- What a recall did, and why: the steps of its plans, without the vectors that they name.
DROP FUNCTION pgrecall.account(text[], pgrecall.choice, integer, integer, jsonb, double precision,
                               double precision);
CREATE FUNCTION pgrecall.account(
    p_routes text[], p_choice pgrecall.choice, p_wanted integer, p_dimensions integer,
    p_plans jsonb, p_choose_ms double precision, p_search_ms double precision,
    p_words jsonb
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
                                                 'episode_codes', 'knowledge_codes', 'texts')), 0),
        'expected_ms', (SELECT jsonb_object_agg(c.route, round(c.milliseconds::numeric, 2))
                          FROM pgrecall.route_costs(
                              (p_choice).rows, (p_choice).matching, p_wanted, p_dimensions,
                              ((p_choice).conditions <> '')::integer, (p_choice).joined) AS c),
        'indexed', (p_choice).ordering IS NOT NULL,
        'coded', coalesce((p_choice).coded, false),
        'words', p_words,
        'choose_ms', p_choose_ms,
        'search_ms', p_search_ms,
        'plan', coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
            'step', step, 'on', "on", 'index', index, 'rows', rows, 'removed', removed,
            'milliseconds', milliseconds)) ORDER BY position), '[]'))
      FROM node
$account$;

-- name: recall
DROP FUNCTION pgrecall.recall_episodes(
    vector, integer, jsonb, double precision, double precision, double precision, interval,
    double precision, boolean, text, boolean);
DROP FUNCTION pgrecall.recall_knowledge(
    vector, integer, jsonb, double precision, double precision, double precision, interval,
    double precision, text, boolean);

-- By a vector, by the words of a text, or by both: what is NULL is not looked at.
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
    p_explain        boolean          DEFAULT false,
    p_text           text             DEFAULT NULL,
    p_context        boolean          DEFAULT true
) RETURNS TABLE (
    episode_id uuid, project_id varchar, "timestamp" timestamptz, perception jsonb,
    reasoning jsonb, action jsonb, outcome jsonb, outcome_quality double precision,
    outcome_recorded_at timestamptz, agent_version varchar, control_mode varchar,
    decision_source varchar, sprint_id varchar, chronicle_note_id uuid, external_id varchar,
    embedded boolean, similarity double precision, worth double precision,
    recency double precision, score double precision, repeats uuid[],
    relevance double precision, words double precision, lent double precision,
    evidence double precision, account jsonb)
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
    v_told    jsonb;
    v_chosen  uuid[];
    v_account jsonb;
BEGIN
    LOOP
        IF p_text IS NULL THEN
            v_near := pgrecall.nearest('episodes', p_query, v_wanted, p_filter, p_route, p_explain);
        ELSE
            v_near := pgrecall.gather('episodes', p_query, p_text, greatest(v_wanted, 30), p_filter,
                                      p_route, p_context, p_explain);
            v_told := v_near.told;
        END IF;
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
                                      v_near.search_ms, v_told);
    END IF;
    RETURN QUERY
    SELECT e.episode_id, e.project_id, e.timestamp, e.perception, e.reasoning, e.action, e.outcome,
           e.outcome_quality, e.outcome_recorded_at, e.agent_version, e.control_mode,
           e.decision_source, e.sprint_id, e.chronicle_note_id, e.external_id,
           e.embedding IS NOT NULL, best.similarity, best.worth, best.recency, best.score,
           best.repeats, best.relevance, best.words, best.lent, best.evidence, v_account
      FROM pgrecall.best(v_hits, p_min_similarity, p_outcome_weight, p_age_weight, p_half_life,
                         v_chosen, p_limit) AS best
     -- Not a join: a plan that was kept from an empty table would read all of it for each row.
     CROSS JOIN LATERAL (SELECT * FROM public.agent_episodes AS one
                          WHERE one.episode_id = best.id OFFSET 0) AS e
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
    p_explain           boolean          DEFAULT false,
    p_text              text             DEFAULT NULL
) RETURNS TABLE (
    knowledge_id uuid, knowledge_type varchar, content jsonb, description text,
    confidence double precision, supporting_episodes uuid[], contradicting_episodes uuid[],
    times_applied integer, success_count integer, failure_count integer,
    success_rate double precision, created_at timestamptz, last_validated timestamptz,
    last_applied timestamptz, created_by varchar, is_active boolean, project_id varchar,
    embedded boolean, similarity double precision, worth double precision,
    recency double precision, score double precision, relevance double precision,
    words double precision, evidence double precision, account jsonb)
LANGUAGE plpgsql SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan
AS $recall_knowledge$
#variable_conflict use_column
DECLARE
    v_wanted  integer := CASE WHEN p_confidence_weight > 0 OR p_age_weight > 0 OR p_diversity > 0
                              THEN 3 * p_limit ELSE p_limit END;
    v_near    record;
    v_hits    pgrecall.found;
    v_told    jsonb;
    v_chosen  uuid[];
    v_account jsonb;
BEGIN
    IF p_text IS NULL THEN
        v_near := pgrecall.nearest('knowledge', p_query, v_wanted, p_filter, p_route, p_explain);
    ELSE
        v_near := pgrecall.gather('knowledge', p_query, p_text, greatest(v_wanted, 30), p_filter,
                                  p_route, false, p_explain);
        v_told := v_near.told;
    END IF;
    v_hits := v_near.hits;
    IF p_diversity > 0 THEN
        v_chosen := pgrecall.diversify('knowledge', v_hits, p_min_similarity, p_confidence_weight,
                                       p_age_weight, p_half_life, p_diversity, p_limit);
    END IF;
    IF p_explain THEN
        v_account := pgrecall.account(v_near.routes, v_near.choice, v_wanted,
                                      vector_dims(p_query), v_hits.plans, v_near.choose_ms,
                                      v_near.search_ms, v_told);
    END IF;
    RETURN QUERY
    SELECT k.knowledge_id, k.knowledge_type, k.content, k.description, k.confidence,
           k.supporting_episodes, k.contradicting_episodes, k.times_applied, k.success_count,
           k.failure_count, k.success_rate, k.created_at, k.last_validated, k.last_applied,
           k.created_by, k.is_active, k.project_id, k.embedding IS NOT NULL, best.similarity,
           best.worth, best.recency, best.score, best.relevance, best.words, best.evidence,
           v_account
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

-- The thoughts of sessions that fit the words of a text best. The filter takes project_id, user_id and
-- active.
CREATE FUNCTION pgrecall.recall_thoughts(
    p_text text, p_limit integer DEFAULT 10, p_filter jsonb DEFAULT '{}'
) RETURNS TABLE (session_id uuid, project_id varchar, user_id varchar, "position" integer,
                 thought jsonb, score double precision)
LANGUAGE plpgsql SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan
AS $recall_thoughts$
#variable_conflict use_column
DECLARE
    v_projects text[] := CASE WHEN p_filter ->> 'project_id' IS NOT NULL
                              THEN ARRAY[p_filter ->> 'project_id'] END;
    v_worded   pgrecall.worded := pgrecall.nearest_by_words(
        'thoughts', pgrecall.wording('thoughts', v_projects, p_text), v_projects,
        ' JOIN public.agent_working_memory AS t ON t.session_id = w.id'
        || pgrecall.filter_conditions('thoughts', p_filter), p_limit, 5000, true, false);
BEGIN
    RETURN QUERY
    SELECT s.session_id, s.project_id, s.user_id, found.part - 1, s.thought_history[found.part],
           found.score
      FROM unnest((v_worded).ids, (v_worded).parts, (v_worded).scores) WITH ORDINALITY
               AS found (id, part, score, place)
      JOIN public.agent_working_memory AS s ON s.session_id = found.id
     ORDER BY found.place;
END
$recall_thoughts$;

-- name: rights
-- Words are kept by triggers with the owner's rights, and read where recalls are made.
REVOKE ALL ON FUNCTION
    pgrecall.keep_words(), pgrecall.forget_words(), pgrecall.fold_words(),
    pgrecall.keep_text(text, text, uuid, integer, text) FROM PUBLIC;
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
        EXECUTE format('REVOKE ALL ON pgrecall.languages, pgrecall.texts, pgrecall.word_counts, '
                       'pgrecall.vocabulary, pgrecall.word_changes FROM %I', role);
        IF role NOT LIKE '%\_monitor' THEN
            EXECUTE format('GRANT SELECT ON pgrecall.languages, pgrecall.texts, '
                           'pgrecall.word_counts, pgrecall.vocabulary, pgrecall.word_changes '
                           'TO %I', role);
        END IF;
        IF role LIKE '%\_app' THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION pgrecall.fold_words() TO %I', role);
        END IF;
    END LOOP;
END
$rights$;

-- name: record
INSERT INTO public.schema_version (version, description)
VALUES ('1.4.0', 'Words of texts, recall by words and vectors')
ON CONFLICT (version) DO NOTHING;
