-- Merging: recent rows enter the vector index.

-- name: merge
SELECT pgrecall.merge_recent(%(count)s::integer) AS merged

-- name: left
SELECT count(*) AS rows FROM ONLY pgrecall.recent_episodes

-- name: uncounted
SELECT count(*) AS changes FROM (SELECT FROM pgrecall.word_changes LIMIT 1024) AS n

-- name: fold_words
SELECT pgrecall.fold_words() AS folded

-- name: tidy
-- What was merged leaves room that every recall would read.
VACUUM (SKIP_LOCKED) pgrecall.recent_episodes, pgrecall.recent_codes
