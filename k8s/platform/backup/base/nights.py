"""Nights: copies of the platform's rows and files, in the backup's volume and, if set, at a second place.

    nights.py save FOLDER NIGHT          copy the buckets and the forge, then all nights that the second place lacks
    nights.py list FOLDER                the nights of both places, as JSON
    nights.py prepare FOLDER BEFORE [NIGHT]
                                         choose a night, by default the newest; fetch what the volume lacks of it; save
                                         the buckets' current state, with the rows that are there, as BEFORE
    nights.py restore FOLDER NIGHT       restore the buckets, and the forge at its next start

FOLDER/rows-NIGHT.dump has the rows of a night, FOLDER/files/copies/NIGHT.json the content of each object; a night
exists once both do. Contents are in FOLDER/files/contents, each once and named by its SHA-256, so that a night takes
only the space of what changed. The second place, a prefix of a bucket of any S3, has the same files.

The forge, if there is one, is like another bucket: its files, and its rows as one of them.

An object that cannot be read does not stop the others: it is named, and the exit status is 1. A restore does not change
it. The forge is restored completely or not at all.
"""

import argparse
import fcntl
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
from boto3.exceptions import Boto3Error  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]
from sources import CHUNK, FORGE, Bucket, Forge, ForgeError, Source

BUCKETS = ["mlflow", "datasets", "code"]
BEFORE = "before-"
"""Prefix of the names of copies that a restore makes; those of nights start with the year."""
NIGHTS_KEPT, BEFORE_KEPT = 14, 5
REPORT_SECONDS = 5.0
DAY_SECONDS = 86400
STORE_ERRORS = (Boto3Error, BotoCoreError, ClientError, OSError)

Copy = dict[str, dict[str, dict[str, str]]]
"""By bucket and key: `etag`, which the store derives from the content; `sha256`, empty if the object was not read."""


RESULT = Path("/dev/termination-log")
"""The container's termination message, of up to 4,096 characters."""


def write_result(result: dict[str, Any]) -> None:
    """Write the result as JSON for whoever started the pod."""
    text = json.dumps(result, separators=(",", ":"))
    if RESULT.exists():
        RESULT.write_text(text)
    else:
        print(text, flush=True)


class SecondPlaceError(Exception):
    """The second place does not answer, or refuses."""


class Progress:
    """Prints progress every few seconds."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done, self._reported = what, total, 0, time.monotonic()

    def add(self, size: int) -> None:
        """Add bytes that are done."""
        self._done += size
        if time.monotonic() - self._reported > REPORT_SECONDS:
            self._reported = time.monotonic()
            print(f"{self._what}: {megabytes(self._done)} of {megabytes(self._total)}", flush=True)


def megabytes(size: int) -> str:
    """A size for people."""
    return f"{size / 1e6:.1f} MB"


def contents_of(copy: Copy) -> set[str]:
    """SHA-256 of each content in a copy."""
    return {entry["sha256"] for objects in copy.values() for entry in objects.values() if entry["sha256"]}


def is_night(name: str) -> bool:
    """Whether a copy is a night, not one that a restore made."""
    return not name.startswith(BEFORE)


def in_order(names: Iterable[str]) -> list[str]:
    """Sort: nights, the oldest first, then the copies that restores made."""
    return sorted(names, key=lambda name: (not is_night(name), name))


class Copies:
    """The copies in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lists, self.contents = folder / "files" / "copies", folder / "files" / "contents"
        for path in (self.lists, self.contents):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock."""
        with (self.folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print("Another backup or restore is running: waiting for its end.", flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def rows(self, name: str) -> Path:
        """The file with the rows of a copy."""
        return self.folder / f"rows-{name}.dump"

    def files(self) -> dict[str, int]:
        """Size of each file, by its name at the second place."""
        found = {path.name: path.stat().st_size for path in self.folder.glob("rows-*.dump")}
        for folder in (self.lists, self.contents):
            found |= {f"{folder.name}/{path.name}": path.stat().st_size for path in folder.iterdir()}
        return found

    def names(self) -> list[str]:
        """Names of the copies of files, in order."""
        return in_order(path.stem for path in self.lists.glob("*.json"))

    def complete(self) -> list[str]:
        """The copies that have rows too, in order."""
        return [name for name in self.names() if self.rows(name).exists()]

    def newest(self) -> Copy:
        """The copy that was written last; empty without one."""
        paths = sorted(self.lists.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        return self.read(paths[-1].stem) if paths else {}

    def read(self, name: str) -> Copy:
        """One copy."""
        copy: Copy = json.loads((self.lists / f"{name}.json").read_text())
        return copy

    def write(self, name: str, copy: Copy) -> None:
        """Write a copy atomically."""
        new = self.lists / f"{name}.new"
        new.write_text(json.dumps(copy))
        new.replace(new.with_suffix(".json"))

    def prune(self, keep: str) -> None:
        """Delete all but the newest copies and `keep`, and rows and contents that none of them has."""
        names = self.names()
        nights, before = ([name for name in names if is_night(name) == which] for which in (True, False))
        for name in {*nights[:-NIGHTS_KEPT], *before[:-BEFORE_KEPT]} - {keep}:
            (self.lists / f"{name}.json").unlink()
            self.rows(name).unlink(missing_ok=True)
        names = self.names()
        kept = {".lock", *(self.rows(name).name for name in names)}
        for path in (*self.folder.glob("rows-*"), *self.folder.glob(".*")):
            # Today's may belong to a night in progress.
            if path.name not in kept and path.stat().st_mtime < time.time() - DAY_SECONDS:
                path.unlink()
        used = {sha256 for name in names for sha256 in contents_of(self.read(name))}
        for path in self.contents.iterdir():
            if path.name not in used:
                path.unlink()

    def has(self, entry: dict[str, str]) -> bool:
        """Whether the content of an entry is stored."""
        return bool(entry["sha256"]) and (self.contents / entry["sha256"]).exists()

    def store(self, chunks: Iterable[bytes], sha256: str = "") -> str:
        """Store a content atomically; returns its SHA-256.

        Raises:
            OSError: it does not have the given SHA-256.
        """
        digest = hashlib.sha256()
        with tempfile.NamedTemporaryFile(dir=self.contents, delete=False) as new:
            try:
                for chunk in chunks:
                    digest.update(chunk)
                    new.write(chunk)
                new.flush()
                if sha256 and digest.hexdigest() != sha256:
                    raise OSError(f"content {sha256} is damaged")
                Path(new.name).replace(self.contents / digest.hexdigest())
            except BaseException:
                Path(new.name).unlink(missing_ok=True)
                raise
        return digest.hexdigest()

    def content(self, sha256: str) -> Path:
        """The file with a content.

        Raises:
            OSError: it is missing or damaged.
        """
        path = self.contents / sha256
        with path.open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != sha256:
                raise OSError(f"{path} is damaged")
        return path


class SecondPlace:
    """A prefix of a bucket."""

    def __init__(self, s3: Any, bucket: str, prefix: str, *, create_bucket: bool) -> None:
        self._s3, self._bucket, self._create_bucket = s3, bucket, create_bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    @classmethod
    def from_environment(cls) -> "SecondPlace | None":
        """The second place in the variables COPY_*; None without them."""
        if not (endpoint := os.environ.get("COPY_ENDPOINT")):
            return None
        s3 = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id=os.environ["COPY_ACCESS_KEY"],
            aws_secret_access_key=os.environ["COPY_SECRET_KEY"],
            region_name=os.environ.get("COPY_REGION") or "us-east-1",
            config=Config(s3={"addressing_style": "path"}, connect_timeout=10, retries={"max_attempts": 3}),
        )
        makes = bool(os.environ.get("COPY_MAKES_BUCKET"))
        return cls(s3, os.environ["COPY_BUCKET"], os.environ.get("COPY_PREFIX", ""), create_bucket=makes)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except STORE_ERRORS as error:
            where = f"{self._s3.meta.endpoint_url}, bucket {self._bucket}"
            raise SecondPlaceError(f"The second place ({where}) fails: {error}") from None

    def files(self) -> dict[str, int]:
        """Size of each file, by its name."""
        with self._errors():
            try:
                return self._listed()
            except ClientError as error:
                if error.response["Error"]["Code"] != "NoSuchBucket" or not self._create_bucket:
                    raise
            self._s3.create_bucket(Bucket=self._bucket)
            return self._listed()

    def _listed(self) -> dict[str, int]:
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
        entries = (entry for page in pages for entry in page.get("Contents", ()))
        return {entry["Key"].removeprefix(self._prefix): entry["Size"] for entry in entries}

    def send(self, name: str, path: Path) -> None:
        """Upload a file."""
        with self._errors():
            self._s3.upload_file(str(path), self._bucket, self._prefix + name)

    def chunks(self, name: str) -> Iterator[bytes]:
        """The content of a file."""
        with self._errors():
            yield from self._s3.get_object(Bucket=self._bucket, Key=self._prefix + name)["Body"].iter_chunks(CHUNK)

    def read(self, name: str) -> Copy:
        """One copy."""
        copy: Copy = json.loads(b"".join(self.chunks(f"copies/{name}.json")))
        return copy

    def delete(self, name: str) -> None:
        """Delete a file."""
        with self._errors():
            self._s3.delete_object(Bucket=self._bucket, Key=self._prefix + name)


def nights_of(files: Mapping[str, int]) -> list[str]:
    """Names of the complete copies among the files of a place, in order."""
    names = (name.removeprefix("copies/").removesuffix(".json") for name in files if name.startswith("copies/"))
    return in_order(name for name in names if f"rows-{name}.dump" in files)


def describe(files: Mapping[str, int], read: Callable[[str], Copy]) -> dict[str, list[int]]:
    """Each copy of a place: size of rows, number of files, total size, number of missing files."""
    found = {}
    for name in nights_of(files):
        copy = read(name)
        contents, rows = contents_of(copy), files[f"rows-{name}.dump"]
        entries = [entry for objects in copy.values() for entry in objects.values()]
        size = rows + sum(files.get(f"contents/{one}", 0) for one in contents)
        missing = sum(not one["sha256"] or f"contents/{one['sha256']}" not in files for one in entries)
        found[name] = [rows, len(entries), size, missing]
    return found


def save(copies: Copies, name: str, sources: Sequence[Source], keep: str = "") -> int:
    """Copy what changed since the newest copy; returns the number of files that could not be read."""
    before = copies.newest()
    named = {FORGE, *(source.name for source in sources)}
    # A copy of some buckets still lists the others.
    copy: Copy = {bucket: objects for bucket, objects in before.items() if bucket not in named}
    errors = 0
    for source in sources:
        known, objects = before.get(source.name, {}), copy.setdefault(source.name, {})
        try:
            now = source.listed()
        except ForgeError as error:
            print(f"{source.name}: {error}", file=sys.stderr)
            errors += 1
            continue
        for key, (etag, _) in now.items():
            entry = known.get(key)
            if entry is not None and entry["etag"] == etag and copies.has(entry):
                objects[key] = entry
        new = now.keys() - objects.keys()
        progress = Progress(source.name, sum(now[key][1] for key in new))
        fetched = 0
        for key in sorted(new):
            etag, size = now[key]
            try:
                objects[key] = {"etag": etag, "sha256": copies.store(source.chunks(key))}
                fetched += 1
            except STORE_ERRORS as error:
                print(f"{source.name}/{key}: {error}", file=sys.stderr)
                objects[key] = {"etag": etag, "sha256": ""}
                errors += 1
            progress.add(size)
        if isinstance(source, Forge):
            source.release_snapshot()
        print(f"{source.name}: {fetched} objects fetched, {len(objects)} in the copy", flush=True)
    copies.write(name, copy)
    copies.prune(keep or name)
    return errors


def copy_out(copies: Copies, place: SecondPlace, newest: str) -> int:
    """Copy `newest`, and each night that it lacks, to the second place, and delete the oldest there.

    Returns the number of damaged contents.

    Raises:
        SecondPlaceError: the second place does not answer, or refuses.
    """
    there, errors = place.files(), 0
    for name in filter(is_night, copies.complete()):
        if name in nights_of(there) and name != newest:
            continue
        here = copies.files()
        missing = [one for one in sorted(contents_of(copies.read(name))) if f"contents/{one}" not in there]
        progress = Progress(f"{name} to the second place", sum(here.get(f"contents/{one}", 0) for one in missing))
        for sha256 in missing:
            try:
                path = copies.content(sha256)
            except OSError as error:
                print(f"{name}: {error}", file=sys.stderr)
                errors += 1
                continue
            place.send(f"contents/{sha256}", path)
            there[f"contents/{sha256}"] = path.stat().st_size
            progress.add(path.stat().st_size)
        # The list is last: the night exists once it is there.
        for path, called in ((copies.rows(name), ""), (copies.lists / f"{name}.json", "copies/")):
            place.send(called + path.name, path)
            there[called + path.name] = path.stat().st_size
        print(f"{name}: {len(missing)} contents sent to the second place", flush=True)
    nights = nights_of(there)
    if old := nights[:-NIGHTS_KEPT]:
        gone = [f"copies/{name}.json" for name in old] + [f"rows-{name}.dump" for name in old]
        used = {f"contents/{one}" for name in nights[-NIGHTS_KEPT:] for one in contents_of(place.read(name))}
        for name in [*gone, *(name for name in there if name.startswith("contents/") and name not in used)]:
            place.delete(name)
    return errors


def fetch(copies: Copies, place: SecondPlace | None, name: str) -> None:
    """Fetch what the volume lacks of a night from the second place.

    Raises:
        SecondPlaceError: there is something to fetch, and the second place refuses.
    """
    there: Mapping[str, int] = place.files() if place else {}
    if place and not copies.rows(name).exists():
        new = copies.folder / ".rows-fetched"
        with new.open("wb") as stream:
            for chunk in place.chunks(f"rows-{name}.dump"):
                stream.write(chunk)
        new.replace(copies.rows(name))
    copy = copies.read(name) if name in copies.names() else place.read(name) if place else {}
    missing = []
    for sha256 in sorted(contents_of(copy)):
        try:
            copies.content(sha256)
        except OSError as error:
            if f"contents/{sha256}" in there:
                missing.append(sha256)
            else:
                print(f"{name}: {error}", file=sys.stderr)
    if place and missing:
        progress = Progress("from the second place", sum(there[f"contents/{one}"] for one in missing))
        for sha256 in missing:
            try:
                copies.store(place.chunks(f"contents/{sha256}"), sha256)
            except OSError as error:
                print(f"{name}: at the second place, {error}", file=sys.stderr)
            progress.add(there[f"contents/{sha256}"])
        print(f"{name}: {len(missing)} contents fetched from the second place", flush=True)
    copies.write(name, copy)


def restore(s3: Any, copies: Copies, name: str, buckets: list[str]) -> int:
    """Restore the buckets and the forge; returns the number of files that could not be restored."""
    copy = copies.read(name)
    errors = restore_forge(copies, name, copy.get(FORGE, {}))
    there = {one["Name"] for one in s3.list_buckets()["Buckets"]}
    for bucket in buckets:
        if bucket not in there:
            s3.create_bucket(Bucket=bucket)
        now, then = Bucket(s3, bucket).listed(), copy.get(bucket, {})
        sent = removed = 0
        for key in sorted(now.keys() | then.keys()):
            entry = then.get(key)
            try:
                if entry is None:
                    s3.delete_object(Bucket=bucket, Key=key)
                    removed += 1
                elif not entry["sha256"]:
                    raise OSError("was not read then, and is unchanged")
                elif now.get(key, ("", 0))[0] != entry["etag"]:
                    s3.upload_file(str(copies.content(entry["sha256"])), bucket, key)
                    sent += 1
            except STORE_ERRORS as error:
                print(f"{bucket}/{key}: {error}", file=sys.stderr)
                errors += 1
        print(f"{bucket}: {sent} objects sent, {removed} removed, to restore {name}", flush=True)
    return errors


def restore_forge(copies: Copies, name: str, then: Mapping[str, Mapping[str, str]]) -> int:
    """Send the forge the files for its next start; returns the number of files that could not be restored."""
    forge = Forge.from_environment()
    if forge is None or not then:
        if forge is not None or then:
            reason = f"{name} does not have it, and it is unchanged" if forge else "there is none"
            print(f"{FORGE}: not restored: {reason}", flush=True)
        return 0
    files, errors = {}, 0
    for key, entry in sorted(then.items()):
        try:
            if not entry["sha256"]:
                raise OSError("was not read then")
            files[key] = copies.content(entry["sha256"])
        except OSError as error:
            print(f"{FORGE}/{key}: {error}", file=sys.stderr)
            errors += 1
    try:
        if not errors:
            forge.restore(files)
    except ForgeError as error:
        print(f"{FORGE}: {error}", file=sys.stderr)
        errors = 1
    if errors:
        print(f"{FORGE}: not restored, and unchanged", flush=True)
    else:
        print(f"{FORGE}: {len(files)} files of {name} sent: its next start restores them", flush=True)
        write_result({FORGE: True})
    return errors


def sources(s3: Any, buckets: Iterable[str]) -> list[Source]:
    """The sources of a copy."""
    forge = Forge.from_environment()
    return [*(Bucket(s3, bucket) for bucket in buckets), *([forge] if forge else [])]


def run_save(s3: Any, copies: Copies, name: str, buckets: list[str]) -> int:
    """`save`; the exit status."""
    errors = save(copies, name, sources(s3, buckets))
    place = SecondPlace.from_environment()
    result: dict[str, Any] = {"night": name, "unread": errors, "copied": place is not None}
    if place is not None:
        try:
            errors += copy_out(copies, place, name)
        except SecondPlaceError as error:
            print(f"{error}\nThe night {name} is in the backup's volume alone.", file=sys.stderr)
            result["copied"] = False
            errors += 1
    write_result(result)
    return 1 if errors else 0


def run_list(copies: Copies) -> int:
    """`list`; the exit status."""
    result: dict[str, Any] = {"cluster": describe(copies.files(), copies.read)}
    if place := SecondPlace.from_environment():
        try:
            result["second"] = describe(place.files(), place.read)
        except SecondPlaceError as error:
            result["fault"] = str(error)[:500]
    write_result(result)
    return 0


def run_prepare(s3: Any, copies: Copies, before: str, name: str, buckets: list[str]) -> int:
    """`prepare`; the exit status. Prints the name of the night last."""
    place = SecondPlace.from_environment()
    known = copies.complete()
    if place is not None and name not in known:
        known = in_order({*known, *nights_of(place.files())})
    nights = [one for one in known if is_night(one)]
    name = name or (nights[-1] if nights else "")
    if name not in known:
        message = f"There is no night {name or 'yet'} with rows and files. Nights: {', '.join(known) or 'none'}"
        print(message, file=sys.stderr)
        return 1
    try:
        fetch(copies, place, name)
    except SecondPlaceError as error:
        if name not in copies.complete():
            raise
        print(error, file=sys.stderr)
    there = {one["Name"] for one in s3.list_buckets()["Buckets"]}
    if save(copies, before, sources(s3, [bucket for bucket in buckets if bucket in there]), keep=name):
        print("Nothing was restored: the current state could not be saved first.", file=sys.stderr)
        return 1
    print(f"Restoring {name}; the current state is saved as {before}", flush=True)
    Path(tempfile.gettempdir(), "night").write_text(name)
    write_result({"night": name, "before": before})
    return 0


def main() -> int:
    """Entry point; the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=["save", "list", "prepare", "restore"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--bucket", action="append")
    arguments = parser.parse_args()
    buckets: list[str] = arguments.bucket or BUCKETS
    copies = Copies(arguments.folder)
    if arguments.action == "list":
        return run_list(copies)
    s3 = boto3.client("s3", endpoint_url=os.environ["S3_ENDPOINT"])
    try:
        with copies.locked():
            match arguments.action, *arguments.names:
                case ["save", night]:
                    return run_save(s3, copies, night, buckets)
                case ["prepare", before, *night]:
                    return run_prepare(s3, copies, before, night[0] if night else "", buckets)
                case ["restore", night]:
                    return 1 if restore(s3, copies, night, buckets) else 0
                case _:
                    parser.error(f"wrong names for {arguments.action}")
    except SecondPlaceError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
