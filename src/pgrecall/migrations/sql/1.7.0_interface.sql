-- The memory for those who speak SQL alone: the client's operations as functions, with its checks.
-- They run with the caller's rights. What is wrong is said with SQLSTATE 22023 (a value that can't be
-- meant), P0002 (not there), 23505 (an identifier stands for something else) or 23001 (evidence), and
-- a hint. Records are types of their own, since a change of model replaces columns of the tables.

-- name: records
CREATE TYPE pgrecall.episode_record AS (
    episode_id uuid, project_id varchar, "timestamp" timestamptz, perception jsonb, reasoning jsonb,
    action jsonb, outcome jsonb, outcome_quality double precision, outcome_recorded_at timestamptz,
    agent_version varchar, control_mode varchar, decision_source varchar, sprint_id varchar,
    chronicle_note_id uuid, external_id varchar, embedded boolean);
CREATE TYPE pgrecall.knowledge_record AS (
    knowledge_id uuid, knowledge_type varchar, content jsonb, description text,
    confidence double precision, supporting_episodes uuid[], contradicting_episodes uuid[],
    times_applied integer, success_count integer, failure_count integer,
    success_rate double precision, created_at timestamptz, last_validated timestamptz,
    last_applied timestamptz, created_by varchar, is_active boolean, project_id varchar,
    embedded boolean);
CREATE TYPE pgrecall.session_record AS (
    session_id uuid, project_id varchar, user_id varchar, current_goal text, active_context jsonb,
    thought_history jsonb[], created_at timestamptz, last_updated timestamptz,
    expires_at timestamptz, is_active boolean, related_episodes uuid[]);

-- name: checks
CREATE OR REPLACE FUNCTION pgrecall.refuse(
    p_message text, p_hint text, p_state text DEFAULT '22023'
) RETURNS void
LANGUAGE plpgsql
AS $refuse$
BEGIN
    RAISE EXCEPTION USING MESSAGE = p_message, HINT = p_hint, ERRCODE = p_state;
END
$refuse$;

-- A text that says something and fits its column; NULL only if p_required is false.
CREATE OR REPLACE FUNCTION pgrecall.check_given_text(
    p_name text, p_value text, p_length integer, p_required boolean
) RETURNS void
LANGUAGE plpgsql IMMUTABLE
AS $check_given_text$
BEGIN
    IF p_value IS NULL THEN
        IF p_required THEN
            PERFORM pgrecall.refuse(p_name || ' is missing', 'give it');
        END IF;
    ELSIF p_value !~ '\S' THEN
        PERFORM pgrecall.refuse(p_name || ' is blank', 'give a text');
    ELSIF length(p_value) > p_length THEN
        PERFORM pgrecall.refuse(
            format('%s has %s characters', p_name, length(p_value)),
            format('give at most %s', p_length));
    END IF;
END
$check_given_text$;

CREATE OR REPLACE FUNCTION pgrecall.check_given_object(
    p_name text, p_value jsonb, p_required boolean
) RETURNS void
LANGUAGE plpgsql IMMUTABLE
AS $check_given_object$
BEGIN
    IF p_value IS NULL AND p_required THEN
        PERFORM pgrecall.refuse(p_name || ' is missing', 'give a JSON object');
    ELSIF jsonb_typeof(p_value) <> 'object' THEN
        PERFORM pgrecall.refuse(
            format('%s is a JSON %s', p_name, jsonb_typeof(p_value)),
            'give a JSON object, such as {"value": ...}');
    END IF;
END
$check_given_object$;

CREATE OR REPLACE FUNCTION pgrecall.check_given_number(
    p_name text, p_value double precision, p_least double precision, p_most double precision
) RETURNS void
LANGUAGE plpgsql IMMUTABLE
AS $check_given_number$
BEGIN
    -- NaN is greater than all numbers.
    IF NOT p_value BETWEEN p_least AND p_most THEN
        PERFORM pgrecall.refuse(format('%s is %s', p_name, p_value),
                                format('give a number from %s to %s', p_least, p_most));
    END IF;
END
$check_given_number$;

CREATE OR REPLACE FUNCTION pgrecall.check_given_choice(
    p_name text, p_value text, p_choices text[]
) RETURNS void
LANGUAGE plpgsql IMMUTABLE
AS $check_given_choice$
BEGIN
    IF p_value IS NULL OR p_value <> ALL (p_choices) THEN
        PERFORM pgrecall.refuse(format('%s is %L', p_name, p_value),
                                'choose one of ' || array_to_string(p_choices, ', '));
    END IF;
END
$check_given_choice$;

-- NULL is a vector that is not given.
CREATE OR REPLACE FUNCTION pgrecall.check_given_vector(p_value vector) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT
AS $check_given_vector$
DECLARE
    v_dimensions integer;
BEGIN
    IF p_value IS NULL THEN
        RETURN;
    END IF;
    SELECT dimensions INTO v_dimensions FROM pgrecall.embedding_models WHERE serving;
    IF vector_dims(p_value) <> v_dimensions THEN
        PERFORM pgrecall.refuse(
            format('the vector has %s dimensions, not %s', vector_dims(p_value), v_dimensions),
            'embed with the model that pgrecall.embedding_models says is serving');
    ELSIF NOT vector_norm(p_value) > 0 THEN
        PERFORM pgrecall.refuse('the vector has no direction', 'give one that is not zero');
    END IF;
END
$check_given_vector$;

-- Locks episodes that are to be evidence, so that none can be deleted before it is.
CREATE OR REPLACE FUNCTION pgrecall.hold_evidence(p_episodes uuid[]) RETURNS void
LANGUAGE plpgsql
AS $hold_evidence$
DECLARE
    v_held    uuid[];
    v_missing uuid[];
BEGIN
    v_held := ARRAY(SELECT e.episode_id FROM public.agent_episodes AS e
                     WHERE e.episode_id = ANY (p_episodes) FOR KEY SHARE);
    v_missing := ARRAY(SELECT n FROM unnest(p_episodes) AS n WHERE n <> ALL (v_held));
    IF v_missing <> '{}' THEN
        PERFORM pgrecall.refuse(
            'no such episodes to be evidence: ' || array_to_string(v_missing[:5], ', '),
            'they may have been deleted; nothing was written');
    END IF;
END
$hold_evidence$;

-- name: episodes
CREATE OR REPLACE FUNCTION pgrecall.get_episode(
    p_episode_id uuid, p_project_id text DEFAULT NULL
) RETURNS SETOF pgrecall.episode_record
LANGUAGE plpgsql
AS $get_episode$
BEGIN
    RETURN QUERY
    SELECT e.episode_id, e.project_id, e.timestamp, e.perception, e.reasoning, e.action, e.outcome,
           e.outcome_quality, e.outcome_recorded_at, e.agent_version, e.control_mode,
           e.decision_source, e.sprint_id, e.chronicle_note_id, e.external_id,
           e.embedding IS NOT NULL
      FROM public.agent_episodes AS e
     WHERE e.episode_id = p_episode_id AND (p_project_id IS NULL OR e.project_id = p_project_id);
    IF NOT FOUND THEN
        PERFORM pgrecall.refuse('there is no episode ' || coalesce(p_episode_id::text, 'NULL')
                                || coalesce(format(' in project %L', p_project_id), ''),
                                'look for it with pgrecall.list_episodes()', 'P0002');
    END IF;
END
$get_episode$;

-- Newest first; the next page begins after the last row's time and identifier.
CREATE OR REPLACE FUNCTION pgrecall.list_episodes(
    p_project_id text DEFAULT NULL, p_limit integer DEFAULT 50, p_filter jsonb DEFAULT '{}',
    p_after_time timestamptz DEFAULT NULL, p_after_id uuid DEFAULT NULL
) RETURNS SETOF pgrecall.episode_record
LANGUAGE plpgsql STABLE
AS $list_episodes$
BEGIN
    PERFORM pgrecall.check_given_number('p_limit', p_limit, 1, 10000);
    RETURN QUERY EXECUTE format(
        'SELECT t.episode_id, t.project_id, t.timestamp, t.perception, t.reasoning, t.action, '
        't.outcome, t.outcome_quality, t.outcome_recorded_at, t.agent_version, t.control_mode, '
        't.decision_source, t.sprint_id, t.chronicle_note_id, t.external_id, '
        't.embedding IS NOT NULL FROM public.agent_episodes AS t WHERE true%s%s '
        'ORDER BY t.timestamp DESC, t.episode_id DESC LIMIT %s',
        pgrecall.filter_conditions('episodes', pgrecall.filter_with(p_filter, p_project_id)),
        CASE WHEN p_after_id IS NOT NULL THEN
            format(' AND (t.timestamp, t.episode_id) < (%L, %L)', p_after_time, p_after_id) ELSE '' END,
        p_limit);
END
$list_episodes$;

CREATE OR REPLACE FUNCTION pgrecall.filter_with(p_filter jsonb, p_project_id text) RETURNS jsonb
LANGUAGE sql IMMUTABLE
AS $filter_with$
    SELECT CASE WHEN p_project_id IS NULL THEN coalesce(p_filter, '{}')
                ELSE coalesce(p_filter, '{}') || jsonb_build_object('project_id', p_project_id) END
$filter_with$;

-- With p_external_id it can be repeated safely: a second call returns the stored episode.
CREATE OR REPLACE FUNCTION pgrecall.record_episode(
    p_project_id text, p_agent_version text, p_perception jsonb, p_reasoning jsonb, p_action jsonb,
    p_outcome jsonb DEFAULT NULL, p_outcome_quality double precision DEFAULT NULL,
    p_embedding vector DEFAULT NULL, p_external_id text DEFAULT NULL,
    p_timestamp timestamptz DEFAULT NULL, p_control_mode text DEFAULT 'rule_based_only',
    p_decision_source text DEFAULT NULL, p_sprint_id text DEFAULT NULL,
    p_chronicle_note_id uuid DEFAULT NULL, p_episode_id uuid DEFAULT NULL
) RETURNS SETOF pgrecall.episode_record
LANGUAGE plpgsql SET search_path FROM CURRENT
AS $record_episode$
DECLARE
    v_id       uuid := coalesce(p_episode_id, gen_random_uuid());
    v_standing public.agent_episodes;
    v_differ   text;
BEGIN
    PERFORM pgrecall.check_given_text('p_project_id', p_project_id, 50, true),
            pgrecall.check_given_text('p_agent_version', p_agent_version, 20, true),
            pgrecall.check_given_text('p_decision_source', p_decision_source, 50, false),
            pgrecall.check_given_text('p_sprint_id', p_sprint_id, 50, false),
            pgrecall.check_given_text('p_external_id', p_external_id, 200, false),
            pgrecall.check_given_object('p_perception', p_perception, true),
            pgrecall.check_given_object('p_reasoning', p_reasoning, true),
            pgrecall.check_given_object('p_action', p_action, true),
            pgrecall.check_given_object('p_outcome', p_outcome, false),
            pgrecall.check_given_number('p_outcome_quality', p_outcome_quality, 0, 1),
            pgrecall.check_given_choice('p_control_mode', p_control_mode, ARRAY[
                'rule_based_only', 'intelligence_enhanced', 'memory_augmented']),
            pgrecall.check_given_vector(p_embedding);
    INSERT INTO public.agent_episodes (
        episode_id, project_id, timestamp, perception, reasoning, action, outcome, outcome_quality,
        outcome_recorded_at, embedding, agent_version, control_mode, decision_source, sprint_id,
        chronicle_note_id, external_id)
    SELECT v_id, p_project_id, coalesce(p_timestamp, now()), p_perception, p_reasoning, p_action,
           p_outcome, p_outcome_quality,
           CASE WHEN p_outcome IS NOT NULL OR p_outcome_quality IS NOT NULL THEN now() END,
           p_embedding, p_agent_version, p_control_mode, p_decision_source, p_sprint_id,
           p_chronicle_note_id, p_external_id
     WHERE v_id NOT IN (SELECT pgrecall.recent_among(
         ARRAY[v_id], ARRAY[p_project_id], ARRAY[p_external_id]))
        ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        SELECT e.* INTO v_standing FROM public.agent_episodes AS e
         WHERE e.project_id = p_project_id AND e.external_id = p_external_id;
        IF NOT FOUND THEN
            SELECT e.* INTO v_standing FROM public.agent_episodes AS e WHERE e.episode_id = v_id;
        END IF;
        IF v_standing.episode_id IS NULL THEN
            PERFORM pgrecall.refuse(
                format('external_id %L was taken and has just been deleted', p_external_id),
                'nothing was written; repeat the call', '23505');
        END IF;
        v_differ := concat_ws(', ',
            CASE WHEN v_standing.project_id <> p_project_id THEN 'project_id' END,
            CASE WHEN v_standing.perception <> p_perception THEN 'perception' END,
            CASE WHEN v_standing.reasoning <> p_reasoning THEN 'reasoning' END,
            CASE WHEN v_standing.action <> p_action THEN 'action' END);
        IF v_differ <> '' THEN
            PERFORM pgrecall.refuse(
                format('%s already stands for another episode: %s differ',
                       coalesce(format('external_id %L of project %L', p_external_id, p_project_id),
                                'episode_id ' || v_id), v_differ),
                'nothing was changed; give another identifier, or record the same content',
                '23505');
        END IF;
        v_id := v_standing.episode_id;
    END IF;
    RETURN QUERY SELECT * FROM pgrecall.get_episode(v_id);
END
$record_episode$;

CREATE OR REPLACE FUNCTION pgrecall.record_outcome(
    p_episode_id uuid, p_outcome jsonb DEFAULT NULL, p_quality double precision DEFAULT NULL,
    p_project_id text DEFAULT NULL
) RETURNS SETOF pgrecall.episode_record
LANGUAGE plpgsql
AS $record_outcome$
BEGIN
    IF p_outcome IS NULL AND p_quality IS NULL THEN
        PERFORM pgrecall.refuse('neither p_outcome nor p_quality was given', 'give one or both');
    END IF;
    PERFORM pgrecall.check_given_object('p_outcome', p_outcome, false),
            pgrecall.check_given_number('p_quality', p_quality, 0, 1);
    UPDATE public.agent_episodes AS e
       SET outcome = coalesce(p_outcome, e.outcome),
           outcome_quality = coalesce(p_quality, e.outcome_quality),
           outcome_recorded_at = now()
     WHERE e.episode_id = p_episode_id AND (p_project_id IS NULL OR e.project_id = p_project_id);
    RETURN QUERY SELECT * FROM pgrecall.get_episode(p_episode_id, p_project_id);
END
$record_outcome$;

-- How many there were; none of them if knowledge rests on one.
CREATE OR REPLACE FUNCTION pgrecall.delete_episodes(
    p_episode_ids uuid[], p_project_id text DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql
AS $delete_episodes$
DECLARE
    v_held  uuid[];
    v_rests text;
    v_count bigint;
BEGIN
    v_held := ARRAY(SELECT e.episode_id FROM public.agent_episodes AS e
                     WHERE e.episode_id = ANY (p_episode_ids)
                       AND (p_project_id IS NULL OR e.project_id = p_project_id)
                     ORDER BY e.episode_id FOR UPDATE);
    SELECT string_agg(k.knowledge_id::text, ', ') INTO v_rests
      FROM (SELECT n.knowledge_id FROM public.agent_knowledge AS n
             WHERE n.supporting_episodes && v_held OR n.contradicting_episodes && v_held
             ORDER BY n.knowledge_id LIMIT 5) AS k;
    IF v_rests IS NOT NULL THEN
        PERFORM pgrecall.refuse('knowledge rests on these episodes as evidence: ' || v_rests,
                                'nothing was deleted; delete or replace that knowledge first',
                                '23001');
    END IF;
    DELETE FROM public.agent_episodes AS e WHERE e.episode_id = ANY (v_held);
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END
$delete_episodes$;

-- name: recall
-- By words, by a vector or by both, whichever is given; pgrecall.recall_episodes takes more.
CREATE OR REPLACE FUNCTION pgrecall.recall(
    p_query text DEFAULT NULL, p_embedding vector DEFAULT NULL, p_project_id text DEFAULT NULL,
    p_limit integer DEFAULT 10, p_filter jsonb DEFAULT '{}',
    p_min_similarity double precision DEFAULT -1, p_outcome_weight double precision DEFAULT 0.15
) RETURNS TABLE (
    episode_id uuid, project_id varchar, "timestamp" timestamptz, perception jsonb, reasoning jsonb,
    action jsonb, outcome jsonb, outcome_quality double precision, similarity double precision,
    score double precision, repeats uuid[])
LANGUAGE plpgsql SET search_path FROM CURRENT
AS $recall$
BEGIN
    PERFORM pgrecall.check_looked_for(p_query, p_embedding, p_limit),
            pgrecall.check_given_number('p_min_similarity', p_min_similarity, -1, 1),
            pgrecall.check_given_number('p_outcome_weight', p_outcome_weight, 0, 1);
    RETURN QUERY
    SELECT r.episode_id, r.project_id, r.timestamp, r.perception, r.reasoning, r.action, r.outcome,
           r.outcome_quality, r.similarity, r.score, r.repeats
      FROM pgrecall.recall_episodes(
               p_embedding, p_limit, pgrecall.filter_with(p_filter, p_project_id),
               p_min_similarity, p_outcome_weight, p_text => p_query) AS r
     WHERE r.episode_id IS NOT NULL;
END
$recall$;

CREATE OR REPLACE FUNCTION pgrecall.recall_strategies(
    p_query text DEFAULT NULL, p_embedding vector DEFAULT NULL, p_project_id text DEFAULT NULL,
    p_limit integer DEFAULT 5, p_knowledge_type text DEFAULT NULL,
    p_min_confidence double precision DEFAULT NULL
) RETURNS TABLE (
    knowledge_id uuid, knowledge_type varchar, description text, content jsonb,
    confidence double precision, success_rate double precision, times_applied integer,
    project_id varchar, similarity double precision, score double precision)
LANGUAGE plpgsql SET search_path FROM CURRENT
AS $recall_strategies$
BEGIN
    PERFORM pgrecall.check_looked_for(p_query, p_embedding, p_limit),
            pgrecall.check_given_number('p_min_confidence', p_min_confidence, 0, 1);
    RETURN QUERY
    SELECT r.knowledge_id, r.knowledge_type, r.description, r.content, r.confidence, r.success_rate,
           r.times_applied, r.project_id, r.similarity, r.score
      FROM pgrecall.recall_knowledge(
               p_embedding, p_limit,
               jsonb_strip_nulls(jsonb_build_object(
                   'active', true, 'project_id', p_project_id, 'knowledge_type', p_knowledge_type,
                   'min_confidence', p_min_confidence)), p_text => p_query) AS r
     WHERE r.knowledge_id IS NOT NULL;
END
$recall_strategies$;

CREATE OR REPLACE FUNCTION pgrecall.check_looked_for(
    p_query text, p_embedding vector, p_limit integer
) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT
AS $check_looked_for$
BEGIN
    IF p_query IS NULL AND p_embedding IS NULL THEN
        PERFORM pgrecall.refuse('neither p_query nor p_embedding was given', 'give one or both');
    END IF;
    PERFORM pgrecall.check_given_text('p_query', p_query, 1000000, false),
            pgrecall.check_given_number('p_limit', p_limit, 1, 10000),
            pgrecall.check_given_vector(p_embedding);
END
$check_looked_for$;
