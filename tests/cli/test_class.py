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


def test_all_errors_of_all_rows_are_reported_at_once(lab: Lab) -> None:
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
    output = lab.run("class", "up", path, "--yes", status=2).stderr
    for expected in (
        "9 errors. No request was sent to the cloud.",
        "line 2: the id 'Ada L' is not valid in a host name",
        "line 3: the key is not an OpenSSH public key",
        "line 4: the parity 'sometimes' is neither even nor odd",
        'line 4 (cyn): ml-cluster:nodes.groups.worker.count: "many" has the wrong type',
        'line 4 (cyn): ml-cluster:nodes.groups.worker.flavor: "m9.huge" is not in cloud.flavors',
        "line 5: same key as in line 2",
        "line 6: same id as in line 4 (cyn)",
        "line 7: has 3 cells, but the first line has 5",
        "line 8 (dev): stack 'dev' already exists, and does not belong to class 'autumn'",
    ):
        assert expected in output
    assert not (lab.project / "autumn.class").exists()
    assert not (lab.project / "Pulumi.cyn.yaml").exists()


@pytest.mark.parametrize(
    ("header", "saying"),
    [
        ("id,name", "column 'key' is missing"),
        ("id,key,nmae", "'nmae' is not a column; columns are: id, key, parity, config:"),
        ("id,key,id", "2 columns have the name 'id'"),
        ("id,key,config:cloud.name", "a class uses one cloud"),
        ("id,key", "the roster has no rows"),
        (
            "ID,Key",
            "line 1: 'ID' is not a column; did you mean 'id'?\n  line 1: 'Key' is not a column; did you mean 'key'?\n",
        ),
        ("id,keys", "'keys' is not a column; did you mean 'key'?"),
        ("id,key,Config:cluster.bundle", "did you mean 'config:cluster.bundle'?"),
        ("id,,key", "line 1: column 2 has no name"),
        ("id;key", "cells are separated by semicolons, not commas"),
        ("id\tkey", "cells are separated by tabs, not commas"),
        ("", "column 'id' is missing\n  line 1: column 'key' is missing\n"),
    ],
)
def test_columns_are_checked(lab: Lab, header: str, saying: str) -> None:
    lab.refuse("class", "status", roster(lab, header), status=2, saying=saying)


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_roster_is_read_as_a_spreadsheet_writes_it(lab: Lab, encoding: str, end: str) -> None:
    """With a byte order mark, rows and columns that were emptied, spaces around, and cells in quotes."""
    lines = [
        "id,key,parity,,",
        f's1,"{public_key()}",,,',
        ",,,,",
        "",
        f" s2 ,{public_key()} ada@laptop,odd,,",
        ",,,,",
        ", ,,,",
    ]
    path = lab.project / "autumn.csv"
    path.write_text(end.join(lines), encoding=encoding, newline="")
    assert [entry["id"] for entry in lab.run("class", "status", str(path), "--json").json] == ["s1", "s2"]
    assert [entry["id"] for entry in lab.run("class", "status", str(path), "--json", "--odd").json] == ["s1", "s2"]


def test_more_than_a_key_in_a_cell_is_refused(lab: Lab) -> None:
    one, two, three = public_key(), public_key(), public_key()
    path = roster(
        lab, "id,key", f's1,"{one}\n{two}"', f"s2,{one} {two}", f's3,"{one},{two}"', f's4,"{one}\nfor the lab"',
        f"s5,{three},{three}", "s6,", ",", f",{three}",
    )  # fmt: skip
    output = lab.run("class", "up", path, "--yes", status=2).stderr
    for expected in (
        "line 2: the key has 2 keys, not one. Keep one;",
        "line 4: the key has 2 keys, not one. Keep one;",
        "line 5: the key has 2 keys, not one. Keep one;",
        "line 6: the key has more than one line. Keep the line with the key",
        "line 8: has 3 cells, but the first line has 2",
        "line 9: the key is missing",
        "line 11: the id is missing",
    ):
        assert expected in output
    assert "line 10" not in output


@pytest.mark.parametrize(
    ("content", "saying"),
    [
        ("id,key\ns1,ssh-ed25519 AAAA\n".encode("utf-16"), "is not a CSV file in UTF-8"),
        (None, "is a folder, not a roster"),
    ],
    ids=["UTF-16", "folder"],
)
def test_a_file_that_is_not_a_roster_is_refused(lab: Lab, content: bytes | None, saying: str) -> None:
    path = lab.project / "autumn.csv"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    lab.refuse("class", "up", str(path), "--yes", status=2, saying=saying)


def test_an_error_of_the_template_is_reported_once(lab: Lab) -> None:
    path = roster(lab, "id,key", f"a1,{public_key()}", f"a2,{public_key()}")
    settings = lab.project / "Pulumi.dev.yaml"
    settings.write_text(settings.read_text().replace("externalNetwork: public", "externalNetwork: 7"))
    output = lab.run("class", "up", path, "--yes", status=1).stderr
    assert output.count("ml-cluster:network.externalNetwork") == 1
    lab.refuse("class", "up", path, "--template", "spring", "--yes", status=1, saying="does not exist")


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
    lab.refuse("class", "status", path, "--even", status=2, saying="line 5: 'bob' does not end with a number")
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
