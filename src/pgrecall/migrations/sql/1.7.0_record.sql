-- The last step of the revision.

-- name: record
INSERT INTO public.schema_version (version, description)
VALUES ('1.7.0', 'Interfaces: keys, answers, and the client''s operations as functions of the database')
ON CONFLICT (version) DO NOTHING;
