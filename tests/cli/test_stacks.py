"""Stacks: made, listed, chosen, removed; and the passphrase that is made with the first."""

from __future__ import annotations

import hashlib
import json
import stat
from typing import TYPE_CHECKING

from cli.session import passphrase_file
from tests.cli.harness import PROJECT

if TYPE_CHECKING:
    import pytest

    from tests.cli.harness import Lab


def test_a_stack_from_its_making_to_its_end(lab: Lab) -> None:
    assert "Created stack 'dev'" in lab.run("stack", "init", "dev").stderr
    lab.run("stack", "init", "organization/demo/prod", "--no-select")
    assert lab.run("stack", "ls").stdout.splitlines()[1:] == ["dev*  n/a          0", "prod  n/a          0"]
    assert [(s["name"], s["current"]) for s in lab.run("stack", "ls", "--json").json] == [
        ("dev", True),
        ("prod", False),
    ]
    lab.refuse("stack", "init", "dev", status=1, saying="exists already")

    lab.run("stack", "select", "prod")
    assert lab.run("status", "--json").json["stack"] == "prod"
    lab.refuse("stack", "rm", status=2, saying="non-interactive mode requires --yes flag")
    assert "Stack 'prod' has been removed!" in lab.run("stack", "rm", "--yes").stdout
    assert not (lab.project / "Pulumi.prod.yaml").exists()
    lab.refuse("status", status=1, saying="no stack selected")


def test_names_that_cannot_be_are_refused(lab: Lab) -> None:
    lab.refuse("stack", "init", "two words", status=2, saying="not a valid stack name")
    lab.refuse("stack", "init", "organization/other/dev", status=2, saying="is not one of project 'demo'")
    lab.refuse("stack", "init", status=2, saying="missing stack name")
    lab.refuse("stack", "rm", "dev", "--stack", "dev", status=2, saying="only one of --stack or argument")


def test_an_absent_stack_ends_with_status_6(lab: Lab) -> None:
    for verb in (["status"], ["up", "--yes"], ["stack", "select"]):
        lab.refuse(*verb, "--stack", "ghost", status=6, saying="no stack named 'ghost' found")
    assert lab.run("stack", "ls", "--json").json == []


def test_the_selection_is_kept_where_the_pulumi_cli_keeps_it(dev: Lab) -> None:
    dev.run("stack", "select", "dev")
    digest = hashlib.sha1(str(dev.project / "Pulumi.yaml").encode()).hexdigest()  # noqa: S324 - the CLI's file name
    file = dev.home / ".pulumi" / "workspaces" / f"{PROJECT}-{digest}-workspace.json"
    assert json.loads(file.read_text()) == {"stacks": {f"file://{dev.backend}": f"organization/{PROJECT}/dev"}}

    file.write_text('{"stack": "organization/demo/dev"}')
    assert dev.run("status", "--json").json["stack"] == "dev", "the form of older CLIs"
    file.unlink()
    assert dev.run("status", "--json", env={"PULUMI_STACK": "dev"}).json["stack"] == "dev"
    file.write_text("{")
    dev.refuse("status", status=1, saying="is not valid JSON")


def test_a_terminal_is_asked_which_stack(dev: Lab) -> None:
    with dev.terminal("status") as terminal:
        terminal.expect("Please choose a stack:")
        terminal.expect("1. dev")
        terminal.answer("7")
        terminal.expect("Please answer with one of: 1")
        terminal.answer("")
        assert terminal.end() == 0
    assert "Current stack is dev" in terminal.text


def test_a_terminal_is_asked_to_create_a_stack(dev: Lab) -> None:
    with dev.terminal("config", "ls", "--stack", "new") as terminal:
        terminal.expect("press <ENTER>")
        terminal.answer("")
        assert terminal.end() == 0
    assert "Created stack 'new'" in terminal.text
    with dev.terminal("stack", "rm", "new") as terminal:
        terminal.expect("typing `new`")
        terminal.answer("old")
        assert terminal.end() == 1
    assert "confirmation declined" in terminal.text
    with dev.terminal("stack", "rm", "new") as terminal:
        terminal.expect("typing `new`")
        terminal.answer("new")
        assert terminal.end() == 0
    assert [stack["name"] for stack in dev.run("stack", "ls", "--json").json] == ["dev"]


def test_the_first_stack_makes_a_passphrase(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(lab.home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    path = passphrase_file()
    assert str(path) in lab.run("stack", "init", "dev").stderr
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_text().strip()) >= 40
    lab.run("config", "set", "--secret", "token", "planted-secret", "--stack", "dev")
    assert path.read_text() not in (lab.project / "Pulumi.dev.yaml").read_text()
    assert lab.run("config", "get", "token", "-s", "dev").stdout == "planted-secret\n"

    wrong = {"PULUMI_CONFIG_PASSPHRASE": "another"}
    (lab.project / "Pulumi.theirs.yaml").write_text((lab.project / "Pulumi.dev.yaml").read_text())
    lab.refuse("stack", "init", "theirs", env=wrong, status=1, saying="passphrase is wrong")
    assert [stack["name"] for stack in lab.run("stack", "ls", "--json").json] == ["dev"], "nothing half-made is left"
    lab.refuse("config", "get", "token", "-s", "dev", env=wrong, status=1, saying="passphrase is wrong")
    path.unlink()
    lab.refuse("config", "get", "token", "-s", "dev", status=1, saying="A passphrase is needed")
    with lab.terminal("config", "get", "token", "-s", "dev") as terminal:
        terminal.expect_hidden("Enter your passphrase")
        terminal.answer("wrong")
        assert terminal.end() == 1
