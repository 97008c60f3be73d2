#!/usr/bin/env bash
# PyYAML and Kubernetes: a text that PyYAML writes bare, such as a short commit id, is a number to Kubernetes.
#
# With:      PyYAML 6.0.4, sigs.k8s.io/yaml v1.6.0: what kubectl, kubeadm and the API server read YAML
#            with. Needs Go 1.25.
# Data:      labels {"commit": "1234e56", "rack": "08", "mode": "0o17"}: texts, as labels must be.
# Expected:  yaml.safe_dump quotes what another reader may take for a number, as it quotes "017" and "on".
# Seen:      it quotes what it would itself take for something else, by YAML 1.1's rules. Kubernetes' reader
#            knows more numbers: an exponent without a point (1.234e+59), an octal 0o17 (15), and 08 (8).
#            The API server turns YAML into JSON and then refuses a number in a text field; a free-form
#            field, as in many custom resources, keeps the number; a program that reads straight into its
#            types gets a text made of the number, for 1234e56 "+Inf". Of seven-digit commit ids, one in 54 is
#            digits, e, digits.
# Way out:   json.dumps (JSON is YAML), or ruamel.yaml, which quotes these.
#
# Exits 0 while that is so, 1 when it is not, 2 when the packages cannot be installed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install --quiet --disable-pip-version-check PyYAML==6.0.4 || exit 2
# A module cache that can be removed again.
export GOPATH=$work/go GOCACHE=$work/cache GOFLAGS="-modcacherw -mod=mod"

mkdir "$work/read"
cd "$work/read"
cat > go.mod <<'MOD'
module read

go 1.25

require sigs.k8s.io/yaml v1.6.0
MOD
cat > main.go <<'GO'
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"sigs.k8s.io/yaml"
)

func main() {
	text, _ := io.ReadAll(os.Stdin)
	free, err := yaml.YAMLToJSON(text)
	if err != nil {
		panic(err)
	}
	var server, program map[string]string
	refused := json.Unmarshal(free, &server) != nil
	if err := yaml.Unmarshal(text, &program); err != nil {
		panic(err)
	}
	fmt.Printf("free-form %s, API server refuses: %t, program %q", free, refused, program["label"])
}
GO
{ go mod tidy && go build -o read .; } 2>go.log || { tail -n 20 go.log; exit 2; }

changed=0
check() {
  local written seen
  written=$("$work/venv/bin/python" -c 'import sys, yaml; print(yaml.safe_dump({"label": sys.argv[1]}), end="")' "$1")
  seen=$(./read <<<"$written")
  printf 'text "%s", PyYAML writes %s: %s\n' "$1" "$written" "$seen"
  [[ $seen == "$2" ]] || changed=1
}
check 1234e56 'free-form {"label":1.234e+59}, API server refuses: true, program "+Inf"'
check 08 'free-form {"label":8}, API server refuses: true, program "8"'
check 0o17 'free-form {"label":15}, API server refuses: true, program "15"'
check 017 'free-form {"label":"017"}, API server refuses: false, program "017"'
check on 'free-form {"label":"on"}, API server refuses: false, program "on"'
exit "$changed"
