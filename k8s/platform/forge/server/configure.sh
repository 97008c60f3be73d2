#!/bin/sh
# Before each start: settings with their secrets, tables of this version, and a token by which people.py makes the users.
# Only people.py can read the token, and deletes it.
set -eu
umask 077
gitea="gitea --config $CONFIGURATION/app.ini"
gitea config edit-ini --config "$TEMPLATE" --apply-env --out "$CONFIGURATION/app.ini"
$gitea migrate
# A password that nobody learns: people.py gives it the Secret's.
if ! $gitea admin user list --admin | awk '$2 == "admin" {found = 1} END {exit !found}'; then
    $gitea admin user create --admin --username admin --email admin@lab.internal --random-password --must-change-password=false >/dev/null
fi
$gitea admin user generate-access-token --username admin --token-name "setup-$(date +%s)" --scopes all --raw >"$TOKEN"
