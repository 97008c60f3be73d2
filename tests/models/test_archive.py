"""The archive of a model's code: the same files give the same bytes; secrets and large files are refused."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from typing import TYPE_CHECKING

import pytest

from services.training.archive import ARCHIVE_BYTES, FILE_BYTES, pack, unpack
from services.training.errors import TrainingError

if TYPE_CHECKING:
    from pathlib import Path

# Put together here, so that no secret stands in this file.
MARK = "-" * 5
SECRETS = {
    "a private key": f"KEY = '''{MARK}BEGIN RSA PRIVATE KEY{MARK}'''",
    "an AWS key": f"'{'AKIA'}{'ABCD' * 4}'",
    "a forge token": f"'{'ghp'}_{'a1B2' * 9}'",
    "a token": f"'eyJ{'hbGciOiJSUzI1NiIs' * 2}.eyJ{'hbGciOiJSUzI1NiIs' * 2}.x'",
    "a password in an address": f"'postgresql://mlflow:{'hunter2'}@store/db'",
    "a password": f"{'password'} = '{'correct horse'.replace(' ', '-')}'",
}


def written(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_the_same_files_give_the_same_archive_whenever_and_whoever_has_written_them(tmp_path: Path) -> None:
    files = {
        "model.yaml": "name: wines\n",
        "wines.py": "x = 1\n",
        "parts/äöü.py": "",
        f"{'long/' * 30}name.py": "y = 2\n",
    }
    one, other = (written(tmp_path / place / "wines", files) for place in ("one", "other"))
    for path in other.rglob("*"):
        if path.is_file():
            os.utime(path, (1, 1))
            path.chmod(0o755)
    first, second = pack(one, files), pack(other, reversed(files))
    assert first == second
    assert first[0] == hashlib.sha256(first[1]).hexdigest()
    (other / "wines.py").write_text("x = 2\n")
    assert pack(other, files)[0] != first[0]


def test_what_is_unpacked_is_what_was_packed(tmp_path: Path) -> None:
    files = {"model.yaml": "name: wines\n", "parts/wines.py": "x = 1\n"}
    digest, content = pack(written(tmp_path / "wines", files), files)
    unpack(content, digest, tmp_path / "there")
    found = {str(path.relative_to(tmp_path / "there")) for path in (tmp_path / "there").rglob("*") if path.is_file()}
    assert found == files.keys()
    assert (tmp_path / "there/parts/wines.py").read_text() == "x = 1\n"


def test_an_archive_that_was_changed_is_not_unpacked(tmp_path: Path) -> None:
    digest, content = pack(written(tmp_path / "wines", {"wines.py": "x = 1\n"}), ["wines.py"])
    with pytest.raises(TrainingError, match=f"the archive stored as {digest} has the SHA-256"):
        unpack(content.replace(b"x = 1", b"x = 2"), digest, tmp_path / "there")
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize("name", ["../outside.py", "/etc/passwd", "link"])
def test_an_archive_of_somebody_elses_making_writes_nothing_outside(tmp_path: Path, name: str) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        if name == "link":
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(entry)
    content = packed.getvalue()
    (tmp_path / "there").mkdir()
    with pytest.raises(TrainingError, match=f"contains {name}, not a file below its root"):
        unpack(content, hashlib.sha256(content).hexdigest(), tmp_path / "there")
    assert list(tmp_path.iterdir()) == [tmp_path / "there"]


@pytest.mark.parametrize("what", SECRETS)
def test_a_secret_in_a_file_is_not_packed(tmp_path: Path, what: str) -> None:
    folder = written(tmp_path / "wines", {"wines.py": f"import os\n{SECRETS[what]}\n"})
    with pytest.raises(TrainingError, match=rf"wines\.py seems to contain {what}") as refused:
        pack(folder, ["wines.py"])
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("name", [".env", "clouds.yaml", "keys/id_ed25519", "server.key", "credentials.json"])
def test_a_file_with_a_secrets_name_is_not_packed(tmp_path: Path, name: str) -> None:
    with pytest.raises(TrainingError, match=f"{name} has the name of a secret"):
        pack(written(tmp_path / "wines", {name: ""}), [name])


def test_code_that_reads_a_secret_from_where_it_belongs_is_packed(tmp_path: Path) -> None:
    text = 'import os\npassword = os.environ["PASSWORD"]\nurl = f"s3://{user}:{password}@host"\ntoken: str = ""\n'
    assert pack(written(tmp_path / "wines", {"wines.py": text}), ["wines.py"])


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    folder = written(tmp_path / "wines", {"rows.csv": "1" * (FILE_BYTES + 1), ".env": "", "wines.py": ""})
    (folder / "link.py").symlink_to("/etc/hostname")
    parts = {f"part{number}.bin": "0" * FILE_BYTES for number in range(ARCHIVE_BYTES // FILE_BYTES)}
    written(folder, parts)
    with pytest.raises(TrainingError) as refused:
        pack(folder, ["rows.csv", ".env", "link.py", "wines.py", *parts])
    for fault in (
        f"rows.csv has {FILE_BYTES + 1} bytes, more than {FILE_BYTES}", ".env has the name of a secret",
        "link.py is not a regular file", "the files have",
    ):  # fmt: skip
        assert fault in str(refused.value)
