"""secrets.sh, for clusters without Pulumi: it makes every Secret that the manifests name."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from infra.manifests import TREE
from infra.secret_layout import FORGE_JOBS, S3_ACTIONS
from tests.k8s.conftest import RUNS, kubectl, rendered
from tests.providers.kubernetes.control_plane import program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.providers.kubernetes.control_plane import ControlPlane

pytestmark = pytest.mark.slow_cluster
BY_SETTING = ("platform/backup/to-volume", "platform/gitops")
"""What no profile has: the keys of their Secrets are in k8s/README.md."""


def named_secrets(value: Any) -> Iterator[tuple[str, str | None]]:
    """Secrets, and their keys, that a part of a manifest cannot do without."""
    if isinstance(value, list):
        for one in value:
            yield from named_secrets(one)
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in {"secretKeyRef", "secretRef"}:
                if not inner.get("optional"):
                    yield inner["name"], inner.get("key")
            elif key == "secret" and isinstance(inner, dict):
                keys = [item["key"] for item in inner.get("items", ())]
                yield from ((inner["secretName"], key) for key in keys or [None])
            elif key == "certificateRefs":
                yield from ((one["name"], "tls.crt") for one in inner)
            else:
                yield from named_secrets(inner)


def test_every_secret_that_is_named_is_made(control_plane: ControlPlane, tmp_path: Path) -> None:
    for given in (
        "--kustomize=infrastructure/base",
        "--filename=platform/monitoring/base/namespaces.yaml",
        "--filename=platform/pipelines/service/namespace.yaml",
    ):
        option, _, path = given.partition("=")
        done = kubectl(control_plane, "apply", "--server-side", "--force-conflicts", option, str(TREE / path))
        assert done.returncode == 0, done.stderr
    assert kubectl(control_plane, "create", "namespace", FORGE_JOBS).returncode == 0
    folder = program("kubernetes", "kubectl").parent
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "KUBECONFIG": str(control_plane.kubeconfig)}
    done = subprocess.run(
        [TREE / "secrets.sh", "lab.example", "ada"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir()), "it leaves no file"
    listed = json.loads(kubectl(control_plane, "get", "secrets", "-A", "-o", "json").stdout)["items"]
    made = {f"{one['metadata']['namespace']}/{one['metadata']['name']}": one["data"] for one in listed}
    assert not any(value in done.stdout for data in made.values() for key, value in data.items() if "password" in key)
    assert made["platform/forge-users"].keys() == {"admin", "ada"}
    assert made["platform/forge-runner"] == made["forge-jobs/forge-runner"]
    assert made["monitoring/forge"]["token"] == made["platform/forge"]["metrics-token"]
    assert re.fullmatch("[A-Za-z0-9_-]{43}", base64.b64decode(made["platform/forge"]["jwt-secret"]).decode())
    seen = 0
    for folder_ in ("clusters/lab", *(run for run in RUNS if run not in BY_SETTING)):
        for manifest in rendered(folder_):
            if manifest["kind"] == "CustomResourceDefinition":
                continue
            for name, key in named_secrets(manifest):
                seen += 1
                found = made[f"{manifest['metadata']['namespace']}/{name}"]
                assert key is None or found[key], (name, key)
    assert seen > 10
    identities = json.loads(base64.b64decode(made["platform/artifacts"]["s3.json"]))["identities"]
    assert {one["name"]: tuple(one["actions"]) for one in identities} == S3_ACTIONS
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).write_bytes(base64.b64decode(made["gateway/certificate"][name]))
    authority = json.loads(
        kubectl(control_plane, "get", "configmap", "authority", "-n", "gateway", "-o", "json").stdout
    )
    (tmp_path / "ca.crt").write_text(authority["data"]["ca.crt"])
    verify = ["openssl", "verify", "-verify_hostname", "tracking.lab.example", "-CAfile", "ca.crt", "tls.crt"]
    assert subprocess.run(verify, cwd=tmp_path, capture_output=True, check=False).returncode == 0
