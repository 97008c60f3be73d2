#!/usr/bin/env bash
# kustomize: namePrefix renames a RuntimeClass and a GPU's claim template, but not the pods that name them.
#
# With:      kustomize 5.8.3, built from its Go module in about two minutes. Fetches Go 1.27 where it is missing.
# Data:      a Deployment that names a RuntimeClass, a ResourceClaimTemplate (dynamic resource allocation, the
#            way to a GPU), a PriorityClass and a ConfigMap, and an HTTPRoute that names a Service.
# Expected:  a reference follows its object, or the object keeps its name, or there is a warning. All
#            kinds but HTTPRoute are Kubernetes' own.
# Seen:      PriorityClass and ConfigMap are followed. RuntimeClass, ResourceClaimTemplate and the HTTPRoute's
#            Service are renamed, and what names them is left as it was: by the rules of Kubernetes and the
#            Gateway API such pods do not start, and such a route answers 500. The build warns of nothing.
# Way out:   `configurations:` with a nameReference for each such field.
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
namePrefix: team-
YAML
cat > resources.yaml <<'YAML'
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata:
  name: gpu-runtime
handler: nvidia
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata:
  name: gpu-claim
spec:
  spec:
    devices:
      requests:
        - name: gpu
          exactly:
            deviceClassName: gpu.example.com
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata:
  name: serving
value: 1000
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: settings
---
apiVersion: v1
kind: Service
metadata:
  name: model
spec:
  selector:
    app: model
  ports:
    - port: 80
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: model
spec:
  rules:
    - backendRefs:
        - name: model
          port: 80
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: model
spec:
  selector:
    matchLabels:
      app: model
  template:
    metadata:
      labels:
        app: model
    spec:
      runtimeClassName: gpu-runtime
      priorityClassName: serving
      resourceClaims:
        - name: gpu
          resourceClaimTemplateName: gpu-claim
      containers:
        - name: model
          image: model
          envFrom:
            - configMapRef:
                name: settings
YAML
"$work/kustomize" build . > built.yaml

changed=0
field() { # kind, the path of its only line with that text: its value
  awk -v kind="$1" -v key="$2" '
    /^---/ { inside = 0 }
    $1 == "kind:" { inside = ($2 == kind) }
    inside && index($0, key) { sub(/.*: /, ""); print; exit }' built.yaml
}
check() { # what it is, the recorded value, the seen one
  printf '%-34s %s\n' "$1" "$3"
  [ "$2" = "$3" ] || changed=1
}
check "RuntimeClass is named" team-gpu-runtime "$(field RuntimeClass '  name:')"
check "  and the pods ask for" gpu-runtime "$(field Deployment runtimeClassName:)"
check "ResourceClaimTemplate is named" team-gpu-claim "$(field ResourceClaimTemplate '  name:')"
check "  and the pods ask for" gpu-claim "$(field Deployment resourceClaimTemplateName:)"
check "Service is named" team-model "$(field Service '  name:')"
check "  and the route sends to" model "$(field HTTPRoute '    - name:')"
check "PriorityClass is named" team-serving "$(field PriorityClass '  name:')"
check "  and the pods ask for" team-serving "$(field Deployment priorityClassName:)"
check "ConfigMap is named" team-settings "$(field ConfigMap '  name:')"
check "  and the pods ask for" team-settings "$(awk '/configMapRef:/ { getline; print $2; exit }' built.yaml)"
exit "$changed"
