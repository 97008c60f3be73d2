"""`lab model`, and what `lab train` sends of a model, in a copy of the models' folders."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from cli import models, operations, own_models, train
from cli.errors import ExitCode, LabError
from cli.model_code import pack, put, settings_of
from cli.workloads import Platform
from infra.manifests import TREE
from infra.secret_layout import S3_ACTIONS
from services.promotion.gates import Gate
from tests.cli.harness import ROOT
from tests.k8s.object_store import SECRET, content, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import typer

    from cli.session import Session


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the models' folders, in a Git repository."""
    made = tmp_path / "repository"
    for folder in ("models", "k8s/models"):
        shutil.copytree(ROOT / folder, made / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (made / ".gitignore").write_text("__pycache__/\n*.local\n")
    git(made, "init", "--quiet")
    commit(made)
    monkeypatch.setattr(own_models, "ROOT", made)
    return made


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def commit(folder: Path) -> str:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "all")
    return git(folder, "rev-parse", "HEAD")


def files(root: Path) -> dict[str, str]:
    found = (path for place in ("models", "k8s") for path in (root / place).rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_text() for path in found}


def context(*, interactive: bool = False) -> typer.Context:
    return cast("typer.Context", SimpleNamespace(obj=SimpleNamespace(interactive=interactive)))


def test_a_new_model_has_settings_and_one_module_and_stands_in_the_tree(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(root)
    own_models.new("parcel-times")
    told = capsys.readouterr().out
    made = files(root).keys() - before.keys()
    folder = "models/parcel-times"
    assert {name for name in made if name.startswith("models/")} == {
        f"{folder}/model.yaml", f"{folder}/parcel_times.py", f"{folder}/sample.json"
    }  # fmt: skip
    assert "edit models/parcel-times/parcel_times.py, `lab train parcel-times`" in told
    assert "  - parcel-times\n" in files(root)["k8s/models/kustomization.yaml"]
    hosts = [one["host"] for one in json.loads(files(root)["k8s/models/models.json"])]
    assert {"parcel-times", "parcel-times-staging", "digits"} <= {*hosts}
    own_models.sync(check=True)
    assert {name: text for name, text in files(root).items() if name in before and "digits" in name} == {
        name: text for name, text in before.items() if "digits" in name
    }
    model = settings_of(root / "models/parcel-times")
    assert (model.name, model.data.label) == ("parcel-times", "grower")
    compile(files(root)["models/parcel-times/parcel_times.py"], "parcel_times.py", "exec")


@pytest.mark.parametrize(
    ("name", "faults"),
    [
        ("digits", ["is there already: models/digits"]),
        ("Digits", ["lower case", "is there already"]),
        ("tracking", ["reserved by the platform"]),
        ("../../etc", ["lower case"]),
        ("Sklearn-production", ["lower case", "ends in -production"]),
        ("x" * 60, ["60 characters"]),
    ],
)
def test_a_name_that_cannot_be_is_refused_with_all_reasons_before_anything_is_written(
    root: Path, name: str, faults: list[str]
) -> None:
    before = files(root)
    with pytest.raises(LabError) as refused:
        own_models.new(name)
    assert all(fault in str(refused.value) for fault in faults), refused.value
    assert refused.value.code == ExitCode.CONFIGURATION
    assert files(root) == before


def test_faulty_settings_of_another_model_are_told_before_anything_is_written(root: Path) -> None:
    settings = root / "models/digits/model.yaml"
    settings.write_text(settings.read_text().replace("minimum: 0.95", "minimum: 95"))
    before = files(root)
    with pytest.raises(LabError, match=r"digits/model\.yaml: gate: score\.minimum"):
        own_models.new("wines")
    assert files(root) == before


def test_two_models_cannot_have_one_module(root: Path) -> None:
    own_models.new("parcel-times")
    assert (root / "models/parcel-times/parcel_times.py").exists()
    with pytest.raises(LabError, match=r"lower case.*has the Python module of parcel-times"):
        own_models.new("parcel_times")


def test_models_are_listed_with_their_gates(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own_models.new("wines")
    capsys.readouterr()
    own_models.list_models()
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["wines", "Which", "of", "three", "growers", "a", "wine", "is", "from", "accuracy", "0.9", "none"] in rows
    own_models.list_models(json=True)
    assert [one["name"] for one in json.loads(capsys.readouterr().out)["models"]] == [
        "delivery-times",
        "digits",
        "wines",
    ]
    assert root


def test_changed_settings_reach_the_tree_and_are_noticed_before(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own_models.new("wines")
    settings = root / "models/wines/model.yaml"
    settings.write_text(settings.read_text().replace("minimum: 0.9,", "minimum: 0.97,").replace("512Mi", "768Mi"))
    with pytest.raises(LabError, match=r"differs in wines/gate\.yaml, wines/settings\.yaml"):
        own_models.sync(check=True)
    own_models.sync(check=False)
    assert "Wrote k8s/models/wines/gate.yaml, k8s/models/wines/settings.yaml." in capsys.readouterr().out
    assert "minimum: 0.97" in files(root)["k8s/models/wines/gate.yaml"]
    assert "memory: 768Mi" in files(root)["k8s/models/wines/settings.yaml"]
    own_models.sync(check=True)


def test_a_removed_model_leaves_nothing_and_is_asked_about(root: Path) -> None:
    before = files(root)
    own_models.new("wines")
    with pytest.raises(LabError, match="--yes must be passed in"):
        own_models.remove(context(), "wines", yes=False)
    assert (root / "models/wines/wines.py").exists()
    own_models.remove(context(), "wines", yes=True)
    assert files(root) == before
    with pytest.raises(LabError, match="model 'wines' does not exist") as refused:
        own_models.remove(context(), "wines", yes=True)
    assert "digits" in str(refused.value.remedy)


# The code that is sent


def test_code_is_that_of_a_commit_unless_its_files_differ(root: Path) -> None:
    own_models.new("wines")
    folder = root / "models/wines"
    first = pack(folder)
    assert (first.dirty, first.commit) == (True, git(root, "rev-parse", "HEAD"))
    assert first.version.startswith("sha256:")
    head = commit(root)
    (root / "elsewhere.txt").write_text("not this model's")
    clean = pack(folder)
    assert (clean.dirty, clean.commit, clean.version) == (False, head, head)
    assert (clean.digest, clean.content) == (first.digest, first.content)
    (folder / "wines.py").write_text("x = 1\n")
    changed = pack(folder)
    assert changed.dirty
    assert changed.digest != clean.digest
    # As `lab dora` finds it once it is committed.
    assert changed.version == f"sha256:{hashlib.sha256(b'wines.py' + bytes(1) + b'x = 1' + bytes([10])).hexdigest()}"


def test_what_stages_serve_is_no_code(root: Path) -> None:
    own_models.new("wines")
    folder = root / "models/wines"
    commit(root)
    before = pack(folder)
    (folder / "stages.yaml").write_text("production: {version: 1}\n")
    after = pack(folder)
    assert (after.digest, after.dirty, after.files) == (before.digest, False, before.files)


def test_what_git_ignores_is_not_sent(root: Path) -> None:
    own_models.new("wines")
    folder = root / "models/wines"
    before = pack(folder).digest
    (folder / "password.local").write_text("x")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__/wines.pyc").write_text("x")
    assert pack(folder).digest == before
    (folder / "more.py").write_text("")
    assert pack(folder).files == ["model.yaml", "more.py", "sample.json", "wines.py"]


def test_code_without_a_git_repository_is_sent_and_says_so(root: Path) -> None:
    own_models.new("wines")
    with_git = pack(root / "models/wines")
    shutil.rmtree(root / ".git")
    without = pack(root / "models/wines")
    assert (without.commit, without.dirty, without.digest) == ("none", True, with_git.digest)


def test_a_secret_in_the_folder_is_refused_with_a_remedy(root: Path) -> None:
    own_models.new("wines")
    (root / "models/wines/.env").write_text("")
    with pytest.raises(LabError, match=r"\.env has the name of a secret") as refused:
        pack(root / "models/wines")
    assert "nothing was sent" in str(refused.value.remedy)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Any]:
    """The platform's object store, with its keys."""
    (tmp_path / "store").mkdir()
    with running(tmp_path / "store") as s3:
        s3.create_bucket(Bucket="code")
        yield s3


def reached(store: Any, monkeypatch: pytest.MonkeyPatch, secret: str | None = None) -> Platform:
    """A platform whose gateway is the store itself, without TLS."""
    import urllib3  # noqa: PLC0415

    login = {"accessKey": "code", "secretKey": secret or SECRET}
    platform = Platform("lab", "lab.example", "127.0.0.1", 1, "", {"code": login}, "")
    url = store.meta.endpoint_url
    monkeypatch.setattr(Platform, "url", lambda *_: url)
    monkeypatch.setattr(Platform, "connect", lambda *_: urllib3.connection_from_url(url, retries=False, timeout=30))
    return platform


def test_code_is_put_once_under_its_digest(root: Path, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "code" in S3_ACTIONS
    own_models.new("wines")
    code, platform = pack(root / "models/wines"), reached(store, monkeypatch)
    assert put(platform, code)
    assert content(store, "code") == {f"{code.digest}.tar": code.content}
    assert not put(platform, code)


def test_a_store_that_refuses_is_told_and_a_stack_without_the_key_too(
    root: Path, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_models.new("wines")
    code = pack(root / "models/wines")
    with pytest.raises(LabError, match="does not take the code: it answers 403"):
        put(reached(store, monkeypatch, "wrong"), code)
    assert content(store, "code") == {}
    with pytest.raises(LabError, match="no key for the bucket `code`") as refused:
        put(Platform("lab", "lab.example", "127.0.0.1", 1, "", {}, ""), code)
    assert "`lab up` makes it" in str(refused.value.remedy)


# The stack


class Asked:
    """A stack whose cluster has some gate, and what `lab train` has it do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, gate: Any) -> None:
        self.updates: list[Any] = []
        self.from_git = False

        def ask(*_: object) -> Any:
            if gate is None:
                raise LabError("wines has no gate")
            return {"gate": gate}

        monkeypatch.setattr(train, "ask", ask)
        monkeypatch.setattr(train, "applied_from_git", lambda *_: self.from_git)
        monkeypatch.setattr(operations, "operate", lambda _, kind, given: self.updates.append((kind, given)))

    def require(self) -> None:
        session, platform = SimpleNamespace(stack=lambda: "dev"), cast("Platform", None)
        train.require_on_cluster(cast("Session", session), platform, "wines", yes=True)


def test_the_stack_is_updated_where_its_cluster_lacks_the_model_or_has_another_gate(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own_models.new("wines")
    gate = Gate.model_validate(settings_of(root / "models/wines").gate).model_dump()
    for on_cluster, told in (
        (None, "Stack 'dev' does not have wines yet: updating it."),
        ({**gate, "score": {**gate["score"], "minimum": 0.8}}, "has another gate of wines than models/wines: updating"),
    ):
        asked = Asked(monkeypatch, on_cluster)
        asked.require()
        assert asked.updates == [("update", {"yes": True})]
        assert told in capsys.readouterr().out
    asked = Asked(monkeypatch, json.loads(json.dumps(gate)))
    asked.require()
    assert asked.updates == []


def test_a_stack_that_is_applied_from_git_is_not_updated_past_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_models.new("wines")
    asked = Asked(monkeypatch, None)
    asked.from_git = True
    with pytest.raises(LabError, match="does not have wines yet, and is applied from Git") as refused:
        asked.require()
    assert "commit models/wines and k8s/models" in str(refused.value.remedy)
    assert asked.updates == []
    assert (root / "k8s/models/wines/gate.yaml").exists()


def test_files_that_are_refused_change_nothing_on_the_stack(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_models.new("wines")
    (root / "models/wines/.env").write_text("")
    asked = Asked(monkeypatch, None)
    with pytest.raises(LabError, match="has the name of a secret"):
        asked.require()
    assert asked.updates == []


# The Job


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Session:
    """Renders with the bundle's kubectl."""
    from tests.k8s.conftest import rendered  # noqa: PLC0415

    monkeypatch.setattr(models, "rendered", lambda _, folder: json.loads(json.dumps(rendered(folder))))
    return cast("Session", None)


def job_of(session: Session, root: Path, model: str, variant: str | None = None) -> tuple[Any, Any]:
    folder = root / "models" / model
    objects = models.training_job(session, settings_of(folder), pack(folder), variant)
    (job,) = [one for one in objects if one["kind"] == "Job"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    return job, container


@pytest.mark.slow_cluster
def test_the_job_is_the_same_for_all_models_but_for_what_it_is_told(root: Path, session: Session) -> None:
    own_models.new("wines")
    commit(root)
    code = pack(root / "models/wines")
    job, container = job_of(session, root, "wines")
    told = {one["name"]: one.get("value") for one in container["env"]}
    assert (told["MODEL_NAME"], told["MODEL_CODE"]) == ("wines", code.digest)
    assert (told["CODE_COMMIT"], told["CODE_VERSION"], told["CODE_DIRTY"]) == (code.commit, code.commit, "false")
    assert told["IMAGE_DIGEST"] == container["image"]
    assert container["resources"]["limits"] == {"memory": "1Gi"}
    assert job["metadata"]["labels"]["ml-cluster.dev/model"] == "wines"
    assert job["spec"]["template"]["metadata"]["labels"]["ml-cluster.dev/model"] == "wines"
    _, other = job_of(session, root, "digits")
    changed = [one["name"] for one, two in zip(container["env"], other["env"], strict=True) if one != two]
    assert changed == ["MODEL_NAME", "MODEL_CODE"]


@pytest.mark.slow_cluster
def test_a_variant_has_its_workers_and_its_memory(root: Path, session: Session) -> None:
    job, container = job_of(session, root, "digits", "torch")
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (2, 2)
    assert {"name": "WORKERS", "value": "2"} in container["env"]
    assert container["args"][-2:] == ["run", "--variant=torch"]
    assert container["resources"]["limits"] == {"memory": "1536Mi"}
    with pytest.raises(LabError, match="digits has no variant 'moon'") as refused:
        job_of(session, root, "digits", "moon")
    assert refused.value.remedy == "choose one of: torch, bad, or none"
    assert (TREE / "platform/training/run").is_dir()
