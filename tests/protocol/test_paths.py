"""Property paths as text and as steps."""

from __future__ import annotations

import pytest

from protocol.paths import Path, covers, parse_path
from providers.schema import property_path


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("spec.replicas", ("spec", "replicas")),
        ("spec.containers[0].image", ("spec", "containers", 0, "image")),
        ("spec.containers[*].image", ("spec", "containers", "*", "image")),
        ('metadata.annotations["a.b/c"]', ("metadata", "annotations", "a.b/c")),
        ('["a"]["b\\"c\\\\d"].*', ("a", 'b"c\\d', "*")),
        ('a["two\nlines"]', ("a", "two\nlines")),
    ],
)
def test_steps(text: str, steps: Path) -> None:
    assert parse_path(text) == steps


@pytest.mark.parametrize("text", ["", "a..b", "a[", "a[-1]", "a[x]", 'a["b]', "a]", "a[9999999999]"])
def test_what_is_no_path(text: str) -> None:
    with pytest.raises(ValueError, match="property path"):
        parse_path(text)


@pytest.mark.parametrize("steps", [("a", "b.c/d", 0, 'quo"te', "back\\slash"), ("x",), ("a-b", 3)])
def test_a_path_that_is_written_is_read_again(steps: Path) -> None:
    assert parse_path(property_path(steps)) == steps


def test_a_pattern_covers_what_is_below_it() -> None:
    assert covers(("a", "*"), ("a", 0, "b"))
    assert covers(("a",), ("a",))
    assert not covers(("a", "b"), ("a",))
    assert not covers(("a", 1), ("a", 0))
