"""Keeps a number of pods that each run one job of the forge: it replaces pods that have ended."""

import json
import os
import signal
import ssl
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

JOBS = int(os.environ["JOBS"])
ACCOUNT = Path(os.environ.get("ACCOUNT", "/var/run/secrets/kubernetes.io/serviceaccount"))
API = os.environ.get("API") or (
    f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT_HTTPS']}"
)
NAMESPACE = f"/api/v1/namespaces/{(ACCOUNT / 'namespace').read_text()}"
TEMPLATE = f"{NAMESPACE}/podtemplates/forge-job"
LABEL = "forge-job"
ALIVE = Path(os.environ.get("ALIVE", "/tmp/alive"))  # noqa: S108 - a volume of its own
ENDED = ("Succeeded", "Failed")
PAUSE_SECONDS = 2


def request_api(method: str, path: str, body: Any = None) -> Any:
    """Send a request to the API server; returns the JSON of the response."""
    request = urllib.request.Request(  # noqa: S310
        API + path, None if body is None else json.dumps(body).encode(), method=method
    )
    request.add_header("Content-Type", "application/json")
    # The token rotates.
    request.add_header("Authorization", f"Bearer {(ACCOUNT / 'token').read_text().strip()}")
    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(request, timeout=30, context=context) as answer:  # noqa: S310
        return json.load(answer)


def reconcile() -> None:
    """Delete pods that have ended, and create missing ones."""
    pods = request_api("GET", f"{NAMESPACE}/pods?labelSelector=app%3D{LABEL}")["items"]
    ended = [pod for pod in pods if pod["status"].get("phase") in ENDED]
    for pod in ended:
        if "deletionTimestamp" not in pod["metadata"]:
            request_api("DELETE", f"{NAMESPACE}/pods/{pod['metadata']['name']}")
    if (missing := JOBS - (len(pods) - len(ended))) > 0:
        template = request_api("GET", TEMPLATE)["template"]
        metadata = {**template["metadata"], "generateName": f"{LABEL}-"}
        for _ in range(missing):
            request_api(
                "POST", f"{NAMESPACE}/pods", {"apiVersion": "v1", "kind": "Pod", **template, "metadata": metadata}
            )


def main() -> None:
    """Run for ever; errors of the API server are retried."""
    while True:
        try:
            reconcile()
            ALIVE.touch()
        except OSError as error:
            print(f"{error}", flush=True)
        time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    # SIGTERM has no default action for the first process of a container.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    main()
