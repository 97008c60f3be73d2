"""Pipelines on a real API server, registry, promotion service and stores: `pytest -m slow_images tests/pipelines`.

The tests are in the order of a model's life: each goes on where the one before has ended.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import yaml
from typer.testing import CliRunner

from cli import pipeline
from cli.errors import LabError
from cli.model_code import Code, pack
from tests.cli.harness import ROOT
from tests.engine.harness import wait_for
from tests.k8s.conftest import kubectl
from tests.models.example import digits

if TYPE_CHECKING:
    from pathlib import Path

    from tests.pipelines.world import World

pytestmark = [pytest.mark.slow_images, pytest.mark.timeout(1800)]
MOST_AT_REST = 400 << 20
MOST_OVERHEAD = 10.0
MOST_LOAD = 6
"""Processes for each core, above which the figure tells of the machine."""
CANARY = {"minutes": 0.1, "patience": 1, "requests": 50, "share": 10}
PIPELINE = {"variants": ["default", "bad"], "to": "production", "canary": CANARY}
ACCOUNT = "system:serviceaccount:pipelines:pipelines"
BEFORE = {"data": "code", "train_default": "data", "train_bad": "data", "evaluate_default": "train_default",
          "evaluate_bad": "train_bad", "register": "gate", "staging": "register", "canary": "staging",
          "production": "canary"}  # fmt: skip


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits with another code, which makes as good a model."""
    folder = tmp_path_factory.mktemp("changed") / "digits"
    shutil.copytree(ROOT / "models/digits", folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def sent(world: World, folder: Path = ROOT / "models/digits") -> dict[str, Any]:
    """What `lab pipeline run` asks for, with the code on the object store where it puts it."""
    code: Code = pack(folder)
    world.decided.stack.objects.client().put_object(Bucket="code", Key=f"{code.digest}.tar", Body=code.content)
    return {"archive": code.digest, "version": code.version, "commit": code.commit, "dirty": code.dirty}


def another(world: World, folder: Path) -> dict[str, Any]:
    """The same of a code that nobody has sent before."""
    with (folder / "digits.py").open("a") as file:
        file.write(f"# {time.time_ns()}\n")
    return sent(world, folder)


def memory(pid: int) -> int:
    """PSS of a process and of all that it has started, in bytes."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(int(one.memory_full_info().pss) for one in processes)


def served(world: World) -> dict[str, str | None]:
    """The version of each stage."""
    return {stage: one["version"] for stage, one in world.decided.world.read("stages")["stages"].items()}


def share(world: World) -> str | None:
    """The canary's share of requests; None without its route."""
    route = world.plane.get("HTTPRoute", "serving/digits-canary", "gateway.networking.k8s.io/v1")
    return route["metadata"]["annotations"]["ml-cluster.dev/share"] if route else None


def test_at_rest_it_takes_little(world: World) -> None:
    """Page, daemon and code together, once what their start took is done."""
    (service,) = [one for name, one in world.kubelet.started.items() if name.startswith("pipelines-")]
    assert service.process
    time.sleep(20)
    found = memory(service.process.pid)
    print(f"\nat rest: {found / 2**20:.0f} MiB (PSS)")
    assert found < MOST_AT_REST


def test_from_data_to_production(world: World) -> None:
    """What the gate refuses goes no further; what it passes serves, and MLflow says which run of a pipeline made it."""
    run = world.launch(sent(world))
    assert world.end(run) == "SUCCESS", world.told(run)
    told = world.told(run)
    assert "trained on 1437 rows" in told, "a step's log has what its Job says"
    assert "%|" not in told
    assert "bad, run" in told
    assert served(world) == {"staging": "1", "production": "1"}
    assert {one["by"] for one in world.decided.world.read("history")["history"]} == {"pipelines"}
    _, version = world.decided.world.mlflow("GET", "model-versions/get?name=digits&version=1")
    tags = {one["key"]: one["value"] for one in version["model_version"]["tags"]}
    assert (tags["pipeline_run"], tags["variant"]) == (run, "default")


def test_a_step_costs_little_beside_its_work(world: World) -> None:
    """From the end of the step before to its own, without what its container took."""
    (run,) = [one["runId"] for one in world.runs()]
    steps, work = world.steps(run), world.work(run)
    over = {
        step: steps[step]["endTime"] - steps[before]["endTime"] - work.get(step, 0.0) for step, before in BEFORE.items()
    }
    print("\nseconds over a step's own work: " + json.dumps({step: round(one, 1) for step, one in over.items()}))
    if (load := os.getloadavg()[0] / (os.cpu_count() or 1)) > MOST_LOAD:
        pytest.skip(f"{load:.0f} processes want each core: that is not what a step costs")
    # Its rollout is the work of staging and production.
    assert max(over[step] for step in over if step not in {"staging", "production"}) < MOST_OVERHEAD


def test_what_was_done_is_not_done_again(world: World) -> None:
    """As a schedule asks, without code: that of what serves. What the same code, data and variant gave is taken."""
    before = world.jobs()
    run = world.launch()
    assert world.end(run) == "SUCCESS", world.told(run)
    assert world.told(run).count("nothing is trained again") == 2
    assert [name for name in world.jobs() if name not in before and "-train-" in name] == []
    assert served(world) == {"staging": "1", "production": "1"}


def test_a_canary_as_good_as_production_becomes_it(world: World, changed: Path) -> None:
    """It gets its share of requests while it is watched, and none afterwards."""
    world.change_models(PIPELINE)
    run = world.launch(another(world, changed))
    wait_for(lambda: share(world) == "10" or world.status(run) == "FAILURE", "the canary's share", 900)
    world.answer(12, canary=0.0)
    assert world.end(run) == "SUCCESS", world.told(run)
    assert served(world) == {"staging": "2", "canary": "2", "production": "2"}
    assert share(world) is None
    assert "errors: canary 0.00%, production 0.00%" in world.told(run)


def test_a_canary_that_answers_errors_goes_back(world: World, changed: Path) -> None:
    """Before its time is over; production serves what it served."""
    run = world.launch(another(world, changed))
    wait_for(lambda: share(world) == "10" or world.status(run) == "FAILURE", "the canary's share", 900)
    world.answer(12, canary=0.3)
    assert world.end(run) == "FAILURE"
    assert "the canary is worse" in world.told(run)
    assert served(world) == {"staging": "3", "canary": None, "production": "2"}
    assert share(world) is None


def test_a_run_whose_pod_is_lost_is_taken_up(world: World, changed: Path) -> None:
    """By another run, from the step on that had not ended: what trains goes on, and is not started again."""
    before = world.jobs()
    run = world.launch({**another(world, changed), "to": "registry"})

    def training() -> bool:
        return any("-train-default-" in name for name in world.jobs() if name not in before)

    wait_for(training, "the training", 300)
    (pod,) = [name for name in world.kubelet.started if name.startswith(f"run-{run}")]
    world.kubelet.lose(pod)
    assert world.end(run) == "FAILURE"

    def repeated() -> list[str]:
        return [one["runId"] for one in world.runs() if one["rootRunId"] == run and one["runId"] != run]

    wait_for(repeated, "the run that takes it up", 300)
    (second,) = repeated()
    assert world.end(second) == "SUCCESS", world.told(second)
    new = [name for name in world.jobs() if name not in before]
    assert len([name for name in new if "-train-default-" in name]) == 1
    assert "data" not in world.steps(second), "what had ended is not done again"
    told = world.told(second)
    # What trained has ended by then, or not.
    assert "is there already" in told or "nothing is trained again" in told


def test_a_run_that_is_ended_ends_its_training(world: World, changed: Path) -> None:
    before = world.jobs()
    run = world.launch(another(world, changed))
    wait_for(lambda: any("-train-" in name for name in world.jobs() if name not in before), "the training", 300)
    world.terminate(run)
    assert world.end(run) == "CANCELED"
    wait_for(lambda: not [name for name in world.jobs() if name not in before and "-train-" in name], "its end", 120)


def test_new_data_starts_it(world: World, tmp_path: Path) -> None:
    """What somebody has ingested, once; what pipelines ingest themselves is no news."""
    world.start_alerts()
    world.change_models({**PIPELINE, "variants": ["default"], "to": "gate", "triggers": ["data", "drift"]})
    wait_for(lambda: world.looked("digits_data"), "the first look", 300)
    stack = world.decided.stack
    store = stack.objects.client()
    pointer = yaml.safe_load(store.get_object(Bucket="datasets", Key="digits/digits.csv.dvc")["Body"].read())
    version = pointer["outs"][0]["md5"]
    rows = store.get_object(Bucket="datasets", Key=f"digits/versions/files/md5/{version[:2]}/{version[2:]}")[
        "Body"
    ].read()
    new = tmp_path / "new.csv"
    new.write_bytes(b"".join(rows.splitlines(keepends=True)[:-1]))
    done = digits(stack, "ingest", "--file=/run/new.csv", read_only={new: "/run/new.csv"})
    assert done.status == 0, done.output
    wait_for(lambda: world.started_by("data"), "a run", 300)
    (run,) = world.started_by("data")
    assert world.end(run["runId"]) == "SUCCESS", world.told(run["runId"])
    (run,) = world.started_by("data")
    assert {"key": "ml-cluster/data-version", "value": done.result["data_version"]} in run["tags"]


def test_an_alert_about_drift_starts_it_once(world: World) -> None:
    """Of production alone, however long it fires."""
    world.alert(alertname="ModelInputDrift", model="digits", alias="staging")
    world.alert(alertname="ModelInputDrift", model="digits", alias="production")
    wait_for(lambda: world.started_by("drift"), "a run", 300)
    (run,) = world.started_by("drift")
    assert world.end(run["runId"]) == "SUCCESS", world.told(run["runId"])
    looks = world.looks("digits_drift")
    wait_for(lambda: world.looks("digits_drift") > looks + 1, "two more looks", 300)
    assert len(world.started_by("drift")) == 1


class Lab:
    """`lab pipeline` beside the service: its verbs' platform is the page itself, without the gateway before it."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self._world = world
        monkeypatch.setattr(pipeline, "_platform", lambda _: self)
        monkeypatch.setattr(pipeline, "put", lambda *_: bool(sent(world)))
        monkeypatch.setattr("cli.train.require_on_cluster", lambda *_, **__: None)

    def url(self, service: str) -> str:
        return f"https://{service}.lab.internal"

    def ask(self, _: str, __: str, ___: str, body: dict[str, Any]) -> Any:
        return {"data": self._world.ask(body["query"], **body["variables"])}

    def run(self, *arguments: str) -> tuple[int, str, BaseException | None]:
        done = CliRunner().invoke(pipeline.app, list(arguments))
        return done.exit_code, done.output, done.exception


def test_lab_starts_a_run_and_tells_how_it_ends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(world, monkeypatch)
    status, said, _ = lab.run("run", "digits", "--seed", "5", "--to", "gate")
    assert status == 0, said
    assert "train_default: done (" in said
    (identifier,) = [one["runId"] for one in world.runs()][:1]
    assert f"Run {identifier} is done." in said
    assert world.steps(identifier)["register"]["status"] == "SKIPPED"
    status, said, _ = lab.run("status", "digits", "--json")
    assert json.loads(said)["run"] == identifier
    status, said, _ = lab.run("ls")
    assert "digits    data, drift, hand" in said
    assert f"{identifier}  digits    done" in said


def test_lab_says_why_a_run_failed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a pull request, whose model is refused."""
    Lab(world, monkeypatch)
    world.change_models({**PIPELINE, "variants": ["bad"], "to": "staging"})
    with pytest.raises(LabError, match=r"digits: run .*: gate: the gate refuses bad: accuracy 0"):
        pipeline.judge_models(None, ["digits"])  # type: ignore[arg-type]
    assert served(world)["staging"] == "3"


def test_it_may_make_jobs_and_little_else(world: World) -> None:
    """Not read a Secret, not write what a stage serves, not make anything where the platform's own runs."""
    allowed = {"create jobs.batch -n training", "create jobs.batch -n pipelines", "delete jobs.batch -n training",
               "patch httproutes.gateway.networking.k8s.io -n serving", "get deployments.apps -n serving"}  # fmt: skip
    refused = {"get secrets -n pipelines", "get secrets -n training", "get secrets -n platform",
               "create jobs.batch -n platform", "create pods -n training", "patch deployments.apps -n serving",
               "patch configmaps -n platform", "list configmaps -n platform", "create pods -n pipelines"}  # fmt: skip
    for asked in allowed | refused:
        said = kubectl(world.plane, "auth", "can-i", *asked.split(), f"--as={ACCOUNT}").stdout.strip()
        assert said == ("yes" if asked in allowed else "no"), asked
