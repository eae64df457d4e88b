-- Where pgrecall departs from the specification's schema. These statements run on a schema that
-- has just been made and on one that was made by hand, with the same result.

-- name: evidence
-- array_length() of an empty array is NULL, which a CHECK lets pass; cardinality() is 0. Inactive
-- knowledge may gather its evidence. Rows that the new rule refuses keep the old one alive, since
-- no data is changed here; a later run replaces it once they are mended.
DO $evidence$
DECLARE
    present text := (
        SELECT pg_get_constraintdef(oid) FROM pg_constraint
         WHERE conrelid = 'public.agent_knowledge'::regclass
           AND conname = 'chk_min_supporting_episodes'
    );
BEGIN
    IF present LIKE '%cardinality(supporting_episodes) >= 3%' THEN
        RETURN;
    END IF;
    -- No row may slip in between the look and the constraint.
    LOCK TABLE public.agent_knowledge IN ACCESS EXCLUSIVE MODE;
    IF EXISTS (
        SELECT FROM public.agent_knowledge
         WHERE NOT (is_active IS NOT TRUE OR cardinality(supporting_episodes) >= 3)
    ) THEN
        RAISE NOTICE 'chk_min_supporting_episodes stays as it is: active knowledge without '
                     'three supporting episodes exists';
        RETURN;
    END IF;
    IF present IS NOT NULL THEN
        ALTER TABLE public.agent_knowledge DROP CONSTRAINT chk_min_supporting_episodes;
    END IF;
    ALTER TABLE public.agent_knowledge ADD CONSTRAINT chk_min_supporting_episodes
        CHECK (is_active IS NOT TRUE OR cardinality(supporting_episodes) >= 3);
END
$evidence$;

-- name: health
-- The size is that of the database that holds the view, whatever its name. Replacing the view
-- keeps its grants.
CREATE OR REPLACE VIEW public.v_memory_system_health AS
SELECT (SELECT count(*) FROM public.agent_episodes) AS total_episodes,
       (SELECT count(*) FROM public.agent_episodes
         WHERE outcome IS NOT NULL) AS episodes_with_outcome,
       (SELECT count(*) FROM public.agent_knowledge
         WHERE is_active = true) AS active_strategies,
       (SELECT count(*) FROM public.agent_working_memory
         WHERE is_active = true) AS active_sessions,
       (SELECT avg(latency_ms) FROM public.agent_memory_metrics
         WHERE operation_type = 'recall_similar'
           AND timestamp > now() - interval '1 hour') AS avg_recall_latency_ms,
       (SELECT pg_size_pretty(pg_database_size(current_database()))) AS database_size;

-- name: record
INSERT INTO public.schema_version (version, description)
VALUES ('1.0.0', 'Initial agent memory schema - CR_Agent_01')
ON CONFLICT (version) DO NOTHING;
