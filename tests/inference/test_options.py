import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.colour_encoder import ColourEncoder
from ttd.errors import InputError
from ttd.inference.options import MAX_STRETCH, Options, changed, filled_size, prepared_size
from ttd.inference.protocols import PROTOCOLS
from ttd.inference.protocols import options as find_options
from ttd.text.words import templates

SIDES = st.integers(1, 20_000)


@given(
    SIDES,
    SIDES,
    st.sampled_from([32, 224, 448]),
    st.sampled_from([1, 14, 16]),
    st.sampled_from([0.5, 1.0, 2.0]),
)
def test_prepared_sizes(height: int, width: int, size: int, multiple: int, scale: float) -> None:
    found = prepared_size((height, width), size, multiple, scale)
    assert all(side >= multiple and side % multiple == 0 for side in found)
    assert min(found) <= size * scale + multiple
    assert max(found) <= size * scale * MAX_STRETCH + multiple
    if max(height, width) <= MAX_STRETCH * min(height, width):
        factor = size * scale / min(height, width)
        assert all(abs(side - factor * o) <= multiple / 2 + 1 for side, o in zip(found, (height, width), strict=True))


def test_sizes_of_trident() -> None:
    """The longer side goes up to full patches, the other follows and goes up too; none is smaller than a window."""
    assert filled_size((336, 421), 16, 336) == (352, 432)
    assert filled_size((421, 336), 16, 336) == (432, 352)
    assert filled_size((336, 448), 16, 336) == (336, 448)
    assert filled_size((100, 448), 16, 336) == (336, 448)
    assert filled_size((335, 335), 16, 16) == (336, 336)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ((480, 640), (448, 597)),
        ((640, 480), (597, 448)),
        ((100, 1000), (205, 2048)),
        ((1, 10_000), (1, 2048)),
    ],
)
def test_sizes_of_tcl(image: tuple[int, int], expected: tuple[int, int]) -> None:
    assert prepared_size(image, 448, 1) == expected  # before rounding to patches


def test_presets_of_the_authors() -> None:
    tcl, clip = ColourEncoder(padding=16, own_maps=True), ColourEncoder()
    tcl.background = 0.4
    tags = PROTOCOLS["paper"].tags
    assert (tags.size, tags.scales, tags.flip, tags.window) == (224, (1.0,), True, None)
    masks = PROTOCOLS["paper"].masks
    assert (masks.scales, masks.flip, masks.window, masks.stride) == ((1.0, 0.5, 1.5, 2.0), True, 448, 224)
    assert (masks.threshold(tcl), masks.refinement(tcl)) == (0.4, "pamr")
    assert (masks.threshold(clip), masks.refinement(clip)) == (0.5, "none")
    assert len(masks.text_templates(tcl)) == 80
    assert (PROTOCOLS["tcl"].masks.background, PROTOCOLS["tcl"].masks.refine) == (0.4, "pamr")
    assert (PROTOCOLS["tcl-plain"].masks.background, PROTOCOLS["tcl-plain"].masks.refine) == (0.5, "none")


def test_templates_follow_the_encoder() -> None:
    encoder = ColourEncoder()
    assert Options().text_templates(encoder) == templates("openai80")
    encoder.vocabulary = frozenset({"red"})
    assert Options().text_templates(encoder) == ("{}",)
    assert Options().text_templates(ColourEncoder(padding=16)) == templates("tcl9")
    assert Options(templates="a {}").text_templates(encoder) == ("a {}",)
    assert [len(templates(name)) for name in ("openai80", "maskclip85", "tcl9", "simple", "none")] == [
        80,
        85,
        9,
        1,
        1,
    ]


@pytest.mark.parametrize("background", [None, False])
def test_no_background(background: bool | None) -> None:
    assert Options(background=background).threshold(ColourEncoder()) is None
    assert Options(background=0.0).threshold(ColourEncoder()) == 0.0
    assert Options().threshold(ColourEncoder()) == 0.5


def test_changes_go_over_protocols() -> None:
    options = find_options("tcl", "masks", size=96, scales=[0.5, 1.0])
    assert (options.size, options.window, options.scales) == (96, 448, (0.5, 1.0))


@pytest.mark.parametrize(
    "changes",
    [
        {"colour": 1},
        {"size": 0},
        {"size": 2.5},
        {"scales": ()},
        {"scales": (0.0,)},
        {"stride": 8},
        {"window": 8, "stride": 9},
        {"refine": "paint"},
        {"background": 1.5},
        {"background": float("nan")},
        {"background": "much"},
        {"templates": "nothing here"},
        {"templates": ()},
        {"tag_templates": ["a photo"]},
        {"clip_weight": 2},
    ],
)
def test_options_that_cannot_be(changes: dict[str, object]) -> None:
    with pytest.raises(InputError):
        changed(Options(), **changes)


def test_an_unknown_protocol() -> None:
    with pytest.raises(InputError, match="unknown protocol"):
        find_options("best", "masks")
