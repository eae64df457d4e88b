-- Items: documents kept by key, in namespaces.

-- name: columns
i.project_id, i.namespace, i.key, i.value, i.created_at, i.updated_at, i.expires_at

-- name: live
(i.expires_at IS NULL OR i.expires_at > now())

-- name: filter_below
-- A label follows its own text with anything after it, so what is below a namespace lies between
-- it and its last label with the least character after it.
AND i.namespace >= %(prefix)s::text[] AND i.namespace < %(beyond)s::text[]

-- name: filter_where
-- Each value stands in an array, since a null of its own would become one of SQL's.
AND NOT EXISTS (
    SELECT
    FROM jsonb_to_recordset(%(where)s::jsonb) AS f (path text[], operator text, given jsonb)
    CROSS JOIN LATERAL (
        SELECT coalesce(i.value #> f.path, 'null') AS found, f.given -> 0 AS wanted) AS v
    WHERE CASE f.operator
              WHEN '$eq' THEN v.found <> v.wanted
              WHEN '$ne' THEN v.found = v.wanted
              ELSE jsonb_typeof(v.found) <> jsonb_typeof(v.wanted)
                   OR NOT CASE f.operator
                              WHEN '$gt' THEN v.found > v.wanted
                              WHEN '$gte' THEN v.found >= v.wanted
                              WHEN '$lt' THEN v.found < v.wanted
                              WHEN '$lte' THEN v.found <= v.wanted
                          END
          END)

-- name: given_keys
SELECT ARRAY(SELECT label FROM jsonb_array_elements_text(n.namespace) AS label) AS namespace, n.key
FROM unnest(%(namespaces)s::jsonb[], %(keys)s::text[]) AS n (namespace, key)

-- name: put
-- In one order, so that two writers of the same items wait for each other in turn.
WITH given AS (
    SELECT ARRAY(SELECT label FROM jsonb_array_elements_text(n.namespace) AS label) AS namespace,
           n.key, n.value, n.ttl, n.model, n.number
    FROM unnest(%(namespaces)s::jsonb[], %(keys)s::text[], %(values)s::jsonb[],
                %(ttls)s::interval[], %(models)s::text[])
         WITH ORDINALITY AS n (namespace, key, value, ttl, model, number)
), vectors AS (
    SELECT v.number, array_agg(v.vector ORDER BY v.place) AS vectors
    FROM unnest(%(vectors)s::vector[], %(numbers)s::bigint[])
         WITH ORDINALITY AS v (vector, number, place)
    GROUP BY v.number
)
INSERT INTO pgrecall.items AS i
    (project_id, namespace, key, value, vectors, model, ttl, expires_at)
SELECT %(project_id)s, g.namespace, g.key, g.value, coalesce(v.vectors, '{}'), g.model, g.ttl,
       now() + g.ttl
FROM given AS g
LEFT JOIN vectors AS v ON v.number = g.number
ORDER BY g.namespace, g.key
ON CONFLICT (project_id, namespace, key) DO UPDATE
SET value = excluded.value, vectors = excluded.vectors, model = excluded.model,
    ttl = excluded.ttl, expires_at = excluded.expires_at, updated_at = now(),
    created_at = CASE WHEN /* include: live */ THEN i.created_at ELSE now() END

-- name: delete
DELETE FROM pgrecall.items AS i
USING (/* include: given_keys */) AS g
WHERE i.project_id = %(project_id)s AND i.namespace = g.namespace AND i.key = g.key

-- name: get
SELECT /* include: columns */
FROM (/* include: given_keys */) AS g
JOIN pgrecall.items AS i ON i.namespace = g.namespace AND i.key = g.key
WHERE i.project_id = %(project_id)s AND /* include: live */

-- name: refresh
-- Those read live for their whole time again.
UPDATE pgrecall.items AS i
SET expires_at = now() + i.ttl
FROM (/* include: given_keys */) AS g
WHERE i.project_id = %(project_id)s AND i.namespace = g.namespace AND i.key = g.key
  AND i.ttl IS NOT NULL AND /* include: live */

-- name: list
SELECT /* include: columns */, NULL::float8 AS score, NULL::vector[] AS vectors
FROM pgrecall.items AS i
WHERE i.project_id = %(project_id)s AND /* include: live */ /* filters */
ORDER BY i.updated_at DESC, i.namespace, i.key
LIMIT %(limit)s OFFSET %(offset)s

-- name: search
-- Each item is as near as the nearest of its vectors; others than the model's are no measure.
SELECT /* include: columns */, s.score::float8 AS score,
       CASE WHEN %(with_vectors)s THEN i.vectors END AS vectors
FROM pgrecall.items AS i
CROSS JOIN LATERAL (
    SELECT max(CASE %(distance)s::text
                   WHEN 'cosine' THEN 1 - (v.vector <=> %(embedding)s::vector)
                   WHEN 'inner_product' THEN -(v.vector <#> %(embedding)s::vector)
                   WHEN 'l2' THEN -(v.vector <-> %(embedding)s::vector)
               END) AS score
    FROM unnest(i.vectors) AS v (vector)
    WHERE vector_dims(v.vector) = vector_dims(%(embedding)s::vector)
) AS s
WHERE i.project_id = %(project_id)s AND i.model IS NOT DISTINCT FROM %(identity)s::text
  AND s.score IS NOT NULL AND /* include: live */ /* filters */
ORDER BY s.score DESC, i.namespace, i.key
LIMIT %(limit)s OFFSET %(offset)s

-- name: namespaces
SELECT DISTINCT i.namespace[1:coalesce(%(max_depth)s::integer, cardinality(i.namespace))]
                AS namespace
FROM pgrecall.items AS i
WHERE i.project_id = %(project_id)s AND /* include: live */
  AND NOT EXISTS (
      SELECT
      FROM jsonb_to_recordset(%(patterns)s::jsonb) AS p (suffix boolean, labels text[])
      WHERE cardinality(i.namespace) < cardinality(p.labels)
         OR EXISTS (
             SELECT
             FROM unnest(p.labels) WITH ORDINALITY AS l (label, place)
             WHERE l.label <> '*'
               AND l.label <> i.namespace[l.place + CASE
                   WHEN p.suffix THEN cardinality(i.namespace) - cardinality(p.labels)
                   ELSE 0 END]))
ORDER BY namespace
LIMIT %(limit)s OFFSET %(offset)s

-- name: expire
DELETE FROM pgrecall.items AS i
WHERE i.expires_at <= now() /* filters */

-- name: filter_project_id
AND i.project_id = %(project_id)s
