"""What a person with a browser sees of the landing page and of MLflow: Debian's Chromium, driven by Playwright.

Reads what to look at as JSON from standard input; prints what it saw as JSON.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Error, Page, sync_playwright

PATIENCE_MS = 60_000
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 360, "height": 740}


def watched(page: Page, seen: dict[str, Any]) -> Page:
    """Note which hosts a page talks to, and what goes wrong in it."""
    hosts, faults = seen.setdefault("hosts", []), seen.setdefault("faults", [])

    def requested(url: str) -> None:
        host = urlsplit(url).hostname
        if host and host not in hosts:
            hosts.append(host)

    page.on("request", lambda request: requested(request.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.set_default_timeout(PATIENCE_MS)
    return page


def violations(page: Page) -> list[str]:
    """What axe-core finds wrong of a page's accessibility."""
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {node['target']}" for one in found for node in one["nodes"]]


def landing(browser: Browser, asked: dict[str, Any], screenshot: Path | None) -> dict[str, Any]:
    """The landing page: on a desk, at night, on a phone, and from there to MLflow."""
    seen: dict[str, Any] = {"violations": {}}
    for name, options in {
        "light": {"viewport": DESKTOP, "color_scheme": "light"},
        "dark": {"viewport": DESKTOP, "color_scheme": "dark"},
        "phone": {"viewport": PHONE, "color_scheme": "light"},
    }.items():
        context = browser.new_context(**options, device_scale_factor=1)
        page = watched(context.new_page(), seen)
        page.goto(asked["landing"])
        page.locator("#summary.ready").wait_for()
        seen["violations"][name] = violations(page)
        if name == "light":
            names = page.locator("#services h3").all_inner_texts()
            words = page.locator("#services .word").all_inner_texts()
            seen |= {"title": page.title(), "services": dict(zip(names, words, strict=True))}
            seen["nodes"] = page.locator("#nodes h3").all_inner_texts()
            seen["links"] = [link.get_attribute("href") for link in page.locator("a").all()]
            before = page.locator("#time").inner_text()
            page.wait_for_function("text => document.getElementById('time').textContent !== text", arg=before)
            if screenshot:
                page.screenshot(path=screenshot, full_page=True)
        if name == "phone":
            seen["wider_than_phone"] = page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
        context.close()
    return seen


def tracking(browser: Browser, asked: dict[str, Any], screenshot: Path | None) -> dict[str, Any]:
    """MLflow's pages: refused with a wrong password; with the right one, a model and an experiment's runs."""
    seen: dict[str, Any] = {}
    guess = {"username": asked["username"], "password": "guess"}
    context = browser.new_context(viewport=DESKTOP, http_credentials=guess)
    answer = context.new_page().goto(asked["tracking"])
    seen["wrong_password"] = answer and answer.status
    context.close()
    credentials = {"username": asked["username"], "password": asked["password"]}
    context = browser.new_context(viewport=DESKTOP, http_credentials=credentials, device_scale_factor=1.5)
    page = watched(context.new_page(), seen)
    # What its newer pages can do, it tells everyone once.
    for output in ("Try it now", "Got it"):
        page.add_locator_handler(page.get_by_role("button", name=output), lambda button: button.click())
    page.goto(f"{asked['tracking']}/#/models")
    page.get_by_text("Model training", exact=True).click()
    page.get_by_role("link", name=asked["model"], exact=True).first.click()
    page.get_by_text("production", exact=False).first.wait_for()
    seen["model"] = page.url
    if screenshot:
        for close in page.get_by_role("button", name="Close", exact=True).all():
            close.click()
        page.screenshot(path=screenshot, animations="disabled")
    page.goto(f"{asked['tracking']}/#/experiments")
    page.get_by_role("link", name=asked["model"], exact=True).first.click()
    page.get_by_text("sklearn", exact=False).first.wait_for()
    seen["experiment"] = page.url
    context.close()
    return seen


def main() -> None:
    """Look at the pages."""
    asked = json.load(sys.stdin)
    folder = Path(asked["screenshots"]) if asked["screenshots"] else None
    with sync_playwright() as playwright:

        def launch(home: str) -> Browser:
            return playwright.chromium.launch(executable_path=asked["chromium"], env={**os.environ, "HOME": home})

        stranger = launch(asked["stranger"])
        try:
            stranger.new_page().goto(asked["landing"])
            untrusted = "nothing"
        except Error as error:
            untrusted = error.message
        stranger.close()
        browser = launch(asked["home"])
        pages = {
            "landing": landing(browser, asked, folder and folder / "landing.png"),
            "tracking": tracking(browser, asked, folder and folder / "tracking.png"),
        }
        browser.close()
    print(json.dumps({"untrusted": untrusted, **pages}))


if __name__ == "__main__":
    main()
