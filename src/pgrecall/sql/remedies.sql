-- Statements that a finding tells its reader to run.

-- name: build_vector_index
CREATE INDEX CONCURRENTLY {index} ON public.{table} USING hnsw (embedding {operators})
    WITH (m = 16, ef_construction = 64)

-- name: rebuild_vector_index
CREATE INDEX CONCURRENTLY {wanted}_new ON public.{table} USING hnsw ({column})
    WITH (m = {m}, ef_construction = {ef_construction});
DROP INDEX CONCURRENTLY public.{index};
ALTER INDEX public.{wanted}_new RENAME TO {wanted}

-- name: set_ef_search
ALTER ROLE "{role}" IN DATABASE "{database}" SET hnsw.ef_search = {ef_search}

-- name: enable_trigger
ALTER TABLE public.{table} ENABLE TRIGGER {trigger}

-- name: code_all
CALL pgrecall.code_all()

-- name: code_anew
UPDATE pgrecall.embedding_models SET coded = false WHERE serving;
TRUNCATE pgrecall.episode_codes, pgrecall.knowledge_codes;
CALL pgrecall.code_all()

-- name: text_all
CALL pgrecall.text_all()

-- name: text_anew
TRUNCATE pgrecall.texts, pgrecall.word_counts, pgrecall.vocabulary, pgrecall.word_changes;
CALL pgrecall.text_all()

-- name: fold_words
SELECT pgrecall.fold_words()
