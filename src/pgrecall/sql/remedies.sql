-- Statements that a finding tells its reader to run.

-- name: build_vector_index
CREATE INDEX CONCURRENTLY {index} ON public.{table} USING hnsw (embedding vector_cosine_ops)
    WITH (m = 16, ef_construction = 64)
