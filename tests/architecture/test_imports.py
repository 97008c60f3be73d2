"""The product's packages import one way, downwards, and no modules import each other in a circle.

Every import counts: those of functions, which come when they run, and those for types alone too.
"""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAY_IMPORT: dict[str, set[str]] = {
    "terminal": set(),
    "protocol": set(),
    "kubeyaml": set(),
    "policies": set(),
    "services": set(),
    "engine": {"protocol"},
    "providers": {"protocol", "kubeyaml"},
    "infra": {"kubeyaml"},
    "devcloud": {"terminal"},
    # Its errors are the engine's, and it writes k8s/ with infra's manifests.
    "bundle": {"terminal", "engine", "infra"},
    "cli": {"terminal", "protocol", "engine", "providers", "infra", "devcloud", "bundle", "services"},
    "__main__": {"infra"},
}
"""What each package may import, the lower ones first."""
MOST_LINES = 700


def modules() -> dict[str, Path]:
    """Files by module name, of the program and of all packages beside it but the tests."""
    packages = [path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests"]
    files = [ROOT / "__main__.py", *(path for package in packages for path in package.rglob("*.py"))]
    return {_name(path): path for path in files}


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def imports(name: str, known: dict[str, Path]) -> set[str]:
    """The modules of ours that a module imports."""
    path, found = known[name], set()
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.add(inner if inner in known else base)
    return (found & known.keys()) - {name}


KNOWN = modules()
GRAPH = {name: imports(name, KNOWN) for name in KNOWN}


def test_packages_import_downwards() -> None:
    upwards = {
        f"{name} imports {other}"
        for name, others in GRAPH.items()
        for other in others
        if (package := other.split(".")[0]) != (own := name.split(".")[0]) and package not in MAY_IMPORT[own]
    }
    assert not upwards
    order = list(MAY_IMPORT)
    assert all(order.index(lower) < order.index(upper) for upper in order for lower in MAY_IMPORT[upper])


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of a circle; none where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_module_imports_itself_through_others() -> None:
    assert not circle(GRAPH)


def test_no_file_of_the_product_is_too_long_to_read() -> None:
    folders = [path for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")]
    product = [path for folder in folders if folder.name != "tests" for path in folder.rglob("*.py")]
    assert len(product) > len(KNOWN)
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in product}
    assert not {name: lines for name, lines in lengths.items() if lines > MOST_LINES}
