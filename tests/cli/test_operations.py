"""up, preview, refresh and destroy: confirmation, exit codes, Ctrl-C. What they do is tested in tests/engine."""

from __future__ import annotations

import shutil
import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.harness import Lab

PROGRAM = "pulumi.export('answer', pulumi.Config().get('answer') or 42)\n"
WAITING = """
import pathlib, time
from pulumi.dynamic import CreateResult, Resource, ResourceProvider
class Waiter(ResourceProvider):
    def create(self, props):
        folder = pathlib.Path(props["folder"])
        (folder / "started").touch()
        while not (folder / "go").exists():
            time.sleep(0.01)
        return CreateResult("w", props)
class Wait(Resource):
    def __init__(self, name, **kwargs):
        super().__init__(Waiter(), name, {"folder": FOLDER}, **kwargs)
first = Wait("first")
Wait("second", opts=pulumi.ResourceOptions(depends_on=[first]))
"""


@pytest.fixture(
    params=[
        "embedded",
        pytest.param("pulumi", marks=pytest.mark.skipif(not shutil.which("pulumi"), reason="no Pulumi CLI on PATH")),
    ]
)
def ready(dev: Lab, request: pytest.FixtureRequest) -> Lab:
    """A program on a selected stack, once for each engine: output and exit codes are the same."""
    dev.engine = request.param
    dev.write(PROGRAM)
    dev.run("stack", "select", "dev")
    return dev


def test_nothing_happens_without_a_yes(ready: Lab) -> None:
    for verb in ("up", "destroy", "refresh"):
        ready.refuse(verb, status=2, saying="must be passed in to proceed in non-interactive mode")
    assert ready.run("status", "--json").json["lastUpdate"] is None


def test_a_terminal_is_asked_after_the_preview(ready: Lab) -> None:
    with ready.terminal("up") as terminal:
        terminal.expect("Do you want to perform this update?")
        assert "Previewing update (dev)" in terminal.text
        terminal.answer("details")
        terminal.expect("Do you want to perform this update?")
        terminal.answer("no")
        assert terminal.end() == 1
    assert "confirmation declined, not proceeding with the update" in terminal.text
    with ready.terminal("up") as terminal:
        terminal.expect("Do you want to perform this update?")
        terminal.answer("yes")
        assert terminal.end() == 0
    assert "Updating (dev)" in terminal.text
    assert ready.run("stack", "output", "answer").stdout == "42\n"


def test_the_life_of_a_stack(ready: Lab) -> None:
    up = ready.run("up", "--yes", "--config", "answer=43", "--message", "first")
    assert up.stdout.index("Previewing update (dev)") < up.stdout.index("Updating (dev)")
    assert ready.run("stack", "output", "--json").json == {"answer": "43"}
    ready.run("up", "--skip-preview", "--expect-no-changes")
    (update, first) = ready.run("history", "--json").json
    assert (first["kind"], first["result"], first["message"]) == ("update", "succeeded", "first")
    assert update["resourceChanges"] == {"same": 1}

    ready.write("raise ValueError('planted')\n")
    failed = ready.run("up", "--yes", status=1)
    assert "ValueError: planted" in failed.stdout
    destroyed = ready.run("destroy", "--yes", "--remove")
    assert "the history and configuration removed" in destroyed.stdout
    assert ready.run("stack", "ls", "--json").json == []
    assert not (ready.project / "Pulumi.dev.yaml").exists()


def test_unexpected_changes_end_with_status_7(ready: Lab) -> None:
    ready.refuse("preview", "--expect-no-changes", status=7, saying="no changes were expected")


def test_a_stack_with_wrong_configuration_can_be_destroyed(ready: Lab) -> None:
    ready.run("up", "--skip-preview")
    ready.write(PROGRAM, settings="config:\n  size:\n    type: integer\n")
    ready.refuse("preview", status=1, saying="size")
    ready.run("destroy", "--yes", "--skip-preview")


def test_ctrl_c_finishes_what_is_under_way(ready: Lab) -> None:
    ready.write(f"FOLDER = {str(ready.home)!r}\n{WAITING}")
    with ready.terminal("up", "--skip-preview") as terminal:
        terminal.expect("first creating")
        while not (ready.home / "started").exists():
            assert terminal.process.poll() is None
        terminal.process.send_signal(signal.SIGINT)
        terminal.expect("press ^C again to cancel")
        (ready.home / "go").touch()
        assert terminal.end() == 8
    names = [r["urn"].split("::")[-1] for r in ready.run("status", "--json").json["resources"]]
    assert "first" in names
    assert "second" not in names
    ready.run("up", "--skip-preview")


COUNTED = """
import pathlib
with pathlib.Path(FILE).open("a") as file:
    file.write("dry" if pulumi.runtime.is_dry_run() else "up")
    file.write("\\n")
box = pulumi.ComponentResource("demo:index:Box", "box", {}, pulumi.ResourceOptions(protect=PROTECT))
box.register_outputs({"value": pulumi.Config().get("value")})
pulumi.export("told", pulumi.Output.secret(pulumi.Config().get("value")))
"""


def test_an_update_without_changes_runs_this_projects_program_once(dev: Lab) -> None:
    runs = dev.home / "runs"

    def write(*, protect: bool = False) -> None:
        dev.write(f"FILE, PROTECT = {str(runs)!r}, {protect}\n" + COUNTED)
        file = dev.project / "Pulumi.yaml"
        file.write_text(file.read_text().replace("name: demo\n", "name: ml-cluster\n"))

    def up() -> tuple[list[str], str]:
        runs.write_text("")
        shown = dev.run("up", "--yes", "--stack", "dev").stdout
        return runs.read_text().split(), shown

    write()
    dev.run("stack", "init", "dev")
    assert up()[0] == ["dry", "up"]
    before = dev.run("state", "export", "--stack", "dev").json["deployment"]["resources"]
    ran, shown = up()
    assert ran == ["dry"]
    assert "Updating (dev)" in shown
    assert shown.count("2 unchanged") == 2
    assert "[secret]" in shown
    assert dev.run("state", "export", "--stack", "dev").json["deployment"]["resources"] == before
    (again, first) = dev.run("history", "--json", "--stack", "dev").json
    assert (again["kind"], again["result"], again["resourceChanges"]) == ("update", "succeeded", {"same": 2})
    assert first["resourceChanges"] == {"create": 2}
    dev.run("config", "set", "value", "another", "--stack", "dev")
    assert up()[0] == ["dry", "up"], "outputs are written"
    write(protect=True)
    assert up()[0] == ["dry", "up"], "options are written, too"
    assert up()[0] == ["dry"]
