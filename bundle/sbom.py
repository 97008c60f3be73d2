"""The bill of materials, CycloneDX 1.6: every artifact with its digest, Go modules, Debian and Python packages."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bundle.store import Artifact, Inventory

KINDS = {
    "program": ComponentType.APPLICATION,
    "image": ComponentType.CONTAINER,
    "manifest": ComponentType.FILE,
    "unit": ComponentType.FILE,
}


def render(inventory: Inventory, modules: Mapping[str, Sequence[tuple[str, str]]]) -> str:
    """The document: the same inventory gives the same text. `modules` are the Go modules of each program, by path."""
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
        urls = _contents(artifact, modules)
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


def read_modules(document: str) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """The Go modules of each program in a document that `render` wrote, by the program's path and SHA-256."""
    bom = json.loads(document)
    digests = {one["bom-ref"]: one["hashes"][0]["content"] for one in bom["components"] if "hashes" in one}
    urls = {one["bom-ref"]: PackageURL.from_string(one["purl"]) for one in bom["components"] if "purl" in one}
    found = {}
    for entry in bom["dependencies"]:
        if (path := entry["ref"]) in digests:
            modules = [urls[one] for one in entry.get("dependsOn", ()) if one in urls]
            found[path, digests[path]] = [
                ("/".join(filter(None, (url.namespace, url.name))), url.version or "") for url in modules
            ]
    return found


def _contents(artifact: Artifact, modules: Mapping[str, Sequence[tuple[str, str]]]) -> list[PackageURL]:
    if artifact.kind == "program":
        urls = [PackageURL("golang", *name.rpartition("/")[::2], version) for name, version in modules[artifact.path]]
        npm = [library.rpartition("@")[::2] for library in artifact.libraries]
        return urls + [PackageURL("npm", *name.rpartition("/")[::2], version) for name, version in npm]
    if artifact.kind in ("manifest", "unit"):
        module, _, version = artifact.source.partition("@")
        return [PackageURL("golang", *module.rpartition("/")[::2], version)]
    urls = [PackageURL("deb", "debian", name, version) for name, version in artifact.packages.items()]
    return urls + [PackageURL("pypi", None, name, version) for name, version in artifact.wheels.items()]
