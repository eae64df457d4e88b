-- The specification's schema: extensions, five tables, their indexes, functions, trigger and views.
-- Two objects are left to 1.0.0_corrections.sql: the evidence constraint and the health view.
-- {{dimensions}} stands for the number of dimensions of the embeddings.

-- name: extensions
CREATE EXTENSION IF NOT EXISTS vector;
DO $extensions$
DECLARE
    -- Nothing in the schema needs these two, so a server without them is good enough.
    extra text;
BEGIN
    FOR extra IN
        SELECT name FROM pg_available_extensions
         WHERE name IN ('pg_trgm', 'uuid-ossp') AND installed_version IS NULL
    LOOP
        BEGIN
            EXECUTE format('CREATE EXTENSION IF NOT EXISTS %I', extra);
        EXCEPTION WHEN insufficient_privilege THEN
            RAISE NOTICE 'extension % is left out: this role may not create it', extra;
        END;
    END LOOP;
END
$extensions$;

-- name: episodes
CREATE TABLE agent_episodes (
    episode_id          uuid             DEFAULT gen_random_uuid() PRIMARY KEY,
    project_id          varchar(50)      NOT NULL,
    timestamp           timestamptz      NOT NULL DEFAULT now(),
    perception          jsonb            NOT NULL,
    reasoning           jsonb            NOT NULL,
    action              jsonb            NOT NULL,
    outcome             jsonb,
    outcome_quality     double precision,
    outcome_recorded_at timestamptz,
    embedding           vector({{dimensions}}),
    agent_version       varchar(20)      NOT NULL,
    control_mode        varchar(50)      DEFAULT 'rule_based_only',
    decision_source     varchar(50),
    sprint_id           varchar(50),
    chronicle_note_id   uuid,
    CONSTRAINT agent_episodes_outcome_quality_check
        CHECK (outcome_quality BETWEEN 0 AND 1),
    CONSTRAINT chk_control_mode
        CHECK (control_mode IN ('rule_based_only', 'intelligence_enhanced', 'memory_augmented'))
);

-- A project's decisions, newest first; also the exact route of a recall within a rare project.
CREATE INDEX idx_episodes_project_time
    ON agent_episodes (project_id, timestamp DESC);
CREATE INDEX idx_episodes_quality
    ON agent_episodes (outcome_quality DESC) WHERE outcome_quality IS NOT NULL;
CREATE INDEX idx_episodes_decision_source
    ON agent_episodes (decision_source);
CREATE INDEX idx_episodes_sprint
    ON agent_episodes (sprint_id) WHERE sprint_id IS NOT NULL;
CREATE INDEX idx_episodes_no_outcome
    ON agent_episodes (episode_id) WHERE outcome IS NULL;
CREATE INDEX idx_episodes_embedding
    ON agent_episodes USING hnsw (embedding vector_cosine_ops)
    WITH (m = 16, ef_construction = 64);

-- name: knowledge
CREATE TABLE agent_knowledge (
    knowledge_id           uuid             DEFAULT gen_random_uuid() PRIMARY KEY,
    knowledge_type         varchar(50)      NOT NULL,
    content                jsonb            NOT NULL,
    description            text             NOT NULL,
    confidence             double precision DEFAULT 0.5,
    supporting_episodes    uuid[]           NOT NULL DEFAULT '{}',
    contradicting_episodes uuid[]           DEFAULT '{}',
    times_applied          integer          DEFAULT 0,
    success_count          integer          DEFAULT 0,
    failure_count          integer          DEFAULT 0,
    success_rate           double precision GENERATED ALWAYS AS (
        CASE WHEN (success_count + failure_count) > 0
             THEN success_count::double precision / (success_count + failure_count)
             ELSE NULL
        END
    ) STORED,
    created_at             timestamptz      DEFAULT now(),
    last_validated         timestamptz,
    last_applied           timestamptz,
    embedding              vector({{dimensions}}),
    created_by             varchar(50)      DEFAULT 'system',
    is_active              boolean          DEFAULT true,
    CONSTRAINT agent_knowledge_confidence_check
        CHECK (confidence BETWEEN 0 AND 1),
    CONSTRAINT chk_knowledge_type
        CHECK (knowledge_type IN ('strategy', 'pattern', 'constraint', 'heuristic'))
);

CREATE INDEX idx_knowledge_type_confidence
    ON agent_knowledge (knowledge_type, confidence DESC) WHERE is_active = true;
CREATE INDEX idx_knowledge_success_rate
    ON agent_knowledge (success_rate DESC) WHERE is_active = true;
CREATE INDEX idx_knowledge_last_applied
    ON agent_knowledge (last_applied DESC);
CREATE INDEX idx_knowledge_embedding
    ON agent_knowledge USING hnsw (embedding vector_cosine_ops)
    WITH (m = 16, ef_construction = 64);

-- name: working_memory
CREATE TABLE agent_working_memory (
    session_id       uuid         DEFAULT gen_random_uuid() PRIMARY KEY,
    project_id       varchar(50)  NOT NULL,
    user_id          varchar(100),
    current_goal     text,
    active_context   jsonb,
    thought_history  jsonb[]      DEFAULT '{}',
    created_at       timestamptz  DEFAULT now(),
    last_updated     timestamptz  DEFAULT now(),
    expires_at       timestamptz  DEFAULT now() + interval '1 hour',
    is_active        boolean      DEFAULT true,
    related_episodes uuid[]       DEFAULT '{}'
);

CREATE INDEX idx_working_memory_project
    ON agent_working_memory (project_id, last_updated DESC) WHERE is_active = true;
CREATE INDEX idx_working_memory_expiry
    ON agent_working_memory (expires_at) WHERE is_active = true;
CREATE INDEX idx_working_memory_user
    ON agent_working_memory (user_id, project_id);

-- name: metrics
CREATE TABLE agent_memory_metrics (
    metric_id       uuid             DEFAULT gen_random_uuid() PRIMARY KEY,
    timestamp       timestamptz      DEFAULT now(),
    operation_type  varchar(50),
    latency_ms      integer,
    results_count   integer,
    recall_accuracy double precision,
    precision       double precision,
    memory_usage_mb double precision,
    cpu_percent     double precision,
    project_id      varchar(50),
    episode_count   integer,
    strategy_count  integer
);

CREATE INDEX idx_memory_metrics_timestamp
    ON agent_memory_metrics (timestamp DESC);
CREATE INDEX idx_memory_metrics_operation
    ON agent_memory_metrics (operation_type, timestamp DESC);

-- name: functions
-- The bodies name their tables with the schema, so they work under any search_path.
CREATE OR REPLACE FUNCTION cleanup_expired_working_memory() RETURNS void
LANGUAGE plpgsql AS $body$
BEGIN
    UPDATE public.agent_working_memory AS session
       SET is_active = false
     WHERE session.is_active = true
       AND session.expires_at < now();
END;
$body$;

CREATE OR REPLACE FUNCTION update_working_memory_timestamp() RETURNS trigger
LANGUAGE plpgsql AS $body$
BEGIN
    NEW.last_updated := now();
    RETURN NEW;
END;
$body$;

CREATE OR REPLACE FUNCTION record_memory_operation(
    p_operation_type varchar,
    p_latency_ms     integer,
    p_results_count  integer,
    p_project_id     varchar DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql AS $body$
BEGIN
    INSERT INTO public.agent_memory_metrics
           (project_id, operation_type, latency_ms, results_count)
    VALUES (p_project_id, p_operation_type, p_latency_ms, p_results_count);
END;
$body$;

CREATE TRIGGER trg_update_working_memory_timestamp
    BEFORE UPDATE ON agent_working_memory
    FOR EACH ROW EXECUTE FUNCTION update_working_memory_timestamp();

-- name: views
CREATE VIEW v_episode_quality_by_project AS
SELECT project_id,
       count(*)               AS total_episodes,
       count(outcome_quality) AS episodes_with_outcome,
       avg(outcome_quality)   AS avg_quality,
       stddev(outcome_quality) AS stddev_quality,
       min(outcome_quality)   AS min_quality,
       max(outcome_quality)   AS max_quality,
       decision_source,
       max(timestamp)         AS last_episode
  FROM agent_episodes
 GROUP BY project_id, decision_source;

CREATE VIEW v_strategy_effectiveness AS
SELECT knowledge_id,
       description,
       confidence,
       times_applied,
       success_rate,
       array_length(supporting_episodes, 1) AS supporting_count,
       extract(epoch FROM (now() - last_applied)) / 86400 AS days_since_applied,
       is_active
  FROM agent_knowledge
 WHERE knowledge_type = 'strategy'
 ORDER BY confidence DESC, success_rate DESC;

-- name: versions
CREATE TABLE schema_version (
    version     varchar(20) PRIMARY KEY,
    applied_at  timestamptz DEFAULT now(),
    description text
);
