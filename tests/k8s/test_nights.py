"""The nightly copies of the buckets, in the backup's volume and at a second place: a real S3."""

from __future__ import annotations

import fcntl
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any

import pytest

from infra.manifests import TREE
from tests.k8s.object_store import SECRET, content

if TYPE_CHECKING:
    from pathlib import Path

NIGHTS = TREE / "platform" / "backup" / "base" / "nights.py"
_specification = importlib.util.spec_from_file_location("nights", NIGHTS)
assert _specification
assert _specification.loader
program: Any = importlib.util.module_from_spec(_specification)
sys.path.insert(0, str(NIGHTS.parent))  # sources.py is beside it
_specification.loader.exec_module(program)
KEYS = {"AWS_ACCESS_KEY_ID": "setup", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}


class Nights:
    """The program of the backup, with a folder, a bucket and a second place of its own."""

    def __init__(self, s3: Any, folder: Path, bucket: str) -> None:
        self.s3, self.folder, self.bucket = s3, folder, bucket
        self.second: dict[str, str] = {}
        self.forge: dict[str, str] = {}
        s3.create_bucket(Bucket=bucket)

    @property
    def environment(self) -> dict[str, str]:
        return {**KEYS, "S3_ENDPOINT": self.s3.meta.endpoint_url, **self.second, **self.forge}

    def run(self, action: str, *names: str, status: int = 0) -> str:
        """What the program prints; it ends with a status."""
        command = ["nights.py", action, str(self.folder), *names, "--bucket", self.bucket]
        printed = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed), redirect_stderr(printed):
            patch.setattr(sys, "argv", command)
            patch.setattr(tempfile, "tempdir", str(self.folder.parent))
            for name, value in self.environment.items():
                patch.setenv(name, value)
            assert program.main() == status, printed.getvalue()
        return printed.getvalue()

    def save(self, name: str, status: int = 0, rows: bytes = b"rows") -> str:
        """What a night's Job does; its rows are dumped by another program before."""
        (self.folder / f"rows-{name}.dump").write_bytes(rows)
        return self.run("save", name, status=status)

    def restore(self, name: str, before: str, status: int = 0) -> str:
        """What the Job of a restore does."""
        (self.folder / f"rows-{before}.dump").write_bytes(b"rows now")
        told = self.run("prepare", before, *([name] if name else []))
        chosen = (self.folder.parent / "night").read_text()
        return told + self.run("restore", chosen, status=status)

    def put(self, **objects: bytes) -> None:
        for key, body in objects.items():
            self.s3.put_object(Bucket=self.bucket, Key=key, Body=body)

    def delete(self, *keys: str) -> None:
        for key in keys:
            self.s3.delete_object(Bucket=self.bucket, Key=key)

    def content(self) -> dict[str, bytes]:
        return content(self.s3, self.bucket)

    def copies(self) -> list[str]:
        return sorted(path.stem for path in (self.folder / "files" / "copies").glob("*.json"))

    def contents(self) -> list[Path]:
        return list((self.folder / "files" / "contents").iterdir())

    def listed(self) -> dict[str, Any]:
        """What `list` ends with."""
        found: dict[str, Any] = json.loads(self.run("list"))
        return found

    def where(self) -> dict[str, list[str]]:
        """Where each night is."""
        found = self.listed()
        places = [place for place in ("cluster", "second") if place in found]
        return {name: [one for one in places if name in found[one]] for place in places for name in found[place]}

    def copy_to(self, bucket: str, prefix: str = "lab", **other: str) -> None:
        """Have a second place."""
        self.second = {
            "COPY_ENDPOINT": self.s3.meta.endpoint_url, "COPY_BUCKET": bucket, "COPY_PREFIX": prefix,
            "COPY_ACCESS_KEY": "setup", "COPY_SECRET_KEY": SECRET, **other,
        }  # fmt: skip

    def lose(self) -> None:
        """The backup's volume is gone, and so is all that is in the store."""
        shutil.rmtree(self.folder)
        self.folder.mkdir()
        self.delete(*self.content())


@pytest.fixture
def nights(s3: Any, tmp_path: Path) -> Nights:
    folder = tmp_path / "backup"
    folder.mkdir()
    return Nights(s3, folder, f"b-{time.time_ns()}")


@pytest.fixture
def second(s3: Any, nights: Nights) -> str:
    """The bucket of a second place."""
    name = f"second-{time.time_ns()}"
    s3.create_bucket(Bucket=name)
    nights.copy_to(name)
    return name


def test_a_pointer_of_the_same_length_is_copied_again(nights: Nights) -> None:
    nights.put(pointer=b"md5: 1111")
    nights.save("20260101")
    nights.put(pointer=b"md5: 2222")
    assert "1 objects fetched" in nights.save("20260102")
    nights.put(pointer=b"md5: 3333")
    nights.restore("20260102", "before-1")
    assert nights.content() == {"pointer": b"md5: 2222"}


def test_a_night_is_restored_as_it_was_and_what_came_after_is_not_lost(nights: Nights) -> None:
    nights.put(kept=b"1", changed=b"old", removed=b"2")
    nights.save("20260101")
    nights.put(changed=b"new", added=b"3")
    nights.delete("removed")
    nights.restore("20260101", "before-1")
    assert nights.content() == {"kept": b"1", "changed": b"old", "removed": b"2"}
    assert "0 objects sent, 0 removed" in nights.restore("20260101", "before-2")
    nights.restore("before-1", "before-3")
    assert nights.content() == {"kept": b"1", "changed": b"new", "added": b"3"}


def test_a_night_costs_what_has_changed_and_two_weeks_are_kept(nights: Nights) -> None:
    nights.put(same=b"same")
    for night in range(10, 26):
        nights.put(pointer=f"{night}".encode())
        nights.save(f"202601{night}")
    kept = [f"202601{night}" for night in range(12, 26)]
    assert nights.copies() == kept
    assert sorted(path.name for path in nights.folder.glob("rows-*")) == [f"rows-{name}.dump" for name in kept]
    assert len(nights.contents()) == 15


def test_what_could_not_be_read_is_neither_removed_nor_put_back_as_it_was_the_night_before(nights: Nights) -> None:
    nights.put(good=b"1", bad=b"old")
    nights.save("20260101")
    nights.put(good=b"2", bad=b"new")
    listing = nights.folder / "files" / "copies" / "20260102.json"
    nights.save("20260102")
    copy = json.loads(listing.read_text())
    copy[nights.bucket]["bad"]["sha256"] = ""  # as it is written down of an object that the store could not give
    listing.write_text(json.dumps(copy))
    assert nights.listed()["cluster"]["20260102"][-1] == 1
    nights.put(good=b"3", bad=b"newer")
    assert f"{nights.bucket}/bad: was not read then" in nights.restore("20260102", "before-1", status=1)
    assert nights.content() == {"good": b"2", "bad": b"newer"}


def test_a_damaged_copy_is_not_put_back(nights: Nights) -> None:
    nights.put(a=b"right")
    nights.save("20260101")
    (kept,) = nights.contents()
    kept.write_bytes(b"wrong")
    nights.put(a=b"later")
    assert "is damaged" in nights.restore("20260101", "before-1", status=1)
    assert nights.content() == {"a": b"later"}


def test_a_night_that_is_not_there_is_named_with_those_that_are(nights: Nights) -> None:
    nights.put(a=b"1")
    assert "There is no night yet with rows and files. Nights: none" in nights.run("prepare", "before-1", status=1)
    nights.save("20260101")
    nights.run("save", "20260102")  # files whose rows never came
    nights.put(a=b"2")
    for name in ("2020", "20260102"):
        told = nights.run("prepare", "before-1", name, status=1)
        assert f"There is no night {name} with rows and files. Nights: 20260101" in told
    # The newest that has both, and never what a restore has left.
    nights.restore("", "before-1")
    nights.put(a=b"3")
    nights.restore("", "before-2")
    assert nights.content() == {"a": b"1"}


def test_the_list_says_of_each_night_what_it_has_and_where(nights: Nights, second: str) -> None:
    nights.put(a=b"12345", b=b"12345", c=b"1")
    nights.save("20260101", rows=b"1234")
    nights.second.clear()
    nights.put(c=b"22")
    nights.save("20260102", rows=b"123456")
    nights.restore("20260101", "before-1")
    here = {"20260101": [4, 3, 10, 0], "20260102": [6, 3, 13, 0], "before-1": [8, 3, 15, 0]}
    assert nights.listed() == {"cluster": here}
    nights.copy_to(second)
    assert nights.listed() == {"cluster": here, "second": {"20260101": [4, 3, 10, 0]}}


def test_all_is_restored_from_the_second_place_alone(nights: Nights, second: str) -> None:
    seen = {}
    for night in ("20260101", "20260102"):
        nights.put(same=b"same", pointer=night.encode(), **{f"model-{night}": night.encode()})
        nights.save(night, rows=night.encode())
        seen[night] = nights.content()
    nights.lose()
    assert nights.where() == {"20260101": ["second"], "20260102": ["second"]}
    nights.restore("", "before-1")
    assert nights.content() == seen["20260102"]
    assert (nights.folder / "rows-20260102.dump").read_bytes() == b"20260102"
    nights.restore("20260101", "before-2")
    assert nights.content() == seen["20260101"]
    # What is here now is of the volume again.
    nights.second.clear()
    nights.put(pointer=b"other")
    nights.restore("20260102", "before-3")
    assert nights.content() == seen["20260102"]
    assert content(nights.s3, second).keys() == {
        *(f"lab/{kind}{night}{end}" for night in seen for kind, end in (("rows-", ".dump"), ("copies/", ".json"))),
        *(f"lab/contents/{path.name}" for path in nights.contents() if path.read_bytes() != b"other"),
    }


def test_what_is_damaged_here_comes_from_the_second_place(nights: Nights, second: str) -> None:
    nights.put(a=b"right", b=b"also right")
    nights.save("20260101")
    for path in nights.contents():
        if path.read_bytes() == b"right":
            path.write_bytes(b"wrong")
        else:
            path.unlink()
    nights.put(a=b"later", b=b"later")
    assert "2 contents fetched from the second place" in nights.restore("20260101", "before-1")
    assert nights.content() == {"a": b"right", "b": b"also right"}
    # There too, a content is what it is called, or is not used.
    for key in content(nights.s3, second):
        if "contents/" in key:
            nights.s3.put_object(Bucket=second, Key=key, Body=b"nobody's")
    nights.lose()
    assert "at the second place, content" in nights.restore("20260101", "before-1", status=1)
    assert nights.content() == {}


def test_a_night_that_did_not_reach_the_second_place_is_kept_here_and_follows_later(
    nights: Nights, second: str
) -> None:
    nights.put(a=b"1")
    working = dict(nights.second)
    faults: dict[str, dict[str, str]] = {
        "NoSuchBucket": {"COPY_BUCKET": f"{second}-misspelt"},
        "SignatureDoesNotMatch": {"COPY_SECRET_KEY": "wrong"},
        "InvalidAccessKeyId": {"COPY_ACCESS_KEY": "nobody"},
        "Could not connect": {"COPY_ENDPOINT": "http://127.0.0.1:1"},
    }
    for number, (said, change) in enumerate(faults.items()):
        nights.second = working | change
        told = nights.save(f"2026010{number}", status=1)
        assert said in told, told
        assert f"The night 2026010{number} is in the backup's volume alone" in told
        assert SECRET not in told
        answer = nights.listed()
        assert said in answer["fault"]
        assert len(answer["cluster"]) == number + 1
    assert f"{second}-misspelt" not in {one["Name"] for one in nights.s3.list_buckets()["Buckets"]}
    # A restore of what is here needs no second place.
    nights.put(a=b"2")
    nights.restore("20260103", "before-1")
    assert nights.content() == {"a": b"1"}
    nights.second = working
    nights.save("20260109")
    assert nights.where() == {
        **{name: ["cluster", "second"] for name in ("20260100", "20260101", "20260102", "20260103", "20260109")},
        "before-1": ["cluster"],
    }


def test_the_second_place_makes_its_bucket_where_it_is_to_and_forgets_the_oldest_nights(
    nights: Nights, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "NIGHTS_KEPT", 2)
    bucket = f"made-{time.time_ns()}"
    nights.copy_to(bucket, COPY_MAKES_BUCKET="yes")
    nights.put(same=b"same")
    for night in (1, 2, 3):
        nights.put(pointer=f"{night}".encode())
        nights.save(f"2026010{night}")
    there = content(s3, bucket)
    kept = [
        f"lab/{kind}2026010{night}{end}" for night in (2, 3) for kind, end in (("copies/", ".json"), ("rows-", ".dump"))
    ]
    assert sorted(key for key in there if "contents/" not in key) == sorted(kept)
    assert {there[key] for key in there if "contents/" in key} == {b"same", b"2", b"3"}
    # A new, empty volume does not make the second place forget.
    nights.lose()
    nights.save("20260104")
    assert sorted(name for name, places in nights.where().items() if "second" in places) == ["20260103", "20260104"]


def test_two_at_once_do_not_take_contents_from_each_other(nights: Nights) -> None:
    nights.put(a=b"1")
    nights.save("20260101")
    with (nights.folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with subprocess.Popen(
            [sys.executable, NIGHTS, "save", nights.folder, "20260102", "--bucket", nights.bucket],
            env={**os.environ, **nights.environment}, stdout=subprocess.PIPE, text=True,
        ) as other:  # fmt: skip
            assert other.stdout
            assert "waiting for its end" in other.stdout.readline()
            assert nights.copies() == ["20260101"]
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert other.wait(60) == 0
    assert nights.copies() == ["20260101", "20260102"]


def test_what_was_left_half_done_is_cleared_away_and_what_is_under_way_is_not(nights: Nights) -> None:
    nights.put(a=b"1")
    left = [nights.folder / name for name in ("rows-20250101.dump", ".rows-backup-1", ".job-backup-1")]
    fresh = [nights.folder / name for name in ("rows-20260102.dump", ".rows-backup-2", ".job-backup-2")]
    for path in left + fresh:
        path.write_text("some")
    for path in left:
        os.utime(path, (0, 0))
    nights.save("20260101")
    assert [path.exists() for path in left + fresh] == [False] * 3 + [True] * 3
