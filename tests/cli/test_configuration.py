"""`lab config`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.cli.harness import Lab

SECRET = "planted-4c1f"  # noqa: S105


def test_values_are_set_shown_and_removed(dev: Lab) -> None:
    dev.run("stack", "select", "dev")
    dev.run("config", "set", "size", "3")
    dev.run("config", "set", "aws:region", "us-east-1")
    dev.run("config", "set", "--path", "nodes.names[0]", "a")
    dev.run("config", "set", "--secret", "token", stdin=f"{SECRET}\n")
    assert dev.run("config", "get", "size").stdout == "3\n"
    assert dev.run("config", "get", "--path", "nodes.names[0]").stdout == "a\n"
    assert dev.run("config", "get", "token").stdout == f"{SECRET}\n"
    assert dev.run("config", "get", "nodes", "--json").json["objectValue"] == {"names": ["a"]}

    listed = dev.run("config", "ls").stdout
    assert [line.split() for line in listed.splitlines()] == [
        ["KEY", "VALUE"],
        ["aws:region", "us-east-1"],
        ["nodes", '{"names":["a"]}'],
        ["size", "3"],
        ["token", "[secret]"],
    ]
    values = dev.run("config", "ls", "--json").json
    assert values["demo:token"] == {"secret": True}
    assert values["demo:size"] == {"value": "3", "secret": False}
    assert dev.run("config", "ls", "--json", "--show-secrets").json["demo:token"]["value"] == SECRET
    assert SECRET not in (dev.project / "Pulumi.dev.yaml").read_text()

    dev.run("config", "rm", "size")
    dev.refuse("config", "get", "size", status=1, saying="configuration key 'size' not found for stack 'dev'")


def test_a_secret_is_not_stored_in_plain_text_by_mistake(dev: Lab) -> None:
    value = "kX9_w2PmQz7-Lr4T"
    dev.refuse("config", "set", "-s", "dev", "dbPassword", value, status=1, saying="looks like a secret")
    dev.refuse(
        "config", "set", "-s", "dev", "--secret", "--plaintext", "a", "b", status=2, saying="cannot be used together"
    )
    dev.run("config", "set", "-s", "dev", "--plaintext", "dbPassword", value)
    dev.run("config", "set", "-s", "dev", "passwordLength", "16")
    assert set(dev.run("config", "ls", "-s", "dev", "--json").json) == {"demo:dbPassword", "demo:passwordLength"}


def test_a_secret_is_asked_for_without_showing_it(dev: Lab) -> None:
    with dev.terminal("config", "set", "--secret", "token", "-s", "dev") as terminal:
        terminal.expect_hidden("value")
        terminal.answer(SECRET)
        assert terminal.end() == 0
    assert SECRET not in terminal.text
    assert dev.run("config", "get", "token", "-s", "dev").stdout == f"{SECRET}\n"
