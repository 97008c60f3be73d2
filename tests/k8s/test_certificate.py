"""The job that renews the gateway's certificate, with its own rights on a real API server."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.verification import PolicyBuilder, Store

from infra import credentials
from infra.manifests import TREE
from tests.k8s.conftest import apply, kubectl, rendered

if TYPE_CHECKING:
    from pathlib import Path

    from tests.providers.kubernetes.control_plane import ControlPlane

pytestmark = pytest.mark.slow_cluster
PROGRAM = TREE / "infrastructure" / "gateway" / "base" / "renew.py"
NAMES = ["lab.internal", "*.lab.internal"]


@pytest.fixture(scope="module")
def gateway(control_plane: ControlPlane) -> ControlPlane:
    apply(control_plane, "infrastructure/gateway-api", "infrastructure/base", "infrastructure/gateway/base")
    return control_plane


def put(plane: ControlPlane, name: str, made: dict[str, str]) -> None:
    """Make a Secret of a certificate and its key."""
    parts = {"tls.crt": made["certificate"], "tls.key": made["key"]}
    content = {name: base64.b64encode(text.encode()).decode() for name, text in parts.items()}
    metadata = {"name": name, "namespace": "gateway"}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": content}
    secret["type"] = "kubernetes.io/tls"
    done = kubectl(plane, "apply", "--server-side", "--field-manager=secrets.sh", "-f", "-", text=json.dumps(secret))
    assert done.returncode == 0, done.stderr


def in_place(plane: ControlPlane) -> dict[str, bytes]:
    """The gateway's certificate and its key."""
    found = kubectl(plane, "get", "secret", "certificate", "--namespace", "gateway", "-o", "json")
    return {key: base64.b64decode(value) for key, value in json.loads(found.stdout)["data"].items()}


def renewal(plane: ControlPlane, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the job's program as the job's account, with the job's settings."""
    job = next(one for one in rendered("clusters/lab") if one["kind"] == "CronJob" and "renewal" in str(one))
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["command"][-1].endswith(PROGRAM.name)
    account = pod["serviceAccountName"]
    token = kubectl(plane, "create", "token", account, "--namespace", "gateway").stdout.strip()
    settings: dict[str, Any] = yaml.safe_load(plane.kubeconfig.read_text())
    settings["users"] = [{"name": one["name"], "user": {"token": token}} for one in settings["users"]]
    kubeconfig = folder / "kubeconfig"
    kubeconfig.touch(0o600)
    kubeconfig.write_text(yaml.safe_dump(settings))
    days = next(one["value"] for one in pod["containers"][0]["env"] if one["name"] == "DAYS")
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "NAMESPACE": "gateway", "DAYS": days}
    return subprocess.run([sys.executable, PROGRAM], env=environment, capture_output=True, text=True, check=False)


def test_a_certificate_near_its_end_is_renewed(
    gateway: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = credentials.issue({"names": ["ml-cluster test"]})
    monkeypatch.setattr(credentials, "CERTIFICATE_DAYS", 50)
    signed = {"authority_certificate": authority["certificate"], "authority_key": authority["key"]}
    put(gateway, "authority", authority)
    put(gateway, "certificate", credentials.issue({"names": NAMES, **signed}))
    before = in_place(gateway)
    monkeypatch.undo()

    done = renewal(gateway, tmp_path)
    assert done.returncode == 0, done.stderr
    after = in_place(gateway)
    renewed = x509.load_pem_x509_certificate(after["tls.crt"])
    assert after["tls.key"] != before["tls.key"]
    assert load_pem_private_key(after["tls.key"], None).public_key() == renewed.public_key()
    assert renewed.not_valid_after_utc - datetime.now(UTC) > timedelta(days=49)
    store = Store([x509.load_pem_x509_certificate(authority["certificate"].encode())])
    for name in ("lab.internal", "tracking.lab.internal"):
        PolicyBuilder().store(store).build_server_verifier(x509.DNSName(name)).verify(renewed, [])
    assert "PRIVATE KEY" not in done.stdout + done.stderr


def test_a_certificate_that_lasts_is_left_alone(gateway: ControlPlane, tmp_path: Path) -> None:
    authority = credentials.issue({"names": ["ml-cluster test"]})
    signed = {"authority_certificate": authority["certificate"], "authority_key": authority["key"]}
    put(gateway, "certificate", credentials.issue({"names": NAMES, **signed}))
    before = in_place(gateway)
    done = renewal(gateway, tmp_path)
    assert done.returncode == 0, done.stderr
    assert in_place(gateway) == before


def test_the_job_reads_no_other_secret(gateway: ControlPlane) -> None:
    account = "system:serviceaccount:gateway:certificate-renewal"
    for verb, what, allowed in (("get", "secret/authority", True), ("patch", "secret/authority", False),
                                ("get", "secret/other", False), ("list", "secrets", False)):  # fmt: skip
        asked = kubectl(gateway, "auth", "can-i", verb, what, "--namespace", "gateway", "--as", account)
        assert (asked.stdout.strip() == "yes") == allowed, (verb, what)
