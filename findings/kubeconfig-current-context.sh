#!/usr/bin/env bash
# KUBECONFIG with two files: kubectl works on the first one's cluster, Kubernetes' Python client on the second's.
#
# With:      k8s.io/client-go v0.37.2, which kubectl, Helm and the Go controllers read their configuration with;
#            kubernetes 37.0.1 and kubernetes-asyncio 36.1.0 from PyPI. Needs Go 1.26.
# Data:      KUBECONFIG=staging.yaml:production.yaml, two files as kubeadm and clouds write them, each with a
#            current-context; cluster, user and context have their own names in each.
# Expected:  one cluster, whatever the program: the rule of Kubernetes' documentation is that the first file that
#            sets a value wins.
# Seen:      client-go takes staging; both Python clients of Kubernetes take production: the last
#            current-context wins. A script that a person has checked with kubectl acts on the other cluster.
# Way out:   the context by name, in each call: load_kube_config(context="staging"); or one file.
#
# Exits 0 while that is so, 1 when it is not, 2 when the packages cannot be installed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  kubernetes==37.0.1 kubernetes-asyncio==36.1.0 || exit 2
# A module cache that can be removed again.
export GOPATH=$work/go GOCACHE=$work/cache GOFLAGS="-modcacherw -mod=mod"

mkdir "$work/read"
cd "$work/read"
cat > go.mod <<'MOD'
module read

go 1.26.0

require k8s.io/client-go v0.37.2
MOD
cat > main.go <<'GO'
package main

import (
	"fmt"
	"log"

	"k8s.io/client-go/tools/clientcmd"
)

func main() {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("client-go:         ", config.Host)
}
GO
{ go mod tidy && go build -o read .; } 2>go.log || { tail -n 20 go.log; exit 2; }

for name in staging production; do
  cat > "$name.yaml" <<YAML
apiVersion: v1
kind: Config
current-context: $name
clusters: [{name: $name, cluster: {server: "https://$name.example.org:6443"}}]
users: [{name: $name, user: {token: $name}}]
contexts: [{name: $name, context: {cluster: $name, user: $name}}]
YAML
done
cat > read.py <<'PY'
import asyncio

import kubernetes
import kubernetes_asyncio


async def main():
    kubernetes.config.load_kube_config()
    print("kubernetes:        ", kubernetes.client.Configuration.get_default_copy().host)
    await kubernetes_asyncio.config.load_kube_config()
    print("kubernetes-asyncio:", kubernetes_asyncio.client.Configuration.get_default_copy().host)


asyncio.run(main())
PY
export HOME=$work KUBECONFIG=$PWD/staging.yaml:$PWD/production.yaml
{ ./read && "$work/venv/bin/python" -W ignore read.py; } | tee seen.txt
cat > recorded.txt <<'TEXT'
client-go:          https://staging.example.org:6443
kubernetes:         https://production.example.org:6443
kubernetes-asyncio: https://production.example.org:6443
TEXT
cmp -s seen.txt recorded.txt
