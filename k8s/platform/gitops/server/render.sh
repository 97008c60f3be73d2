#!/bin/sh
# Renders an application's folder with the stack's kustomization, for the stack's domain.
set -eu
set -o pipefail
# Kinds of others are not in Git: the bundle has them, and the stack applies them.
for folder in infrastructure/gateway-api platform/gitops; do
    [ ! -d "$folder" ] || echo '# The stack applies them.' >"$folder/kinds.yaml"
done
mkdir stack
printf '%s\n' "$PARAM_KUSTOMIZATION" >stack/kustomization.yaml
kustomize build stack | sed "s/lab\.internal/$PARAM_DOMAIN/g"
