"""The benchmarks of a running platform, in little: they start, end and print their tables. Figures are not judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.platform_stack import PlatformStack

pytestmark = [pytest.mark.slow_cloud, pytest.mark.timeout(900)]


@pytest.mark.parametrize(
    ("name", "options", "shown"),
    [
        ("memory", ("--samples", "1"), ("Memory at rest", "tracking")),
        ("serving", ("--rounds", "1", "--seconds", "1", "--requests", "50"), ("model server", "bare FastAPI")),
    ],
)
def test_it_runs(platform: PlatformStack, name: str, options: tuple[str, ...], shown: tuple[str, ...]) -> None:
    result = platform.lab.run("bench", name, *options, status=None)
    # 1 says that a limit is not kept, or that it failed: then it has an error to tell.
    assert result.status in {0, 1}, result
    assert "error: " not in result.stderr, result
    for text in shown:
        assert text in result.stdout, result
