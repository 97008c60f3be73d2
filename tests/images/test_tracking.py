"""MLflow's image with the platform's plugin: who may read its figures."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
import urllib3

from infra.manifests import TREE
from tests.images.services import PASSWORD, Images, answers, free_port

if TYPE_CHECKING:
    from tests.images.containers import Runtime

pytestmark = [pytest.mark.slow_images, pytest.mark.timeout(400)]
PLUGIN = TREE / "platform" / "tracking" / "base" / "plugin"


def test_the_user_monitor_reads_figures_and_others_do_not(runtime: Runtime, images: Images) -> None:
    plugin, port = runtime.work / "plugin", free_port()
    information = plugin / "through_server-1.0.dist-info"
    information.mkdir(parents=True)
    for path in PLUGIN.iterdir():
        if path.is_file():
            shutil.copy(path, plugin if path.suffix == ".py" else information)
    (runtime.work / "own.ini").write_text(
        "[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:////tmp/auth.db\n"
    )
    container = runtime.start(
        images["mlflow"], "mlflow",
        [
            "server", "--host=127.0.0.1", f"--port={port}", "--workers=1", "--app-name=platform",
            f"--allowed-hosts=127.0.0.1:{port}", "--expose-prometheus=/tmp/metrics",
            "--backend-store-uri=sqlite:////tmp/runs.db", "--artifacts-destination=/tmp/artifacts",
        ],
        environment={
            "MLFLOW_AUTH_CONFIG_PATH": "/run/own.ini", "MLFLOW_FLASK_SERVER_SECRET_KEY": PASSWORD,
            "MLFLOW_AUTH_ADMIN_USERNAME": "admin", "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONPATH": "/opt/plugin",
        },
        read_only={runtime.work / "own.ini": "/run/own.ini", plugin: "/opt/plugin"},
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    container.until(lambda: answers(f"{url}/health"))

    def status(user: str, password: str, path: str = "/metrics") -> int:
        headers = urllib3.make_headers(basic_auth=f"{user}:{password}")
        return int(urllib3.request("GET", url + path, headers=headers).status)

    admin = urllib3.make_headers(basic_auth=f"admin:{PASSWORD}")
    for user in ("monitor", "trainer"):
        made = {"username": user, "password": f"{PASSWORD}-of-{user}"}
        create = "/api/2.0/mlflow/users/create"
        assert urllib3.request("POST", url + create, json=made, headers=admin).status == 200
    assert status("monitor", f"{PASSWORD}-of-monitor") == 200
    assert status("monitor", "another") == 401
    assert status("trainer", f"{PASSWORD}-of-trainer") == 403
    assert status("trainer", f"{PASSWORD}-of-trainer", "/api/2.0/mlflow/experiments/search?max_results=1") == 200
