-- Strategies, sessions and numbers for those who speak SQL alone, as in 1.7.0_interface.

-- name: strategies
CREATE OR REPLACE FUNCTION pgrecall.get_strategy(
    p_knowledge_id uuid, p_project_id text DEFAULT NULL
) RETURNS SETOF pgrecall.knowledge_record
LANGUAGE plpgsql
AS $get_strategy$
BEGIN
    RETURN QUERY
    SELECT k.knowledge_id, k.knowledge_type, k.content, k.description, k.confidence,
           k.supporting_episodes, k.contradicting_episodes, k.times_applied, k.success_count,
           k.failure_count, k.success_rate, k.created_at, k.last_validated, k.last_applied,
           k.created_by, k.is_active, k.project_id, k.embedding IS NOT NULL
      FROM public.agent_knowledge AS k
     WHERE k.knowledge_id = p_knowledge_id
       AND (p_project_id IS NULL OR k.project_id = p_project_id OR k.project_id IS NULL);
    IF NOT FOUND THEN
        PERFORM pgrecall.refuse(
            'there is no knowledge ' || coalesce(p_knowledge_id::text, 'NULL')
            || coalesce(format(' of project %L or shared', p_project_id), ''),
            'look for it with pgrecall.recall_strategies()', 'P0002');
    END IF;
END
$get_strategy$;

CREATE OR REPLACE FUNCTION pgrecall.add_strategy(
    p_description text, p_content jsonb, p_supporting_episodes uuid[],
    p_contradicting_episodes uuid[] DEFAULT '{}', p_confidence double precision DEFAULT 0.5,
    p_project_id text DEFAULT NULL, p_knowledge_type text DEFAULT 'strategy',
    p_created_by text DEFAULT 'system', p_active boolean DEFAULT true,
    p_embedding vector DEFAULT NULL, p_knowledge_id uuid DEFAULT NULL
) RETURNS SETOF pgrecall.knowledge_record
LANGUAGE plpgsql SET search_path FROM CURRENT
AS $add_strategy$
DECLARE
    v_id      uuid := coalesce(p_knowledge_id, gen_random_uuid());
    v_for     uuid[];
    v_against uuid[];
BEGIN
    PERFORM pgrecall.check_given_choice('p_knowledge_type', p_knowledge_type, ARRAY[
                'strategy', 'pattern', 'constraint', 'heuristic']),
            pgrecall.check_given_text('p_description', p_description, 1000000, true),
            pgrecall.check_given_text('p_project_id', p_project_id, 50, false),
            pgrecall.check_given_text('p_created_by', p_created_by, 50, true),
            pgrecall.check_given_object('p_content', p_content, true),
            pgrecall.check_given_number('p_confidence', p_confidence, 0, 1),
            pgrecall.check_given_vector(p_embedding);
    -- Each once, in the order given.
    SELECT coalesce(array_agg(n.id ORDER BY n.first), '{}') INTO v_for
      FROM (SELECT id, min(at) AS first FROM unnest(p_supporting_episodes) WITH ORDINALITY AS g (id, at)
             GROUP BY id) AS n;
    SELECT coalesce(array_agg(n.id ORDER BY n.first), '{}') INTO v_against
      FROM (SELECT id, min(at) AS first FROM unnest(p_contradicting_episodes) WITH ORDINALITY AS g (id, at)
             GROUP BY id) AS n;
    IF p_active AND cardinality(v_for) < 3 THEN
        PERFORM pgrecall.refuse(
            format('active knowledge needs at least 3 different supporting episodes, %s were given',
                   cardinality(v_for)),
            'give more evidence, or p_active => false to keep it as a candidate');
    ELSIF v_for && v_against THEN
        PERFORM pgrecall.refuse('an episode cannot both support and contradict',
                                'give each on one side');
    END IF;
    PERFORM pgrecall.hold_evidence(v_for || v_against);
    INSERT INTO public.agent_knowledge (
        knowledge_id, knowledge_type, content, description, confidence, supporting_episodes,
        contradicting_episodes, embedding, created_by, is_active, project_id)
    VALUES (v_id, p_knowledge_type, p_content, p_description, p_confidence, v_for, v_against,
            p_embedding, p_created_by, p_active, p_project_id);
    RETURN QUERY SELECT * FROM pgrecall.get_strategy(v_id);
END
$add_strategy$;

CREATE OR REPLACE FUNCTION pgrecall.apply_strategy(
    p_knowledge_id uuid, p_success boolean, p_episode_id uuid DEFAULT NULL,
    p_project_id text DEFAULT NULL
) RETURNS SETOF pgrecall.knowledge_record
LANGUAGE plpgsql
AS $apply_strategy$
BEGIN
    IF p_success IS NULL THEN
        PERFORM pgrecall.refuse('p_success is missing', 'give true or false');
    ELSIF p_episode_id IS NOT NULL THEN
        PERFORM pgrecall.hold_evidence(ARRAY[p_episode_id]);
    END IF;
    UPDATE public.agent_knowledge AS k
       SET times_applied = coalesce(k.times_applied, 0) + 1,
           success_count = coalesce(k.success_count, 0) + p_success::integer,
           failure_count = coalesce(k.failure_count, 0) + (NOT p_success)::integer,
           last_applied = now(),
           supporting_episodes = CASE
               WHEN p_success AND p_episode_id IS NOT NULL
                    AND p_episode_id <> ALL (k.supporting_episodes)
               THEN k.supporting_episodes || p_episode_id ELSE k.supporting_episodes END,
           contradicting_episodes = CASE
               WHEN NOT p_success AND p_episode_id IS NOT NULL
                    AND p_episode_id <> ALL (coalesce(k.contradicting_episodes, '{}'))
               THEN coalesce(k.contradicting_episodes, '{}') || p_episode_id
               ELSE k.contradicting_episodes END
     WHERE k.knowledge_id = p_knowledge_id AND k.is_active IS TRUE
       AND (p_project_id IS NULL OR k.project_id = p_project_id OR k.project_id IS NULL);
    IF NOT FOUND THEN
        PERFORM pgrecall.refuse(
            'there is no active knowledge ' || coalesce(p_knowledge_id::text, 'NULL')
            || coalesce(format(' of project %L or shared', p_project_id), ''),
            'look for it with pgrecall.recall_strategies()', 'P0002');
    END IF;
    RETURN QUERY SELECT * FROM pgrecall.get_strategy(p_knowledge_id);
END
$apply_strategy$;

CREATE OR REPLACE FUNCTION pgrecall.delete_strategy(
    p_knowledge_id uuid, p_project_id text DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql
AS $delete_strategy$
BEGIN
    DELETE FROM public.agent_knowledge AS k
     WHERE k.knowledge_id = p_knowledge_id
       AND (p_project_id IS NULL OR k.project_id = p_project_id OR k.project_id IS NULL);
    IF NOT FOUND THEN
        PERFORM pgrecall.get_strategy(p_knowledge_id, p_project_id);
    END IF;
END
$delete_strategy$;

-- name: sessions
CREATE OR REPLACE FUNCTION pgrecall.get_session(
    p_session_id uuid, p_project_id text DEFAULT NULL
) RETURNS SETOF pgrecall.session_record
LANGUAGE plpgsql
AS $get_session$
BEGIN
    RETURN QUERY
    SELECT s.session_id, s.project_id, s.user_id, s.current_goal, s.active_context,
           s.thought_history, s.created_at, s.last_updated, s.expires_at, s.is_active,
           s.related_episodes
      FROM public.agent_working_memory AS s
     WHERE s.session_id = p_session_id AND (p_project_id IS NULL OR s.project_id = p_project_id);
    IF NOT FOUND THEN
        PERFORM pgrecall.refuse('there is no session ' || coalesce(p_session_id::text, 'NULL')
                                || coalesce(format(' in project %L', p_project_id), ''),
                                'open one with pgrecall.open_session()', 'P0002');
    END IF;
END
$get_session$;

CREATE OR REPLACE FUNCTION pgrecall.open_session(
    p_project_id text, p_user_id text DEFAULT NULL, p_goal text DEFAULT NULL,
    p_context jsonb DEFAULT NULL, p_ttl interval DEFAULT '1 hour', p_session_id uuid DEFAULT NULL
) RETURNS SETOF pgrecall.session_record
LANGUAGE plpgsql
AS $open_session$
DECLARE
    v_id uuid := coalesce(p_session_id, gen_random_uuid());
BEGIN
    PERFORM pgrecall.check_given_text('p_project_id', p_project_id, 50, true),
            pgrecall.check_given_text('p_user_id', p_user_id, 100, false),
            pgrecall.check_given_text('p_goal', p_goal, 1000000, false),
            pgrecall.check_given_object('p_context', p_context, false),
            pgrecall.check_ttl(p_ttl);
    INSERT INTO public.agent_working_memory (
        session_id, project_id, user_id, current_goal, active_context, expires_at)
    VALUES (v_id, p_project_id, p_user_id, p_goal, p_context, now() + p_ttl);
    RETURN QUERY SELECT * FROM pgrecall.get_session(v_id);
END
$open_session$;

CREATE OR REPLACE FUNCTION pgrecall.check_ttl(p_ttl interval) RETURNS void
LANGUAGE plpgsql IMMUTABLE
AS $check_ttl$
BEGIN
    IF p_ttl <= interval '0' OR p_ttl > interval '36500 days' THEN
        PERFORM pgrecall.refuse(format('p_ttl is %s', p_ttl), 'give a time between 0 and 100 years');
    END IF;
END
$check_ttl$;

-- Context is merged key by key, thoughts and episodes are appended, the rest is replaced if given.
CREATE OR REPLACE FUNCTION pgrecall.update_session(
    p_session_id uuid, p_context jsonb DEFAULT NULL, p_thought jsonb DEFAULT NULL,
    p_episode_id uuid DEFAULT NULL, p_goal text DEFAULT NULL, p_ttl interval DEFAULT NULL,
    p_project_id text DEFAULT NULL
) RETURNS SETOF pgrecall.session_record
LANGUAGE plpgsql
AS $update_session$
BEGIN
    PERFORM pgrecall.check_given_object('p_context', p_context, false),
            pgrecall.check_given_object('p_thought', p_thought, false),
            pgrecall.check_given_text('p_goal', p_goal, 1000000, false),
            pgrecall.check_ttl(p_ttl);
    UPDATE public.agent_working_memory AS s
       SET active_context = CASE WHEN p_context IS NULL THEN s.active_context
               ELSE coalesce(s.active_context, '{}') || p_context END,
           thought_history = CASE WHEN p_thought IS NULL THEN s.thought_history
               ELSE array_append(s.thought_history, p_thought) END,
           related_episodes = CASE
               WHEN p_episode_id IS NULL
                    OR p_episode_id = ANY (coalesce(s.related_episodes, '{}'))
               THEN s.related_episodes
               ELSE array_append(s.related_episodes, p_episode_id) END,
           current_goal = coalesce(p_goal, s.current_goal),
           expires_at = CASE WHEN p_ttl IS NULL THEN s.expires_at ELSE now() + p_ttl END
     WHERE s.session_id = p_session_id AND s.is_active IS TRUE AND s.expires_at > now()
       AND (p_project_id IS NULL OR s.project_id = p_project_id);
    IF NOT FOUND THEN
        PERFORM pgrecall.refuse(
            'there is no live session ' || coalesce(p_session_id::text, 'NULL')
            || coalesce(format(' in project %L', p_project_id), ''),
            'it was closed, its time is up, or it never was; open another', 'P0002');
    END IF;
    RETURN QUERY SELECT * FROM pgrecall.get_session(p_session_id);
END
$update_session$;

CREATE OR REPLACE FUNCTION pgrecall.close_session(
    p_session_id uuid, p_project_id text DEFAULT NULL
) RETURNS SETOF pgrecall.session_record
LANGUAGE plpgsql
AS $close_session$
BEGIN
    UPDATE public.agent_working_memory AS s SET is_active = false
     WHERE s.session_id = p_session_id AND (p_project_id IS NULL OR s.project_id = p_project_id);
    RETURN QUERY SELECT * FROM pgrecall.get_session(p_session_id, p_project_id);
END
$close_session$;

-- name: stats
-- How much is remembered, of one project or of all; shared knowledge counts for every project.
CREATE OR REPLACE FUNCTION pgrecall.memory_stats(
    p_project_id text DEFAULT NULL, OUT episodes bigint, OUT with_outcome bigint,
    OUT mean_quality double precision, OUT strategies bigint, OUT applications bigint,
    OUT live_sessions bigint)
LANGUAGE sql STABLE
AS $memory_stats$
    SELECT e.*, k.*, s.*
      FROM (SELECT count(*), count(*) FILTER (WHERE outcome IS NOT NULL OR outcome_quality IS NOT NULL),
                   avg(outcome_quality)
              FROM public.agent_episodes
             WHERE p_project_id IS NULL OR project_id = p_project_id) AS e,
           (SELECT count(*), coalesce(sum(times_applied), 0) FROM public.agent_knowledge
             WHERE is_active IS TRUE
               AND (p_project_id IS NULL OR project_id = p_project_id OR project_id IS NULL)) AS k,
           (SELECT count(*) FROM public.agent_working_memory
             WHERE is_active IS TRUE AND expires_at > now()
               AND (p_project_id IS NULL OR project_id = p_project_id)) AS s
$memory_stats$;
