#!/bin/sh
# Makes the Secrets that the manifests name, with new passwords and a certificate of a new authority, and keeps none of
# them in a file:  k8s/secrets.sh DOMAIN  (kubectl, openssl). `lab up` makes the same from the stack's own state.
set -eu
domain=${1:?the domain: k8s/secrets.sh lab.internal}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 077
cd "$work"

make() { # NAMESPACE NAME: of the files in its folder
    kubectl create secret generic "$2" --namespace "$1" --from-file="$1-$2" --dry-run=client --output yaml |
        kubectl apply --server-side --field-manager secrets.sh --filename -
}
put() { # NAMESPACE NAME KEY: standard input
    mkdir -p "$1-$2"
    tr -d '\n' > "$1-$2/$3"
}
password() { openssl rand -hex 16; }

for user in admin platform trainer; do password > "s3-$user"; done
for user in admin trainer server; do password > "mlflow-$user"; done

echo mlflow | put platform metadata-store username
password | put platform metadata-store password
actions='"Read", "Write", "List", "Tagging"'
{
    printf '{"identities": ['
    for user in admin platform; do
        printf '{"name": "%s", "credentials": [{"accessKey": "%s", "secretKey": "%s"}], "actions": ["Admin", %s]}, ' \
            "$user" "$user" "$(cat "s3-$user")" "$actions"
    done
    printf '{"name": "trainer", "credentials": [{"accessKey": "trainer", "secretKey": "%s"}], "actions": [%s]}]}' \
        "$(cat s3-trainer)" '"Read:datasets", "Write:datasets", "List:datasets", "Tagging:datasets"'
} | put platform artifacts s3.json
echo platform | put platform artifacts access-key
put platform artifacts secret-key < s3-platform
password | put platform tracking session-key
for user in admin trainer server; do put platform tracking-users "$user-password" < "mlflow-$user"; done
echo trainer | put training tracking username
put training tracking password < mlflow-trainer
echo trainer | put training artifacts access-key
put training artifacts secret-key < s3-trainer
echo server | put serving tracking username
put serving tracking password < mlflow-server

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=ml-cluster $domain" \
    -keyout authority.key -out authority.crt 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$domain" -keyout tls.key -out tls.csr 2>/dev/null
printf 'subjectAltName=DNS:%s,DNS:*.%s\nbasicConstraints=critical,CA:FALSE\n' "$domain" "$domain" > extensions
openssl x509 -req -in tls.csr -CA authority.crt -CAkey authority.key -days 397 -extfile extensions -out tls.crt 2>/dev/null

make platform metadata-store
make platform artifacts
make platform tracking
make platform tracking-users
make training tracking
make training artifacts
make serving tracking
kubectl create secret tls certificate --namespace gateway --cert tls.crt --key tls.key --dry-run=client --output yaml |
    kubectl apply --server-side --field-manager secrets.sh --filename -
kubectl create configmap authority --namespace gateway --from-file=ca.crt=authority.crt --dry-run=client --output yaml |
    kubectl apply --server-side --field-manager secrets.sh --filename -
