"""The bill of materials: CycloneDX 1.6, every artifact with its digest, every Go module in a program."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bundle.store import Inventory

KINDS = {"program": ComponentType.APPLICATION, "image": ComponentType.CONTAINER}


def render(inventory: Inventory, root: Path, modules: Callable[[Path], list[tuple[str, str]]]) -> str:
    """The document; the same inventory gives the same text, but for its time."""
    libraries: dict[tuple[str, str], Component] = {}
    bom = Bom(serial_number=uuid5(NAMESPACE_URL, inventory.model_dump_json()))
    for artifact in inventory.artifacts:
        component = Component(
            name=artifact.name,
            version=artifact.version,
            type=KINDS[artifact.kind],
            bom_ref=artifact.path,
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=artifact.sha256)],
        )
        bom.components.add(component)
        parts = modules(root / artifact.path) if artifact.kind == "program" else []
        for name, version in parts:
            if (name, version) not in libraries:
                url = PackageURL("golang", *name.rpartition("/")[::2], version)
                libraries[name, version] = Component(
                    name=name, version=version, type=ComponentType.LIBRARY, bom_ref=str(url), purl=url
                )
        bom.register_dependency(component, [libraries[part] for part in parts])
    for library in libraries.values():
        bom.components.add(library)
    return JsonV1Dot6(bom).output_as_string(indent=1) + "\n"
