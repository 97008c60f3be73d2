"""A day of the platform's series in the store of metrics: what it takes of disk and memory, and how fast pages are.

The series are those that the store has scraped of the programs of `chain`, and, where no kubelet runs, those that the
list of what is scraped keeps of kubelets: for a cluster of NODES nodes and PODS pods, and new trainings each hour.
"""

from __future__ import annotations

import http.client
import json
import random
import re
import statistics
import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.k8s import report
from tests.k8s.monitors import DASHBOARDS, MONITORING, Monitors, options

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.k8s.chain import Chain

HOURS, STEP = 24, 15
PODS, NODES = 45, 3
TRAININGS = 2
"""New pods each hour."""
PATTERNS = 64
"""So many courses of values there are, that series share."""
ROUNDS = 5
SIZES = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


def of_kubelets() -> Iterator[dict[str, str]]:
    """Series that kubelets would tell, by the names that are kept of them."""
    listed = yaml.safe_load((MONITORING / "metrics" / "scrape.yaml").read_text())["scrape_configs"]
    jobs = {one["job_name"]: one for one in listed}
    for job in ("kubelet", "cadvisor"):
        (kept,) = (one["regex"] for one in jobs[job]["metric_relabel_configs"] if one["action"] == "keep")
        for name in names(kept):
            for node in range(NODES):
                about = {"__name__": name, "job": job, "node": f"n{node}", "instance": f"n{node}"}
                if not name.startswith("container_"):
                    yield about
                    continue
                for pod in range(node, PODS, NODES):
                    yield {**about, "namespace": "serving", "pod": f"pod-{pod}", "container": "main"}
                for hour in range(HOURS):
                    for number in range(TRAININGS):
                        yield {**about, "namespace": "training", "pod": f"train-{hour}-{number}", "container": "main"}


def names(kept: str) -> list[str]:
    """The names that a simple regular expression stands for: alternatives in brackets, and `.+` for one word."""
    inner = re.search(r"\(([^()]*)\)", kept)
    if inner is None:
        return [name.replace(".+", "some").replace("?", "") for name in kept.split("|")]
    found: list[str] = []
    for word in inner[1].split("|"):
        found += names(kept[: inner.start()] + word.replace("|", "") + kept[inner.end() :])
    return sorted(set(found))


def courses(count: int) -> list[str]:
    """Values of a day as JSON has them: counters that grow and gauges that go up and down, of a fixed course."""
    made = random.Random(18)  # noqa: S311
    found = []
    for number in range(PATTERNS):
        value, values = float(made.randrange(1000)), []
        for _ in range(count):
            value = value + made.randrange(20) if number % 2 else max(value + made.randrange(-9, 10), 0)
            values.append(f"{value:.0f}")
        found.append(",".join(values))
    return found


def bytes_of(quantity: str) -> int:
    """Of a manifest's quantity."""
    return int(quantity[:-2]) * SIZES[quantity[-2:]]


def bounds() -> tuple[int, int, int]:
    """What the manifest lets the store have: bytes of memory, bytes of disk, and days that it keeps."""
    (store,) = (
        one
        for one in yaml.safe_load_all((MONITORING / "metrics" / "store.yaml").read_text())
        if one["kind"] == "StatefulSet"
    )
    (container,) = store["spec"]["template"]["spec"]["containers"]
    (claim,) = store["spec"]["volumeClaimTemplates"]
    days = int(options(MONITORING / "metrics" / "store.yaml", "victoria-metrics")["retentionPeriod"].removesuffix("d"))
    disk = bytes_of(claim["spec"]["resources"]["requests"]["storage"])
    return bytes_of(container["resources"]["limits"]["memory"]), disk, days


def fill(store: Monitors, series: list[dict[str, str]], end: int) -> int:
    """Import a day of all series, an hour of those of trainings; how many samples."""
    count = HOURS * 3600 // STEP
    values = courses(count)
    stamps = ",".join(str((end - (count - number) * STEP) * 1000) for number in range(count))
    split_stamps, split_values = stamps.split(","), [one.split(",") for one in values]
    connection, samples = http.client.HTTPConnection("127.0.0.1", store.ports["metrics"], timeout=300), 0

    def send(lines: list[str]) -> None:
        connection.request("POST", "/api/v1/import", body="\n".join(lines).encode())
        answer = connection.getresponse()
        assert answer.status == 204, answer.read()
        answer.read()

    waiting: list[str] = []
    for number, labels in enumerate(series):
        pattern = number % PATTERNS
        if hour := re.match(r"train-(\d+)-", labels.get("pod", "")):
            part = slice(int(hour[1]) * 3600 // STEP, (int(hour[1]) + 1) * 3600 // STEP)
            told, at = ",".join(split_values[pattern][part]), ",".join(split_stamps[part])
            samples += 3600 // STEP
        else:
            told, at = values[pattern], stamps
            samples += count
        waiting.append(f'{{"metric":{json.dumps(labels)},"values":[{told}],"timestamps":[{at}]}}')
        if len(waiting) == 50:
            send(waiting)
            waiting.clear()
    send(waiting)
    return samples


def questions() -> list[str]:
    """All that the dashboards ask."""
    found: list[str] = []
    for path in DASHBOARDS:
        board: dict[str, Any] = json.loads(path.read_text())
        found += [one for row in board["rows"] for panel in row["panels"] for one in panel["expr"]]
    return found


def peak(store: Monitors) -> int:
    """The most memory that the store has had, in bytes."""
    process, _ = store.running["metrics"]
    with open(f"/proc/{process.pid}/status") as file:  # noqa: PTH123
        (line,) = (line for line in file if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


@pytest.mark.slow_monitoring
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("faults")
def test_a_day_takes_what_the_settings_let_it_take(chain: Chain, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    about: dict[str, Any] = {"match[]": '{__name__!=""}', "start": "-2h"}
    scraped = chain.monitors.get("metrics", "/api/v1/series", **about)["data"]
    series = [*scraped, *of_kubelets()]
    memory, disk, days = bounds()
    end = int(time.time()) // STEP * STEP
    with Monitors(tmp_path) as store:
        store.metrics()
        began = time.monotonic()
        samples = fill(store, series, end)
        store.get("metrics", "/internal/force_flush", text=True)
        imported = time.monotonic() - began
        used = sum(file.stat().st_size for file in (tmp_path / "data").rglob("*") if file.is_file())
        times, empty = list[float](), set[str]()
        for _ in range(ROUNDS):
            for question in questions():
                asked = time.monotonic()
                span: dict[str, Any] = {"start": end - HOURS * 3600, "end": end, "step": "5m", "nocache": 1}
                told = store.get("metrics", "/api/v1/query_range", query=question, **span)
                times.append(time.monotonic() - asked)
                if not told["data"]["result"]:
                    empty.add(question)
        most = peak(store)
    p50, p99 = statistics.median(times), statistics.quantiles(times, n=100)[98]
    rows = [
        ("series", f"{len(series):,}", "50,000 an hour"),
        ("samples, one each 15 s", f"{samples:,}", ""),
        ("taken in", f"{imported:.0f} s", ""),
        ("disk", f"{used >> 20} MiB a day, {used * days >> 20} MiB in {days} days", f"{disk >> 20} MiB"),
        ("memory, the most", f"{most >> 20} MiB", f"{memory >> 20} MiB"),
        (
            f"{len(questions())} questions of the dashboards, over the day",
            f"p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms",
            "20 s",
        ),
        ("of them without an answer", f"{len(empty)}", ""),
    ]
    text = report.table(("", "measured", "at most"), rows)
    print(f"\n{text}\nwithout an answer: {sorted(empty)}", flush=True)
    if target := pytestconfig.getoption("--monitoring-report"):
        report.write(target, "A day", NOTE + text)
    assert most < memory
    assert used * days < disk
    assert p99 < 20
    assert len(empty) < len(questions()) / 3


NOTE = f"""\
The series that the store scraped of the programs above, and those of kubelets of {NODES} nodes with {PODS} pods and
{TRAININGS} new trainings an hour, for {HOURS} hours, imported into an empty store with the manifest's options.

"""
