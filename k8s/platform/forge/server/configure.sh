#!/bin/sh
# Before each start: settings with their secrets, tables of this version, and a token with which people.py creates users.
# Only people.py can read the token, and deletes it. Files of a restore (copies.py) replace the others.
set -eu
umask 077
restore=$GITEA_WORK_DIR/restore
# Its rows are in the database already. An interrupted restore continues: folders that were moved are gone.
if [ -e "$restore/ready" ]; then
    for folder in "$restore"/files/*/; do
        [ -d "$folder" ] || continue
        name=$(basename "$folder")
        rm -rf "${GITEA_WORK_DIR:?}/$name"
        mv "$folder" "$GITEA_WORK_DIR/$name"
    done
    # The queues belong to other rows.
    rm -rf "$GITEA_WORK_DIR/queues"
fi
gitea="gitea --config $CONFIGURATION/app.ini"
gitea config edit-ini --config "$TEMPLATE" --apply-env --out "$CONFIGURATION/app.ini"
$gitea migrate
if [ -e "$restore/ready" ]; then
    $gitea admin regenerate hooks
    rm -rf "$restore"
fi
# A password that nobody learns: people.py sets the Secret's.
if ! $gitea admin user list --admin | awk '$2 == "admin" {found = 1} END {exit !found}'; then
    $gitea admin user create --admin --username admin --email admin@lab.internal --random-password --must-change-password=false >/dev/null
fi
$gitea admin user generate-access-token --username admin --token-name "setup-$(date +%s)" --scopes all --raw >"$TOKEN"
