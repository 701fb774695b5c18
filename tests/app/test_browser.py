"""The page in a real browser; `make test-browser` runs these."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.app.browser import Visit, browser, visit
from tests.app.conftest import new_pool
from ttd import load
from ttd.scenes import Scene

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
NASTY = "a lion <img src=x onerror=\"document.title='broken in'\"> ${document.title='broken in'} `couch`"


@pytest.fixture(scope="module")
def address(adapter: Path) -> Iterator[str]:
    from tests.app.visitor import free_port
    from ttd.app.access import Access
    from ttd.app.server import page

    with page(new_pool(adapter), Access("127.0.0.1", free_port())) as where:
        yield where


@pytest.fixture(scope="module")
def opened() -> Iterator[Browser]:
    with browser() as one:
        yield one


@pytest.fixture
def tab(opened: Browser, address: str) -> Iterator[Visit]:
    """The page with its first example answered; afterwards nothing may have been asked of another server."""
    seen = visit(opened, address)
    seen.page.locator("#ttd-maps img").first.wait_for()
    yield seen
    assert seen.elsewhere() == []
    assert seen.failed == []
    assert seen.complaints == []
    seen.page.close()


def chosen(page: Page) -> list[str]:
    return [re.sub(r"^✓ |[\d.]+$", "", word) for word in page.locator("#ttd-viewer .ttd-chosen").all_inner_texts()]


def status(page: Page) -> str:
    return page.locator("#ttd-status").inner_text().strip()


def answered(page: Page, act: Callable[[], object]) -> None:
    """Does something and waits for the answer to it."""
    number = page.locator("#ttd-status [data-answer]").get_attribute("data-answer")
    act()
    page.wait_for_selector(f"#ttd-status [data-answer]:not([data-answer='{number}'])")


def set_slider(page: Page, name: str, value: float) -> None:
    field = page.locator(f"{name} input[type=number]")
    field.fill(str(value))
    field.press("Tab")


def open_settings(page: Page) -> None:
    page.locator("#ttd-settings button").first.click()


def canvas(page: Page) -> str:
    return str(page.evaluate("document.querySelector('#ttd-viewer canvas').toDataURL()"))


def open_part(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def test_upload_words_maps_and_a_threshold_without_encoding_again(tab: Visit, image: str, scene: Scene) -> None:
    page = tab.page
    caption = "one lion next to a couch and a whale"
    page.locator("#ttd-caption textarea").fill(caption)
    answered(page, lambda: page.locator("#ttd-image input[type=file]").first.set_input_files(image))
    assert "the image was encoded" in status(page) or "encoded before" in status(page)
    expected = load("mini").tag(image, caption)
    assert chosen(page) == expected.selected
    assert page.locator("#ttd-maps img").count() == 1 + len(expected.selected)
    open_part(page, "Caption")
    before = page.locator("#ttd-captions").inner_text()
    open_settings(page)
    for threshold in (0.9, 0.2, 0.8):
        answered(page, lambda t=threshold: set_slider(page, "#ttd-threshold", t))
    assert "encoded before" in status(page)
    after = page.locator("#ttd-captions").inner_text()
    assert f"mask at {load('mini').encoder.caption_threshold:.2f}" in before
    assert "mask at 0.80" in after
    share = load("mini").caption_mask(image, caption, threshold=0.8).mean()
    assert f"{share:.1%}" in after


def test_the_maps_of_all_words_are_there_without_another_request(tab: Visit, image: str, scene: Scene) -> None:
    page = tab.page
    page.locator("#ttd-caption textarea").fill(scene.caption)
    answered(page, lambda: page.locator("#ttd-image input[type=file]").first.set_input_files(image))
    page.locator("#ttd-result").scroll_into_view_if_needed()
    tab.requested.clear()
    words = page.locator("#ttd-viewer button.ttd-word")
    seen = set()
    for number in range(words.count()):
        words.nth(number).click()
        name = words.nth(number).get_attribute("data-name")
        page.wait_for_function(
            "name => document.querySelector('#ttd-viewer canvas').ariaLabel.endsWith(`layer: ${name}`)", arg=name
        )
        seen.add(canvas(page))
    assert len(seen) == words.count() >= 3
    # The most similar words where somebody clicks: those of the model at that patch.
    box = page.locator("#ttd-viewer canvas").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 0.7 * box["width"], box["y"] + 0.3 * box["height"])
    near = page.locator("#ttd-viewer .ttd-near")
    near.first.wait_for()
    texts = [word.text for word in load("mini").tag(image, scene.caption).distinct()]
    sim = load("mini").similarity(image, texts)
    here = sim[:, int(0.3 * sim.shape[1]), int(0.7 * sim.shape[2])].numpy()
    order = np.argsort(-here)[:5]
    assert near.all_inner_texts() == [f"{texts[index]} {here[index]:.3f}" for index in order]
    # With the keys alone: zoom, and the layers by Tab and Enter.
    page.locator("#ttd-viewer .ttd-window").focus()
    page.keyboard.press("+")
    assert page.locator("[data-zoom-value]").inner_text() == "140 %"
    page.keyboard.press("0")
    page.locator("[data-layer=best]").focus()
    page.keyboard.press("Enter")
    assert page.locator("[data-layer=best]").get_attribute("aria-pressed") == "true"
    assert [url for url in tab.requested if not url.startswith(("data:", "blob:"))] == []


def test_enter_asks_and_a_phone_is_taken_to_the_result(opened: Browser, address: str) -> None:
    seen = visit(opened, address, (390, 844))
    page = seen.page
    page.locator("#ttd-maps img").first.wait_for()
    field = page.locator("#ttd-caption textarea")
    field.fill("a lion")
    field.press("Shift+Enter")
    field.type("and a couch")
    assert field.input_value() == "a lion\nand a couch"

    def enter() -> None:
        field.press("Enter")
        assert "ttd-busy" in (page.locator("body").get_attribute("class") or "")

    answered(page, enter)
    page.wait_for_function("document.querySelector('#ttd-result').getBoundingClientRect().top < innerHeight / 2")
    assert "ttd-busy" not in (page.locator("body").get_attribute("class") or "")
    assert field.input_value() == "a lion\nand a couch"
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    seen.page.close()


def test_adapter_before_and_after(tab: Visit, image: str) -> None:
    page = tab.page
    open_settings(page)
    page.locator("#ttd-adapter input").click()
    answered(page, lambda: page.get_by_role("option", name="changed").click())
    page.locator("[data-layer=both]").click()
    shown = canvas(page)
    page.locator("[data-field=split]").fill("1")
    page.wait_for_function(f"document.querySelector('#ttd-viewer canvas').toDataURL() != {json.dumps(shown)}")
    open_part(page, "Caption")
    assert page.locator("#ttd-captions h4").all_inner_texts() == ["before: mini", "after: changed"]
    images = page.locator("#ttd-captions img")
    assert images.count() == 4
    places = [images.nth(i).bounding_box() for i in range(4)]
    assert all(box is not None and box["width"] > 100 for box in places)
    assert len({round(box["y"]) for box in places if box}) <= 2


def test_segment_opacity_and_downloads(tab: Visit) -> None:
    page = tab.page
    open_part(page, "Segment")
    legend = page.locator("#ttd-segments .ttd-legend")
    legend.wait_for()  # a part is drawn again when it is first opened: what was typed before that is lost
    tags = page.locator("#ttd-tags textarea, #ttd-tags input").first
    tags.click()
    tags.fill("lion, couch, turtle")
    answered(page, lambda: tags.press("Enter"))
    assert {"lion", "background", "turtle"} <= set(re.findall(r"[a-z]+", legend.inner_text()))
    upper = page.locator("#ttd-segments .ttd-upper")
    page.locator("input[type=number]").locator("visible=true").last.fill("0.25")
    page.keyboard.press("Tab")
    page.wait_for_function("getComputedStyle(document.querySelector('#ttd-segments .ttd-upper')).opacity == '0.25'")
    assert upper.count() == 1
    open_part(page, "Download")
    files = {}
    for name in ("label-png", "overlay", "json", "coco-json", "svg", "pdf"):
        with page.expect_download() as coming:
            page.locator(f"#ttd-get-{name}").click()
        files[coming.value.suggested_filename] = Path(coming.value.path()).read_bytes()
    record = json.loads(files["ttd.json"])
    assert record["segmentation"]["names"] == ["background", "lion", "couch", "turtle"]
    labels = np.asarray(Image.open(io.BytesIO(files["ttd-labels.png"])))
    assert labels.shape == (128, 128)
    shares = np.bincount(labels.ravel(), minlength=4) / labels.size
    assert list(record["segmentation"]["shares"].values()) == pytest.approx(list(shares))
    assert Image.open(io.BytesIO(files["ttd-overlay.png"])).width > 1024  # the image and its legend
    coco = json.loads(files["ttd-coco.json"])
    assert [one["area"] for one in coco["annotations"]] == [
        int((labels == n).sum()) for n in (1, 2, 3) if (labels == n).any()
    ]
    assert {one["name"] for one in coco["categories"]} <= {"lion", "couch", "turtle"}
    assert b"<svg" in files["ttd.svg"]
    assert b"lion" in files["ttd.svg"]
    assert files["ttd.pdf"].startswith(b"%PDF")


def test_a_link_opens_the_page_with_the_same_question(tab: Visit, opened: Browser) -> None:
    page = tab.page
    answered(page, lambda: page.locator("#ttd-examples button").nth(2).click())
    page.locator("#ttd-caption textarea").fill("a whale, a red & blue boat?")
    answered(page, lambda: page.locator("#ttd-go").click())
    open_part(page, "Download")
    answered(page, lambda: page.locator("#ttd-link").click())
    page.wait_for_function("location.search.includes('example=2')")
    other = visit(opened, page.url)
    other.page.locator("#ttd-maps img").first.wait_for()
    assert other.page.locator("#ttd-caption textarea").input_value() == "a whale, a red & blue boat?"
    assert chosen(other.page) == chosen(page)
    other.page.goto(page.url.replace("protocol=default", "protocol=..%2Fx"))
    other.page.locator("#ttd-status [role=alert]").wait_for()
    assert "settings that this page does not have" in status(other.page)
    other.page.close()


def test_examples_work_with_one_click(tab: Visit) -> None:
    page = tab.page
    before = page.locator("#ttd-caption textarea").input_value()
    answered(page, lambda: page.locator("#ttd-examples button").nth(2).click())
    assert page.locator("#ttd-caption textarea").input_value() != before
    assert len(chosen(page)) >= 2


def test_several_images_become_a_gallery_and_a_table(tab: Visit, image: str, tmp_path: Path) -> None:
    page = tab.page
    files = [tmp_path / f"{name}.png" for name in ("b", "a")]
    for number, path in enumerate(files):
        Image.open(image).rotate(90 * number).save(path)
    page.set_viewport_size({"width": 1280, "height": 1000})
    open_part(page, "Several images")
    page.locator("#ttd-many input[type=file]").set_input_files(files)
    page.locator("#ttd-many textarea").fill("a lion\na couch")
    page.locator("#ttd-many button").click()
    page.wait_for_selector("#ttd-gallery figure:nth-child(1)")
    page.wait_for_selector("#ttd-csv:not([disabled])")
    assert page.locator("#ttd-gallery figcaption b").all_inner_texts() == ["a.png", "b.png"]
    with page.expect_download() as coming:
        page.locator("#ttd-csv").click()
    lines = Path(coming.value.path()).read_text().splitlines()
    assert lines[0] == "image,caption,word,score,selected,notice"
    assert [line.split(",")[:3] for line in lines[1:]] == [["a.png", "a lion", "lion"], ["b.png", "a couch", "couch"]]


def test_mistakes_are_sentences_on_the_page(tab: Visit, tmp_path: Path) -> None:
    page = tab.page
    before = page.locator("#ttd-maps img").count()
    page.locator("#ttd-caption textarea").fill("   ")
    answered(page, lambda: page.locator("#ttd-go").click())
    told = page.locator("#ttd-status [role=alert]").inner_text()
    assert told == "⚠ There is no caption yet: write what the image shows."
    page.locator("#ttd-caption textarea").fill("a lion")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 64)
    answered(page, lambda: page.locator("#ttd-image input[type=file]").first.set_input_files(broken))
    said = page.locator("#ttd-status [role=alert]").inner_text()
    assert "broken.png" in said
    assert "/tmp" not in said
    assert "Traceback" not in page.locator("body").inner_text()
    # What was there before is there still, and the image's field does not show a broken one.
    assert page.locator("#ttd-maps img").count() == before
    page.wait_for_function("[...document.querySelectorAll('#ttd-image img')].every(one => one.naturalWidth)")


def test_what_is_written_stays_text(tab: Visit) -> None:
    page = tab.page
    page.locator("#ttd-caption textarea").fill(NASTY)
    answered(page, lambda: page.locator("#ttd-go").click())
    open_part(page, "Segment")
    page.locator("#ttd-tags textarea, #ttd-tags input").first.fill(NASTY)
    answered(page, lambda: page.keyboard.press("Enter"))
    page.wait_for_function("[...document.images].every(one => one.complete)")  # or has failed, as theirs would
    assert "broken in" not in page.title()
    assert page.locator("img[src=x]").count() == 0
    assert "onerror" in page.locator("#ttd-viewer").inner_text()


def test_two_tabs_at_once(tab: Visit, opened: Browser, address: str) -> None:
    other = visit(opened, address)
    other.page.locator("#ttd-maps img").first.wait_for()
    for page, caption in ((tab.page, "a lion"), (other.page, "a couch")):
        page.locator("#ttd-caption textarea").fill(caption)
    numbers = [page.locator("[data-answer]").get_attribute("data-answer") for page in (tab.page, other.page)]
    for page in (tab.page, other.page):
        page.locator("#ttd-go").click(no_wait_after=True)
    for page, word, number in zip((tab.page, other.page), ("lion", "couch"), numbers, strict=True):
        page.wait_for_selector(f"[data-answer]:not([data-answer='{number}'])")
        assert chosen(page) == [word]
    other.page.close()


@pytest.mark.parametrize("size", [(1280, 800), (800, 1000), (390, 844)])
def test_nothing_sticks_out(opened: Browser, address: str, size: tuple[int, int]) -> None:
    seen = visit(opened, address, size)
    seen.page.locator("#ttd-maps img").first.wait_for()
    # On a phone the parts that do not fit are in a menu of gradio's.
    for name in ("Words", "Caption", "Most similar word", "Segment")[: 4 if size[0] > 400 else 2]:
        open_part(seen.page, name)
        seen.page.evaluate("new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
        wide = seen.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, name
    seen.page.close()


def test_traversal_from_the_browser(tab: Visit, address: str) -> None:
    for name in ("/etc/passwd", "..%2f..%2f..%2f..%2fetc%2fpasswd", "http://example.org/"):
        got = tab.page.evaluate(
            "async (url) => { const got = await fetch(url); return [got.status, await got.text()]; }",
            f"{address}gradio_api/file={name}",
        )
        assert got[0] in (403, 404), name
        assert "root:" not in got[1]
    tab.failed.clear()
    tab.complaints.clear()  # the browser reports each refusal


def test_a_slow_browser_shows_that_it_works_and_no_key_of_a_translation(opened: Browser, address: str) -> None:
    for language in ("en-US", "de-DE"):
        context = opened.new_context(locale=language)
        page = context.new_page()
        page.set_default_timeout(120_000)
        context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": 6})
        page.add_init_script(
            """window.seen = new Set(); window.busy = false;
            new MutationObserver(() => {
              const status = document.querySelector('#ttd-status');
              window.busy ||= status && getComputedStyle(status, '::after').content.includes('Working');
              const texts = document.createTreeWalker(document, NodeFilter.SHOW_TEXT);
              while (texts.nextNode()) {
                const node = texts.currentNode;
                if (!/SCRIPT|STYLE/.test(node.parentElement?.tagName)) seen.add(node.textContent);
              }
            }).observe(document, {childList: true, subtree: true, characterData: true, attributes: true});"""
        )
        page.goto(address)
        page.locator("#ttd-maps img").first.wait_for()
        page.wait_for_function("getComputedStyle(document.querySelector('#ttd-status'), '::after').content == 'none'")
        assert page.evaluate("window.busy")
        seen = page.evaluate("[...window.seen]")
        assert any("Answered in" in text for text in seen)
        assert [text for text in seen if re.search(r"\b[a-z_]+\.[a-z_]+\b", text)] == []
        context.close()


def test_a_password_is_asked_for_and_lets_in(opened: Browser, adapter: Path) -> None:
    from tests.app.visitor import free_port
    from ttd.app.access import Access
    from ttd.app.server import page

    with page(new_pool(adapter), Access("127.0.0.1", free_port(), "anna", "correct horse")) as where:
        seen = visit(opened, where)
        seen.page.locator("input[type=password]").wait_for()
        assert seen.page.locator("#ttd-viewer").count() == 0
        seen.page.locator("input:not([type=password])").first.fill("anna")
        seen.page.locator("input[type=password]").fill("correct horse")
        seen.page.get_by_role("button").first.click()
        seen.page.locator("#ttd-maps img").first.wait_for()
        assert seen.elsewhere() == []
        seen.page.close()
