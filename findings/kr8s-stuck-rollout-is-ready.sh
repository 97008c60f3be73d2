#!/usr/bin/env bash
# kr8s: a Deployment whose new version never starts is ready.
#
# With:      kr8s 0.20.15, against a server of this script that answers one Deployment.
# Data:      a Deployment of three replicas whose new image cannot be pulled, with the status that Kubernetes
#            gives it by the default strategy: the three old pods serve on, one new pod waits
#            (replicas 4, updatedReplicas 1, readyReplicas 3), also after the rollout has been given up
#            (the condition Progressing is False, ProgressDeadlineExceeded).
# Expected:  ready() is False: what has been asked for does not run. `kubectl rollout status` waits, then fails.
# Seen:      True, at once and for ever. It compares readyReplicas with the wanted number, and the old pods
#            make that up. A script that applies a new model server and waits for ready() ends with success
#            while the old one answers. Before the controller has seen the change it is False, which looks
#            as if it worked; on the first deployment, without old pods, it does.
# Way out:   compare updatedReplicas, replicas and availableReplicas with the wanted number.
#
# Exits 0 while that is so, 1 when it is not, 2 when the packages cannot be installed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  kr8s==0.20.15 httpx==0.28.1 anyio==4.16.0 httpx-ws==0.9.0 python-box==8.0.0 || exit 2

cd "$work"
HOME=$work "$work/venv/bin/python" -W ignore - <<'PY'
import http.server
import json
import sys
import threading

import kr8s
from kr8s.objects import Deployment

DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "model", "namespace": "default", "generation": 2},
    "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "model"}}, "template": {}},
}


class Kubernetes(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path = self.path.partition("?")[0].rstrip("/")
        answer = DEPLOYMENT
        if path == "/version":
            answer = {"major": "1", "minor": "34", "gitVersion": "v1.34.0"}
        elif path.endswith("/deployments"):
            answer = {"apiVersion": "apps/v1", "kind": "DeploymentList", "metadata": {}, "items": [DEPLOYMENT]}
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args):
        pass


server = http.server.HTTPServer(("127.0.0.1", 0), Kubernetes)
threading.Thread(target=server.serve_forever, daemon=True).start()
api = kr8s.api(url=f"http://127.0.0.1:{server.server_port}", namespace="default")


def ready(observed, replicas, updated, available, progressing):
    DEPLOYMENT["status"] = {
        "observedGeneration": observed,
        "replicas": replicas,
        "updatedReplicas": updated,
        "readyReplicas": available,
        "availableReplicas": available,
        "conditions": [{"type": "Progressing", **progressing}],
    }
    return Deployment.get("model", api=api).ready()


moving = {"status": "True", "reason": "ReplicaSetUpdated"}
given_up = {"status": "False", "reason": "ProgressDeadlineExceeded"}
seen = {
    "the change is not seen yet": ready(1, 3, 3, 3, moving),
    "one new pod waits for its image": ready(2, 4, 1, 3, moving),
    "the rollout is given up": ready(2, 4, 1, 3, given_up),
    "an old pod is down as well": ready(2, 4, 1, 2, given_up),
}
for name, answer in seen.items():
    print(f"{name}: ready {answer}")
sys.exit(list(seen.values()) != [False, True, True, False])
PY
