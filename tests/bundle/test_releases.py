"""Programs from a publisher's releases: a web server on this machine, with right and with wrong checksums."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from tests.bundle.conftest import HELLO, Copy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAM = "bin/hello/v1.2.3/hello"
CONTENT = b"#!/bin/sh\necho released\n"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass


def released(copy: Copy, url: str, checksum: str) -> None:
    copy.manifest(f"{HELLO}    release:\n      url: {url}\n      checksum: {checksum}\n")


def archive(path: Path, members: dict[str, bytes]) -> str:
    with tarfile.open(path, "w:gz") as opened:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            opened.addfile(entry, io.BytesIO(content))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_program_is_taken_from_its_publisher_and_the_image_is_made_of_it(
    copy: Copy, site: Path, address: str
) -> None:
    released(copy, address + "/{version}/{program}-{arch}", address + "/{version}/{program}.sha256")
    (site / "v1.2.3").mkdir()
    (site / f"v1.2.3/hello-{copy.architecture}").write_bytes(CONTENT)
    (site / "v1.2.3/hello.sha256").write_text(hashlib.sha256(CONTENT).hexdigest() + "\n")
    copy.build("--cache", copy.tree / "no-cache")
    assert (copy.bundle / PROGRAM).read_bytes() == CONTENT
    assert (copy.bundle / PROGRAM).stat().st_mode & 0o111
    program, image = copy.inventory.artifacts
    assert program.source == f"{address}/v1.2.3/hello-{copy.architecture}"
    assert image.programs == [PROGRAM]
    assert copy.run("verify").returncode == 0


def test_programs_come_out_of_an_archive_with_a_list_of_checksums(copy: Copy, site: Path, address: str) -> None:
    released(copy, address + "/hello-{number}.tar.gz", address + "/SHA256SUMS")
    digest = archive(site / "hello-1.2.3.tar.gz", {"hello-1.2.3/README": b"", "hello-1.2.3/bin/hello": CONTENT})
    (site / "SHA256SUMS").write_text(f"{'0' * 64}  other.tar.gz\n{digest}  ./hello-1.2.3.tar.gz\n")
    copy.build("--cache", copy.tree / "no-cache")
    assert (copy.bundle / PROGRAM).read_bytes() == CONTENT
    assert copy.run("verify").returncode == 0


@pytest.mark.parametrize("name", ["hello", "hello.tar.gz"])
def test_a_wrong_checksum_is_refused_and_nothing_is_kept(copy: Copy, site: Path, address: str, name: str) -> None:
    url = f"{address}/{name}".replace("hello", "{program}" if name == "hello" else "hello")
    released(copy, url, url + ".sha256")
    archive(site / "hello.tar.gz", {"hello": CONTENT})
    (site / "hello").write_bytes(CONTENT)
    (site / f"{name}.sha256").write_text("0" * 64)
    refused = copy.run("build")
    found = hashlib.sha256((site / name).read_bytes()).hexdigest()
    assert refused.returncode == 1
    assert f"{address}/{name} has SHA-256 {found}, but its publisher's checksum is {'0' * 64}" in refused.stderr
    assert "--no-releases" in refused.stderr
    assert not (copy.bundle / PROGRAM).exists()
    assert copy.inventory.artifacts == []


def test_an_archive_without_the_program_is_refused(copy: Copy, site: Path, address: str) -> None:
    released(copy, address + "/hello.tar.gz", address + "/hello.tar.gz.sha256")
    (site / "hello.tar.gz.sha256").write_text(archive(site / "hello.tar.gz", {"goodbye": CONTENT}))
    refused = copy.run("build")
    assert refused.returncode == 1
    assert f"{address}/hello.tar.gz has no hello" in refused.stderr


@pytest.mark.parametrize("checksum", ["hello.sha256", "list"])
def test_what_a_publisher_does_not_have_is_built(copy: Copy, site: Path, address: str, checksum: str) -> None:
    """The release is not there (yet), or its list of checksums does not name it."""
    released(copy, address + "/{program}", f"{address}/{checksum}")
    (site / "list").write_text(f"{'0' * 64}  other\n")
    output = copy.build()
    assert "because its release is not available" in output
    assert copy.inventory.artifacts[0].source == "built"


def test_a_publisher_that_cannot_be_reached_is_asked_once_and_the_rest_is_built(copy: Copy) -> None:
    released(copy, "http://127.0.0.1:9/{program}", "http://127.0.0.1:9/{program}.sha256")
    assert "Connection refused" in copy.build()
    assert copy.inventory.artifacts[0].source == "built"


def test_without_releases_no_publisher_is_asked(copy: Copy) -> None:
    released(copy, "http://127.0.0.1:9/{program}", "http://127.0.0.1:9/{program}.sha256")
    assert "127.0.0.1" not in copy.build("--no-releases")
