"""Makes the pictures of the page in docs/images again: app-explore, app-caption, app-annotate, app-outline, app-sizes.

    python -m tools.screenshots [--adapter NAME]
    python -m tools.screenshots --address http://127.0.0.1:7860/ --out FOLDER
    python -m tools.screenshots --report runs/report/images-tagmask.html

app-caption shows a caption's map before and after training; app-sizes all sizes in both themes. With `--address` only
app-sizes is made, of a page that is running already (app-before.jpg: that of an older commit); with `--report` only
images-page.jpg, of the images that a report of runs has.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image

import ttd
from tests.app.browser import Visit, browser, visit
from tests.app.visitor import free_port
from ttd.annotate.annotation_set import AnnotationSet
from ttd.app.access import Access
from ttd.app.models import ModelPool, PageChoices
from ttd.app.server import page
from ttd.scenes import Scenes
from ttd.scenes.write import write_shards

if TYPE_CHECKING:
    from playwright.sync_api import Browser

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
MOST_BYTES = 400_000
EXAMPLE, ITEM = 2, 2
SIZES = ((1920, 1080), (1280, 800), (390, 844))
ROW, GAP = 400, 8  # pixels of a sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--adapter", default="mini+ttd")
    parser.add_argument("--address", help="of a page that is running: makes its sheet only")
    parser.add_argument("--report", type=Path, help="images-NAME.html of ttd report: makes its picture only")
    parser.add_argument("--out", type=Path, default=IMAGES)
    given = parser.parse_args()
    torch.set_num_threads(1)  # on a busy machine torch's threads wait for each other
    with browser() as opened, tempfile.TemporaryDirectory() as folder:
        if given.address:
            sheet(opened, given.address, given.out / "app-sizes.jpg")
            return
        if given.report:
            report(opened, given.report, given.out / "images-page.jpg")
            return
        pool = ModelPool(
            PageChoices.of(["mini"], [given.adapter]), lambda name, adapter: ttd.load(name, adapter=adapter)
        )
        loaded = pool.get("mini", "none")
        data, out = Path(folder) / "scenes", Path(folder) / "set"
        write_shards(Scenes("test"), 20, data)
        annotations = AnnotationSet.from_data(loaded.ttd, str(data), str(out), model_lock=loaded.lock)
        with page(pool, Access("127.0.0.1", free_port()), annotations) as address:
            explore(opened, address, next(iter(pool.choices.adapters)), given.out)
            annotate(opened, address, given.out)
            sheet(opened, address, given.out / "app-sizes.jpg")


def explore(opened: Browser, address: str, adapter: str, out: Path) -> None:
    """A word's map over an example, then the caption's before and after training."""
    seen = visit(opened, address)
    show(seen, "Explore")
    act(seen, "#ttd-status", lambda: seen.page.locator("#ttd-examples button").nth(EXAMPLE).click())
    save(seen, out / "app-explore.png")
    seen.page.locator("#ttd-settings button").first.click()
    seen.page.locator("#ttd-adapter input").click()
    act(seen, "#ttd-status", lambda: seen.page.get_by_role("option", name=adapter).click())
    seen.page.locator("[data-layer=both]").click()
    save(seen, out / "app-caption.png")
    seen.page.close()


def annotate(opened: Browser, address: str, out: Path) -> None:
    """A word's mask after a click inside and one outside, then as an outline."""
    seen = visit(opened, address)
    show(seen, "Annotate")
    for _ in range(ITEM):
        act(seen, ".ann", lambda: seen.page.keyboard.press("n"))
    box = seen.page.locator(".ann-stage").bounding_box()
    assert box is not None
    for across, down, keys in ((0.5, 0.6, []), (0.1, 0.1, ["Shift"])):
        spot = {"x": across * box["width"], "y": down * box["height"]}
        act(seen, ".ann", lambda s=spot, k=keys: seen.page.locator(".ann-stage").click(position=s, modifiers=k))
    save(seen, out / "app-annotate.png")
    act(seen, ".ann", lambda: seen.page.keyboard.press("e"))
    for _ in range(3):
        seen.page.keyboard.press(".")
    save(seen, out / "app-outline.png")
    seen.page.close()


def sheet(opened: Browser, address: str, path: Path) -> None:
    """Both tabs in all sizes, a row for each theme and tab."""
    rows = []
    for theme in ("light", "dark"):
        for tab in ("Explore", "Annotate"):
            shots = []
            for size in SIZES:
                seen = visit(opened, f"{address}?__theme={theme}", size)
                show(seen, tab)
                shots.append(shot(seen))
                seen.page.close()
            rows.append(
                [one.resize((round(ROW * one.width / one.height), ROW), Image.Resampling.LANCZOS) for one in shots]
            )
    width = sum(one.width + GAP for one in rows[0]) + GAP
    whole = Image.new("RGB", (width, len(rows) * (ROW + GAP) + GAP), "#808080")
    for number, row in enumerate(rows):
        left = GAP
        for one in row:
            whole.paste(one, (left, GAP + number * (ROW + GAP)))
            left += one.width + GAP
    whole.save(path, quality=80, optimize=True)
    told(path)


def report(opened: Browser, file: Path, path: Path) -> None:
    """What gained and what lost most in IoU."""
    seen = visit(opened, file.resolve().as_uri())
    seen.page.evaluate(
        """() => {
          let kept = 0;
          for (const one of document.querySelectorAll('h2, section')) {
            if (one.tagName === 'H2') kept = /(gained|lost) most in IoU/.test(one.textContent) ? 2 : 0;
            if (kept-- <= 0) one.remove();
          }
        }"""
    )
    whole = seen.page.screenshot(full_page=True, type="jpeg", quality=85)
    path.write_bytes(whole)
    seen.page.close()
    told(path)


def show(seen: Visit, tab: str) -> None:
    """The tab with its first answer."""
    seen.page.get_by_role("tab", name=tab, exact=True).click()
    seen.page.locator("#ttd-maps img" if tab == "Explore" else ".ann-stage").first.wait_for()


def act(seen: Visit, place: str, do: object) -> None:
    """Does something and waits for the answer that stands in `place`."""
    before = seen.page.locator(place).first.evaluate("one => one.outerHTML")
    do()  # type: ignore[operator]
    seen.page.wait_for_function(
        "([place, before]) => document.querySelector(place)?.outerHTML != before"
        " && !document.querySelector('.ann-busy, .ttd-busy')",
        arg=[place, before],
    )


def shot(seen: Visit) -> Image.Image:
    """The window as it stands, without pointer and focus."""
    seen.page.mouse.move(640, 790)
    seen.page.evaluate("document.activeElement.blur()")
    seen.page.wait_for_timeout(700)
    with Image.open(io.BytesIO(seen.page.screenshot())) as taken:
        return taken.convert("RGB")


def save(seen: Visit, path: Path) -> None:
    # 256 colours of its own keep textures below the bound
    shot(seen).quantize(256).save(path, optimize=True)
    told(path)


def told(path: Path) -> None:
    size = path.stat().st_size
    assert size <= MOST_BYTES, f"{path} has {size} bytes"
    print(f"{path}: {size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
