"""How a checkpoint is written: JSON, plain or compressed, as the Pulumi CLI's file and bucket backends do it."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import zlib
from typing import Any

from engine.checkpoint import parse
from engine.errors import EngineError
from engine.integrity import check_written

Json = dict[str, Any]
ENDINGS = (".json", ".json.gz", ".json.zst")
GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def encode(project: str, stack: str, deployment: Json, *, check: bool = True) -> bytes:
    """The checkpoint as it is written; raises StateIntegrityError for a damaged one."""
    if check:
        check_written((deployment.get("deployment") or {}).get("resources") or ())
    checkpoint: Json = {"stack": f"organization/{project}/{stack}"}
    if deployment.get("deployment"):
        checkpoint["latest"] = deployment["deployment"]
    document: Json = {"version": deployment.get("version", 3)}
    if features := deployment.get("features"):
        document["features"] = features
    document["checkpoint"] = checkpoint
    return compress(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode())


def decode(data: bytes, place: str) -> Json:
    document = parse_json(data, place)
    version = document.get("version", 0)
    checkpoint = document.get("checkpoint") or {}
    if not isinstance(checkpoint, dict) or not isinstance(version, int):
        raise _damaged(place, "it is not a checkpoint.")
    # The CLI writes version 0 for a stack that was never updated; with resources, 0 to 2 are formats of before 2019.
    if version not in {3, 4} and (version != 0 or "latest" in document or checkpoint.get("latest")):
        raise EngineError(
            f"'{place}' has the checkpoint format {version}, which is not supported.",
            remedy="Bring it up to date with the Pulumi CLI: `pulumi stack export | pulumi stack import`.",
        )
    deployment: Json = {"version": version or 3, "deployment": checkpoint.get("latest") or {}}
    try:
        parse(deployment)
    except EngineError as error:
        raise _damaged(place, str(error)) from None
    if features := document.get("features"):
        deployment["features"] = features
    return deployment


def parse_json(data: bytes, place: str) -> Json:
    if data.startswith(_ZSTD_MAGIC):
        raise EngineError(
            f"'{place}' is compressed with zstd, which is not supported.",
            remedy="Write it plain: run any update with the Pulumi CLI and PULUMI_DIY_BACKEND_ZSTD unset.",
        )
    try:
        text = gzip.decompress(data) if data.startswith(GZIP_MAGIC) else data
        document = json.loads(text, parse_constant=_refuse_constant)
        if _SURROGATE.search(text):
            # Unpaired surrogates have no UTF-8 form, and Go replaces them too.
            document = json.loads(json.dumps(document, ensure_ascii=False).encode(errors="replace"))
        if isinstance(document, dict):
            return document
        problem = "it is not a JSON object"
    except RecursionError:
        problem = "it is nested too deeply"
    except (ValueError, OSError, EOFError, zlib.error) as error:
        problem = str(error)
    raise _damaged(place, f"{problem}.")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _damaged(place: str, problem: str) -> EngineError:
    return EngineError(
        f"'{place}' is damaged: {problem}",
        remedy="Restore it from the copy next to it (.bak) or from .pulumi/backups.",
    )


def compress(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0) if flag("PULUMI_DIY_BACKEND_GZIP") else data


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def flag(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in {"1", "true"}
