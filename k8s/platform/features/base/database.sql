-- Before each start: the role `features` with the Secret's password, and its database. Run by the store's owner.
\getenv password FEATURES_PASSWORD
SELECT 'CREATE ROLE features LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'features') \gexec
ALTER ROLE features LOGIN CONNECTION LIMIT 20 PASSWORD :'password';
SELECT 'CREATE DATABASE features OWNER features' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'features') \gexec
REVOKE ALL ON DATABASE features FROM PUBLIC;
