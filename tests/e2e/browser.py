"""Headless Chromium that takes every complaint of a page for a failure, and axe-core for its accessibility."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shutil

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, sync_playwright

# Chromium says so itself when an answer is an error, beside what the page makes of it.
_REFUSED = re.compile(r"Failed to load resource: the server responded with a status of (\d+)")
_NAMES = ("chromium", "chromium-browser", "google-chrome")


MISSING = "no Chromium: install the package `chromium`, or set SILTSTONE_CHROMIUM"


def chromium() -> str | None:
    """SILTSTONE_CHROMIUM, or a Chromium on the PATH."""
    return os.environ.get("SILTSTONE_CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)


class Browser:
    """Pages, each in a profile of its own."""

    def __init__(self, shots: pathlib.Path):
        self.shots = shots
        self._playwright = sync_playwright().start()
        # Its sandbox needs rights that containers do not give; it opens our own page alone.
        self._chromium = self._playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])

    def close(self) -> None:
        self._chromium.close()
        self._playwright.stop()

    @contextlib.contextmanager
    def page(self, dark: bool = False, phone: bool = False, refusals: set[int] = frozenset(), visits: str = ""):
        """A page. At its end nothing may have been complained of but answers with these statuses.

        `visits` is another site that it goes through; what that one does is of no interest.
        """
        size = {"width": 360, "height": 740} if phone else {"width": 1360, "height": 860}
        context = self._chromium.new_context(
            viewport=size,
            has_touch=phone,
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
            permissions=["clipboard-read", "clipboard-write"],
        )
        context.set_default_timeout(10_000)
        page, complaints, elsewhere = context.new_page(), [], []

        def is_theirs(url: str) -> bool:
            return bool(visits) and (url.startswith(visits) or page.url.startswith(visits))

        def hear(message) -> None:
            if is_theirs(message.location["url"]):
                return
            refused = _REFUSED.match(message.text)
            status = refused and int(refused[1])
            # Whether there is a session is asked before there is one.
            is_first = status == 401 and message.location["url"].endswith("/api/v1/session")
            expected = is_first or status in refusals
            if message.type in ("error", "warning") and not expected:
                complaints.append(message.text)

        page.on("console", hear)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(f"a dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: is_theirs(request.url) or elsewhere.append(request.url))
        try:
            yield page
            assert complaints == [], complaints
            origins = {url.split("/")[2] for url in elsewhere if "://" in url}
            assert len(origins) == 1, origins
        finally:
            context.close()

    def look(self, page: Page, name: str) -> None:
        page.screenshot(path=self.shots / f"{name}.png")


def violations(page: Page) -> list[str]:
    """What axe-core finds on the page as it is."""
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {node['html'][:200]}" for one in found for node in one["nodes"]]


def is_wide(page: Page) -> bool:
    """Whether the page itself scrolls sideways."""
    return page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
