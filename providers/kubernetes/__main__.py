"""Start the provider: ``python -m providers.kubernetes [engine address]``."""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

from providers.framework import Package
from providers.framework.service import serve
from providers.kubernetes.client import CONFIG, Cluster, config_differences
from providers.kubernetes.manifest import DECODE, Manifest

_RENDER: Final = "Render it to YAML first (`helm template`) and apply that with kubernetes:yaml:ConfigGroup."
_KUSTOMIZE: Final = "Render it first (`kubectl kustomize`) and apply that with kubernetes:yaml:ConfigGroup."
_VERSION_1: Final = "Use the class of the same name in pulumi_kubernetes.yaml (version 1), which needs no plugin."
UNSUPPORTED: Final = {
    "kubernetes:helm.sh/v3:Release": _RENDER,
    "kubernetes:helm.sh/v4:Chart": _RENDER,
    "kubernetes:helm:template": _RENDER,
    "kubernetes:kustomize/v2:Directory": _KUSTOMIZE,
    "kubernetes:kustomize:directory": _KUSTOMIZE,
    "kubernetes:yaml/v2:ConfigFile": _VERSION_1,
    "kubernetes:yaml/v2:ConfigGroup": _VERSION_1,
}
"""What the SDK can ask for and only the official plugin does, and what to do instead."""


def package() -> Package[Cluster]:
    """The provider. Its version is that of the SDK whose types it serves."""
    return Package(
        name="kubernetes",
        version=version("pulumi-kubernetes"),
        description="Kubernetes resources for machines without the official plugin",
        config=CONFIG,
        types=(),
        functions=(DECODE,),
        connect=Cluster,
        any_type=Manifest,
        config_differences=config_differences,
        unsupported=UNSUPPORTED,
    )


if __name__ == "__main__":
    serve(package())
