"""Makes docs/images/app-explore.png and app-caption.png again: the page at 1280 x 800 in Chromium.

    python -m tools.screenshots [--adapter NAME]

The second image shows a caption's map before and after training.
"""

from __future__ import annotations

import argparse
import io
import socket
from pathlib import Path

import torch
from PIL import Image

import ttd
from tests.app.browser import Visit, browser, visit
from ttd.app.access import Access
from ttd.app.models import ModelPool, PageChoices
from ttd.app.server import page

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
MOST_BYTES = 400_000
EXAMPLE = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--adapter", default="mini+ttd")
    parser.add_argument("--out", type=Path, default=IMAGES)
    given = parser.parse_args()
    torch.set_num_threads(1)  # on a busy machine torch's threads wait for each other
    adapters = [given.adapter] if given.adapter else []
    pool = ModelPool(PageChoices.of(["mini"], adapters), lambda name, adapter: ttd.load(name, adapter=adapter))
    for label in pool.choices.adapter_labels:
        with pool.use("mini", label):
            print(f"loaded: mini, adapter {label}", flush=True)
    with page(pool, Access("127.0.0.1", free_port())) as address, browser() as opened:
        seen = visit(opened, address)
        seen.page.locator("#ttd-maps img").first.wait_for()
        act(seen, lambda: seen.page.locator("#ttd-examples button").nth(EXAMPLE).click())
        save(seen, given.out / "app-explore.png")
        if adapters:
            seen.page.locator("#ttd-settings button").first.click()
            seen.page.locator("#ttd-adapter input").click()
            label = next(iter(pool.choices.adapters))
            act(seen, lambda: seen.page.get_by_role("option", name=label).click())
            seen.page.locator("[data-layer=both]").click()
            save(seen, given.out / "app-caption.png")


def act(seen: Visit, do: object) -> None:
    """Does something and waits for its answer."""
    number = seen.page.locator("#ttd-status [data-answer]").get_attribute("data-answer")
    do()  # type: ignore[operator]
    seen.page.wait_for_selector(f"#ttd-status [data-answer]:not([data-answer='{number}'])")


def save(seen: Visit, path: Path) -> None:
    """The tab as it stands, without pointer and focus."""
    seen.page.mouse.move(640, 790)
    seen.page.evaluate("document.activeElement.blur()")
    seen.page.wait_for_timeout(700)
    with Image.open(io.BytesIO(seen.page.screenshot())) as shot:
        # 256 colours of its own keep textures below the bound
        shot.convert("RGB").quantize(256).save(path, optimize=True)
    size = path.stat().st_size
    assert size <= MOST_BYTES, f"{path} has {size} bytes"
    print(f"{path}: {size / 1000:.0f} kB")


def free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])


if __name__ == "__main__":
    main()
