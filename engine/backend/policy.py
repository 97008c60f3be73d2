"""The rights on a bucket that updates of single stacks need, as an IAM policy."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from engine.backend.base import META
from engine.backend.checkpoints import ENDINGS
from engine.errors import EngineError

_LIST = ["s3:ListBucket"]
_READ = ["s3:GetObject"]
_WRITE = ["s3:PutObject", "s3:DeleteObject"]


def policy(url: str, project: str, stacks: list[str], *, read_only: bool = False) -> dict[str, Any]:
    """An IAM policy for keys that read and update these stacks of a bucket and no others; names may have `*` in them.

    With `read_only`, such keys can preview and save plans, but not update. Everybody sees the names of all stacks.
    Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html

    Raises:
        EngineError: the backend is no bucket.
    """
    parts = urlsplit(url)
    if parts.scheme != "s3":
        raise EngineError(
            f"The backend '{url}' is no S3 bucket, so there is no policy for it.",
            remedy="Set PULUMI_BACKEND_URL or `backend.url` in Pulumi.yaml to s3://<bucket>[/<prefix>].",
        )
    bucket = f"arn:aws:s3:::{parts.netloc}"
    root = "/".join(filter(None, [bucket, parts.path.strip("/")]))
    state = [f"{root}/{key}" for stack in stacks for key in _keys(project, stack)]
    plans = [f"{root}/.pulumi/plans/{project}/{stack}/*" for stack in stacks]
    allowed = [
        (_LIST, [bucket]),
        (_READ, [f"{root}/{META}", *state, *plans]),
        (_WRITE, plans if read_only else [*state, *plans]),
    ]
    return {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": actions, "Resource": keys} for actions, keys in allowed],
    }


def _keys(project: str, stack: str) -> list[str]:
    """All but plans. No `stack.*`: names may have dots, and this one would be the beginning of another's."""
    checkpoint = f".pulumi/stacks/{project}/{stack}"
    return [
        *(f"{checkpoint}{ending}{former}" for ending in ENDINGS for former in ("", ".bak")),
        f"{checkpoint}.pulumi-tags",
        f"{checkpoint}.journal/*",
        *(f".pulumi/{folder}/{project}/{stack}/*" for folder in ("history", "backups", "locks/organization")),
    ]
