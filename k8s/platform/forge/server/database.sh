#!/bin/sh
# Before each start: the role and the database; with the rows of a restore, if there are any (copies.py).
set -eu
until pg_isready --quiet --timeout=5; do sleep 2; done
export PGOPTIONS="-c client_min_messages=warning"
run() { psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 "$@"; }
run --file="$SCRIPTS/database.sql"
rows=$FOLDER/restore/files/rows.dump
if [ -e "$FOLDER/restore/ready" ] && [ -e "$rows" ]; then
    # Into a new database, which then replaces the other: no tables of a newer Gitea remain.
    run <<'SQL'
DROP DATABASE IF EXISTS forge_restored WITH (FORCE);
CREATE DATABASE forge_restored OWNER forge;
REVOKE ALL ON DATABASE forge_restored FROM PUBLIC;
SQL
    pg_restore --exit-on-error --no-owner --role=forge --dbname=forge_restored "$rows"
    run <<'SQL'
DROP DATABASE IF EXISTS forge WITH (FORCE);
ALTER DATABASE forge_restored RENAME TO forge;
SQL
    rm "$rows"
fi
