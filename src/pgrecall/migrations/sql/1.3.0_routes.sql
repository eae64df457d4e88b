-- Routes of a search and the choice between them. {{cost_of_exact}} and the like stand for the
-- formulas of pgrecall.core.routes.

-- name: costs
-- Expected milliseconds of each route; NULL where it would not find what there is.
CREATE OR REPLACE FUNCTION pgrecall.route_costs(
    rows double precision, matching double precision, wanted double precision,
    dimensions double precision, filtered double precision, joined double precision
) RETURNS TABLE (route text, milliseconds double precision)
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $route_costs$
    SELECT *
      FROM (VALUES ('exact', {{cost_of_exact}}),
                   ('codes', {{cost_of_codes}}),
                   ('index', CASE WHEN matching >= {{least_share}} * rows
                                  THEN {{cost_of_index}} END)) AS routes (route, milliseconds)
$route_costs$;

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

-- name: source
-- What a search of a kind reads.
CREATE OR REPLACE FUNCTION pgrecall.source(
    p_kind text, OUT relation text, OUT index text, OUT id text, OUT project text,
    OUT columns text, OUT codes text)
LANGUAGE plpgsql IMMUTABLE
AS $source$
BEGIN
    IF p_kind = 'episodes' THEN
        relation := 'public.agent_episodes';
        index := 'public.idx_episodes_embedding';
        id := 'episode_id';
        project := 't.project_id';
        columns := 't.episode_id AS id, t.embedding <=> $1 AS distance, '
                   't.outcome_quality AS worth, t.timestamp AS at';
        codes := 'pgrecall.episode_codes';
    ELSIF p_kind = 'knowledge' THEN
        relation := 'public.agent_knowledge';
        index := 'public.idx_knowledge_embedding';
        id := 'knowledge_id';
        project := 'coalesce(t.project_id, '''')';
        columns := 't.knowledge_id AS id, t.embedding <=> $1 AS distance, '
                   't.confidence AS worth, t.created_at AS at';
        codes := 'pgrecall.knowledge_codes';
    ELSE
        RAISE EXCEPTION 'there is nothing of kind %', p_kind
              USING ERRCODE = 'invalid_parameter_value', HINT = 'episodes or knowledge';
    END IF;
END
$source$;

-- name: choice
CREATE TYPE pgrecall.choice AS (
    route    text,
    rows     double precision, -- of the table, and those that match, as the planner reckons them
    matching double precision,
    conditions text,           -- the filter, as conditions on the table t
    joined   integer,          -- 1 if it looks at more than projects, else 0
    ordering text,             -- the distance that the vector index orders by; NULL without one
    coded    boolean           -- whether every vector has its code
);

-- Which route a search takes: the cheapest of those that find what there is. Rows are counted as
-- the planner reckons them, from the size of the table and the statistics that autovacuum keeps.
CREATE FUNCTION pgrecall.choose_route(
    p_kind text, p_dimensions integer, p_count integer, p_filter jsonb DEFAULT '{}'
) RETURNS pgrecall.choice
LANGUAGE plpgsql
AS $choose_route$
DECLARE
    v_source record := pgrecall.source(p_kind);
    v_plan   jsonb;
    v_choice pgrecall.choice;
BEGIN
    v_choice.conditions := pgrecall.filter_conditions(p_kind, p_filter);
    SELECT greatest(pg_relation_size(c.oid) / current_setting('block_size')::double precision
                    * CASE WHEN c.relpages > 0 THEN c.reltuples / c.relpages ELSE 8 END, 1),
           (SELECT CASE WHEN i.indexprs IS NULL THEN 't.embedding <=> $1'
                        ELSE (SELECT format('%s <=> $1::%s', pg_get_expr(i.indexprs, c.oid),
                                            format_type(n.atttypid, n.atttypmod))
                                FROM pg_attribute AS n
                               WHERE n.attrelid = i.indexrelid AND n.attnum = 1) END
              FROM pg_index AS i
             WHERE i.indexrelid = to_regclass(v_source.index) AND i.indisvalid),
           (SELECT m.coded FROM pgrecall.embedding_models AS m
             WHERE m.serving AND m.dimensions = p_dimensions)
      INTO v_choice.rows, v_choice.ordering, v_choice.coded
      FROM pg_class AS c WHERE c.oid = v_source.relation::regclass;
    v_choice.matching := v_choice.rows;
    v_choice.joined := (p_filter - ARRAY['project_id', 'project_ids'] <> '{}')::integer;
    IF v_choice.conditions <> '' THEN
        EXECUTE format('EXPLAIN (FORMAT JSON) SELECT FROM %s AS t WHERE t.embedding IS NOT NULL%s',
                       v_source.relation, v_choice.conditions) INTO v_plan;
        v_choice.matching := least((v_plan -> 0 -> 'Plan' ->> 'Plan Rows')::double precision,
                                   v_choice.rows);
    END IF;
    SELECT c.route INTO v_choice.route
      FROM pgrecall.route_costs(v_choice.rows, v_choice.matching, p_count, p_dimensions,
                                (v_choice.conditions <> '')::integer, v_choice.joined) AS c
     WHERE c.milliseconds IS NOT NULL
       AND (v_choice.ordering IS NOT NULL OR c.route <> 'index')
       AND (v_choice.coded OR c.route <> 'codes')
     ORDER BY c.milliseconds LIMIT 1;
    RETURN v_choice;
END
$choose_route$;

-- name: search
-- Rows side by side: identifier, cosine distance, outcome or confidence, time; others like it.
CREATE TYPE pgrecall.found AS (
    ids       uuid[],
    distances double precision[],
    worths    double precision[],
    times     timestamptz[],
    repeats   text[],
    complete  boolean, -- whether nothing nearer can have been overlooked
    plans     jsonb    -- of the statements that found them, if they were asked for
);

-- Measures rows: by the index or exactly, as the text says; with a plan of its own each time.
CREATE FUNCTION pgrecall.measure(p_rows text, p_query vector, p_count integer, p_explain boolean)
RETURNS pgrecall.found
LANGUAGE plpgsql
AS $measure$
DECLARE
    v_found pgrecall.found;
    v_plan  jsonb;
BEGIN
    EXECUTE 'SELECT coalesce(array_agg(n.id), ''{}''), array_agg(n.distance), array_agg(n.worth), '
            'array_agg(n.at), NULL::text[], true, ''[]''::jsonb FROM (' || p_rows || ') AS n'
       INTO v_found USING p_query, p_count;
    IF p_explain THEN
        EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ' || p_rows
           INTO v_plan USING p_query, p_count;
        v_found.plans := v_plan;
    END IF;
    RETURN v_found;
END
$measure$;

-- Reads the codes of all that match, then measures those with the nearest codes until the best of
-- them stand well in front: the last of the best within the first half of what was measured, and
-- even nearer where few are wanted, of which each counts for more.
CREATE FUNCTION pgrecall.nearest_by_codes(
    p_kind text, p_query vector, p_count integer, p_filter jsonb, p_choice pgrecall.choice,
    p_explain boolean
) RETURNS pgrecall.found
LANGUAGE plpgsql SET enable_seqscan = on SET enable_sort = on
AS $nearest_by_codes$
DECLARE
    v_source record := pgrecall.source(p_kind);
    v_model  pgrecall.embedding_models;
    v_code   "bit";
    v_most   integer := greatest(40 * p_count, 800);
    v_begin  integer := 1;
    v_end    integer := greatest(4 * p_count, 80);
    v_scan   text;
    v_pool   uuid[];
    v_plan   jsonb;
    v_found  pgrecall.found;
    v_more   pgrecall.found;
    v_last   integer;
BEGIN
    IF p_kind = 'episodes' AND p_choice.joined = 0 THEN
        -- The index on the codes holds all that is asked for.
        v_scan := format('%s AS c WHERE %s AND %s', v_source.codes,
            coalesce('c.project_id = ' || quote_literal(p_filter ->> 'project_id'), 'true'),
            CASE WHEN jsonb_typeof(p_filter -> 'project_ids') = 'array'
                 THEN format('c.project_id = ANY (%L::text[])', ARRAY(
                          SELECT jsonb_array_elements_text(p_filter -> 'project_ids')))
                 ELSE 'true' END);
    ELSE
        v_scan := format('%s AS c JOIN %s AS t ON t.%3$I = c.%3$I AND c.project_id = %s '
                         'WHERE t.embedding IS NOT NULL%s', v_source.codes, v_source.relation,
                         v_source.id, v_source.project, p_choice.conditions);
    END IF;
    SELECT * INTO v_model FROM pgrecall.embedding_models WHERE serving;
    v_code := pgrecall.code(p_query, v_model.thresholds);
    v_scan := format('SELECT c.%I AS id FROM %s AND c.model = %s ORDER BY c.code <~> $1 LIMIT $2',
                     v_source.id, v_scan, v_model.model);
    EXECUTE 'SELECT coalesce(array_agg(n.id), ''{}'') FROM (' || v_scan || ') AS n'
       INTO v_pool USING v_code, v_most;
    IF p_explain THEN
        EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ' || v_scan
           INTO v_plan USING v_code, v_most;
    END IF;
    v_found.plans := coalesce(v_plan, '[]');
    LOOP
        v_more := pgrecall.measure(format(
            'SELECT %s FROM unnest(%L::uuid[]) AS c (id) JOIN %s AS t ON t.%I = c.id '
            'WHERE t.embedding IS NOT NULL%s', v_source.columns, v_pool[v_begin:v_end],
            v_source.relation, v_source.id, p_choice.conditions), p_query, p_count, p_explain);
        v_found.ids := v_found.ids || v_more.ids;
        v_found.distances := v_found.distances || v_more.distances;
        v_found.worths := v_found.worths || v_more.worths;
        v_found.times := v_found.times || v_more.times;
        v_found.plans := v_found.plans || v_more.plans;
        SELECT max(array_position(v_pool, best.id)) INTO v_last
          FROM (SELECT n.id FROM unnest(v_found.ids, v_found.distances) AS n (id, distance)
                 ORDER BY n.distance LIMIT p_count) AS best;
        v_found.complete := v_last <= v_end * CASE WHEN p_count < 30 THEN 0.4 ELSE 0.5 END
            OR v_end >= cardinality(v_pool) AND cardinality(v_pool) < v_most;
        EXIT WHEN v_found.complete OR v_end >= cardinality(v_pool);
        v_begin := v_end + 1;
        v_end := 2 * v_end;
    END LOOP;
    SELECT coalesce(array_agg(n.id), '{}'), array_agg(n.distance), array_agg(n.worth),
           array_agg(n.at)
      INTO v_found.ids, v_found.distances, v_found.worths, v_found.times
      FROM (SELECT * FROM unnest(v_found.ids, v_found.distances, v_found.worths, v_found.times)
                     AS n (id, distance, worth, at)
             WHERE n.distance < 3
             ORDER BY n.distance, n.id LIMIT p_count) AS n;
    RETURN v_found;
END
$nearest_by_codes$;

-- Takes the nearest rows that the vector index leads to, enough of them for as many as are wanted to
-- match. It never goes on beyond them: what a walk meets later is not in the order of nearness, and a
-- filter would let that pass for the nearest. Its plans use the index, although the planner, which
-- reckons vectors without fetching and comparing them, may hold it for dearer. pgvector's settings
-- are put back by hand: a function that carries them can't be restored where they are not known yet.
CREATE FUNCTION pgrecall.nearest_by_index(
    p_kind text, p_query vector, p_count integer, p_choice pgrecall.choice, p_explain boolean
) RETURNS pgrecall.found
LANGUAGE plpgsql SET enable_seqscan = off SET enable_sort = off
AS $nearest_by_index$
DECLARE
    v_source record := pgrecall.source(p_kind);
    v_ef     text := current_setting('hnsw.ef_search', true);
    v_scan   text := current_setting('hnsw.iterative_scan', true);
    v_keep   double precision := p_count;
    v_go_on  text;
    v_found  pgrecall.found;
    v_set    text;
BEGIN
    IF p_choice.conditions <> '' THEN
        v_keep := 2.5 * p_count * p_choice.rows / p_choice.matching;
    END IF;
    -- 40 is pgvector's own default; whoever set another value meant it.
    v_keep := ceil(least(1000, greatest(v_keep, coalesce(nullif(v_ef, '40')::integer, 100))));
    -- Without a filter it may go on, for more rows than it keeps at once.
    v_go_on := CASE WHEN p_choice.conditions = '' THEN 'relaxed_order' ELSE 'off' END;
    IF v_ef IS DISTINCT FROM v_keep::text THEN
        v_set := set_config('hnsw.ef_search', v_keep::text, true);
    END IF;
    IF v_scan IS DISTINCT FROM v_go_on THEN
        v_set := set_config('hnsw.iterative_scan', v_go_on, true);
    END IF;
    v_found := pgrecall.measure(format(
        'SELECT %s FROM %s AS t WHERE t.embedding IS NOT NULL%s '
        'ORDER BY %s LIMIT $2', v_source.columns, v_source.relation, p_choice.conditions,
        coalesce(p_choice.ordering, 't.embedding <=> $1')), p_query, p_count, p_explain);
    IF v_ef IS DISTINCT FROM v_keep::text THEN
        v_set := set_config('hnsw.ef_search', v_ef, true);
    END IF;
    IF v_scan IS DISTINCT FROM v_go_on THEN
        v_set := set_config('hnsw.iterative_scan', v_scan, true);
    END IF;
    -- Fewer than wanted: there are no more, or too few of those that it came to match.
    v_found.complete := cardinality(v_found.ids) >= p_count;
    RETURN v_found;
END
$nearest_by_index$;

-- Measures all that match. Given p_most, it gives up when there are more than was thought.
CREATE FUNCTION pgrecall.nearest_exactly(
    p_kind text, p_query vector, p_count integer, p_choice pgrecall.choice, p_explain boolean,
    p_most bigint DEFAULT NULL
) RETURNS pgrecall.found
LANGUAGE plpgsql SET enable_seqscan = on SET enable_sort = on
AS $nearest_exactly$
DECLARE
    v_source record := pgrecall.source(p_kind);
    v_found  pgrecall.found;
BEGIN
    -- Sorted outside of what is measured, so that no index on vectors is used.
    v_found := pgrecall.measure(format(
        'WITH measured AS MATERIALIZED '
        '(SELECT %s FROM %s AS t WHERE t.embedding IS NOT NULL%s LIMIT %4$L) '
        -- A vector without direction has no distance.
        'SELECT * FROM measured WHERE distance < 3 '
        'AND coalesce((SELECT count(*) FROM measured) < %4$L, true) '
        'ORDER BY distance, id LIMIT $2', v_source.columns, v_source.relation,
        p_choice.conditions, p_most), p_query, p_count, p_explain);
    v_found.complete := true;
    IF p_most IS NOT NULL AND v_found.ids = '{}' THEN
        EXECUTE format('SELECT count(*) < %1$s FROM (SELECT FROM %2$s AS t '
                       'WHERE t.embedding IS NOT NULL%3$s LIMIT %1$s) AS n', p_most,
                       v_source.relation, p_choice.conditions)
           INTO v_found.complete;
    END IF;
    RETURN v_found;
END
$nearest_exactly$;

-- The nearest rows of a kind under a filter: p_count of them, or all if fewer match. What is set
-- ends with the function. Only what depends on no filter keeps a plan.
CREATE FUNCTION pgrecall.nearest(
    p_kind text, p_query vector, p_count integer, p_filter jsonb, p_route text, p_explain boolean,
    OUT hits pgrecall.found, OUT routes text[], OUT choice pgrecall.choice,
    OUT choose_ms double precision, OUT search_ms double precision)
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET jit = off
SET max_parallel_workers_per_gather = 0
AS $nearest$
DECLARE
    v_begun  timestamptz := clock_timestamp();
    v_chosen timestamptz;
    v_route  text;
BEGIN
    IF NOT vector_norm(p_query) > 0 THEN
        RAISE EXCEPTION 'the vector to look for has no direction'
              USING ERRCODE = 'invalid_parameter_value';
    END IF;
    choice := pgrecall.choose_route(p_kind, vector_dims(p_query), p_count, p_filter);
    v_chosen := clock_timestamp();
    v_route := coalesce(p_route, choice.route);
    LOOP
        routes := routes || v_route;
        IF v_route = 'index' THEN
            hits := pgrecall.nearest_by_index(p_kind, p_query, p_count, choice, p_explain);
        ELSIF v_route = 'codes' THEN
            hits := pgrecall.nearest_by_codes(p_kind, p_query, p_count, p_filter, choice,
                                              p_explain);
        ELSIF v_route = 'exact' THEN
            hits := pgrecall.nearest_exactly(
                p_kind, p_query, p_count, choice, p_explain,
                -- Rows that came in since they were counted last are no reason to measure many.
                CASE WHEN p_route IS NULL AND choice.coded AND 'codes' <> ALL (routes)
                     THEN greatest(4 * choice.matching, 2000)::bigint END);
        ELSE
            RAISE EXCEPTION 'there is no route %', v_route
                  USING ERRCODE = 'invalid_parameter_value', HINT = 'exact, codes or index';
        END IF;
        EXIT WHEN hits.complete OR p_route IS NOT NULL;
        v_route := CASE WHEN choice.coded AND 'codes' <> ALL (routes) THEN 'codes' ELSE 'exact' END;
    END LOOP;
    choose_ms := extract(epoch FROM v_chosen - v_begun) * 1000;
    search_ms := extract(epoch FROM clock_timestamp() - v_chosen) * 1000;
END
$nearest$;
