"""Tests marked `slow_cloud` bring a real devcloud up, as root, and run only when asked for: `-m slow_cloud`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "slow_cloud: brings a real devcloud up (root; 5 min, 6 GiB of memory, 8 GiB of disk); -m slow_cloud"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "slow_cloud" in config.getoption("markexpr"):
        return
    slow = [item for item in items if item.get_closest_marker("slow_cloud")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]
