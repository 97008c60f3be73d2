-- Before each start: the role `pipelines` with the Secret's password, and its database. Run by the store's owner.
\getenv password PIPELINES_PASSWORD
SELECT 'CREATE ROLE pipelines LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'pipelines') \gexec
ALTER ROLE pipelines LOGIN CONNECTION LIMIT 60 PASSWORD :'password';
SELECT 'CREATE DATABASE pipelines OWNER pipelines' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'pipelines') \gexec
REVOKE ALL ON DATABASE pipelines FROM PUBLIC;
