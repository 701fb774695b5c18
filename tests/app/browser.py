"""A real browser on the page: Debian's (or any) Chromium, driven by playwright; everything it asks for is kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
SIZE = (1280, 800)


def chromium() -> str:
    """Its path: CHROMIUM, or the first on PATH that is one."""
    found = os.environ.get("CHROMIUM") or next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        raise RuntimeError("Chromium is not installed: run make test-browser, or name it in CHROMIUM")
    return found


@contextmanager
def browser() -> Iterator[Browser]:
    """Chromium without a window."""
    from playwright.sync_api import sync_playwright

    # Chromium's own sandbox does not start for root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), args=arguments)
        try:
            yield opened
        finally:
            opened.close()


@dataclass
class Visit:
    """One tab, and what went on in it.

    Attributes:
        page: playwright's.
        requested: every address that was asked for.
        failed: status and address of answers that were errors.
        complaints: errors of the page's scripts and of its policy.
    """

    page: Page
    requested: list[str] = field(default_factory=list)
    failed: list[tuple[int, str]] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def elsewhere(self) -> list[str]:
        """The requests that went to another server than the page's own."""
        own = urlsplit(self.page.url).netloc
        parts = [(url, urlsplit(url)) for url in self.requested]
        return [url for url, part in parts if part.scheme not in ("data", "blob") and part.netloc != own]


def visit(opened: Browser, address: str, size: tuple[int, int] = SIZE) -> Visit:
    """Opens a tab of its own (own cookies) and waits until the page stands."""
    page = opened.new_page(viewport={"width": size[0], "height": size[1]})
    page.set_default_timeout(120_000)  # a busy machine
    seen = Visit(page)
    page.on("request", lambda request: seen.requested.append(request.url))
    page.on("websocket", lambda socket: seen.requested.append(socket.url))
    page.on("response", lambda got: seen.failed.append((got.status, got.url)) if got.status >= 400 else None)
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    page.on("console", lambda said: seen.complaints.append(said.text) if said.type == "error" else None)
    page.goto(address)
    return seen
