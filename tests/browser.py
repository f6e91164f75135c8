"""Pages as a real browser shows them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

PATIENCE_MS = 90_000
"""How long the page may take to show what is awaited: the machine may be busy."""
DESK = {"width": 1000, "height": 900}


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's, without a window."""
    program = shutil.which("chromium")
    if not program:
        pytest.fail("not installed: chromium; hack/setup.sh installs what the tests need", pytrace=False)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--disable-gpu", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


class Watched:
    """A page in a browser, and what went wrong in it or was asked elsewhere."""

    def __init__(self, browser: Browser, where: object, viewport: dict[str, int] = DESK, scheme: str = "light") -> None:
        self.context = browser.new_context(viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.troubles: list[str] = []
        self.elsewhere: list[str] = []
        self._origin = f"http://{where}"
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("request", self._asked)
        self.page.goto(f"{self._origin}/")

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.troubles.append(message.text)

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((f"{self._origin}/", "data:")):
            self.elsewhere.append(request.url)

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()
