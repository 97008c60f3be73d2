"""The bill of materials, CycloneDX 1.6: every artifact with its digest, Go modules, Debian and Python packages."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from bundle.go import modules

if TYPE_CHECKING:
    from pathlib import Path

    from bundle.store import Artifact, Inventory

KINDS = {"program": ComponentType.APPLICATION, "image": ComponentType.CONTAINER, "manifest": ComponentType.FILE}


def render(inventory: Inventory, root: Path) -> str:
    """The document: the same inventory gives the same text."""
    components: dict[str, Component] = {}
    libraries: dict[str, Component] = {}
    bom = Bom(serial_number=uuid5(NAMESPACE_URL, inventory.model_dump_json(exclude={"sbom_sha256"})))
    bom.metadata.timestamp = None  # type: ignore[assignment]
    for artifact in inventory.artifacts:
        component = Component(
            name=artifact.name,
            version=artifact.version,
            type=KINDS[artifact.kind],
            bom_ref=artifact.path,
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=artifact.sha256)],
        )
        bom.components.add(component)
        components[artifact.path] = component
    for artifact in inventory.artifacts:
        urls = _contents(artifact, root)
        for url in urls:
            if (reference := str(url)) not in libraries:
                libraries[reference] = Component(
                    name="/".join(filter(None, (url.namespace, url.name))) if url.type == "golang" else url.name,
                    version=url.version, type=ComponentType.LIBRARY, bom_ref=reference, purl=url,
                )  # fmt: skip
        parts = [components[path] for path in artifact.programs if path in components]
        bom.register_dependency(components[artifact.path], [*parts, *(libraries[str(url)] for url in urls)])
    for library in libraries.values():
        bom.components.add(library)
    return JsonV1Dot6(bom).output_as_string(indent=1) + "\n"


def _contents(artifact: Artifact, root: Path) -> list[PackageURL]:
    if artifact.kind == "program":
        return [
            PackageURL("golang", *name.rpartition("/")[::2], version) for name, version in modules(root / artifact.path)
        ]
    if artifact.kind == "manifest":
        module, _, version = artifact.source.partition("@")
        return [PackageURL("golang", *module.rpartition("/")[::2], version)]
    urls = [PackageURL("deb", "debian", name, version) for name, version in artifact.packages.items()]
    return urls + [PackageURL("pypi", None, name, version) for name, version in artifact.wheels.items()]
