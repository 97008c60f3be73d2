"""The rules of the alerts, and their way to who hears of them, on the bundle's own programs."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
import urllib.error
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from pydantic import SecretStr

from infra import alerting
from infra.manifests import ROOT
from infra.settings import Monitoring, Settings
from tests.engine.harness import wait_for
from tests.k8s.monitors import CLOUD, DASHBOARDS, LOG_RULES, MONITORING, RULES, Monitors
from tests.providers.kubernetes.control_plane import free_port, program

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow_cluster
CASES = Path(__file__).parent / "alerts"
MOST_SECONDS = 60
"""From the first wrong answer of a model to the message about it."""


def alerts_of(path: Path) -> list[dict[str, Any]]:
    groups = yaml.safe_load(path.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


@pytest.mark.parametrize("name", sorted(path.stem for path in CASES.glob("*.yaml")))
def test_the_rules_do_what_their_cases_say(name: str, tmp_path: Path) -> None:
    """Without their texts, which would have to be written twice."""
    rules = yaml.safe_load((RULES / f"{name.partition('-')[0]}.yaml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule.pop("annotations", None)
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules, sort_keys=False))
    cases = yaml.safe_load((CASES / f"{name}.yaml").read_text())
    (tmp_path / "cases.yaml").write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], **cases}, sort_keys=False))
    tool = program("metrics", "vmalert-tool")
    port = f"-httpListenPort={free_port()}"
    done = subprocess.run(
        [tool, "unittest", f"-files={tmp_path / 'cases.yaml'}", port], capture_output=True, text=True, check=False,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]


def test_every_alert_has_a_case_in_which_it_comes_and_one_in_which_it_does_not() -> None:
    fires, stays = set[str](), set[str]()
    for path in CASES.glob("*.yaml"):
        for group in yaml.safe_load(path.read_text())["tests"]:
            for case in group["alert_rule_test"]:
                (fires if case["exp_alerts"] else stays).add(case["alertname"])
    named = {rule["alert"] for path in RULES.glob("*.yaml") for rule in alerts_of(path)}
    assert fires == named
    # Of one node, disk, host or model and not of another, in the same case; and what always is.
    of_one_of_several = {"DiskFills", "DiskNearlyFull", "CertificateEnds", "ClockOff", "JobFailed"}
    # A cause of its own, whose opposite is any other case.
    assert named - stays - of_one_of_several == {"Watchdog", "RegistryDown", "GatewayDown", "GatewayErrors"}


@pytest.mark.parametrize("folder", [RULES, LOG_RULES], ids=["metrics", "logs"])
def test_vmalert_takes_rules_and_texts(folder: Path) -> None:
    done = subprocess.run(
        [program("metrics", "vmalert"), f"-rule={folder}/*.yaml", "-dryRun"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for path in folder.glob("*.yaml"):
        for rule in alerts_of(path):
            assert {"summary", "description"} <= rule["annotations"].keys(), rule["alert"]
            assert rule["labels"]["severity"] in {"critical", "warning", "none"}, rule["alert"]


def test_every_alert_is_on_the_page_that_says_what_there_is() -> None:
    page = (ROOT / "docs" / "how-to" / "monitoring.md").read_text()
    told = {word for line in page.splitlines() if line.startswith("| `") for word in re.findall("`([A-Z]\\w+)`", line)}
    paths = [*RULES.glob("*.yaml"), *LOG_RULES.glob("*.yaml")]
    assert {rule["alert"] for path in paths for rule in alerts_of(path)} == told


def test_what_is_kept_quiet_is_an_alert() -> None:
    named = {rule["alert"] for path in RULES.glob("*.yaml") for rule in alerts_of(path)}
    for cause, effects, _ in alerting.QUIETED:
        assert {cause, *effects.split("|")} <= named


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitors]:
    with Monitors(tmp_path_factory.mktemp("store")) as monitors:
        monitors.metrics()
        yield monitors


def dashboards() -> list[tuple[str, dict[str, Any]]]:
    return [(path.stem, json.loads(path.read_text())) for path in DASHBOARDS]


def test_every_dashboard_is_mounted() -> None:
    listed = {
        Path(name).name
        for folder in (MONITORING / "dashboards", CLOUD)
        for one in yaml.safe_load((folder / "kustomization.yaml").read_text())["configMapGenerator"]
        for name in one["files"]
        if one["name"].startswith("dashboards")
    }
    assert {path.name for path in DASHBOARDS} == listed


def test_vmui_takes_every_dashboard(store: Monitors) -> None:
    """One that it cannot read takes the others with it."""
    told = store.get("metrics", "/vmui/custom-dashboards")["dashboardsSettings"]
    assert {one["title"] for one in told} == {one["title"] for _, one in dashboards()}
    assert {one["title"] for one in told} >= {
        "Cluster",
        "Nodes",
        "Gateway",
        "Models, by version",
        "Stores",
        "Training",
        "Cloud",
    }


@pytest.mark.parametrize("dashboard", [one for _, one in dashboards()], ids=[name for name, _ in dashboards()])
def test_dashboards_ask_what_can_be_asked(store: Monitors, dashboard: dict[str, Any]) -> None:
    for row in dashboard["rows"]:
        for panel in row["panels"]:
            assert panel["title"], row["title"]
            assert isinstance(panel["expr"], list), panel["title"]
            aliases = panel.get("alias", [])
            assert isinstance(aliases, list), panel["title"]
            assert len(aliases) in {0, len(panel["expr"])}, panel["title"]
            for expression in panel["expr"]:
                now = f"{time.time():.0f}"
                told = store.get("metrics", "/api/v1/query_range", query=expression, start=now, end=now, step="15s")
                assert told["status"] == "success", expression


def test_a_query_that_is_none_is_refused(store: Monitors) -> None:
    with pytest.raises(urllib.error.HTTPError):
        store.get("metrics", "/api/v1/query", query="sum(rate(x[5m]) by (")


class Target(BaseHTTPRequestHandler):
    """A gateway's and an exporter's metrics; `server.counts` are answers of the model by status."""

    def do_GET(self) -> None:
        counts = getattr(self.server, "counts")  # noqa: B009 - the stubs do not know it
        name = "httproute-serving-digits-gw-gateway-svc-serving-digits-production-0@kubernetesgateway"
        about = 'deployment="digits-production",model="digits",alias="production",version="7"'
        lines = [f'traefik_service_requests_total{{service="{name}",code="{code}"}} {n}' for code, n in counts.items()]
        lines += [f"ml_cluster_stage_info{{{about}}} 1", 'ml_cluster_objective{objective="availability"} 0.99']
        body = ("\n".join(lines) + "\n").encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


class Receiver(BaseHTTPRequestHandler):
    """Keeps what is sent to it, with the time when it came, by path."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        heard = getattr(self.server, "heard")  # noqa: B009 - the stubs do not know it
        heard.setdefault(self.path, []).append((time.monotonic(), body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


class Traffic(threading.Thread):
    """Ten answers a second, good ones or not."""

    def __init__(self, counts: dict[str, int]) -> None:
        super().__init__(daemon=True)
        self.counts, self.status, self.ended = counts, "200", threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.1):
            self.counts[self.status] += 1


def serve(handler: type[BaseHTTPRequestHandler], **attributes: Any) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    for name, value in attributes.items():
        setattr(server, name, value)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def test_a_model_that_answers_errors_is_told_within_a_minute_and_so_is_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts, heard = {"200": 0, "500": 0}, dict[str, list[tuple[float, Any]]]()
    target, receiver = serve(Target, counts=counts), serve(Receiver, heard=heard)
    traffic = Traffic(counts)
    traffic.start()
    url = f"http://127.0.0.1:{receiver.server_port}"
    settings = Settings.model_construct(
        monitoring=Monitoring(), alerts_webhook=SecretStr(f"{url}/team"), alerts_heartbeat=SecretStr(f"{url}/beat"),
        alerts_slack=None, alerts_email_password=None,
    )  # fmt: skip
    static = [{"targets": [f"127.0.0.1:{target.server_port}"]}]
    jobs = [{"job_name": "gateway", "scrape_interval": "5s", "static_configs": static}]

    def told(status: str, name: str) -> float | None:
        """When a message about an alert first came."""
        for when, message in heard.get("/team", []):
            for alert in message["alerts"]:
                if (alert["status"], alert["labels"]["alertname"]) == (status, name):
                    return when
        return None

    with Monitors(tmp_path) as monitors:
        monitors.metrics(yaml.safe_dump({"scrape_configs": jobs}))
        monitors.alerts(alerting.configuration(settings))
        monitors.rules()
        # As long as that a window of half a minute has nothing but good answers in it.
        steady = "rate(traefik_service_requests_total{code='200'}[30s] offset 30s) > 5"
        wait_for(lambda: monitors.get("metrics", "/api/v1/query", query=steady)["data"]["result"], "good answers")
        wait_for(lambda: "/beat" in heard, "the heartbeat")
        traffic.status, fault = "500", time.monotonic()
        wait_for(lambda: told("firing", "ModelAnswersErrors"), "the message", seconds=120)
        came = (told("firing", "ModelAnswersErrors") or 0) - fault
        alert = heard["/team"][0][1]["alerts"][0]
        assert alert["labels"].items() >= {"model": "digits", "version": "7", "severity": "critical"}.items()
        assert alert["annotations"]["summary"].startswith("digits, version 7 (production) answers ")
        assert "rollback digits" in alert["annotations"]["description"]
        memory = monitors.memory()
        traffic.status, mended = "200", time.monotonic()
        wait_for(lambda: told("resolved", "ModelAnswersErrors"), "that it is over", seconds=180)
        over = (told("resolved", "ModelAnswersErrors") or 0) - mended

        # What is silenced is not told; and it is the consequence that is quiet, not the cause.
        ends = datetime.now(UTC) + timedelta(minutes=5)
        silence = {
            "matchers": [{"name": "alertname", "value": "ModelAnswersErrors", "isRegex": False, "isEqual": True}],
            "startsAt": datetime.now(UTC).isoformat(),
            "endsAt": ends.isoformat(),
            "createdBy": "test",
            "comment": "test",
        }
        monitors.post("alerts", "/api/v2/silences", silence)
        before = len(heard["/team"])
        traffic.status = "500"
        silenced: Any = {"filter": 'alertname="ModelAnswersErrors"', "silenced": "true", "active": "false"}
        wait_for(lambda: monitors.get("alerts", "/api/v2/alerts", **silenced), "the silenced alert", seconds=120)
        new = [alert for _, message in heard["/team"][before:] for alert in message["alerts"]]
        fires = {alert["labels"]["alertname"] for alert in new if alert["status"] == "firing"}
        assert "ModelAnswersErrors" not in fires
        beats = len(heard["/beat"])
    traffic.ended.set()
    with capsys.disabled():
        used = ", ".join(f"{name} {size:.0f} MiB" for name, size in memory.items())
        print(f"\nfault to message {came:.1f} s, end to message {over:.1f} s, {beats} heartbeats; resident: {used}")
    assert came <= MOST_SECONDS
