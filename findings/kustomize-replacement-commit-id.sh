#!/usr/bin/env bash
# kustomize: a replacement that creates its field turns the commit id "1234e56" into 1.234e+59.
#
# With:      kustomize 5.8.3, built from its Go module in about two minutes. Fetches Go 1.27 where it is missing.
# Data:      a ConfigMap's text "1234e56", replaced into a label, an environment variable, another ConfigMap
#            and an annotation, each with `create: true`.
# Expected:  the text, wherever it goes: the source is quoted, and each of these fields takes only texts.
# Seen:      a field that is not there yet gets the bare scalar, which is read as a number and written
#            in another form: the id cannot be got back, so quoting it later does not help. With a port
#            "8080" the type is lost in the same way. Annotations stay texts, and so does each field that is
#            there before.
# Way out:   the field in the base, with an empty text.
#
# Exits 0 while that is so, 1 when it is not, 2 when kustomize cannot be built.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# A module cache that can be removed again.
export GOPATH=$work/go GOCACHE=$work/cache GOFLAGS="-modcacherw -mod=mod" GOTOOLCHAIN=go1.27.0

mkdir "$work/build"
cd "$work/build"
# The replaced module: its pinned version is not served by every module proxy.
cat > go.mod <<'MOD'
module build

go 1.27.0

tool sigs.k8s.io/kustomize/kustomize/v5

require sigs.k8s.io/kustomize/kustomize/v5 v5.8.3

replace k8s.io/kube-openapi => k8s.io/kube-openapi v0.0.0-20260821135717-be32def86098
MOD
{ go mod tidy && go build -o "$work/kustomize" sigs.k8s.io/kustomize/kustomize/v5; } 2>go.log ||
  { tail -n 20 go.log; exit 2; }

mkdir "$work/overlay"
cd "$work/overlay"
cat > kustomization.yaml <<'YAML'
resources: [resources.yaml]
replacements:
  - source: {kind: ConfigMap, name: build, fieldPath: data.commit}
    targets:
      - select: {kind: Pod}
        options: {create: true}
        fieldPaths:
          - metadata.labels.commit
          - metadata.annotations.commit
          - spec.containers.[name=model].env.[name=COMMIT].value
          - spec.containers.[name=model].env.[name=THERE].value
      - select: {kind: ConfigMap, name: shown}
        options: {create: true}
        fieldPaths: [data.commit]
YAML
cat > resources.yaml <<'YAML'
apiVersion: v1
kind: ConfigMap
metadata:
  name: build
data:
  commit: "1234e56"
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: shown
data: {}
---
apiVersion: v1
kind: Pod
metadata:
  name: pod
spec:
  containers:
    - name: model
      image: model
      env:
        - name: THERE
          value: ""
YAML
"$work/kustomize" build . > built.yaml
cat built.yaml

cat > recorded.yaml <<'YAML'
apiVersion: v1
data:
  commit: "1234e56"
kind: ConfigMap
metadata:
  name: build
---
apiVersion: v1
data:
  commit: 1.234e+59
kind: ConfigMap
metadata:
  name: shown
---
apiVersion: v1
kind: Pod
metadata:
  annotations:
    commit: "1234e56"
  labels:
    commit: 1.234e+59
  name: pod
spec:
  containers:
  - env:
    - name: THERE
      value: "1234e56"
    - name: COMMIT
      value: 1.234e+59
    image: model
    name: model
YAML
cmp -s built.yaml recorded.yaml
