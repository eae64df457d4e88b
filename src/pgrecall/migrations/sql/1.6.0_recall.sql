-- Recall of recent rows: where an index leads to the others, they are looked at beside it. Functions that
-- were there before are those of 1.3.0 and 1.4.0 otherwise.

-- name: choice
-- Which route a search takes: the cheapest of those that find what there is. Rows are counted as
-- the planner reckons them, from the size of the table and the statistics that autovacuum keeps.
CREATE OR REPLACE FUNCTION pgrecall.choose_route(
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
    IF p_kind = 'episodes' AND pgrecall.any_recent() THEN
        v_choice.rows := v_choice.rows
            + (SELECT pg_relation_size(c.oid) / current_setting('block_size')::double precision
                      * CASE WHEN c.relpages > 0 THEN c.reltuples / c.relpages ELSE 8 END
                 FROM pg_class AS c WHERE c.oid = 'pgrecall.recent_episodes'::regclass);
    END IF;
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
-- The statement for recent rows under a filter that are likely to be near a query $1, by their codes,
-- the likeliest first: those of whose bits no more than p_bits, an expression, differ.
CREATE OR REPLACE FUNCTION pgrecall.likely_recent(
    p_choice pgrecall.choice, p_count integer, p_bits text
) RETURNS text
LANGUAGE plpgsql STABLE
AS $likely_recent$
BEGIN
    RETURN format(
        'SELECT c.episode_id AS id, NULL::double precision AS distance, '
        'NULL::double precision AS worth, NULL::timestamptz AS at '
        'FROM pgrecall.recent_codes AS c%s WHERE c.model = %s '
        'AND c.code <~> binary_quantize($1) <= (%s)%s '
        'ORDER BY c.code <~> binary_quantize($1) LIMIT %s',
        CASE p_choice.joined WHEN 0 THEN '' ELSE
            ' JOIN ONLY pgrecall.recent_episodes AS t ON t.episode_id = c.episode_id' END,
        (SELECT model FROM pgrecall.embedding_models WHERE serving), p_bits,
        CASE p_choice.joined WHEN 0 THEN replace(p_choice.conditions, ' AND t.project_id ',
                                                 ' AND c.project_id ')
                             ELSE p_choice.conditions END,
        greatest(16 * p_count, 160));
END
$likely_recent$;

-- Measures recent rows beside what was found elsewhere, as long as the last ones that were measured still
-- came among the nearest.
CREATE OR REPLACE FUNCTION pgrecall.add_recent(
    p_hits pgrecall.found, p_recent uuid[], p_query vector, p_count integer,
    p_choice pgrecall.choice, p_explain boolean
) RETURNS pgrecall.found
LANGUAGE plpgsql SET enable_seqscan = on SET enable_sort = on
AS $add_recent$
DECLARE
    v_source record := pgrecall.source('episodes');
    v_hits   pgrecall.found := p_hits;
    v_more   pgrecall.found;
    v_begin  integer := 1;
    v_end    integer := greatest(4 * p_count, 40);
BEGIN
    WHILE v_begin <= cardinality(p_recent) LOOP
        v_more := pgrecall.measure(format(
            'SELECT %s FROM unnest(%L::uuid[]) AS c (id) JOIN %s AS t ON t.episode_id = c.id '
            'WHERE t.embedding IS NOT NULL%s', v_source.columns, p_recent[v_begin:v_end],
            v_source.relation, p_choice.conditions), p_query, p_count, p_explain);
        SELECT coalesce(array_agg(n.id), '{}'), array_agg(n.distance), array_agg(n.worth),
               array_agg(n.at)
          INTO v_hits.ids, v_hits.distances, v_hits.worths, v_hits.times
          FROM (SELECT * FROM (SELECT DISTINCT ON (a.id) a.*
                                 FROM unnest(v_hits.ids || v_more.ids,
                                             v_hits.distances || v_more.distances,
                                             v_hits.worths || v_more.worths,
                                             v_hits.times || v_more.times)
                                          AS a (id, distance, worth, at)) AS once
                 WHERE once.distance < 3
                 ORDER BY once.distance, once.id LIMIT p_count) AS n;
        v_hits.plans := v_hits.plans || v_more.plans;
        EXIT WHEN NOT v_hits.ids && v_more.ids;
        v_begin := v_end + 1;
        v_end := 2 * v_end;
    END LOOP;
    RETURN v_hits;
END
$add_recent$;

-- Takes the nearest rows that the vector index leads to, enough of them for as many as are wanted to
-- match. It never goes on beyond them: what a walk meets later is not in the order of nearness, and a
-- filter would let that pass for the nearest. Its plans use the index, although the planner, which
-- reckons vectors without fetching and comparing them, may hold it for dearer. pgvector's settings
-- are put back by hand: a function that carries them can't be restored where they are not known yet.
CREATE OR REPLACE FUNCTION pgrecall.nearest_by_index(
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
    v_rows   text;
    v_found  pgrecall.found;
    v_led    integer;
    v_recent uuid[];
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
    v_rows := format(
        'SELECT %s FROM ONLY %s AS t WHERE t.embedding IS NOT NULL%s '
        'ORDER BY %s LIMIT $2', v_source.columns, v_source.relation, p_choice.conditions,
        coalesce(p_choice.ordering, 't.embedding <=> $1'));
    IF p_kind = 'episodes' AND pgrecall.any_recent() THEN
        -- In one statement, so that a row that is merged meanwhile is in one of the two. The share of
        -- bits that differ is about the angle's share of pi; a tenth more is beyond what signs err by.
        v_rows := format(
            'WITH led AS MATERIALIZED (%s) SELECT * FROM led UNION ALL (%s)', v_rows,
            pgrecall.likely_recent(p_choice, p_count, format(
                'SELECT CASE WHEN count(*) < $2 THEN 1 ELSE acos(greatest(1 - max(led.distance), -1)) '
                '/ pi() + 0.1 END * %s FROM led', vector_dims(p_query))));
    END IF;
    v_found := pgrecall.measure(v_rows, p_query, p_count, p_explain);
    IF v_ef IS DISTINCT FROM v_keep::text THEN
        v_set := set_config('hnsw.ef_search', v_ef, true);
    END IF;
    IF v_scan IS DISTINCT FROM v_go_on THEN
        v_set := set_config('hnsw.iterative_scan', v_scan, true);
    END IF;
    -- Recent rows are still to be measured.
    v_led := coalesce(array_position(v_found.distances, NULL) - 1, cardinality(v_found.ids));
    v_recent := v_found.ids[v_led + 1:];
    v_found.ids := v_found.ids[:v_led];
    v_found.distances := v_found.distances[:v_led];
    v_found.worths := v_found.worths[:v_led];
    v_found.times := v_found.times[:v_led];
    -- Fewer than wanted: there are no more, or too few of those that it came to match.
    v_found.complete := cardinality(v_found.ids) >= p_count;
    RETURN pgrecall.add_recent(v_found, v_recent, p_query, p_count, p_choice, p_explain);
END
$nearest_by_index$;

-- The nearest rows of a kind under a filter: p_count of them, or all if fewer match. What is set
-- ends with the function. Only what depends on no filter keeps a plan.
CREATE OR REPLACE FUNCTION pgrecall.nearest(
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
    v_recent pgrecall.found;
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
            IF p_kind = 'episodes' AND pgrecall.any_recent() THEN
                -- First: a row that is merged meanwhile is found twice rather than not at all.
                v_recent := pgrecall.measure(
                    pgrecall.likely_recent(choice, p_count, vector_dims(p_query)::text), p_query,
                    p_count, p_explain);
            END IF;
            hits := pgrecall.nearest_by_codes(p_kind, p_query, p_count, p_filter, choice,
                                              p_explain);
            hits := pgrecall.add_recent(hits, v_recent.ids, p_query, p_count, choice, p_explain);
            hits.plans := coalesce(v_recent.plans, '[]') || hits.plans;
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

-- name: accounting
CREATE OR REPLACE FUNCTION pgrecall.account(
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
                                                 'episode_codes', 'knowledge_codes', 'texts',
                                                 'recent_episodes', 'recent_codes')), 0),
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

-- name: plans
-- Plans that are kept may be older than a burst, and would read all of its rows.
ALTER FUNCTION pgrecall.recall_episodes(
    vector, integer, jsonb, double precision, double precision, double precision, interval,
    double precision, boolean, text, boolean, text, boolean) SET enable_seqscan = off;

-- name: record
INSERT INTO public.schema_version (version, description)
VALUES ('1.6.0', 'Imports that put the vector index off, bursts that stand beside it')
ON CONFLICT (version) DO NOTHING;
