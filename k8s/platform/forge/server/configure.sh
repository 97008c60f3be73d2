#!/bin/sh
# Before each start: settings with their secrets, tables of this version, and a token by which people.py makes the users.
# Only people.py can read the token, and deletes it. Files that a restore has left (copies.py) take the others' place.
set -eu
umask 077
restore=$GITEA_WORK_DIR/restore
# Its rows are in the database already. What was begun and cut off goes on: a folder that is moved is not there any more.
if [ -e "$restore/ready" ]; then
    for folder in "$restore"/files/*/; do
        [ -d "$folder" ] || continue
        name=$(basename "$folder")
        rm -rf "${GITEA_WORK_DIR:?}/$name"
        mv "$folder" "$GITEA_WORK_DIR/$name"
    done
    # What waits there is of other rows.
    rm -rf "$GITEA_WORK_DIR/queues"
fi
gitea="gitea --config $CONFIGURATION/app.ini"
gitea config edit-ini --config "$TEMPLATE" --apply-env --out "$CONFIGURATION/app.ini"
$gitea migrate
if [ -e "$restore/ready" ]; then
    $gitea admin regenerate hooks
    rm -rf "$restore"
fi
# A password that nobody learns: people.py gives it the Secret's.
if ! $gitea admin user list --admin | awk '$2 == "admin" {found = 1} END {exit !found}'; then
    $gitea admin user create --admin --username admin --email admin@lab.internal --random-password --must-change-password=false >/dev/null
fi
$gitea admin user generate-access-token --username admin --token-name "setup-$(date +%s)" --scopes all --raw >"$TOKEN"
