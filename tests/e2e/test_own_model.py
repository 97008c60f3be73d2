"""A new user's own model: `lab model new`, an edit, `lab train`, `lab promote`, an answer; by the clock, with no image
built. In a clone of the repository, on the platform of the other tests, beside the example, which must not notice.

Costs some 10 minutes on idle cores beside the platform itself (conftest.py).
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.harness import ROOT, Outcome
from tests.e2e.harness import BUNDLE, wait
from tests.e2e.load import MODEL as EXAMPLE
from tests.e2e.load import Load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.platform_stack import PlatformStack, Tracking

pytestmark = [pytest.mark.slow_cloud, pytest.mark.timeout(3600)]
MODEL = "wines"
MOST_SECONDS = 300
"""From `lab model new` to the first answer of the model in production."""
PATIENCE_SECONDS = 1800.0


class Newcomer:
    """Somebody with a clone of the repository, and the settings of a stack that is up."""

    def __init__(self, folder: Path, platform: PlatformStack) -> None:
        self.clone, self.stack = folder / "clone", platform.lab.stack
        subprocess.run(["git", "clone", "-q", str(ROOT), str(self.clone)], check=True)
        (self.clone / ".venv").symlink_to(Path(sys.executable).parents[1])
        name = f"Pulumi.{self.stack}.yaml"
        shutil.copyfile(platform.lab.project / name, self.clone / name)
        self.env = platform.lab.env
        self.figures = ""

    def lab(self, *arguments: str, status: int | None = 0) -> Outcome:
        """What `lab` says in the clone."""
        command = [sys.executable, "cli/__main__.py", "--engine", "embedded", "--stack", self.stack, *arguments]
        done = subprocess.run(
            command, cwd=self.clone, env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False, timeout=PATIENCE_SECONDS,
        )  # fmt: skip
        assert status in {None, done.returncode}, (arguments, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr, done.stderr
        return Outcome(done.returncode, done.stdout, done.stderr)

    def git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self.clone), "-c", "user.name=New", "-c", "user.email=new@example.org", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def edit(self, old: str, new: str, name: str = f"{MODEL}.py") -> None:
        """Write something else into a file of the model."""
        path = self.clone / "models" / MODEL / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def answer(self, *options: str) -> Any:
        """What the model tells of the sample."""
        return self.lab("predict", MODEL, f"models/{MODEL}/sample.json", *options).json

    def answers(self, version: str, *options: str) -> bool:
        """Whether a version answers; the gateway hears of the first pod of a stage a moment later than the command."""
        asked = self.lab("predict", MODEL, f"models/{MODEL}/sample.json", *options, status=None)
        return asked.status == 0 and asked.json["model_version"] == version


@pytest.fixture(scope="module")
def tracking(platform: PlatformStack) -> Tracking:
    return platform.tracking()


@pytest.fixture(scope="module")
def newcomer(platform: PlatformStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newcomer]:
    """Takes the model down again at the end: the next test finds the platform as it was."""
    made = Newcomer(tmp_path_factory.mktemp("newcomer"), platform)
    yield made
    if (made.clone / "models" / MODEL).exists():
        made.lab("model", "rm", MODEL, "--yes")
    made.lab("up", "--yes", "--skip-preview")
    # The stack does not wait for the end of their pods.
    wait(lambda: not platform.platform.deployments(MODEL), "the model's servers are gone")


@pytest.fixture(scope="module")
def version(newcomer: Newcomer, platform: PlatformStack) -> str:
    """The first version, in production: all that a new user does, by the clock, while the example is asked."""
    images = {path.name: path.stat().st_mtime_ns for path in (BUNDLE / "images").iterdir()}
    took: dict[str, float] = {}
    began = time.monotonic()

    def step(name: str, *arguments: str) -> Outcome:
        start = time.monotonic()
        done = newcomer.lab(*arguments)
        took[name] = time.monotonic() - start
        return done

    registered = ""
    with Load(platform) as load:
        assert f"edit models/{MODEL}/{MODEL}.py" in step("new", "model", "new", MODEL).stdout
        newcomer.edit("n_estimators=100", "n_estimators=60")
        trained = step("train", "train", MODEL, "--yes").stdout
        (registered,) = re.findall(rf"Registered as version (\d+) of {MODEL}: it passed the gate\.", trained)
        promoted = step("promote", "promote", MODEL, "--to", "production").stdout
        start = time.monotonic()
        wait(lambda: newcomer.answers(registered), "the model answers")
        took["answer"] = time.monotonic() - start
    total = time.monotonic() - began
    assert f"does not have {MODEL} yet: updating it." in trained
    assert f"production serves version {registered} of {MODEL}." in promoted
    steps = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in took.items())
    newcomer.figures = f"{MODEL}, from `lab model new` to an answer: {total:.0f} s ({steps}); the example: {load}"
    print(f"\n{newcomer.figures}")
    assert {path.name: path.stat().st_mtime_ns for path in (BUNDLE / "images").iterdir()} == images
    assert load.faults == []
    assert total < MOST_SECONDS, steps
    return str(registered)


def test_a_new_user_has_a_model_in_production_within_five_minutes(
    newcomer: Newcomer, version: str, record_property: Callable[[str, object], None]
) -> None:
    record_property("figures", newcomer.figures)
    answer = newcomer.answer()
    assert answer["model_version"] == version
    assert {one["name"]: one["data"] for one in answer["outputs"]}["label"] == [0]


def test_the_registry_says_which_code_made_the_version(newcomer: Newcomer, tracking: Tracking, version: str) -> None:
    """Of files that no commit had; then of a commit."""
    tags = tracking.versions(MODEL)[version]["tags"]
    assert tags["code_dirty"] == "true"
    assert tags["code_commit"] == newcomer.git("rev-parse", "HEAD")
    newcomer.git("add", "--all")
    newcomer.git("commit", "--quiet", "--message", "A model of wines")
    trained = newcomer.lab("train", MODEL, "--seed", "1", "--json")
    assert "differs from" not in trained.stderr
    tags = tracking.versions(MODEL)[trained.json["version"]]["tags"]
    head = newcomer.git("rev-parse", "HEAD")
    assert (tags["code_dirty"], tags["code_commit"], tags["code_version"]) == ("false", head, head)
    assert tags["code_archive"].startswith("sha256:")


def test_it_is_promoted_and_rolled_back_beside_the_example(
    newcomer: Newcomer, platform: PlatformStack, tracking: Tracking, version: str
) -> None:
    example = tracking.aliases(EXAMPLE)
    newcomer.lab("promote", MODEL, "--to", "production")
    second = tracking.aliases(MODEL)["production"]
    assert int(second) > int(version)
    wait(lambda: newcomer.answers(second), "the second version answers")
    newcomer.lab("rollback", MODEL)
    wait(lambda: newcomer.answers(version), "the first version answers")
    newcomer.lab("promote", MODEL, "--to", "staging", "--version", second)
    wait(lambda: newcomer.answers(second, "--stage", "staging"), "staging answers")
    assert tracking.aliases(EXAMPLE) == example
    status = newcomer.lab("status").stdout
    assert all(any(line.split()[:2] == [model, "production"] for line in status.splitlines())
               for model in (EXAMPLE, MODEL))  # fmt: skip
    shown = json.loads(platform.pool("").request("GET", "/health.json").data)["services"]
    states = {one["name"]: one["state"] for one in shown}
    assert states[f"Model {MODEL}, production"] == states[f"Model {EXAMPLE}, production"] == "ready"


def test_a_gate_that_was_changed_counts_with_the_next_training(newcomer: Newcomer, tracking: Tracking) -> None:
    before = tracking.versions(MODEL)
    newcomer.edit("minimum: 0.9,", "minimum: 1.0,", "model.yaml")
    newcomer.edit(".fit(features, labels)", ".fit(features, np.roll(labels, 7))")
    refused = newcomer.lab("train", MODEL, "--yes", status=1)
    assert "has another gate" in refused.stdout
    assert "error: the gate refuses run " in refused.stderr
    assert "below 1" in refused.stderr
    assert tracking.versions(MODEL) == before


def test_a_fault_in_the_module_is_told_with_its_line_and_tried_once(
    newcomer: Newcomer, platform: PlatformStack
) -> None:
    newcomer.edit("    return RandomForestClassifier", "    features.no_such_thing\n    return RandomForestClassifier")
    began = time.monotonic()
    refused = newcomer.lab("train", MODEL, "--yes", status=1)
    assert f"error: {MODEL}/{MODEL}.py, line 21, in train: AttributeError" in refused.stderr
    assert time.monotonic() - began < MOST_SECONDS
    jobs = platform.platform.cluster.items("batch/v1", "Job", "training", labelSelector=f"ml-cluster.dev/model={MODEL}")
    (last,) = sorted(jobs, key=lambda job: str(job["metadata"]["creationTimestamp"]))[-1:]
    assert last["status"]["failed"] == 1


def test_a_secret_beside_the_code_is_refused_here(newcomer: Newcomer, platform: PlatformStack) -> None:
    def jobs() -> int:
        return len(platform.platform.cluster.items("batch/v1", "Job", "training"))

    before = jobs()
    (newcomer.clone / "models" / MODEL / ".env").write_text("nothing secret\n")
    refused = newcomer.lab("train", MODEL, "--yes", status=1)
    assert ".env has the name of a secret" in refused.stderr
    assert "nothing was sent" in refused.stderr
    assert jobs() == before
