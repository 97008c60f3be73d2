"""The code of a model, packed from the work tree and put on the stack's object store, where training takes it from."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cli.errors import LabError

if TYPE_CHECKING:
    from pathlib import Path

    from cli.workloads import Platform
    from services.pipelines.settings import Known
    from services.training.settings import Model

BUCKET = "code"
REGION = "us-east-1"
STAGES = "stages.yaml"
"""File in a model's folder that is no code: it says which versions are served."""


@dataclass(frozen=True)
class Code:
    """An archive, and where it came from."""

    digest: str
    """SHA-256 of the content."""
    content: bytes
    files: list[str]
    commit: str
    """The commit that is checked out; `none` without a Git repository."""
    dirty: bool
    """Whether the files differ from that commit."""
    version: str
    """The commit or, where the files differ from it, a digest of the Python files, by which a later commit is found."""


def settings_of(folder: Path) -> Model:
    """The settings of the model in a folder.

    Raises:
        LabError: they are not valid; the text has all faults, those of the gate too.
    """
    import yaml

    from services.promotion.errors import InvalidError
    from services.promotion.gates import parsed
    from services.training.errors import TrainingError
    from services.training.settings import FILE, read

    remedy = "docs/how-to/own-model.md has all that can stand there"
    try:
        model = read(folder)
        parsed(yaml.safe_dump(model.gate), f"{folder.name}/{FILE}: gate")
    except (TrainingError, InvalidError) as error:
        raise LabError(str(error), remedy=remedy) from None
    return model


def pipeline_of(folder: Path) -> Known:
    """The pipeline of the model in a folder, with what training its variants takes.

    Raises:
        LabError: the settings of one or the other are not valid.
    """
    from pydantic import ValidationError

    from services.pipelines.errors import DecidedError
    from services.pipelines.settings import FILE, USUAL, Known, Takes, faults, read

    model = settings_of(folder)
    takes = {USUAL: Takes(**model.resources(None).model_dump())}
    for name, variant in model.variants.items():
        takes[name] = Takes(**model.resources(name).model_dump(), workers=variant.workers)
    try:
        return Known(
            name=model.name, about=model.about, pipeline=read(folder), ingests=_ingests(folder), takes=takes
        )  # fmt: skip
    except DecidedError as error:
        reason = str(error)
    except ValidationError as error:
        reason = f"{folder.name}/{FILE}: {faults(error)}"
    raise LabError(reason, remedy="docs/how-to/pipelines.md has all that can stand there")


def _ingests(folder: Path) -> bool:
    """Whether a model's module has a function `data`; where it cannot be read, training will say so."""
    import ast

    from services.training.settings import module_name

    try:
        module = ast.parse((folder / f"{module_name(folder.name)}.py").read_bytes())
    except (OSError, SyntaxError, ValueError):
        return True
    return any(isinstance(one, ast.FunctionDef) and one.name == "data" for one in module.body)


def pack(folder: Path) -> Code:
    """The code in a model's folder: what Git tracks of it, or would track.

    Raises:
        LabError: something in it may not be packed, or a file is missing that the model needs.
    """
    from services.training import archive
    from services.training.errors import TrainingError
    from services.training.settings import module_name

    names = _names(folder)
    if (module := f"{module_name(folder.name)}.py") not in names:
        raise LabError(f"{folder} has no {module}", remedy="`lab model new` makes a model with one")
    try:
        digest, content = archive.pack(folder, names)
    except TrainingError as error:
        remedy = "take it out of the folder, or name it in .gitignore; nothing was sent"
        raise LabError(str(error), remedy=remedy) from None
    commit = _git(folder, "rev-parse", "HEAD").strip() or "none"
    dirty = commit == "none" or bool(_git(folder, "status", "--porcelain", "--", ".", f":(exclude){STAGES}"))
    return Code(digest, content, names, commit, dirty, _digest(folder, names) if dirty else commit)


def _names(folder: Path) -> list[str]:
    """Paths in a folder; without those that Git ignores or, without Git, that Python compiles."""
    listed = _git(folder, "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", ".").split("\0")
    if not any(listed):
        listed = [str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()]
    # What was deleted and not committed is still listed. A promotion changes no code.
    return sorted(
        {name for name in listed if name not in {"", STAGES} and (folder / name).exists() and "__pycache__" not in name}
    )


def _digest(folder: Path, names: list[str]) -> str:
    """As `lab dora` finds it in the history: services/delivery/git.py."""
    digest = hashlib.sha256()
    for name in names:
        if name.endswith(".py") and "/" not in name:
            digest.update(name.encode() + b"\0" + (folder / name).read_bytes())
    return f"sha256:{digest.hexdigest()}"


def _git(folder: Path, *arguments: str) -> str:
    """What Git says; nothing where there is no Git, or no repository."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=False,
        )
    except FileNotFoundError:
        return ""
    return done.stdout if done.returncode == 0 else ""


def put(platform: Platform, code: Code) -> bool:
    """Put an archive on the stack's object store, with the key `code`; whether it was not there already.

    Raises:
        LabError: the store does not answer, or refuses.
    """
    login = platform.credentials.get(BUCKET)
    if login is None:
        raise LabError("the stack has no key for the bucket `code`", remedy="it is older than that: `lab up` makes it")
    if _asked(platform, login, "HEAD", code.digest) == 200:
        return False
    status = _asked(platform, login, "PUT", code.digest, code.content)
    if status != 200:
        remedy = "see `lab status` and `lab logs artifacts`; where the bucket is missing, `lab up` makes it"
        raise LabError(f"the object store does not take the code: it answers {status}", remedy=remedy)
    return True


def _asked(platform: Platform, login: object, method: str, digest: str, content: bytes = b"") -> int:
    """The status that the object store answers about an archive, through the gateway."""
    import urllib3
    from botocore.auth import S3SigV4Auth  # type: ignore[import-untyped]
    from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
    from botocore.credentials import Credentials  # type: ignore[import-untyped]

    assert isinstance(login, dict)
    path = f"/{BUCKET}/{digest}.tar"
    request = AWSRequest(method=method, url=f"{platform.url('artifacts')}{path}", data=content)
    S3SigV4Auth(Credentials(login["accessKey"], login["secretKey"]), "s3", REGION).add_auth(request)
    pool = platform.connect("artifacts")
    headers = {**(pool.headers or {}), **dict(request.headers.items())}
    try:
        return pool.request(method, path, body=content or None, headers=headers).status
    except urllib3.exceptions.HTTPError as error:
        remedy = "check `lab status`; access.apiFrom must include this machine's address"
        raise LabError(f"{platform.url('artifacts')} does not answer: {error}", remedy=remedy) from None
