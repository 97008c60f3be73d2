"""Which models the cluster has: a ConfigMap that only the platform's own may change."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from services.pipelines import settings
from services.pipelines.cluster import CONFIGMAPS, Cluster
from services.pipelines.errors import DecidedError

if TYPE_CHECKING:
    from services.pipelines.settings import Known

NAMESPACE, NAME, FILE = "platform", "pipelines-models", "pipelines.json"
MODELS = "MODELS"
"""Environment variable: a file with what the cluster said. All processes of one run go by the same models."""


def text() -> str:
    """What the cluster says of its models at this moment.

    Raises:
        PipelineError: the Kubernetes API does not answer.
        DecidedError: there is no such ConfigMap.
    """
    found = Cluster().find(CONFIGMAPS, NAMESPACE, NAME)
    if found is None:
        raise DecidedError(f"the cluster has no ConfigMap {NAMESPACE}/{NAME}: `lab up` makes it")
    return str(found.get("data", {}).get(FILE, ""))


def known() -> list[Known]:
    """All models, as they were at the start.

    Raises:
        DecidedError: the text is none that `lab model sync` writes.
    """
    return settings.known(Path(os.environ[MODELS]).read_text(encoding="utf-8"))
