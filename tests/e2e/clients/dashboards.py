"""What a person with a browser sees on the overview page and on vmui's dashboards, with Debian's Chromium.

Reads what to look at as JSON from standard input; prints what it saw as JSON.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from browser import landing  # type: ignore[import-not-found]  # beside this program
from playwright.sync_api import Page, sync_playwright

PATIENCE_MS = 60_000
DESKTOP = {"width": 1280, "height": 900}
TAB = ".vm-predefined-panels-tabs__tab"
ROW = ".vm-predefined-dashboard"
CLOSED = ".vm-accordion-header:not(.vm-accordion-header_open):has(.vm-predefined-dashboard-header)"
PANEL = ".vm-predefined-panel"
LEGEND = ".vm-legend-item"


def settle(page: Page) -> None:
    """Wait until nothing is asked any more: vmui asks for a panel when it comes into view."""
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(300)


def open_rows(page: Page) -> None:
    """Open all rows of a dashboard: all but the first are closed."""
    while (closed := page.locator(CLOSED)).count():
        closed.first.locator(".vm-accordion-header__arrow").click()  # elsewhere it is text to be selected
        settle(page)
    for panel in page.locator(PANEL).all():
        panel.scroll_into_view_if_needed()
        settle(page)


def shot(page: Page, picture: dict[str, Any], folder: Path) -> None:
    """A picture from the top of the page, or of a row from its title on, to its end or to a height."""
    row = page.locator(ROW).filter(has_text=picture["row"]).first if picture.get("row") else None
    box = row.bounding_box() if row else None
    top = max(box["y"] + page.evaluate("window.scrollY") - 8, 0) if box else 0
    bottom = top + picture["height"]
    page.set_viewport_size({**DESKTOP, "height": int(page.evaluate("document.documentElement.scrollHeight"))})
    settle(page)
    page.screenshot(
        path=folder / picture["file"], clip={"x": 0, "y": top, "width": DESKTOP["width"], "height": bottom - top},
        animations="disabled",
    )  # fmt: skip
    page.set_viewport_size(DESKTOP)


def main() -> None:
    """Look at every dashboard."""
    asked = json.load(sys.stdin)
    folder = Path(asked["screenshots"]) if asked["screenshots"] else None
    seen: dict[str, Any] = {"faults": [], "dashboards": {}}
    with sync_playwright() as playwright:
        environment = {**os.environ, "HOME": asked["home"]}
        browser = playwright.chromium.launch(executable_path=asked["chromium"], env=environment)
        seen["landing"] = landing(browser, asked, folder and folder / "landing.png")
        page = browser.new_context(viewport=DESKTOP, color_scheme="light").new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: seen["faults"].append(str(error)))
        page.on("console", lambda one: seen["faults"].append(one.text) if one.type == "error" else None)
        page.goto(f"{asked['vmui']}#/dashboards?g0.range_input=1d&g0.relative_time=last_1_day")
        page.locator(TAB).first.wait_for()
        for number in range(page.locator(TAB).count()):
            tab = page.locator(TAB).nth(number)
            tab.click()
            settle(page)
            name = tab.text_content() or ""
            for picture in asked["pictures"]:
                if folder and picture["dashboard"] == name and not picture.get("row"):
                    shot(page, picture, folder)
            open_rows(page)
            panels = page.locator(PANEL).all()
            seen["dashboards"][name] = {
                "panels": [panel.locator(".vm-predefined-panel-header__title").inner_text() for panel in panels],
                "empty": [
                    panel.locator(".vm-predefined-panel-header__title").inner_text()
                    for panel in panels
                    if not panel.locator(LEGEND).count()
                ],
                "errors": page.locator(".vm-alert_error").all_inner_texts(),
            }
            for picture in asked["pictures"]:
                if folder and picture["dashboard"] == name and picture.get("row"):
                    shot(page, picture, folder)
        browser.close()
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
