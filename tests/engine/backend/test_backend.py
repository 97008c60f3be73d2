"""Stacks, locks, history and journals, in a folder and in an object store alike."""

from __future__ import annotations

import gzip
import json
import logging
import os
import shutil
import signal
import threading
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest

from engine.backend import StateLockedError, default_backend_url, locks, open_backend
from engine.backend.bucket import Bucket, StorageError
from engine.errors import EngineError, StackExistsError, StackNotEmptyError, StackNotFoundError
from engine.project import Project
from tests.engine.backend.forking import fork
from tests.engine.backend.reference.make import HERE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from engine.backend import Backend, Update
    from engine.backend.base import Json

STATE = HERE / "state"
STACK = {
    "urn": "urn:pulumi:dev::sample::pulumi:pulumi:Stack::sample-dev",
    "custom": False,
    "type": "pulumi:pulumi:Stack",
}
BASE: Json = {"t": "base", "secrets_providers": {"type": "passphrase", "state": {"salt": "v1:x"}}}


def record(number: int) -> Json:
    return {
        "urn": f"urn:pulumi:dev::sample::test:index:Thing::thing-{number}",
        "type": "test:index:Thing",
        "custom": True,
    }


def entry(number: int) -> Json:
    """What the engine's journal says of a resource that was created."""
    return {"t": "end", "add": [f"n{number}", record(number)]}


def deployment(*resources: Json) -> Json:
    return {"version": 3, "deployment": {"manifest": {"time": "2026-01-02T03:04:05Z"}, "resources": list(resources)}}


def begin(backend: Backend, stack: str = "dev") -> Update:
    return backend.begin_update(
        "sample", stack, "update", message="why", environment={"exec.kind": "cli"}, config={"a:b": "c"}
    )


def update(backend: Backend, *resources: Json, result: str = "succeeded") -> None:
    with backend.lock("sample", "dev", "up"):
        begin(backend).finish(deployment(*resources), result=result, changes={"create": len(resources)})


def urns(backend: Backend) -> list[str]:
    return [resource["urn"] for resource in backend.load("sample", "dev")["deployment"].get("resources") or []]


def bucket_of(backend: Backend) -> Bucket:
    return backend._bucket


def keys(backend: Backend, prefix: str = ".pulumi/") -> list[str]:
    return sorted(entry.key for entry in bucket_of(backend).list(prefix))


# --- stacks


def test_a_new_stack_is_listed_and_empty(backend: Backend) -> None:
    (summary,) = backend.list_stacks("sample")
    assert (summary.name, summary.project, summary.last_update, summary.resource_count, summary.locked) == (
        "dev",
        "sample",
        None,
        0,
        False,
    )
    assert backend.load("sample", "dev") == {"version": 3, "deployment": {}}
    assert backend.list_stacks("other") == []


def test_a_stack_is_created_once(backend: Backend) -> None:
    with pytest.raises(StackExistsError, match="'dev'"):
        backend.create_stack("sample", "dev")


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "x" * 101, "ö"])
def test_a_name_that_is_no_name_is_refused(backend: Backend, name: str) -> None:
    with pytest.raises(EngineError, match="cannot be the name of a stack"):
        backend.create_stack("sample", name)


def test_an_absent_stack_is_named(backend: Backend) -> None:
    for act in (backend.load, backend.history):
        with pytest.raises(StackNotFoundError, match="no stack 'absent'"):
            act("sample", "absent")


def test_an_update_becomes_checkpoint_backup_and_history(backend: Backend) -> None:
    update(backend, STACK)
    update(backend, STACK, record(1), result="cancelled")
    assert urns(backend) == [STACK["urn"], record(1)["urn"]]
    (summary,) = backend.list_stacks()
    assert summary.resource_count == 2
    assert summary.last_update is not None
    assert summary.last_update.isoformat() == "2026-01-02T03:04:05+00:00"
    latest, first = backend.history("sample", "dev")
    assert (first["result"], latest["result"]) == ("succeeded", "failed")
    assert (latest["kind"], latest["message"], latest["resourceChanges"]) == ("update", "why", {"create": 2})
    assert (latest["environment"], latest["config"]) == ({"exec.kind": "cli"}, {"a:b": "c"})
    assert latest["startTime"] <= latest["endTime"]
    assert len(keys(backend, ".pulumi/backups/sample/dev/dev.")) == 2
    assert not [key for key in keys(backend) if ".journal" in key or "/locks/" in key]
    before = bucket_of(backend).read(".pulumi/stacks/sample/dev.json.bak")
    assert before is not None
    assert json.loads(before)["checkpoint"]["latest"] == deployment(STACK)["deployment"]


def test_layout_is_the_clis(backend: Backend) -> None:
    update(backend, STACK)
    moments = {key.rsplit("-", 1)[1].split(".")[0] for key in keys(backend, ".pulumi/history/")}
    (moment,) = moments
    assert keys(backend) == [
        f".pulumi/backups/sample/dev/dev.{moment}.json",
        f".pulumi/history/sample/dev/dev-{moment}.checkpoint.json",
        f".pulumi/history/sample/dev/dev-{moment}.history.json",
        ".pulumi/meta.yaml",
        ".pulumi/stacks/sample/dev.json",
        ".pulumi/stacks/sample/dev.json.bak",
    ]


def test_a_stack_with_resources_is_not_removed(backend: Backend) -> None:
    update(backend, STACK, record(1))
    with pytest.raises(StackNotEmptyError, match="still has 2 resources"):
        backend.remove_stack("sample", "dev")
    backend.remove_stack("sample", "dev", force=True)
    assert not backend.exists("sample", "dev")
    assert keys(backend, ".pulumi/history/") == []
    assert len(keys(backend, ".pulumi/backups/")) == 1
    assert bucket_of(backend).read(".pulumi/stacks/sample/dev.json.bak")


def test_a_stack_with_nothing_but_its_root_is_removed(backend: Backend) -> None:
    update(backend, STACK)
    backend.remove_stack("sample", "dev")
    assert backend.list_stacks() == []
    backend.create_stack("sample", "dev")
    assert urns(backend) == []


def test_an_import_replaces_the_state(backend: Backend) -> None:
    update(backend, STACK)
    backend.save("sample", "dev", deployment(record(7)))
    assert urns(backend) == [record(7)["urn"]]


# --- journals


def cut_off(backend: Backend, *entries: Json) -> None:
    """An update that wrote ``entries`` and died."""
    with backend.lock("sample", "dev", "up"), begin(backend) as started:
        for future in [started.append(each) for each in (BASE, *entries)]:
            future.result()


def test_what_an_interrupted_update_recorded_is_there_at_the_next_load(backend: Backend) -> None:
    update(backend, STACK)
    cut_off(backend, entry(1), entry(2))
    expected = [record(1)["urn"], record(2)["urn"], STACK["urn"]]
    assert urns(backend) == expected
    assert urns(backend) == expected, "a load changes nothing"
    cut_off(backend)
    assert urns(backend) == expected, "the next update folded the journal, and wrote its own"
    cut_off(backend, entry(3))
    assert urns(backend) == [record(3)["urn"], *expected]


def test_an_update_after_an_interrupted_one_keeps_its_state_as_backup(backend: Backend) -> None:
    cut_off(backend, entry(1))
    update(backend, STACK)
    before = bucket_of(backend).read(".pulumi/stacks/sample/dev.json.bak") or b""
    assert [each["urn"] for each in json.loads(before)["checkpoint"]["latest"]["resources"]] == [record(1)["urn"]]


def test_many_entries_keep_their_order(backend: Backend) -> None:
    cut_off(backend, *(entry(number) for number in range(3000)))
    assert urns(backend) == [record(number)["urn"] for number in range(3000)]


def test_an_import_after_an_interrupted_update_keeps_its_state_as_backup(backend: Backend) -> None:
    cut_off(backend, entry(1))
    backend.save("sample", "dev", deployment(record(2)))
    assert urns(backend) == [record(2)["urn"]]
    assert record(1)["urn"].encode() in (bucket_of(backend).read(".pulumi/stacks/sample/dev.json.bak") or b"")


def test_a_change_by_another_program_after_an_interruption_is_noticed(backend: Backend) -> None:
    cut_off(backend, entry(1))
    bucket_of(backend).write(
        ".pulumi/stacks/sample/dev.json", b'{"version":3,"checkpoint":{"stack":"organization/sample/dev","latest":{}}}'
    )
    with pytest.raises(EngineError, match="changed by another program after an interrupted update") as caught:
        backend.load("sample", "dev")
    assert "dev.journal" in str(caught.value)


def test_removing_counts_what_an_interrupted_update_made(backend: Backend) -> None:
    cut_off(backend, entry(1))
    with pytest.raises(StackNotEmptyError, match="1 resources"):
        backend.remove_stack("sample", "dev")


def test_an_update_needs_the_lock(backend: Backend) -> None:
    with pytest.raises(RuntimeError, match="lock"):
        begin(backend)


def test_appending_after_the_end_is_an_error_not_a_wait(backend: Backend) -> None:
    with backend.lock("sample", "dev", "up"):
        with begin(backend) as started:
            pass
        with pytest.raises(RuntimeError, match="has ended"):
            started.append(entry(1))


def test_a_torn_record_at_the_end_is_ignored(tmp_path: Path) -> None:
    backend = open_backend(f"file://{tmp_path}")
    backend.create_stack("sample", "dev")
    cut_off(backend, entry(1), entry(2))
    journal = tmp_path / ".pulumi/stacks/sample/dev.journal"
    whole = journal.read_bytes()
    start = whole.index(b'{"t":"end","add":["n2"')
    for end in range(start, len(whole)):
        journal.write_bytes(whole[:end])
        assert urns(backend) == [record(1)["urn"]], end
    cut_off(backend, entry(3))
    assert urns(backend) == [record(3)["urn"], record(1)["urn"]]


def test_garbage_after_the_records_is_ignored_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    backend = open_backend(f"file://{tmp_path}")
    backend.create_stack("sample", "dev")
    cut_off(backend, entry(1))
    with (tmp_path / ".pulumi/stacks/sample/dev.journal").open("ab") as journal:
        journal.write(b"\0" * 500 + b"\n" + b"{}\n")
    assert urns(backend) == [record(1)["urn"]]
    assert "ends early" in caplog.text
    cut_off(backend, entry(2))
    assert urns(backend) == [record(2)["urn"], record(1)["urn"]]


# --- locks


def in_child(act: Callable[[], None]) -> int:
    """Run ``act`` in a process of its own; returns its PID, after its end."""
    child = fork()
    if not child:
        try:
            act()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return child


def test_a_lock_names_its_holder(backend: Backend, url: str) -> None:
    with backend.lock("sample", "dev", "destroy"):
        assert backend.list_stacks()[0].locked
        with pytest.raises(StateLockedError) as caught, open_backend(url).lock("sample", "dev", "up"):
            pass
        (holder,) = caught.value.holders
        assert (holder.pid, holder.operation) == (os.getpid(), "destroy")
        for text in (holder.user, holder.host, str(os.getpid()), "destroy", holder.since):
            assert text in str(caught.value)
        assert "state unlock --stack dev" in str(caught.value.remedy)
        assert holder.location in str(caught.value.remedy)
    assert not backend.list_stacks()[0].locked


def test_a_lock_nests_in_one_backend_and_ends_with_the_outermost(backend: Backend, url: str) -> None:
    with backend.lock("sample", "dev", "up"):
        backend.save("sample", "dev", deployment())
        with pytest.raises(StateLockedError), open_backend(url).lock("sample", "dev", "up"):
            pass
    with open_backend(url).lock("sample", "dev", "up"):
        pass


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is a CI job, and patience is short."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_REPOSITORY", "lab/cluster")
    for name, seconds in {"RENEW_SECONDS": 0.05, "LOOK_SECONDS": 0.05, "SILENT_SECONDS": 1.0}.items():
        monkeypatch.setattr(locks, name, seconds)


@pytest.mark.usefixtures("job")
def test_the_lock_of_a_job_that_died_elsewhere_is_taken_over(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """In another pod: nobody here can see its process."""
    plant_lock(backend, pidNamespace="pid:[of another pod]")
    with pytest.raises(StateLockedError), backend.lock("sample", "dev", "up"):
        pass
    with caplog.at_level(logging.WARNING):
        backend.outlast("sample", "dev")
    assert "has said nothing for 1 s" in caplog.text
    with backend.lock("sample", "dev", "up"):
        pass


@pytest.mark.usefixtures("job")
def test_a_job_that_lives_is_waited_for(backend: Backend, url: str) -> None:
    ended: list[bool] = []

    def work() -> None:
        with open_backend(url).lock("sample", "dev", "up"):
            started.set()
            time.sleep(3 * locks.SILENT_SECONDS)
            ended.append(True)

    started = threading.Event()
    other = threading.Thread(target=work)
    other.start()
    assert started.wait(60)
    backend.outlast("sample", "dev")
    assert ended
    other.join()
    with backend.lock("sample", "dev", "up"):
        pass


@pytest.mark.usefixtures("job")
@pytest.mark.parametrize("holder", [None, "somebody/else"])
def test_the_lock_of_a_person_or_of_another_repository_is_not_taken_over(backend: Backend, holder: str | None) -> None:
    plant_lock(backend, pidNamespace="pid:[of another pod]", job=holder)
    backend.outlast("sample", "dev")
    with pytest.raises(StateLockedError), backend.lock("sample", "dev", "up"):
        pass


def test_stacks_are_locked_one_by_one(backend: Backend, url: str) -> None:
    backend.create_stack("sample", "dev2")
    with backend.lock("sample", "dev", "up"), open_backend(url).lock("sample", "dev2", "up"):
        pass


def test_the_lock_of_a_killed_process_is_taken_over(
    backend: Backend, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    def die() -> None:
        with open_backend(url).lock("sample", "dev", "up"):
            os.kill(os.getpid(), signal.SIGKILL)

    child = in_child(die)
    with caplog.at_level(logging.WARNING), backend.lock("sample", "dev", "up"):
        assert f"process {child}" in caplog.text
        assert len(keys(backend, ".pulumi/locks/")) == 1


def plant_lock(backend: Backend, **changes: object) -> None:
    with backend.lock("sample", "dev", "up"):
        (key,) = keys(backend, ".pulumi/locks/")
        content = json.loads(bucket_of(backend).read(key) or b"")
    lock = {name: value for name, value in (content | {"id": "another"} | changes).items() if value is not None}
    bucket_of(backend).write(".pulumi/locks/organization/sample/dev/planted.json", json.dumps(lock).encode())


def test_a_reused_pid_does_not_keep_a_lock_alive(backend: Backend) -> None:
    plant_lock(backend, processStart=1)
    with backend.lock("sample", "dev", "up"):
        pass


def test_a_lock_from_before_a_restart_of_this_machine_is_taken_over(backend: Backend) -> None:
    plant_lock(backend, bootId="the one before")
    # Where others reach the lock, it may be that of a copy of this machine.
    expected = nullcontext() if bucket_of(backend).is_local else pytest.raises(StateLockedError)
    with expected, backend.lock("sample", "dev", "up"):
        pass


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"bootId": "another", "machineId": "another", "pid": 999_999_999},
        {"bootId": "another", "hostname": "another", "pid": 999_999_999},
        {"pidNamespace": "another", "pid": 999_999_999},
        {
            "bootId": None,
            "machineId": None,
            "pidNamespace": None,
            "processStart": None,
            "operation": None,
            "pid": 999_999_999,
        },
    ],
    ids=["alive", "another machine", "another host of one image", "another container", "the CLI's"],
)
def test_a_lock_whose_holder_may_live_is_respected(backend: Backend, changes: dict[str, object]) -> None:
    plant_lock(backend, **changes)
    with pytest.raises(StateLockedError), backend.lock("sample", "dev", "up"):
        pass


def test_a_lock_of_the_cli_is_respected_and_named(tmp_path: Path) -> None:
    shutil.copytree(STATE / ".pulumi", tmp_path / ".pulumi")
    shutil.copytree(STATE / "locks", tmp_path / ".pulumi" / "locks")
    backend = open_backend(f"file://{tmp_path}")
    with pytest.raises(StateLockedError, match="someone@elsewhere"), backend.lock("sample", "dev", "up"):
        pass
    (holder,) = backend.unlock("sample", "dev")
    assert holder.host == "elsewhere"
    with backend.lock("sample", "dev", "up"):
        pass


def test_a_lock_that_cannot_be_read_is_respected(backend: Backend) -> None:
    bucket_of(backend).write(".pulumi/locks/organization/sample/dev/half.json", b'{"pid":')
    with pytest.raises(StateLockedError, match="someone"), backend.lock("sample", "dev", "up"):
        pass


def test_only_one_of_many_processes_at_a_time_holds_the_lock(backend: Backend, url: str, tmp_path: Path) -> None:
    """Each adds one to a number, reading it and writing it in two steps, as often as it gets the lock."""
    number = tmp_path / "number"
    number.write_text("0")
    rounds, processes = 3, 4

    def add() -> None:
        mine = open_backend(url)
        done = 0
        while done < rounds:
            try:
                with mine.lock("sample", "dev", "up"):
                    seen = int(number.read_text())
                    begin(mine).finish(deployment(record(seen)), result="succeeded", changes={})
                    number.write_text(str(seen + 1))
                    done += 1
            except StateLockedError:
                continue

    children = []
    for _ in range(processes):
        child = fork()
        if not child:
            try:
                add()
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    assert int(number.read_text()) == rounds * processes
    assert urns(backend) == [record(rounds * processes - 1)["urn"]]
    assert len(backend.history("sample", "dev")) == rounds * processes


# --- what the CLI wrote


@pytest.fixture
def of_the_cli(tmp_path: Path) -> Backend:
    shutil.copytree(STATE / ".pulumi", tmp_path / ".pulumi")
    return open_backend(f"file://{tmp_path}")


def test_stacks_of_the_cli_are_listed(of_the_cli: Backend) -> None:
    found = {summary.name: (summary.project, summary.resource_count) for summary in of_the_cli.list_stacks()}
    assert found == {"dev": ("sample", 1), "empty": ("sample", 0), "zipped": ("sample", 0)}


def test_state_of_the_cli_loads_as_it_exports_it(of_the_cli: Backend) -> None:
    assert of_the_cli.load("sample", "dev") == json.loads((STATE / "export.json").read_text())


def test_history_of_the_cli_is_read(of_the_cli: Backend) -> None:
    (latest,) = of_the_cli.history("sample", "dev")
    assert (latest["kind"], latest["result"], latest["resourceChanges"]) == ("update", "succeeded", {"create": 1})


def test_state_of_the_cli_is_written_back_the_same(of_the_cli: Backend, tmp_path: Path) -> None:
    file = tmp_path / ".pulumi/stacks/sample/dev.json"
    before = file.read_bytes()
    of_the_cli.save("sample", "dev", of_the_cli.load("sample", "dev"))
    assert file.read_bytes() == before
    assert not file.with_name("dev.json.attrs").exists(), "a checksum that no longer holds"


def test_a_compressed_checkpoint_is_read_and_written_plain(of_the_cli: Backend, tmp_path: Path) -> None:
    folder = tmp_path / ".pulumi/stacks/sample"
    state = of_the_cli.load("sample", "zipped")
    assert state["deployment"]["secrets_providers"]["type"] == "passphrase"
    of_the_cli.save("sample", "zipped", state)
    assert not (folder / "zipped.json.gz").exists()
    assert (folder / "zipped.json.gz.bak").exists()
    assert of_the_cli.load("sample", "zipped") == state


def test_checkpoints_are_compressed_when_the_clis_variable_says_so(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_DIY_BACKEND_GZIP", "true")
    update(backend, STACK)
    assert urns(backend) == [STACK["urn"]]
    assert b"sample-dev" in gzip.decompress(bucket_of(backend).read(".pulumi/stacks/sample/dev.json.gz") or b"")
    assert bucket_of(backend).read(".pulumi/stacks/sample/dev.json") is None
    assert backend.history("sample", "dev")[0]["message"] == "why"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "damaged"),
        (b'{"version":3,"checkpo', "damaged"),
        (b"[]", "damaged: it is not a JSON object"),
        (b"\x1f\x8bnot gzip", "damaged"),
        (b"\x28\xb5\x2f\xfdxx", "zstd"),
        (b'{"version":1,"checkpoint":{"latest":{"resources":[]}}}', "format 1"),
        (b'{"version":7,"checkpoint":{}}', "format 7"),
        (b'{"latest":{"resources":[]}}', "format 0"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_named(backend: Backend, content: bytes, problem: str) -> None:
    bucket_of(backend).write(".pulumi/stacks/sample/dev.json", content)
    with pytest.raises(EngineError, match=problem) as caught:
        backend.load("sample", "dev")
    assert "dev.json" in str(caught.value)
    assert caught.value.remedy


def test_features_of_a_version_4_checkpoint_are_kept(backend: Backend) -> None:
    state = {"version": 4, "features": ["views"], "deployment": {"resources": [STACK]}}
    backend.save("sample", "dev", state)
    assert backend.load("sample", "dev") == state


def test_older_and_newer_layouts_are_refused(tmp_path: Path) -> None:
    stacks = tmp_path / ".pulumi" / "stacks"
    stacks.mkdir(parents=True)
    (stacks / "dev.json").write_text("{}")
    with pytest.raises(EngineError, match="layout version 0") as caught:
        open_backend(f"file://{tmp_path}")
    assert "pulumi state upgrade" in str(caught.value.remedy)
    (tmp_path / ".pulumi" / "meta.yaml").write_text("version: 2\n")
    with pytest.raises(EngineError, match="layout version 2"):
        open_backend(f"file://{tmp_path}")


# --- URLs and files


def test_files_and_folders_are_the_owners_alone(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        backend = open_backend(f"file://{tmp_path}")
        backend.create_stack("sample", "dev")
        update(backend, STACK)
        cut_off(backend, entry(1))
        with backend.lock("sample", "dev", "up"):
            modes = {path.relative_to(tmp_path): oct(path.stat().st_mode & 0o777) for path in tmp_path.rglob("*")}
    finally:
        os.umask(mask)
    assert {mode for path, mode in modes.items() if not (tmp_path / path).is_dir()} == {"0o600"}
    assert {mode for path, mode in modes.items() if (tmp_path / path).is_dir()} == {"0o700"}


def test_forms_of_a_file_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a b").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    open_backend("file://~").create_stack("sample", "dev")
    for url in (f"file://{tmp_path}", "file://.", "file://~/", "file://./a%20b/.."):
        assert [stack.name for stack in open_backend(url).list_stacks()] == ["dev"], url
    assert open_backend("file://~/a%20b").list_stacks() == []
    open_backend(f"file://{tmp_path}/new/deep?create_dir=true&no_tmp_dir=true").create_stack("sample", "dev")
    assert (tmp_path / "new/deep/.pulumi/stacks/sample/dev.json").exists()


@pytest.mark.parametrize(
    ("url", "problem", "remedy"),
    [
        ("https://api.pulumi.com", "Pulumi Cloud", "PULUMI_BACKEND_URL"),
        ("gs://bucket", "not of a supported kind", "Pulumi CLI"),
        ("/some/folder", "not of a supported kind", "file://"),
        ("file:///no/such/folder", "does not exist", "mkdir"),
        ("file:///tmp?colour=red", "unknown option: colour", "create_dir"),
        ("s3://bucket?colour=red", "unknown option: colour", "endpoint"),
        ("s3:///x", "names no bucket", "s3://<bucket>"),
    ],
)
def test_a_backend_that_cannot_be_used_says_what_to_do(url: str, problem: str, remedy: str) -> None:
    with pytest.raises(EngineError, match=problem) as caught:
        open_backend(url)
    assert remedy in str(caught.value.remedy)


def test_an_absent_bucket_is_named(object_store: str) -> None:
    with pytest.raises(StorageError, match="s3://absent/"):
        open_backend(f"s3://absent?endpoint={object_store}&disableSSL=true&s3ForcePathStyle=true")


def test_a_store_out_of_reach_is_an_error_with_a_remedy(object_store: str) -> None:
    del object_store  # it sets the credentials
    with pytest.raises(StorageError, match=r"127\.0\.0\.1:9") as caught:
        open_backend("s3://state?endpoint=127.0.0.1:9&disableSSL=true&s3ForcePathStyle=true")
    assert "endpoint" in str(caught.value.remedy)


def test_default_backend_is_the_one_that_the_cli_would_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("PULUMI_BACKEND_URL", "PULUMI_CREDENTIALS_PATH"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path))
    (tmp_path / "Pulumi.yaml").write_text("name: sample\nruntime: python\n")
    assert default_backend_url(Project.find(tmp_path)) == "file://~"
    (tmp_path / "credentials.json").write_text('{"current": "s3://logged-in"}')
    assert default_backend_url(Project.find(tmp_path)) == "s3://logged-in"
    (tmp_path / "Pulumi.yaml").write_text("name: sample\nruntime: python\nbackend: {url: 's3://project'}\n")
    assert default_backend_url(Project.find(tmp_path)) == "s3://project"
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://environment")
    assert default_backend_url(Project.find(tmp_path)) == "s3://environment"
    monkeypatch.delenv("PULUMI_BACKEND_URL")
    (tmp_path / "credentials.json").write_text("{")
    with pytest.raises(EngineError, match=r"credentials\.json"):
        default_backend_url()
