"""The service that keeps a node's routes to the others' pods."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SOURCE = Path(__file__).parents[2] / "ansible" / "roles" / "cni" / "files" / "pod_network.py"


@pytest.fixture
def pod_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("pod_network", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "pod_network", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "CONFIGURATION", str(tmp_path / "pods.conflist"))
    return module


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An `ip` that keeps its routes in a file: gateway by range."""
    path = tmp_path / "routes.json"
    path.write_text("{}")
    program = tmp_path / "ip"
    program.write_text(
        f"#!{sys.executable}\nimport json, sys\npath, words = {str(path)!r}, sys.argv[1:]\n"
        "routes = json.load(open(path))\n"
        "if 'show' in words: print(json.dumps([{'dst': k, 'gateway': v} for k, v in routes.items()]))\n"
        "elif words[1] == 'replace': routes[words[2]] = words[4]\n"
        "else: del routes[words[2]]\n"
        "json.dump(routes, open(path, 'w'))\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return path


def test_routes_follow_the_nodes(pod_network: ModuleType, table: Path) -> None:
    own, other = ("10.244.0.0/24", "10.42.0.10"), ("10.244.1.0/24", "10.42.0.11")
    pod_network.apply({"me": own, "other": other, "joining": ("", "10.42.0.12")}, "me", 1450)
    assert json.loads(table.read_text()) == {"10.244.1.0/24": "10.42.0.11"}
    # The other node came back with another range.
    pod_network.apply({"me": own, "other": ("10.244.2.0/24", "10.42.0.11")}, "me", 1450)
    assert json.loads(table.read_text()) == {"10.244.2.0/24": "10.42.0.11"}
    pod_network.apply({"me": own}, "me", 1450)
    assert json.loads(table.read_text()) == {}


def test_the_own_range_is_written_once_it_is_known(pod_network: ModuleType, table: Path) -> None:
    pod_network.apply({"me": ("", "10.42.0.10")}, "me", 1450)
    written = Path(pod_network.CONFIGURATION)
    assert not written.exists()
    pod_network.apply({"me": ("10.244.7.0/24", "10.42.0.10")}, "me", 1450)
    plugins: list[dict[str, Any]] = json.loads(written.read_text())["plugins"]
    assert plugins[0]["ipam"]["ranges"] == [[{"subnet": "10.244.7.0/24"}]]
    assert plugins[0]["mtu"] == 1450
    before = written.stat().st_mtime_ns
    pod_network.apply({"me": ("10.244.7.0/24", "10.42.0.10")}, "me", 1450)
    assert written.stat().st_mtime_ns == before
    assert json.loads(table.read_text()) == {}
