"""Annotating in a real browser: clicks, keys, a server that is killed, two tabs; `make test-browser` runs it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tests.app.browser import Visit, browser, visit
from tests.app.visitor import PageProcess
from tests.tiny_models import tiny_sam_model
from ttd.annotate.store import AnnotationStore
from ttd.cli import cli
from ttd.evaluation.datasets.tagmask import TagMaskRow, read_tagmask
from ttd.scenes import Scenes
from ttd.scenes.write import write_shards

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser


class Server(PageProcess):
    """`ttd app --annotate`, which can be killed and started again at the same address."""

    def __init__(self, folder: Path, data: str = "scenes", *options: str) -> None:
        self.out = folder / "set"
        super().__init__("--annotate", str(folder / data), "--out", str(self.out), *options)

    def rows(self) -> list[TagMaskRow]:
        return list(read_tagmask(self.out).rows)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Five scenes, `mini`, and a small random SAM-HQ, whose masks are nonsense that follows the clicks."""
    folder = tmp_path_factory.mktemp("annotate")
    write_shards(Scenes("test"), 5, folder / "scenes")
    tiny_sam_model().save_pretrained(folder / "sam")
    one = Server(folder, "scenes", "--sam-model", str(folder / "sam"))
    one.start()
    yield one
    one.kill()


@pytest.fixture(scope="module")
def opened() -> Iterator[Browser]:
    with browser() as one:
        yield one


def board(opened: Browser, server: Server) -> Visit:
    seen = visit(opened, server.address)
    seen.page.locator(".ann-stage").wait_for()
    return seen


def answered(page: Page, act: Callable[[], object]) -> str:
    """Does something, waits for the answer, gives what the page says."""
    number = page.locator(".ann").get_attribute("data-response")
    act()
    page.wait_for_selector(f".ann:not([data-response='{number}'])")
    return page.locator(".ann-message").inner_text()


def press(page: Page, key: str) -> str:
    return answered(page, lambda: page.keyboard.press(key))


def chosen(page: Page) -> set[str]:
    return set(page.locator(".ann-list b").all_inner_texts())


def choose(page: Page, words: set[str]) -> None:
    """Clicks words until exactly these are chosen: once on a new one, once more on the active one to drop it."""
    for word in sorted(chosen(page) - words):
        button = page.locator(f".ann-caption [data-word='{word}']").first
        while button.get_attribute("aria-pressed") == "true":
            answered(page, button.click)
    for word in sorted(words - chosen(page)):
        answered(page, page.locator(f".ann-caption [data-word='{word}']").first.click)
    assert chosen(page) == words


def click(page: Page, x: float, y: float, shift: bool = False) -> str:
    """At a share of the image's width and height."""
    stage = page.locator(".ann-stage")
    box = stage.bounding_box()
    assert box is not None
    spot = {"x": box["width"] * x, "y": box["height"] * y}
    return answered(page, lambda: stage.click(position=spot, modifiers=["Shift"] if shift else []))  # type: ignore[arg-type]


def drag(page: Page, x: float, y: float, to_x: float, to_y: float) -> str:
    box = page.locator(".ann-stage").bounding_box()
    assert box is not None

    def move() -> None:
        page.mouse.move(box["x"] + box["width"] * x, box["y"] + box["height"] * y)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * to_x, box["y"] + box["height"] * to_y, steps=5)
        page.mouse.up()

    return answered(page, move)


def test_three_items_with_a_killed_server_between_and_then_eval(opened: Browser, server: Server) -> None:
    scenes = [Scenes("test")[number] for number in range(3)]
    truth = [set(scene.true_words) & set(scene.caption.split()) for scene in scenes]
    seen = board(opened, server)
    page = seen.page
    assert page.locator(".ann-head b").inner_text() == "item 1 of 5"
    choose(page, truth[0])
    for place in range(len(truth[0])):
        press(page, str(place + 1))
        click(page, 0.3 + 0.2 * place, 0.5)
        click(page, 0.9, 0.1, shift=True)
    assert page.locator(".ann-point.ann-in").count() == page.locator(".ann-point.ann-out").count() == 1
    assert press(page, "a") == "Item 1 is saved."
    # What the page says is on disk.
    first = server.rows()
    assert [row.true for row in first] == [truth[0]]
    record = AnnotationStore(server.out).get(first[0].sample.id)
    assert record is not None
    assert record.mask_source == "sam-hq"
    point, other = record.prompts[record.true[0]].points
    assert (point.x, point.y) == pytest.approx((0.3 * 128 - 0.5, 63.5), abs=1)
    assert (point.inside, other.inside) == (True, False)
    assert np.array_equal(first[0].mask(), np.any(list(record.masks.values()), axis=0))

    assert page.locator(".ann-head b").inner_text() == "item 2 of 5"
    choose(page, truth[1])
    page.keyboard.press("b")
    page.locator(".ann-stage").click(position={"x": 60, "y": 80})
    assert page.locator(".ann-rubber").count() == 1
    click(page, 0.8, 0.9)
    assert page.locator(".ann-box").count() == 1
    drag(page, 0.1, 0.1, 0.4, 0.3)
    assert page.locator(".ann-box").count() == 2
    page.keyboard.press("f")
    drag(page, 0.2, 0.8, 0.7, 0.8)
    assert answered(page, page.locator("[data-do=undo]").click) == ""
    server.kill()  # in the middle of an item
    assert [row.true for row in server.rows()] == [truth[0]]
    server.start()
    page.goto(server.address)
    page.locator(".ann-stage").wait_for()
    assert page.locator(".ann-message").inner_text() == "What you had clicked here before is back."
    assert page.locator(".ann-head b").inner_text() == "item 2 of 5"
    assert chosen(page) == truth[1]
    assert page.locator(".ann-box").count() == 2
    assert press(page, "a") == "Item 2 is saved."
    choose(page, truth[2])
    assert answered(page, page.locator("[data-do=accept]").click) == "Item 3 is saved."

    rows = server.rows()
    assert [row.true for row in rows] == truth
    assert all(row.mask().shape == (128, 128) for row in rows)
    out = server.out.parent / "run"
    arguments = ["--data", str(server.out), "--model", "mini", "--protocol", "default", "--out", str(out)]
    result = CliRunner().invoke(cli, ["eval", "tagmask", *arguments])
    assert result.exit_code == 0, result.output
    assert "Masks of 3 captions." in (out / "results.json").read_text()
    assert json.loads((out / "measurements.jsonl").read_text().splitlines()[-1])

    answered(page, page.locator("[data-do=review]").click)
    assert "is kept" in press(page, "k")
    assert "is rejected" in press(page, "x")
    assert len(server.rows()) == 2
    assert seen.elsewhere() == []
    page.close()


def test_two_tabs_on_one_queue(opened: Browser, server: Server) -> None:
    one, other = board(opened, server).page, board(opened, server).page
    places = [page.locator(".ann-head b").inner_text() for page in (one, other)]
    assert len(set(places)) == 2
    assert "also open in another tab" in press(other, "p")
    before = len(server.rows())
    assert "is saved" in press(one, "a")
    assert "changed in another tab" in press(other, "a")
    assert len(server.rows()) == before + 1
    words = chosen(other)
    press(other, "x")
    assert "is saved" in press(other, "a")
    assert len(server.rows()) == before + 1
    assert any(len(row.true) == len(words) - 1 for row in server.rows())
    one.close()
    other.close()


def test_keys_alone_choose_words_zoom_and_take_back(opened: Browser, server: Server) -> None:
    seen = board(opened, server)
    page = seen.page
    page.keyboard.press("?")
    assert page.locator(".ann-help").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator(".ann-help").is_visible()
    page.keyboard.press("w")
    word = page.evaluate("document.activeElement.dataset.word")
    before = chosen(page)
    press(page, "Enter")
    # The button keeps the focus over the answer, so that the next Enter is about the same word.
    assert page.evaluate("document.activeElement.dataset.word") == word
    assert (word in chosen(page)) or before == chosen(page)
    press(page, "u")
    assert chosen(page) == before
    page.keyboard.press("+")
    page.keyboard.press("Shift+ArrowRight")
    assert page.locator(".ann [data-zoom-value]").inner_text() == "140 %"
    # A click hits the pixel under it, zoomed or not.
    stage, window = (page.locator(name).bounding_box() for name in (".ann-stage", ".ann-window"))
    assert stage is not None
    assert window is not None
    assert stage["width"] == pytest.approx(1.4 * window["width"], rel=0.01)
    here = window["x"] + window["width"] / 2, window["y"] + window["height"] / 2
    answered(page, lambda: page.mouse.click(*here))
    point = page.locator(".ann-point").first.bounding_box()
    assert point is not None
    assert (point["x"] + point["width"] / 2, point["y"] + point["height"] / 2) == pytest.approx(here, abs=6)
    press(page, "u")
    item = page.locator(".ann-head b").inner_text()
    decided = len(list((server.out / "annotations").glob("*.json")))
    press(page, "a")
    assert len(list((server.out / "annotations").glob("*.json"))) == decided + 1
    assert "taken back" in press(page, "u")
    assert page.locator(".ann-head b").inner_text() == item
    assert len(list((server.out / "annotations").glob("*.json"))) == decided
    assert seen.complaints == []
    page.close()


def test_an_outline_is_edited_with_the_mouse_and_with_keys(opened: Browser, server: Server) -> None:
    seen = board(opened, server)
    page = seen.page

    def shapes() -> list[list[list[float]]]:
        return list(json.loads(page.locator(".ann-outline").get_attribute("data-outlines") or ""))

    def told() -> str:
        return page.locator("[data-corner]").inner_text()

    press(page, "c")
    page.keyboard.press("f")
    drag(page, 0.3, 0.5, 0.6, 0.5)
    press(page, "e")
    first = shapes()
    number = sum(map(len, first))
    assert len(first) == 1
    assert told() == f"{number} corners"
    masks = page.locator(".ann-layer").get_attribute("src")
    # The mouse: a corner is dragged to where it is let go.
    box = page.locator(".ann-stage").bounding_box()
    assert box is not None

    def screen(x: float, y: float) -> tuple[float, float]:
        return box["x"] + (x + 0.5) / 128 * box["width"], box["y"] + (y + 0.5) / 128 * box["height"]

    def carry(start: tuple[float, float], end: tuple[float, float]) -> None:
        page.mouse.move(*screen(*start))
        page.mouse.down()
        page.mouse.move(*screen(*end), steps=4)
        page.mouse.up()

    x, y = first[0][0]
    answered(page, lambda: carry((x, y), (100, 120)))
    assert shapes()[0][0] == pytest.approx([100, 120], abs=1)
    assert shapes()[0][1:] == first[0][1:]
    assert page.locator(".ann-layer").get_attribute("src") != masks
    # From the line between two corners a new one is drawn out; shift and a click delete it.
    (x, y), (next_x, next_y) = shapes()[0][:2]
    answered(page, lambda: carry(((x + next_x) / 2, (y + next_y) / 2), (110, 10)))
    assert len(shapes()[0]) == number + 1
    assert shapes()[0][1] == pytest.approx([110, 10], abs=1)
    page.keyboard.down("Shift")
    answered(page, lambda: page.mouse.click(*screen(*shapes()[0][1])))
    page.keyboard.up("Shift")
    assert len(shapes()[0]) == number
    # The keys: the second corner moves three pixels, another one is added after it and deleted.
    page.keyboard.press("Escape")
    for key in (".", "."):
        page.keyboard.press(key)
    assert told() == f"corner 2 of {number}"
    before = shapes()[0][1]
    answered(page, lambda: [page.keyboard.press(key) for key in ("ArrowRight", "ArrowDown", "ArrowDown")])
    assert shapes()[0][1] == [before[0] + 1, before[1] + 2]
    answered(page, lambda: page.keyboard.press("i"))
    assert told() == f"corner 3 of {number + 1}"
    answered(page, lambda: page.keyboard.press("Delete"))
    assert len(shapes()[0]) == number
    for _ in range(3):
        press(page, "u")
    assert shapes()[0][1] == before
    for _ in range(3):
        press(page, "u")
    assert shapes() == first
    press(page, "u")
    assert page.locator(".ann-outline").count() == 0
    assert page.locator(".ann").get_attribute("data-mode") == "point"
    assert seen.complaints == []
    page.close()


def test_a_page_that_stays_open_goes_on_after_a_restart(opened: Browser, server: Server) -> None:
    page = board(opened, server).page
    press(page, "n")
    item = page.locator(".ann-head b").inner_text()
    click(page, 0.5, 0.5)
    server.kill()
    server.start()
    press(page, "1")  # gradio may have loaded the page again before; this key changes nothing
    assert page.locator(".ann-head b").inner_text() == item
    assert page.locator(".ann-point").count() == 1
    page.reload()
    page.locator(".ann-stage").wait_for()
    assert page.locator(".ann-head b").inner_text() == item
    assert "is back" in page.locator(".ann-message").inner_text()
    page.close()


def test_nothing_sticks_out_and_mistakes_are_sentences(opened: Browser, server: Server) -> None:
    seen = board(opened, server)
    page = seen.page
    while page.locator(".ann-head b").inner_text() != "item 1 of 5":
        press(page, "p")
    assert "first item" in press(page, "p")
    assert page.locator(".ann-message [role=alert]").count() == 1
    assert "nothing to undo" in press(page, "u")
    for size in ((1280, 800), (800, 1000), (390, 844)):
        page.set_viewport_size({"width": size[0], "height": size[1]})
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, size
    page.set_viewport_size({"width": 1280, "height": 800})
    accept = page.locator("[data-do=accept]").bounding_box()
    stage = page.locator(".ann-stage").bounding_box()
    assert accept is not None
    assert stage is not None
    assert max(accept["y"] + accept["height"], stage["y"] + stage["height"]) <= 800
    page.get_by_role("tab", name="Explore").click()
    page.locator("#ttd-maps img").first.wait_for()
    assert seen.elsewhere() == []
    assert seen.complaints == []
    page.close()


def test_a_photo_without_a_caption_is_given_one(opened: Browser, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number, name in enumerate(("a.png", "b.png")):
        Image.fromarray(Scenes("test")[number].image).save(tmp_path / "photos" / name)
    server = Server(tmp_path, "photos")
    server.start()
    try:
        seen = board(opened, server)
        page = seen.page
        field = page.locator(".ann-typed input")
        assert page.locator(".ann-caption button").count() == 0
        assert "no caption yet" in press(page, "a")
        field.fill("a dog on grass")
        field.press("End")
        field.type(" as snow")  # letters that are commands elsewhere
        assert field.input_value() == "a dog on grass as snow"
        assert page.locator(".ann-head b").inner_text() == "item 1 of 2"
        answered(page, lambda: field.press("Enter"))
        choose(page, {"dog", "grass"})
        page.reload()
        page.locator(".ann-stage").wait_for()
        assert field.input_value() == "a dog on grass as snow"
        assert chosen(page) == {"dog", "grass"}
        assert "is saved" in press(page, "a")
        field.fill("snow")
        answered(page, page.locator(".ann-typed button").click)
        assert page.locator(".ann-caption [data-word='snow']").count() == 1
        assert [(row.caption, row.true) for row in server.rows()] == [("a dog on grass as snow", {"dog", "grass"})]
    finally:
        server.kill()
