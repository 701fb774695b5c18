"""Images: what is drawn where, label maps as data, atomic writing, hostile sizes and words."""

from __future__ import annotations

import errno
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ttd.errors import InputError
from ttd.results import TaggedWord
from ttd.viz.figures import (
    caption_chips,
    heatmap_panels,
    rows_to_show,
    score_plot,
    tag_chips,
    tagging_image,
)
from ttd.viz.overlays import (
    SIDE,
    bounded,
    class_colours,
    colour_values,
    heatmap_overlay,
    label_overlay,
    label_png,
    mask_overlay,
    mask_png,
    save_png,
)
from ttd.viz.typography import Chip, fitted, font, paragraph

GREY = Image.new("RGB", (40, 30), (128, 128, 128))


def words_of(caption: str, scores: list[float], selected: int) -> list[TaggedWord]:
    found, end = [], 0
    for index, (text, score) in enumerate(zip(caption.split(), scores, strict=True)):
        start = caption.index(text, end)
        end = start + len(text)
        best = sorted(scores, reverse=True)[:selected]
        found.append(TaggedWord(text, index, start, end, score, score in best))
    return found


def reopened(image: Image.Image) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return Image.open(io.BytesIO(stream.getvalue()))


# ---- single images


def test_heat_is_bright_where_the_map_is_high() -> None:
    heat = np.zeros((3, 4), np.float32)
    heat[0, 3] = 1.0
    pixels = np.asarray(heatmap_overlay(GREY, heat)).astype(int)
    assert pixels.shape == (30, 40, 3)
    expected = 0.4 * 128 + 0.6 * colour_values(np.array([0.0, 1.0])).astype(float)
    np.testing.assert_allclose(pixels[-1, 0], expected[0], atol=1)
    np.testing.assert_allclose(pixels[0, -1], expected[1], atol=1)


def test_heat_outside_its_range_or_undefined_is_clipped() -> None:
    np.testing.assert_array_equal(colour_values([-5.0, np.nan, 7.0]), colour_values([0.0, 0.0, 1.0]))


def test_colours_rise_in_lightness() -> None:
    lightness = colour_values(np.linspace(0, 1, 256)) @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) > -1.0).all()
    assert lightness[-1] - lightness[0] > 150


def test_mask_keeps_the_inside_and_darkens_the_outside() -> None:
    mask = np.zeros((30, 40), bool)
    mask[:, :20] = True
    pixels = np.asarray(mask_overlay(GREY, mask))
    assert (pixels[:, :18] == 128).all()
    assert (pixels[:, 22:] < 60).all()


def test_classes_get_their_colours_and_background_stays() -> None:
    labels = np.zeros((30, 40), np.uint16)
    labels[:10, :20], labels[20:, 20:] = 1, 2
    drawn = label_overlay(GREY, labels, ["background", "dog", "sky"], background=True, legend=0)
    pixels = np.asarray(drawn).astype(float)
    for row, column, index in ((5, 5, 0), (25, 30, 1)):
        np.testing.assert_allclose(pixels[row, column], 0.4 * 128 + 0.6 * class_colours(2)[index], atol=1)
    assert (pixels[15, 20] == 128).all()


def test_without_background_label_0_is_a_class() -> None:
    drawn = label_overlay(GREY, np.zeros((30, 40), np.uint16), ["dog"], background=False, legend=0)
    np.testing.assert_allclose(np.asarray(drawn)[9, 9], 0.4 * 128 + 0.6 * class_colours(1)[0], atol=1)


def test_the_legend_stands_beside_the_image() -> None:
    labels = np.ones((30, 40), np.uint16)
    names = ["background", "dog"]
    plain = label_overlay(GREY, labels, names, background=True, legend=0)
    with_legend = label_overlay(GREY, labels, names, background=True)
    assert with_legend.width > plain.width
    np.testing.assert_array_equal(np.asarray(with_legend)[:30, :40], np.asarray(plain))


def test_the_first_300_class_colours_differ_and_none_is_background() -> None:
    colours = {tuple(row) for row in class_colours(300).tolist()}
    assert len(colours) > 290
    assert len({tuple(row) for row in class_colours(40).tolist()}) == 40
    assert (0, 0, 0) not in colours


@pytest.mark.parametrize(("highest", "mode"), [(0, "P"), (255, "P"), (256, "I;16"), (65535, "I;16")])
def test_label_maps_come_back_as_they_were(highest: int, mode: str) -> None:
    labels = np.random.default_rng(0).integers(0, highest + 1, (17, 23)).astype(np.uint16)
    labels[0, 0] = highest
    image = reopened(label_png(labels))
    assert image.mode == mode
    np.testing.assert_array_equal(np.asarray(image), labels)


def test_an_indexed_label_map_carries_the_palette_of_the_overlay() -> None:
    image = reopened(label_png(np.array([[0, 1, 2]], np.uint16)))
    colours = np.asarray(image.convert("RGB"))[0]
    np.testing.assert_array_equal(colours[1:], class_colours(2))
    assert (colours[0] == 0).all()


def test_labels_beyond_16_bits_are_refused() -> None:
    with pytest.raises(InputError, match="65535"):
        label_png(np.array([[70000]]))


def test_a_mask_comes_back_as_it_was() -> None:
    mask = np.random.default_rng(0).random((9, 11)) > 0.5
    np.testing.assert_array_equal(np.asarray(reopened(mask_png(mask))) == 255, mask)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3000, 2000), (7, 3)])
def test_any_size_is_bounded(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (9, 9, 9))
    labels = np.zeros((size[1], size[0]), np.uint16)
    for drawn in (
        bounded(image),
        heatmap_overlay(image, np.zeros((2, 2), np.float32)),
        mask_overlay(image, labels > 0),
        label_overlay(image, labels, ["background"], background=True, legend=0),
    ):
        assert max(drawn.size) <= SIDE
        assert min(drawn.size) >= 1
    assert max(bounded(image, 64, enlarge=True).size) == 64


# ---- writing


def test_save_makes_folders_and_leaves_no_parts(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b.png"
    save_png(GREY, target)
    assert Image.open(target).size == (40, 30)
    assert [path.name for path in target.parent.iterdir()] == ["b.png"]


def test_a_full_disk_leaves_the_old_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.png"
    save_png(GREY, target)
    before = target.read_bytes()

    def full(self: Image.Image, path: Path, **options: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="space"):
        save_png(Image.new("RGB", (3, 3)), target)
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]


# ---- words


def test_the_caption_is_coloured_from_lowest_to_highest() -> None:
    caption = "dog on grass"
    chips = caption_chips(caption, words_of(caption, [0.3, 0.1, 0.2], 2))
    assert [chip.text for chip in chips] == ["dog", "on", "grass"]
    expected = [tuple(row) for row in colour_values([1.0, 0.0, 0.5]).tolist()]
    for chip, colour in zip(chips, expected, strict=True):
        assert chip.background is not None
        np.testing.assert_allclose(chip.background, colour, atol=2)
    assert [chip.marked for chip in chips] == [True, False, True]


def test_what_has_no_score_stays_plain_and_punctuation_keeps_to_its_word() -> None:
    caption = "a dog, on grass."
    words = [TaggedWord("dog", 1, 2, 5, 0.3, True), TaggedWord("grass", 4, 10, 15, 0.2, False)]
    chips = caption_chips(caption, words)
    assert [chip.text for chip in chips] == ["a", "dog", ",", "on", "grass", "."]
    assert [chip.background is None for chip in chips] == [True, False, True, True, False, True]
    assert [chip.space for chip in chips][1:] == [True, False, True, True, False]


def test_equal_scores_and_no_words_can_be_drawn() -> None:
    same = words_of("a b c", [0.5, 0.5, 0.5], 3)
    assert tagging_image(GREY, caption_chips("a b c", same), same, {}).width > 0
    assert score_plot([]).width > 0


def test_a_long_word_is_cut_to_the_width() -> None:
    face = font(16)
    assert fitted("short", face, 200) == "short"
    shortened = fitted("x" * 100_000, face, 200)
    assert shortened.endswith("…")
    assert 150 < face.getlength(shortened) <= 200


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=30), st.booleans()), max_size=25))
def test_any_unicode_can_be_drawn(texts: list[tuple[str, bool]]) -> None:
    drawn = paragraph([Chip(text, (9, 99, 9), marked) for text, marked in texts], 200)
    assert drawn.width == 200


def test_a_paragraph_wraps_and_says_what_is_left() -> None:
    one = paragraph([Chip("word")], 300)
    many = paragraph([Chip(f"word{i}") for i in range(10_000)], 300, lines=5)
    assert one.height < many.height == 6 * one.height


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 500), st.integers(0, 500), st.integers(8, 60))
def test_a_plot_shows_the_ends_and_the_border_of_the_selection(number: int, picked: int, most: int) -> None:
    picked = min(picked, number)
    rows = rows_to_show(number, picked, most)
    shown = [row for row in rows if row is not None]
    assert shown == sorted(set(shown))
    assert len(rows) <= max(most, 0) + 2
    assert number == 0 or {0, number - 1} <= set(shown)
    assert not 0 < picked < number or {picked - 1, picked} <= set(shown)
    for before, row, after in zip(rows, rows[1:], rows[2:], strict=False):
        if row is None:
            assert before is not None
            assert after is not None
            assert after - before > 2
    if number <= most:
        assert shown == list(range(number))


def test_many_words_and_maps_are_counted_not_drawn() -> None:
    words = [TaggedWord(f"w{i} 😀", i, None, None, i / 200, i >= 150) for i in range(200)]
    heat = np.zeros((4, 4), np.float32)
    maps = {word.text: heat for word in words if word.selected}
    page = tagging_image(GREY, tag_chips(words), words, maps, best=np.zeros((4, 4), int))
    few = heatmap_panels(GREY, dict(list(maps.items())[:11]))
    assert heatmap_panels(GREY, maps).height == few.height + 26
    assert page.height < 4000


def test_one_panel_per_map_beside_the_photo() -> None:
    heat = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    page = np.asarray(heatmap_panels(GREY, {"dog": heat}))
    photo = page[36 : 36 + 240, 10 : 10 + 320]
    layer = page[36 : 36 + 240, 340 : 340 + 320]
    assert (photo == 128).all()
    np.testing.assert_array_equal(layer, np.asarray(heatmap_overlay(GREY, heat, side=320, enlarge=True)))
