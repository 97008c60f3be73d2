"""Links and pictures of the docs lead somewhere."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.cli.harness import ROOT
from tests.docs.pages import PAGES, anchors, links

if TYPE_CHECKING:
    from pathlib import Path


def fault(page: Path, target: str) -> str | None:
    """What is wrong with a link; nothing is asked of the network."""
    if re.match(r"[a-z]+:", target):
        return None
    name, _, fragment = target.partition("#")
    found = (page.parent / name).resolve() if name else page
    if not found.exists():
        return f"there is no {target}"
    if fragment and fragment not in anchors(found):
        return f"{found.relative_to(ROOT)} has no heading #{fragment}"
    return None


def test_links_lead_to_what_is_there() -> None:
    faults = [
        f"{page.relative_to(ROOT)}:{line}: {result}"
        for page in PAGES
        for line, target in links(page)
        if (result := fault(page, target))
    ]
    assert faults == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen, left = set[str](), [ROOT / "README.md"]
    while left:
        page = left.pop()
        seen.add(str(page))
        for _, target in links(page):
            found = (page.parent / target.partition("#")[0]).resolve()
            if found.suffix == ".md" and found.exists() and str(found) not in seen:
                left.append(found)
    assert [str(page.relative_to(ROOT)) for page in PAGES if str(page) not in seen] == []


def test_a_dead_link_is_noticed() -> None:
    page = ROOT / "README.md"
    assert fault(page, "docs/nowhere.md") == "there is no docs/nowhere.md"
    assert fault(page, "docs/explanation/design.md#the-moon") is not None
    assert fault(page, "docs/explanation/engine.md#one-update-from-end-to-end") is None
    assert fault(page, "https://example.org") is None
