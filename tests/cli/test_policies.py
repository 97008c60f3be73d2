"""Policy packs of the flags and of the settings, on either engine. What packs do is tested in tests/engine."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from tests.cli.test_class import public_key, roster
from tests.engine.harness import virtualenv

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.cli.harness import Lab

PACK = """
from pulumi_policy import *

def refuse(args, report):
    if args.resource_type == "pulumi:pulumi:Stack":
        report(f"Refused by {args.get_config()['who']}.")

who = PolicyConfigSchema({"who": {"type": "string", "default": "the pack"}})
policy = ResourceValidationPolicy("refuse", "Nothing is allowed.", refuse, EnforcementLevel.MANDATORY, who)
PolicyPack("strict", [policy])
"""


def write_pack(folder: Path) -> None:
    folder.mkdir(parents=True)
    options = {"toolchain": "pip", "virtualenv": virtualenv()}
    (folder / "PulumiPolicy.yaml").write_text(json.dumps({"runtime": {"name": "python", "options": options}}))
    (folder / "__main__.py").write_text(PACK)


def test_packs_that_the_settings_name(dev: Lab) -> None:
    """A stack that names a pack always runs under it; the project's file does it for all stacks."""
    write_pack(dev.project / "rules")
    flags = ("--stack", "dev")
    dev.run("preview", *flags)
    dev.run("config", "set", *flags, "--path", "lab:policies[0].pack", "rules")
    refused = dev.run("preview", *flags, status=1).stdout
    assert "❌ strict@v0.0.1 (local: rules)" in refused
    assert "Refused by the pack." in refused
    (dev.project / "limits.json").write_text('{"refuse": {"who": "the file"}}')
    dev.run("config", "set", *flags, "--path", "lab:policies[0].config", "limits.json")
    given = dev.run("up", "--yes", *flags, "--policy-pack", "rules", status=1).stdout
    assert "Refused by the file." in given
    assert "Refused by the pack." in given, "the flag's is another: it has no configuration"
    assert "Updating (dev)" not in given

    dev.run("config", "rm", *flags, "lab:policies")
    dev.write(settings="config:\n  lab:policies:\n    value: [{pack: rules}]\n")
    assert "Refused by the pack." in dev.run("preview", *flags, status=1).stdout


def test_a_setting_that_names_no_pack(dev: Lab) -> None:
    flags = ("--stack", "dev")
    dev.run("config", "set", *flags, "lab:policies", "rules")
    dev.refuse("preview", *flags, status=1, saying='lab:policies: "rules" must be an object')
    dev.run("config", "rm", *flags, "lab:policies")
    dev.run("config", "set", *flags, "--path", "lab:policies[0].pack", "rulse")
    dev.refuse("preview", *flags, status=1, saying=f"policy pack rulse: there is no folder {dev.project / 'rulse'}")
    dev.refuse("up", "--yes", *flags, "--policy-pack-config", "x", status=2, saying="for 0 --policy-pack")


def test_the_packs_of_a_class(lab: Lab) -> None:
    """A template's pack is looked for before the cloud is asked for anything."""
    lab.write_program()
    path = roster(lab, "id,key", f"ada,{public_key()}")
    lab.run("stack", "init", "dev")
    lab.run("config", "set", "--stack", "dev", "--path", "lab:policies[0].pack", "rulse")
    lab.refuse(
        "class", "up", path, "--template", "dev", "--yes", status=1, saying="policy pack rulse: there is no folder"
    )
    assert not (lab.project / "Pulumi.ada.yaml").exists()


def test_the_pulumi_cli_gets_them(dev: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pack with its configuration, or with an empty one; paths as its flags take them, lines of CSV."""
    binaries = dev.home / "bin"
    binaries.mkdir()
    called = dev.home / "called"
    pulumi = binaries / "pulumi"
    pulumi.write_text(f'#!/bin/sh\nfor word in "$@"; do echo "$word"; done > {called}\nexit 1\n')
    pulumi.chmod(0o755)
    monkeypatch.setitem(dev.env, "PATH", f"{binaries}:{os.environ['PATH']}")
    dev.engine = "pulumi"
    write_pack(dev.project / "rules, old")
    write_pack(dev.project / "rules")
    (dev.project / "limits.json").write_text("{}")
    dev.run("config", "set", "--stack", "dev", "--path", "lab:policies[0].pack", "rules, old")
    dev.run("config", "set", "--stack", "dev", "--path", "lab:policies[0].config", "limits.json")
    dev.run("preview", "--stack", "dev", "--policy-pack", "rules", status=1)
    words = called.read_text().splitlines()
    packs = [words[i + 1] for i, word in enumerate(words) if word == "--policy-pack"]
    configs = [words[i + 1] for i, word in enumerate(words) if word == "--policy-pack-config"]
    assert packs == [f'"{dev.project / "rules, old"}"', str(dev.project / "rules")]
    assert configs == [str(dev.project / "limits.json"), "/dev/null"]
    dev.run("destroy", "--yes", "--stack", "dev", status=1)
    assert "--policy-pack" not in called.read_text()
