"""Clients as their makers ship them, from outside the cluster through its gateway, by name and with TLS checked.

Costs about 5 minutes on idle cores and 1.2 GB of disk for the clients and Chromium, beside what the platform costs
(tests/e2e/conftest.py). `LAB_TEST_SCREENSHOTS=docs/images` writes the pictures of the documentation there.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from cli.workloads import TRAINING
from infra.manifests import PORT, REDIRECT_PORT
from tests.cli.harness import ROOT
from tests.e2e.outside import CACHE, CHROMIUM, Outside, provide_browser, provide_clients

if TYPE_CHECKING:
    from tests.e2e.platform_stack import PlatformStack

pytestmark = [pytest.mark.slow_cloud, pytest.mark.timeout(1800)]
MODEL = "digits"
ROWS = 100


@pytest.fixture(scope="module")
def outside(platform: PlatformStack, tmp_path_factory: pytest.TempPathFactory) -> Outside:
    provide_clients()
    return Outside(platform.platform, tmp_path_factory.mktemp("outside"))


@pytest.fixture
def name() -> str:
    """A name that nothing of the platform has."""
    return f"clients-{uuid.uuid4().hex[:8]}"


def test_mlflow_logs_registers_and_loads(platform: PlatformStack, outside: Outside, name: str) -> None:
    login = platform.platform.credentials["tracking"]
    environment = {
        "MLFLOW_TRACKING_URI": platform.platform.url("tracking"),
        "MLFLOW_TRACKING_USERNAME": login["username"],
        "MLFLOW_TRACKING_PASSWORD": login["password"],
    }
    printed = outside.python("tracking_client.py", name, environment=environment)
    # The client says where a run can be looked at, too.
    assert json.loads(printed.splitlines()[-1]) == {
        "status": "FINISHED",
        "params": {"solver": "lbfgs", "rows": "20"},
        "losses": [0.5, 0.25, 0.125],
        "artifact": True,
        "artifacts": ["files/notes.bin"],
        "version": "1",
        "predictions": True,
        "generic": True,
    }


def test_boto3_puts_gets_lists_and_sends_in_parts(platform: PlatformStack, outside: Outside, name: str) -> None:
    keys = platform.platform.credentials["artifacts"]
    environment = {
        "AWS_ENDPOINT_URL": platform.platform.url("artifacts"),
        "AWS_ACCESS_KEY_ID": keys["accessKey"],
        "AWS_SECRET_ACCESS_KEY": keys["secretKey"],
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    result = json.loads(outside.python("s3_client.py", "datasets", name, environment=environment))
    assert result.pop("type") == "text/plain"
    metadata = result.pop("metadata")  # headers, whose names have no case
    assert {name.lower(): value for name, value in metadata.items()} == {"origin": "test"}
    assert result.pop("parts") == 3
    assert result == dict.fromkeys(("listed", "text", "same", "range", "copied", "signed"), True)


def test_dvc_pushes_and_pulls(platform: PlatformStack, outside: Outside, name: str) -> None:
    """With the key of training, which may use the bucket of datasets alone."""
    secret = json.loads(platform.kubectl("get", "secret", "artifacts", "-n", TRAINING, "-o", "json").stdout)["data"]
    keys = {key: base64.b64decode(secret[key]).decode() for key in ("access-key", "secret-key")}
    environment = {
        "AWS_ENDPOINT_URL": platform.platform.url("artifacts"),
        "AWS_ACCESS_KEY_ID": keys["access-key"],
        "AWS_SECRET_ACCESS_KEY": keys["secret-key"],
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    folder = outside.home / name
    folder.mkdir()

    def dvc(*arguments: str) -> None:
        outside.run(CACHE / "bin" / "dvc", *arguments, "--quiet", folder=folder, environment=environment)

    dvc("init", "--no-scm")
    dvc("remote", "add", "--default", "store", f"s3://datasets/{name}")
    data = os.urandom(9 * 2**20)
    (folder / "data.bin").write_bytes(data)
    dvc("add", "data.bin")
    dvc("push")
    shutil.rmtree(folder / ".dvc" / "cache")
    (folder / "data.bin").unlink()
    dvc("pull")
    assert (folder / "data.bin").read_bytes() == data
    (folder / "data.bin.dvc").unlink()
    dvc("gc", "--workspace", "--cloud", "--force")


def test_a_client_of_the_open_inference_protocol_asks_the_model(platform: PlatformStack, outside: Outside) -> None:
    address = platform.platform.url(MODEL).removeprefix("https://")
    result = json.loads(outside.python("inference_client.py", address, MODEL, str(ROWS)))
    assert result["live"]
    assert result["ready"]
    assert result["model"]
    assert result["name"] == MODEL
    assert result["json"] == result["binary"]
    assert len(result["json"]) == ROWS
    assert result["right"] >= 0.9 * ROWS
    sample = platform.lab.run("predict", MODEL, str(ROOT / "models" / MODEL / "sample.json")).json
    assert result["version"] == sample["model_version"]
    (label,) = next(output["data"] for output in sample["outputs"] if output["name"] == "label")
    # The sample is the first of the images that scikit-learn ships.
    assert label == result["json"][0]


def test_kubectl_gets_applies_and_reads_logs(platform: PlatformStack, name: str) -> None:
    nodes = json.loads(platform.kubectl("get", "nodes", "-o", "json").stdout)["items"]
    ready = [one for node in nodes for one in node["status"]["conditions"] if one["type"] == "Ready"]
    assert {one["status"] for one in ready} == {"True"}
    landing = json.loads(platform.kubectl("get", "deployment", "landing", "-n", "platform", "-o", "json").stdout)
    pod = landing["spec"]["template"]["spec"]
    container = {
        "name": "main",
        "image": pod["containers"][0]["image"],
        "command": ["python3", "-c", "print('hello from', 'the cluster')"],
        "securityContext": pod["containers"][0]["securityContext"],
    }
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": TRAINING},
        "spec": {
            "backoffLimit": 0,
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "serviceAccountName": "trainer",
                    "securityContext": pod["securityContext"],
                    "containers": [container],
                }
            },
        },
    }
    target = ("-n", TRAINING, f"job/{name}")
    try:
        platform.kubectl("apply", "-f", "-", text=json.dumps(job))
        platform.kubectl("wait", "--for=condition=Complete", "--timeout=300s", *target)
        assert platform.kubectl("logs", *target).stdout == "hello from the cluster\n"
    finally:
        platform.kubectl("delete", "--ignore-not-found", *target)


def test_plain_http_is_sent_on_to_https(platform: PlatformStack, outside: Outside) -> None:
    url = f"http://tracking.{platform.platform.domain}:{REDIRECT_PORT}/health"
    curl = ("curl", "--silent", "--show-error", "--output", "/dev/null", "--write-out")
    printed = outside.run(*curl, "%{http_code} %{redirect_url}", url).stdout
    status, _, target = printed.partition(" ")
    assert status in {"301", "308"}
    assert target == f"https://tracking.{platform.platform.domain}:{PORT}/health"
    assert outside.run(*curl, "%{http_code}", "--location", "--cacert", outside.authority, url).stdout == "200"


@pytest.fixture(scope="module")
def seen(platform: PlatformStack, outside: Outside) -> dict[str, Any]:
    """What a browser sees whose user has let it trust the stack's authority."""
    provide_browser()
    stranger = outside.home / "stranger"
    database = f"sql:{outside.home}/.pki/nssdb"
    (outside.home / ".pki" / "nssdb").mkdir(parents=True)
    stranger.mkdir()
    outside.run("certutil", "-N", "--empty-password", "-d", database)
    outside.run("certutil", "-A", "-n", "lab", "-t", "C,,", "-i", outside.authority, "-d", database)
    screenshots = os.environ.get("LAB_TEST_SCREENSHOTS")
    if screenshots:
        (ROOT / screenshots).mkdir(parents=True, exist_ok=True)
    asked = {
        "chromium": CHROMIUM,
        "home": str(outside.home),
        "stranger": str(stranger),
        "landing": platform.platform.url(),
        "tracking": platform.platform.url("tracking"),
        "model": MODEL,
        "screenshots": screenshots and str(ROOT / screenshots),
        **platform.platform.credentials["tracking"],
    }
    result: dict[str, Any] = json.loads(outside.python("browser.py", text=json.dumps(asked)))
    return result


def test_a_browser_on_the_landing_page(platform: PlatformStack, seen: dict[str, Any]) -> None:
    page = seen["landing"]
    assert page["title"] == "ML cluster"
    listed = json.loads((ROOT / "k8s/platform/landing/base/services.json").read_text())
    assert page["services"].keys() == {service["name"] for service in listed}
    # A stage that nothing is promoted to has no server.
    resting = {service["name"] for service in listed if "staging" in service["name"]}
    assert {word for name, word in page["services"].items() if name not in resting} == {"Ready"}
    assert {page["services"][name] for name in resting} <= {"Ready", "Idle"}
    nodes = json.loads(platform.kubectl("get", "nodes", "-o", "json").stdout)["items"]
    assert page["nodes"] == sorted(node["metadata"]["name"] for node in nodes)
    assert f"{platform.platform.url('tracking')}/" in page["links"]
    assert page["hosts"] == [platform.platform.domain]
    assert page["faults"] == []
    assert page["violations"] == {"light": [], "dark": [], "phone": []}
    assert page["wider_than_phone"] is False


def test_a_browser_on_mlflows_page(platform: PlatformStack, seen: dict[str, Any]) -> None:
    page = seen["tracking"]
    assert page["wrong_password"] == 401
    assert f"#/models/{MODEL}" in page["model"]
    assert "#/experiments/" in page["experiment"]
    assert page["hosts"] == [f"tracking.{platform.platform.domain}"]


def test_a_browser_that_does_not_know_the_authority_refuses(seen: dict[str, Any]) -> None:
    assert "ERR_CERT_AUTHORITY_INVALID" in seen["untrusted"]
