"""Rosters, before a cloud is asked for anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.cli.harness import Lab

if TYPE_CHECKING:
    from pathlib import Path


def public_key() -> str:
    key = Ed25519PrivateKey.generate().public_key()
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path)
    lab.write_program()
    return lab


def roster(lab: Lab, *lines: str) -> str:
    path = lab.project / "autumn.csv"
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def test_every_fault_of_every_row_is_told_at_once(lab: Lab) -> None:
    key = public_key()
    path = roster(
        lab,
        "id,key,parity,config:nodes.groups.worker.count,config:nodes.groups.worker.flavor",
        f"Ada L,{key},even,2,",
        "bob,ssh-ed25519 AAAA,odd,2,",
        f"cyn,{public_key()},sometimes,many,m9.huge",
        f"dan,{key},,2,",
        f"cyn,{public_key()},,2,",
        "eve,too,few",
        f"dev,{public_key()},,,",
    )
    said = lab.run("class", "up", path, "--yes", status=2).stderr
    for expected in (
        "9 faults. The cloud was not asked for anything.",
        "line 2: the id 'Ada L' cannot be part of a host name",
        "line 3: the key is not an OpenSSH public key",
        "line 4: the parity 'sometimes' is neither even nor odd",
        'line 4 (cyn): ml-cluster:nodes.groups.worker.count: "many" has the wrong type',
        'line 4 (cyn): ml-cluster:nodes.groups.worker.flavor: "m9.huge" is not in cloud.flavors',
        "line 5: the key of line 2 again",
        "line 6: the id of line 4 again (cyn)",
        "line 7: has not 5 cells",
        "line 8 (dev): a stack 'dev' is there already, and is not of class 'autumn'",
    ):
        assert expected in said
    assert not (lab.project / "autumn.class").exists()
    assert not (lab.project / "Pulumi.cyn.yaml").exists()


@pytest.mark.parametrize(
    ("header", "saying"),
    [
        ("id,name", "there is no column 'key'"),
        ("id,key,nmae", "'nmae' is not a column; there are: id, key, parity, config:"),
        ("id,key,id", "there are 2 columns 'id'"),
        ("id,key,config:cloud.name", "a class is on one cloud"),
        ("id,key", "there are no rows"),
    ],
)
def test_columns_are_checked(lab: Lab, header: str, saying: str) -> None:
    lab.refuse("class", "status", roster(lab, header), status=2, saying=saying)


def test_a_fault_of_the_template_is_told_once(lab: Lab) -> None:
    path = roster(lab, "id,key", f"a1,{public_key()}", f"a2,{public_key()}")
    settings = lab.project / "Pulumi.dev.yaml"
    settings.write_text(settings.read_text().replace("externalNetwork: public", "externalNetwork: 7"))
    said = lab.run("class", "up", path, "--yes", status=1).stderr
    assert said.count("ml-cluster:network.externalNetwork") == 1
    lab.refuse("class", "up", path, "--template", "spring", "--yes", status=1, saying="there is no template")


def test_rows_are_chosen_by_name_and_by_parity(lab: Lab) -> None:
    path = roster(
        lab, "id,key,parity", f"s1,{public_key()},", f"s2,{public_key()},", f"ada,{public_key()},even",
        f"bob,{public_key()},",
    )  # fmt: skip

    def chosen(*options: str) -> list[str]:
        return [entry["id"] for entry in lab.run("class", "status", path, "--json", *options).json]

    assert chosen() == ["s1", "s2", "ada", "bob"]
    assert chosen("--only", "bob,s1") == ["s1", "bob"]
    assert chosen("--only", "s1,s2,ada", "--even") == ["s2", "ada"]
    assert chosen("--only", "s1,s2,ada", "--odd") == ["s1"]
    lab.refuse("class", "status", path, "--even", status=2, saying="line 5: 'bob' ends in no number")
    lab.refuse("class", "status", path, "--only", "s1,zoe", status=2, saying="has no zoe")
    lab.refuse("class", "status", path, "--even", "--odd", status=2, saying="cannot be used together")


def test_a_class_that_was_never_made_is_shown_and_taken_down_as_nothing(lab: Lab) -> None:
    path = roster(lab, "id,key", f"s1,{public_key()}", f"s2,{public_key()}")
    lines = lab.run("class", "status", path).stdout.splitlines()
    assert lines[0].split() == ["ID", "STATE", "NODES", "LEASE", "LEFT", "LAST", "UPDATE", "ERROR"]
    assert lines[1].split() == ["s1", "not", "created", "0", "-", "-"]
    assert "2 not created" in lines[-1]
    results = lab.run("class", "down", path, "--yes", "--json").json
    assert [(result["id"], result["result"]) for result in results] == [("s1", "unchanged"), ("s2", "unchanged")]
    lab.refuse("class", "down", path, status=2, saying="--yes must be passed in")
