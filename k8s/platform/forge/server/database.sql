-- Before each start: the role `forge` with the Secret's password, and its database. Run by the store's owner.
\getenv password FORGE_PASSWORD
SELECT 'CREATE ROLE forge LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'forge') \gexec
ALTER ROLE forge LOGIN CONNECTION LIMIT 40 PASSWORD :'password';
SELECT 'CREATE DATABASE forge OWNER forge' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'forge') \gexec
REVOKE ALL ON DATABASE forge FROM PUBLIC;
