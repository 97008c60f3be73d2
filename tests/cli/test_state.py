"""`lab state`: out, in again, and what is refused on the way."""

from __future__ import annotations

import copy
import hashlib
import json
import stat
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.cli.harness import Lab

Deployment = dict[str, Any]
SECRET = "planted-91ae"  # noqa: S105
SIG, SECRET_SIG = "4dabf18193072939515e22adb298388d", "1b47061264138c4ac30d75fd1eb44270"


def urn(kind: str, name: str, stack: str = "dev", project: str = "demo") -> str:
    return f"urn:pulumi:{stack}::{project}::{kind}::{name}"


ROOT = urn("pulumi:pulumi:Stack", "demo-dev")
PROVIDER = urn("pulumi:providers:random", "default")
THING = urn("random:index:Thing", "thing")
DEPLOYMENT: Deployment = {
    "version": 3,
    "deployment": {
        "manifest": {
            "time": "2026-01-02T03:04:05Z",
            "magic": hashlib.sha256(b"v3.1.0").hexdigest(),
            "version": "v3.1.0",
        },
        "resources": [
            {
                "urn": ROOT,
                "custom": False,
                "type": "pulumi:pulumi:Stack",
                "outputs": {
                    "answer": 42,
                    "list": ["a"],
                    "name": "it's",
                    "token": {SIG: SECRET_SIG, "plaintext": json.dumps(SECRET)},
                },
            },
            {"urn": PROVIDER, "custom": True, "id": "p1", "type": "pulumi:providers:random"},
            {
                "urn": THING,
                "custom": True,
                "id": "t1",
                "type": "random:index:Thing",
                "parent": ROOT,
                "provider": f"{PROVIDER}::p1",
                "dependencies": [PROVIDER],
            },
        ],
    },
}


def load(dev: Lab, deployment: Deployment = DEPLOYMENT) -> None:
    assert dev.run("state", "import", "-s", "dev", stdin=json.dumps(deployment)).stdout == "Import complete.\n"


def test_what_was_imported_is_exported_and_shown(dev: Lab) -> None:
    load(dev)
    exported = dev.run("state", "export", "-s", "dev")
    assert SECRET not in exported.stdout
    assert [r["urn"] for r in exported.json["deployment"]["resources"]] == [ROOT, PROVIDER, THING]
    load(dev, exported.json)
    assert dev.run("state", "export", "-s", "dev").stdout == exported.stdout
    secrets = dev.run("state", "export", "-s", "dev", "--show-secrets").json["deployment"]["resources"][0]["outputs"]
    assert secrets == DEPLOYMENT["deployment"]["resources"][0]["outputs"]

    outputs = dev.run("stack", "output", "-s", "dev", "--json").json
    assert outputs == {"answer": 42, "list": ["a"], "name": "it's", "token": "[secret]"}
    assert dev.run("stack", "output", "-s", "dev", "--json", "--show-secrets").json["token"] == SECRET
    assert dev.run("stack", "output", "-s", "dev", "token", "--show-secrets").stdout == f"{SECRET}\n"
    assert dev.run("stack", "output", "-s", "dev", "list", "--json").json == ["a"]
    shell = dev.run("stack", "output", "-s", "dev", "--shell").stdout.splitlines()
    assert shell == ["answer=42", "list='[\"a\"]'", "name='it'\"'\"'s'", "token='[secret]'"]
    dev.refuse("stack", "output", "-s", "dev", "absent", status=1, saying="does not have output property 'absent'")

    shown = dev.run("status", "-s", "dev", "--show-ids").stdout
    assert "Current stack resources (3):" in shown
    assert "└─ random:index:Thing" in shown
    assert SECRET not in shown
    dev.refuse("stack", "rm", "dev", "--yes", status=1, saying="still has 3 resources")


def test_a_file_with_the_state_is_private(dev: Lab) -> None:
    load(dev)
    file = dev.home / "state.json"
    dev.run("state", "export", "-s", "dev", "--file", str(file), "--show-secrets")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    dev.run("state", "import", "-s", "dev", "--file", str(file))
    dev.refuse(
        "state", "import", "-s", "dev", "--file", str(dev.home / "absent"), status=1, saying="could not open file"
    )
    dev.refuse("state", "export", "-s", "dev", "--file", "/dev/null/x", status=1, saying="could not write")


def test_invalid_files_are_refused_with_all_errors(dev: Lab) -> None:
    for text in (
        "{",
        "[]",
        '{"version": 2, "deployment": {}}',
        '{"version": 3, "deployment": {"resources": [{"urn": 1}]}}',
    ):
        dev.refuse("state", "import", "-s", "dev", stdin=text, status=1, saying="JSON" if text == "{" else "version-3")
    broken = copy.deepcopy(DEPLOYMENT)
    first, _, thing = broken["deployment"]["resources"]
    broken["deployment"]["manifest"]["magic"] = "no"
    thing["provider"] = f"{PROVIDER}::p2"
    thing["dependencies"] = [urn("a:b:C", "gone")]
    first["dependencies"] = [THING]
    broken["deployment"]["resources"] += [
        copy.deepcopy(thing),
        {"urn": urn("a:b:C", "x", stack="prod"), "type": "a:b:C"},
        {"urn": urn("a:b:C", "x", project="other"), "type": "a:b:C", "id": "odd"},
    ]
    outcome = dev.run("state", "import", "-s", "dev", stdin=json.dumps(broken), status=1)
    for fault in (
        "magic cookie mismatch",
        "refers to unknown provider",
        f"{THING}'s dependency urn:pulumi:dev::demo::a:b:C::gone is missing",
        f"{ROOT}'s dependency {THING} comes after it",
        f"duplicate resource {THING}",
        "is from a different stack (prod != dev)",
        "is from a different project (other != demo)",
        "has 'custom' false but non-empty ID",
        "rerun with --force",
    ):
        assert fault in outcome.stderr
    assert dev.run("state", "export", "-s", "dev").json["deployment"] == {}, "nothing was imported"
    assert "warning: " in dev.run("state", "import", "-s", "dev", "--force", stdin=json.dumps(broken)).stderr


def test_pending_operations_are_dropped_with_a_warning(dev: Lab) -> None:
    pending = copy.deepcopy(DEPLOYMENT)
    thing = pending["deployment"]["resources"].pop()
    pending["deployment"]["pending_operations"] = [{"resource": thing, "type": "creating"}]
    outcome = dev.run("state", "import", "-s", "dev", stdin=json.dumps(pending))
    assert f"removing pending operation 'creating' on '{THING}'" in outcome.stderr
    assert "pending_operations" not in dev.run("state", "export", "-s", "dev").json["deployment"]


def test_a_lock_is_named_and_removed(dev: Lab) -> None:
    folder = dev.backend / ".pulumi" / "locks" / "organization" / "demo" / "dev"
    folder.mkdir(parents=True, exist_ok=True)
    holder = {"pid": 4711, "username": "ada", "hostname": "elsewhere", "timestamp": "2026-01-02T03:04:05Z"}
    (folder / "0b5e.json").write_text(json.dumps(holder))
    dev.refuse("up", "-s", "dev", "--yes", "--skip-preview", status=1, saying="locked by ada@elsewhere (process 4711)")
    assert dev.run("status", "-s", "dev", "--json").json["updateInProgress"] is True
    dev.refuse("state", "unlock", "-s", "dev", status=2, saying="requires --yes")
    assert "removed the lock of ada@elsewhere" in dev.run("state", "unlock", "-s", "dev", "--yes").stdout
    assert "is not locked" in dev.run("cancel", "dev", "--yes").stdout
    assert dev.run("status", "-s", "dev", "--json").json["updateInProgress"] is False
