import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

import ttd
from tests.colour_encoder import ColourEncoder
from tests.extras import needs
from tests.tiny_models import tiny_clip, tiny_sam_model, tiny_tcl
from tests.tolerance import (
    COLOURS,
    COSINES,
    COSINES_TCL,
    LAYERS,
    PAMR,
    assert_close,
    assert_same_decisions,
    assert_same_tagging,
    float_tolerance,
    label_margin,
)
from ttd import TTD, InputError, OutOfMemory
from ttd.encoders import tcl
from ttd.encoders.calibration import Calibration
from ttd.images import prepare_pixels
from ttd.inference.pipeline import BATCHES_AHEAD
from ttd.inference.protocols import PROTOCOLS, Options
from ttd.inference.protocols import options as find_options
from ttd.inference.stitching import Block, Stitched
from ttd.refine import SAMRefiner
from ttd.selection import Selection

# Of maps of colours, which range over more than half of the scale.
ROUNDING = float_tolerance(torch.float32, COLOURS, scale=2)

CAPTION = "Red and blue, the red one on grass"


def scene(height: int = 40, width: int = 60) -> np.ndarray:
    """Red left, blue right."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = 255
    pixels[:, width // 2 :, 2] = 255
    return pixels


@pytest.fixture
def model() -> TTD:
    return TTD(ColourEncoder())


def test_an_encoder_is_loaded_as_it_is() -> None:
    encoder = tiny_clip().double()
    assert ttd.load(encoder).encoder is encoder
    assert encoder.dtype == torch.float64
    for options in ({"adapter": "mini+ttd"}, {"adapter_scale": 0.5}, {"method": "values"}, {"device": "cpu"}):
        with pytest.raises(InputError, match="taken as it is"):
            ttd.load(encoder, **options)  # type: ignore[arg-type]


def test_tagging_selects_what_the_image_shows(model: TTD) -> None:
    tagging = model.tag(scene(), CAPTION, tags=None)
    assert [word.text for word in tagging.words] == ["Red", "blue", "red", "one", "grass"]
    assert tagging.selected == ["Red", "blue"]
    first, _, again = tagging.words[:3]
    assert (first.score, first.selected) == (again.score, again.selected)
    assert all(CAPTION[w.start : w.end] == w.text for w in tagging.words)
    assert_close(tagging.words[0].score, 1.0, COLOURS)
    assert tagging.ranked()[0].score >= tagging.ranked()[-1].score
    assert json.loads(json.dumps(tagging.to_dict()))["selected"] == ["Red", "blue"]
    assert "* Red" in str(tagging)


def test_stop_words_are_an_option(model: TTD) -> None:
    assert [w.text for w in model.tag(scene(), "the red one .", options=Options(stop_words=False)).words] == [
        "the",
        "red",
        "one",
        ".",
    ]


def test_own_tags_take_the_place_of_the_captions_words(model: TTD) -> None:
    tagging = model.tag(scene(), None, tags=["green bus", "blue sky", "red wall"])
    assert tagging.selected == ["blue sky", "red wall"]
    assert [(w.index, w.start, w.end) for w in tagging.words] == [
        (0, None, None),
        (1, None, None),
        (2, None, None),
    ]


@pytest.mark.parametrize("score", ["s_image", "s_text", "s_image+s_text", "s_seg"])
def test_other_scores(model: TTD, score: str) -> None:
    tagging = model.tag(scene(), "red and green", selection=score)
    scores = {word.text: word.score for word in tagging.words}
    total = 2.0 if score == "s_image+s_text" else 1.0
    assert_close(sum(scores.values()), total, COLOURS)
    if score != "s_text":
        assert tagging.selected == ["red"]
    assert tagging.threshold == 0.5


def test_many_images_give_what_each_gives_alone() -> None:
    model = TTD(tiny_clip())
    rng = np.random.default_rng(0)
    shapes = [(70, 100), (64, 64), (70, 100), (100, 70), (70, 100)]
    images = [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
    captions = ["a dog", "a cat on the green grass", "red bus and dog", "two birds", "dog, cat, bus, tree"]
    # A softmax is steepest with a quarter of its scale, here of two softmaxes; shares are counted.
    slope = model.encoder.logit_scale / 4
    for score, scale in (("s_pixel", 1.0), ("s_image+s_text", 2 * slope), ("s_seg", 1.0)):
        together = list(model.tag_many(images, captions, batch_size=2, selection=score))
        for image, caption, tagging in zip(images, captions, together, strict=True):
            alone = model.tag(image, caption, selection=score)
            assert tagging.caption == caption
            assert_same_tagging(tagging, alone, COSINES, scale=scale)


def test_many_images_encode_each_distinct_word_once() -> None:
    encoder = ColourEncoder()
    list(TTD(encoder).tag_many([scene()] * 6, ["red dog", "Red cat", "blue dog"] * 2, batch_size=4))
    assert sorted(encoder.texts_seen) == ["blue", "cat", "dog", "red"]
    assert encoder.images_seen == 6


def test_an_encoded_image_is_never_encoded_again(model: TTD) -> None:
    encoded = model.encode(scene(), Options(flip=True))
    seen = model.encoder.images_seen
    direct = TTD(ColourEncoder())
    flipped = Options(flip=True)
    expected = direct.tag(scene(), CAPTION, options=flipped)
    assert_same_tagging(model.tag(encoded, CAPTION), expected, COLOURS)
    assert_same_tagging(*model.tag_many([encoded], [CAPTION]), expected, COLOURS)
    assert_close(model.heatmaps(encoded, ["red"]), direct.heatmaps(scene(), ["red"], flipped), COLOURS)
    heat = direct.caption_map(scene(), "blue", flipped, scale="calibrated")
    mask, wanted = model.caption_mask(encoded, "blue"), direct.caption_mask(scene(), "blue", options=flipped)
    assert_same_decisions(mask, wanted, heat - direct.encoder.caption_threshold, ROUNDING)
    assert model.segment(encoded, ["red"], options=replace(encoded.options, background=0.3)).background == 0.3
    assert model.encoder.images_seen == seen
    assert encoded.size == (40, 60)
    assert encoded.pooled.shape == (4,)


def test_an_encoded_image_refuses_other_views_and_models(model: TTD) -> None:
    encoded = model.encode(scene())
    with pytest.raises(InputError, match="another size"):
        model.tag(encoded, "red", options=Options(size=64))
    with pytest.raises(InputError, match="another model"):
        TTD(ColourEncoder()).tag(encoded, "red")


def test_heatmaps_are_at_the_images_size_in_zero_to_one(model: TTD) -> None:
    maps = model.heatmaps(scene(50, 90), ["red", "blue"])
    assert maps.shape == (2, 50, 90)
    assert maps.dtype == np.float32
    assert maps.min() >= 0
    assert maps.max() <= 1
    assert maps[0, :, 5].min() > 0.9
    assert maps[0, :, -5].max() < 0.1
    assert_close(model.caption_map(scene(50, 90), "red"), maps[0], COLOURS)


def test_caption_mask_is_cut_at_the_threshold(model: TTD) -> None:
    mask = model.caption_mask(scene(), "red")
    assert mask.dtype == np.bool_
    assert mask[:, :28].all()
    assert not mask[:, 32:].any()
    heat = model.caption_map(scene(), "red", scale="calibrated")
    assert_same_decisions(model.caption_mask(scene(), "red", threshold=0.2), heat >= 0.2, heat - 0.2, ROUNDING)


@pytest.mark.parametrize("refine", ["none", "pamr", "crf"])
def test_masks_of_several_captions_are_those_of_each_from_one_look(model: TTD, refine: str) -> None:
    if refine == "crf":
        needs("crf", "pydensecrf")
    captions = ["red", "blue", "a red thing and a blue one"]
    each = [model.caption_mask(scene(), caption, 0.3, options=Options(refine=refine)) for caption in captions]
    seen = model.encoder.images_seen
    found = model.caption_masks(scene(), captions, 0.3, options=Options(refine=refine))
    assert model.encoder.images_seen == seen + 1
    assert found.dtype == np.bool_
    heats = model.heatmaps(scene(), captions, options=Options(refine=refine, background=0.3), scale="calibrated")
    cut = 0.5 if refine == "crf" else 0.3  # DenseCRF's labels compete after they were weighed by the threshold
    assert_same_decisions(found, np.stack(each), heats - cut, float_tolerance(torch.float32, COLOURS + PAMR))
    with pytest.raises(InputError, match="no text"):
        model.caption_masks(scene(), [])


def test_segments_and_background(model: TTD) -> None:
    image = scene(40, 90)
    image[:, 60:] = 128  # grey: neither
    found = model.segment(image, ["blue", "red"])
    assert found.names == ("background", "blue", "red")
    assert found.label_map.dtype == np.uint16
    assert [int(found.label_map[20, x]) for x in (20, 52, 85)] == [2, 1, 0]
    plain = model.segment(image, ["blue", "red"], options=Options(background=None))
    assert plain.names == ("blue", "red")
    assert [int(plain.label_map[20, x]) for x in (20, 52)] == [1, 0]
    assert sum(found.shares().values()) == pytest.approx(1)
    assert json.loads(json.dumps(found.to_dict()))["width"] == 90
    assert "background" in str(found)


def test_background_is_cut_on_calibrated_maps(model: TTD) -> None:
    image = scene(40, 60)
    sim = model.similarity(image, ["red", "green", "blue"]).numpy()
    large = torch.nn.functional.interpolate(torch.from_numpy(sim)[None], (40, 60), mode="bilinear")[0].numpy()
    calibrated = 1 / (1 + np.exp(-10 * (large - 0.25)))
    for threshold in (0.3, 0.9, 1.0):
        found = model.segment(image[:, :60], ["red", "green", "blue"], options=Options(background=threshold))
        expected = np.where(calibrated.max(0) >= threshold, calibrated.argmax(0) + 1, 0)
        assert (found.label_map == expected).mean() > 0.995


NAMES = ["red", "green", "blue", "grey", "a red thing", "sky", "dog"]


@settings(max_examples=30, deadline=None)
@given(
    pixels=arrays(np.uint8, (6, 9, 3)),
    threshold=st.floats(0, 1),
    w=st.floats(1, 60),
    c=st.floats(-0.5, 0.9),
    count=st.integers(1, 6),
)
def test_one_name_more_takes_only_pixels_where_it_wins_and_reaches_the_threshold(
    pixels: np.ndarray, threshold: float, w: float, c: float, count: int
) -> None:
    """Without refinement no pixel passes from one of the other names to another one, or to the background."""
    model = TTD(ColourEncoder())
    model.encoder.calibration = Calibration(w, c)
    image = np.kron(pixels, np.ones((4, 4, 1), np.uint8))
    encoded = model.encode(image, Options(size=24, background=threshold, templates="none"))
    before = model.segment(encoded, NAMES[:count]).label_map
    after = model.segment(encoded, NAMES[: count + 1]).label_map
    maps = model.heatmaps(encoded, NAMES[: count + 1], scale="calibrated")
    # Cosines with one text more may be added up in another order: what is too close to call is left out.
    rounding = 2 * float_tolerance(torch.float32, COLOURS, scale=max(1.0, w / 4))
    clear = np.minimum(label_margin(maps[:count], threshold), label_margin(maps, threshold)) > rounding
    changed = (before != after) & clear
    assert (after[changed] == count + 1).all()
    assert ((maps[count] >= threshold) & (maps[count] >= maps[:count].max(0)))[changed].all()


def test_heat_maps_are_scaled_as_asked(model: TTD) -> None:
    sim = model.similarity(scene(40, 64), ["red", "sky"])
    norm, calibrated = (model.heatmaps(scene(40, 64), ["red", "sky"], scale=how) for how in ("norm", "calibrated"))
    assert np.array_equal(norm, model.heatmaps(scene(40, 64), ["red", "sky"]))
    assert_close(norm[0].max(), 1.0, COLOURS)
    expected = 1 / (1 + np.exp(-10 * (sim.double().numpy().max((1, 2)) - 0.25)))
    assert_close(calibrated.max((1, 2)), expected, COLOURS, scale=10 / 4)
    assert_close(model.caption_map(scene(40, 64), "sky", scale="calibrated"), calibrated[1], COLOURS)


def test_captions_have_a_threshold_of_their_own(model: TTD) -> None:
    heat = model.caption_map(scene(), "red and blue", scale="calibrated")
    cut = float(np.quantile(heat, 0.4))
    model.encoder.configured(caption_threshold=cut)
    assert np.array_equal(model.caption_mask(scene(), "red and blue"), heat >= cut)
    assert np.array_equal(model.caption_mask(scene(), "red and blue", options=Options(background=0.9)), heat >= 0.9)
    assert model.segment(scene(), ["red"]).background == model.encoder.background


def test_own_maps_are_taken_as_they_are() -> None:
    model = TTD(ColourEncoder(padding=16, own_maps=True))
    image = scene(37, 51)
    image[:] = (255, 60, 60)
    sim = model.similarity(image, ["red", "blue"])
    maps = model.heatmaps(image, ["red", "blue"])
    assert maps.shape == (2, 37, 51)
    assert_close(maps[0].max(), float(sim[0].max()), COLOURS)
    assert maps[1].max() < 0.4


@pytest.mark.parametrize("pamr", [False, True])
@pytest.mark.parametrize("size", [(96, 128), (80, 48)])
def test_tcl_gives_its_own_masks(size: tuple[int, int], pamr: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = tiny_tcl()
    text = torch.nn.functional.normalize(torch.randn(3, encoder.embedding_size), dim=-1)
    monkeypatch.setattr(encoder, "encode_text", lambda texts, templates: text[: len(texts)])
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    model = TTD(encoder)
    found = model.heatmaps(image, ["a", "b", "c"], options=Options(size=min(size), refine="pamr" if pamr else "none"))
    with torch.inference_mode():
        pixels = prepare_pixels(Image.fromarray(image), size, encoder.mean, encoder.std)[None]
        expected = encoder.masks(pixels, text[:3], pamr=pamr)[0].numpy()
    assert_close(found, expected, COSINES_TCL + pamr * PAMR, scale=float(encoder.backbone.mask_scale.detach()) / 4)


@pytest.mark.parametrize(
    ("options", "skips"),
    [({}, True), ({"flip": True}, False), ({"scales": (1.0, 0.5)}, False), ({"window": 32}, False)],
)
def test_pamr_leaves_out_what_the_threshold_cuts(
    options: dict[str, object], skips: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels and masks are those of refining every map, and only one view lets any be left out."""
    encoder = tiny_tcl()
    image = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    names = [f"thing {i}" for i in range(12)]
    text = torch.nn.functional.normalize(torch.randn(12, 48, generator=torch.Generator().manual_seed(0)), dim=-1)
    rows = dict(zip(names, text, strict=True))
    monkeypatch.setattr(encoder, "encode_text", lambda texts, templates: torch.stack([rows[t] for t in texts]))
    model, how = TTD(encoder), {"size": 48, "refine": "pamr", **options}
    whole = model.heatmaps(image, names, options=Options(**how))
    heats = whole.max((1, 2))
    cut = float(np.median(heats))
    refined: list[int] = []
    pamr = tcl.refine_with_pamr
    monkeypatch.setattr(tcl, "refine_with_pamr", lambda image, m: refined.append(m.shape[1]) or pamr(image, m))
    found = model.segment(image, names, options=Options(background=cut, **how)).label_map
    masks = model.caption_masks(image, names, cut, options=Options(**how))
    assert (min(refined) < 12) == skips
    maps = encoder.maps
    monkeypatch.setattr(encoder, "maps", lambda seen, text, asked: maps(seen, text, replace(asked, threshold=None)))
    refined.clear()
    rounding = float_tolerance(torch.float32, COSINES_TCL + PAMR, scale=float(encoder.backbone.mask_scale.detach()) / 4)
    labels = model.segment(image, names, options=Options(background=cut, **how)).label_map
    assert_same_decisions(found, labels, label_margin(whole, cut), rounding)
    again = model.caption_masks(image, names, cut, options=Options(**how))
    assert_same_decisions(masks, again, whole - cut, rounding)
    assert set(refined) == {12}
    assert masks.any(axis=(1, 2)).tolist() == (heats >= cut).tolist()
    assert len(np.unique(found)) > 2


@pytest.mark.parametrize("refine", ["none", "pamr"])
@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
def test_every_protocol_answers(protocol: str, refine: str) -> None:
    for encoder in (ColourEncoder(), ColourEncoder(padding=16, own_maps=True)):
        model = TTD(encoder)
        masks = find_options(protocol, "masks", size=32, refine=refine)
        tags = find_options(protocol, "tags", size=32)
        assert model.tag(scene(), "red and blue and green", options=tags).selected == ["red", "blue"]
        mask = model.caption_mask(scene(), "red", options=masks)
        assert mask[3:-3, 3:24].all()  # a protocol may pad: at the edge, a patch of it counts
        assert mask[:, :24].mean() > 0.98
        assert not mask[:, 36:].any()
        assert set(np.unique(model.segment(scene(), ["red", "blue"], masks).label_map)) <= {
            0,
            1,
            2,
        }


def test_densecrf_refines_masks_and_segments(model: TTD) -> None:
    needs("crf", "pydensecrf")
    image = scene(40, 60)
    mask = model.caption_mask(image, "red", options=Options(refine="crf"))
    assert np.array_equal(mask, np.broadcast_to(np.arange(60) < 30, (40, 60)))
    labels = model.segment(image, ["red", "blue"], options=Options(refine="crf", background=False)).label_map
    assert np.array_equal(labels, np.broadcast_to(np.arange(60) >= 30, (40, 60)))
    assert set(np.unique(model.segment(image, ["red"], options=Options(refine="crf", background=False)).label_map)) == {
        0
    }
    assert model.heatmaps(image, ["red", "blue"], options=Options(refine="crf")).shape == (2, 40, 60)


def test_sam_redraws_masks_segments_and_heatmaps_with_one_loaded_model(
    model: TTD, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_sam_model().save_pretrained(tmp_path / "sam")
    options = Options(refine="sam", sam_model=str(tmp_path / "sam"))
    image = scene(40, 60)
    loaded: list[SAMRefiner] = []
    load = SAMRefiner.from_pretrained
    monkeypatch.setattr(SAMRefiner, "from_pretrained", lambda *args: loaded.append(load(*args)) or loaded[-1])
    cut = model.caption_mask(image, "red")
    mask = model.caption_mask(image, "red", options=options)
    (own,) = loaded  # asked the same, the same model draws the same
    drawn = own.redraw(image, cut[None])[0][0]
    assert np.array_equal(mask, drawn)
    assert np.array_equal(model.heatmaps(image, ["red"], options=options)[0] > 0.5, drawn)
    (tmp_path / "sam/config.json").unlink()  # it is not read again
    assert model.segment(image, ["red", "blue"], options=options).label_map.shape == (40, 60)
    assert len(loaded) == 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (2, 7)])
@pytest.mark.parametrize("padding", [0, 16])
def test_tiny_and_thin_images_work(shape: tuple[int, int], padding: int) -> None:
    model = TTD(ColourEncoder(padding=padding, own_maps=bool(padding)))
    image = np.full((*shape, 3), (255, 0, 0), np.uint8)
    assert model.tag(image, "red green").selected == ["red"]
    for refine in ("none", "pamr"):
        assert model.segment(image, ["red", "blue"], options=Options(refine=refine)).label_map.shape == shape


def test_large_images_are_segmented_in_bounded_memory(model: TTD, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []

    def recorded(self: Stitched, image: int, size: tuple[int, int]) -> Iterator[Block]:
        for block in whole(self, image, size):
            held.append(block[2].numel())
            yield block

    whole = Stitched.blocks
    monkeypatch.setattr(Stitched, "blocks", recorded)
    image = Image.new("RGB", (3000, 2000), "red")
    names = [f"thing {i}" for i in range(20)] + ["red"]
    found = model.segment(image, names, options=Options(background=None, templates="none"))
    assert found.label_map.shape == (2000, 3000)
    assert (found.label_map == 20).all()
    assert sum(held) == 21 * 2000 * 3000
    assert max(held) <= 4_000_000


def test_thousands_of_words() -> None:
    model = TTD(ColourEncoder())
    caption = " ".join(f"word{i}" for i in range(10_000)) + " red"
    assert model.tag(scene(), caption).selected == ["red"]


@pytest.mark.parametrize("caption", ["", "  \n", "the of and ...", "\ud800", None])
def test_captions_without_words_are_refused(model: TTD, caption: str) -> None:
    with pytest.raises(InputError):
        model.tag(scene(), caption)


@pytest.mark.parametrize("texts", [[], [""], ["red", " "], "red", ["\udc00"]])
def test_texts_that_cannot_be_looked_for_are_refused(model: TTD, texts: list[str]) -> None:
    for method in (model.heatmaps, model.segment):
        with pytest.raises(InputError):
            method(scene(), texts)


def test_other_wrong_calls(model: TTD) -> None:
    wrong: tuple[dict[str, Any], ...] = ({"selection": "best"}, {"options": "best"}, {"tags": []})
    for arguments in wrong:
        with pytest.raises(InputError):
            model.tag(scene(), "red", **arguments)
    with pytest.raises(InputError):
        Selection(score="best")
    with pytest.raises(InputError, match="more images than texts"):
        list(model.tag_many([scene()] * 2, ["red"]))
    with pytest.raises(InputError, match="batch_size"):
        model.tag_many([scene()], ["red"], batch_size=0)


def test_long_texts_are_cut_and_named(model: TTD, caplog: pytest.LogCaptureFixture) -> None:
    long = "red " * 20
    assert model.segment(scene(), [long, "blue"], options=Options(templates="none")).truncated == (long,)
    assert "only its beginning counts" in caplog.text
    assert model.tag(scene(), None, tags=[long, "blue"]).truncated == (long.strip(),)
    caption = " ".join(f"word{i}" for i in range(20))
    assert model.tag(scene(), caption).truncated == ()
    assert model.tag(scene(), caption, selection="s_text").truncated == (caption,)


def test_unknown_words_of_a_closed_vocabulary_are_named(model: TTD) -> None:
    model.encoder.vocabulary = frozenset({"red", "blue"})
    assert model.tag(scene(), "A red zebra by the blue Zebra").unknown == ("zebra",)
    assert model.segment(scene(), ["red okapi"]).unknown == ("okapi",)


def test_text_embeddings_are_remembered_per_template() -> None:
    encoder = ColourEncoder()
    model = TTD(encoder)
    for _ in range(2):
        model.heatmaps(scene(), ["red", "blue"])
    model.tag(scene(), "red blue")
    assert encoder.texts_seen == ["red", "blue", "red", "blue"]
    found = model.encode_text(["red", "blue", "red"])
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])


def test_the_tensor_method_under_tag(model: TTD) -> None:
    encoded = model.encode(scene())
    text = model.encode_text(["red", "green", "blue"])
    scores, selected = model.score_words(encoded.views, text)
    assert scores.shape == (1, 3)
    assert selected.tolist() == [[True, False, True]]
    sim = model.similarity(encoded, text)
    assert_close(scores[0], sim.amax((-2, -1)), COLOURS)
    with pytest.raises(InputError, match="embedding"):
        model.score_words(encoded.views, text, selection="s_text")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_memory_errors_say_what_to_lower(model: TTD, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(model.encoder, "encode_image", fail)
    with pytest.raises(OutOfMemory, match="lower size"):
        model.tag(scene(), "red")


def test_other_errors_are_not_taken_for_memory_errors(model: TTD, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(model.encoder, "encode_image", fail)
    with pytest.raises(RuntimeError, match="shapes"):
        model.tag(scene(), "red")


def test_damaged_weights_are_an_error_not_an_answer() -> None:
    encoder = tiny_clip()
    with torch.no_grad():
        encoder.backbone.visual_projection.weight.fill_(float("nan"))
    with pytest.raises(InputError, match="NaN"):
        TTD(encoder).tag(scene(), "red dog")


def test_half_precision_answers_in_float32() -> None:
    model = TTD(tiny_clip().to(torch.bfloat16))
    full = TTD(tiny_clip())
    assert model.similarity(scene(), ["dog"]).dtype == torch.float32
    half, exact = model.similarity(scene(), ["dog"]), full.similarity(scene(), ["dog"])
    assert_close(half, exact, 2 * LAYERS, scale=0.5, dtype=torch.bfloat16)  # no part of a cosine is above one half


def test_importing_the_package_loads_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, ttd; assert ttd.__version__ and ttd.split_words('a dog')[1].text == 'dog'; "
        "assert not {'torch', 'transformers', 'PIL'} & set(sys.modules); assert 'load' in dir(ttd)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)
    with pytest.raises(AttributeError, match="no attribute"):
        _ = ttd.nothing


# ------------------------------------------------------------------ many images


def images_of_two_shapes() -> list[Any]:
    return [scene(), scene(40, 60), b"not an image", scene(), "missing.png", scene(40, 60), scene()]


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_many_images_are_answered_in_order_with_errors_in_their_places(batch_size: int) -> None:
    model, given = TTD(ColourEncoder()), images_of_two_shapes()
    captions = [[CAPTION], ["red", "blue"], ["x"], ["blue"], ["x"], ["red"], [CAPTION, CAPTION]]
    options, names = Options(background=0.3), ["red", "blue"]
    found = (
        list(model.heatmaps_many(iter(given), names, options, batch_size=batch_size)),
        list(model.caption_masks_many(iter(given), iter(captions), 0.3, options, batch_size=batch_size)),
        list(model.segment_many(iter(given), names, options, batch_size=batch_size)),
        list(model.tag_many(iter(given), [own[0] for own in captions], options=options, batch_size=batch_size)),
    )
    for number, image in enumerate(given):
        if number in (2, 4):
            assert all(isinstance(one[number], InputError) for one in found)
            continue
        heat, masks, labels, tagging = (one[number] for one in found)
        np.testing.assert_allclose(heat, model.heatmaps(image, names, options), atol=1e-6)
        assert np.array_equal(masks, model.caption_masks(image, captions[number], 0.3, options))
        assert np.array_equal(labels.label_map, model.segment(image, names, options).label_map)
        assert tagging.selected == model.tag(image, captions[number][0], options=options).selected


def test_a_caption_without_words_costs_only_its_own_answer(model: TTD) -> None:
    found = list(model.tag_many([scene()] * 3, ["red", "the of", "blue"]))
    assert [isinstance(one, InputError) for one in found] == [False, True, False]


def test_images_are_read_a_bounded_number_ahead(model: TTD) -> None:
    read: list[int] = []

    def stream() -> Iterator[np.ndarray]:
        for number in range(1000):
            read.append(number)
            yield scene()

    answers = model.segment_many(stream(), ["red", "blue"], batch_size=2)
    assert not read  # nothing is read before it is asked for
    next(answers)
    assert len(read) <= 2 * BATCHES_AHEAD
    texts = len(model.encoder.texts_seen)  # type: ignore[arg-type]
    for _ in range(10):
        next(answers)
    assert len(model.encoder.texts_seen) == texts  # type: ignore[arg-type]


def test_the_iterables_must_be_of_one_length(model: TTD) -> None:
    answers = model.tag_many([scene()], ["red", "blue"])
    with pytest.raises(InputError, match="more texts than images"):
        list(answers)
