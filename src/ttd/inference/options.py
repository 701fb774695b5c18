"""Test-time options: an image's views, the prompts, and how maps become labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from ttd.errors import InputError
from ttd.registry import LABEL_SCALES, REFINERS
from ttd.text.words import templates

if TYPE_CHECKING:
    from ttd.encoders.base import Encoder

# The longer side is at most this many times `size`: 2048 for 448, as in TCL's protocol.
MAX_STRETCH = 2048 / 448
RESIZES = ("patches", "opencv", "opencv-patches", "square")
OPENCV_LONGEST = 2048  # pixels of the longer side in mmsegmentation's test pipelines


@dataclass(frozen=True)
class Options:
    """How an image is encoded and how its maps become labels; sizes in pixels.

    Published settings are protocols by name, see `ttd.inference.protocols`.

    Attributes:
        size: the shorter side before `scales`; None: the encoder's own `image_size`.
        scales: the image is seen once at each of these multiples of `size`.
        flip: each scale also mirrored.
        window: side of the sliding window; None: the whole image at once.
        stride: step of the window, at most `window`; None: half of it.
        resize: "patches": the ratio is kept up to full patches, bicubic with antialiasing; "opencv": sides rounded to
            pixels, the longer one at most 2048, bilinear as OpenCV does it (mmsegmentation). What a window then has
            beyond full patches is not seen, and its map is spread over all of it; "opencv-patches": the same, then
            enlarged to full patches and at least a window, as Trident does; "square": both sides are `size`, bicubic
            with antialiasing.
        pad: with a window: sides that are not multiples of this many pixels get zeros (of the normalised image) around
            them, half before; None: none do.
        templates: for heatmaps, masks and classes, also around whole captions; None: the encoder's usual
            ("tcl9" for TCL, "none" for a closed vocabulary, else OpenAI's 80).
        tag_templates: for scoring a caption's words.
        background: threshold in 0..1 under which a map means background, and of a caption's mask; True: the encoder's
            own; None or False: no background; or words for it ("sky", "wall"), which compete with the classes.
        logit_scale: the softmax over all texts of a question is of cosines times this; None: the encoder's own.
        prob_threshold: the label is background where the best text's share of that softmax is below this; None: no
            such cut. Goes with words for the background, or none, not with a threshold.
        label_scale: what maps compare by for labels, and what `background` cuts: "calibrated", or "norm": each from its
            lowest to its highest value at the image's size, as GEM's are, or "norm-patches": of the patches, as CLIP
            Surgery's are.
        area_threshold: classes that win at most this share of an image's pixels (those of words for the background not
            counted) lose them to the next best; None: none do.
        refine: "none", "pamr", "crf", "sam", "sam-points" or a registered refiner's name; "auto": the encoder's own
            (PAMR for TCL, none elsewhere).
        pamr_steps, pamr_dilations: PAMR's rounds and distances in pixels.
        pamr_grid: "quarter" of the resolution at which the encoder sees the image, as in TCL, or "image", its own size,
            as others do with cosines.
        sam_model: SAM-HQ's short name, hub id or folder for `refine="sam"` and "sam-points"; None: "sam-hq".
        clip_weight: TCL's k, the weight of the frozen CLIP branch in its maps.
        stop_words: leave stop words and punctuation out when tagging.

    Raises:
        InputError: a value out of range.
    """

    size: int | None = None
    scales: Sequence[float] = (1.0,)
    flip: bool = False
    window: int | None = None
    stride: int | None = None
    resize: Literal["patches", "opencv", "opencv-patches", "square"] = "patches"
    pad: int | None = None
    templates: str | Sequence[str] | None = None
    tag_templates: str | Sequence[str] = "none"
    background: float | bool | Sequence[str] | None = True
    logit_scale: float | None = None
    prob_threshold: float | None = None
    label_scale: Literal["calibrated", "norm", "norm-patches"] = "calibrated"
    area_threshold: float | None = None
    refine: str = "none"
    pamr_steps: int = 10
    pamr_dilations: Sequence[int] = (1, 2, 4, 8, 12, 24)
    pamr_grid: Literal["quarter", "image"] = "quarter"
    sam_model: str | None = None
    clip_weight: float = 0.3
    stop_words: bool = True

    def __post_init__(self) -> None:
        for name in ("scales", "templates", "tag_templates", "background", "pamr_dilations"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        _check(self)

    @property
    def view(self) -> dict[str, Any]:
        """The options that decide what is encoded; the others only matter when a question is put."""
        return {name: getattr(self, name) for name in VIEW_OPTIONS}

    @property
    def one_view(self) -> bool:
        """Whether the image is seen once, as a whole."""
        return len(self.scales) == 1 and not self.flip and self.window is None

    def threshold(self, encoder: Encoder) -> float | None:
        """The background threshold of calibrated maps; None for no background, or one by another rule."""
        if self.prob_threshold is not None or self.background is None or self.background is False:
            return None
        if self.background_words:
            return None
        return encoder.background if self.background is True else float(self.background)  # type: ignore[arg-type]

    @property
    def background_words(self) -> tuple[str, ...]:
        """The words for the background, where there are any."""
        return tuple(self.background) if isinstance(self.background, tuple) else ()

    def caption_threshold(self, encoder: Encoder) -> float:
        """The threshold of one text's mask, which there is also without background."""
        if self.background is None or isinstance(self.background, bool | tuple):
            return encoder.caption_threshold
        return float(self.background)  # type: ignore[arg-type]

    def refinement(self, encoder: Encoder) -> str:
        """`refine` with "auto" decided."""
        return encoder.default_refinement if self.refine == "auto" else self.refine

    def text_templates(self, encoder: Encoder) -> tuple[str, ...]:
        """`templates` with None decided."""
        return templates(encoder.default_templates if self.templates is None else self.templates)


VIEW_OPTIONS = ("size", "scales", "flip", "window", "stride", "resize", "pad")


def changed(options: Options, **changes: Any) -> Options:
    """The same options with single values changed; a new window without a step takes half of it, none no padding.

    Raises:
        InputError: an unknown option, or a value out of range.
    """
    known = {field.name for field in fields(Options)}
    if unknown := sorted(set(changes) - known):
        raise InputError(f"unknown option {unknown[0]!r}: choose from {', '.join(sorted(known))}")
    if "window" in changes:
        changes = {"stride": None, **changes}
        if changes["window"] is None:
            changes = {"pad": None, **changes}
    return replace(options, **changes)


def opencv_size(image: tuple[int, int], size: int, scale: float = 1.0) -> tuple[int, int]:
    """The height and width that mmsegmentation's `Resize(scale=(2048, size), keep_ratio=True)` gives, times `scale`."""
    factor = scale * min(size / min(image), OPENCV_LONGEST / max(image))
    height, width = (max(1, int(side * factor + 0.5)) for side in image)
    return height, width


def filled_size(size: tuple[int, int], multiple: int, least: int) -> tuple[int, int]:
    """The height and width that Trident's code enlarges an image to where it is not full of patches.

    The longer side goes up to the next multiple, the other by the same factor, cut to pixels and up to its next one;
    both are at least `least`.
    """
    if not any(side % multiple for side in size) and min(size) >= least:
        return size
    longer = -(-max(size) // multiple) * multiple
    grown = [longer if side == max(size) else int(side * longer / max(size)) for side in size]
    height, width = (max(-(-side // multiple) * multiple, least) for side in grown)
    return height, width


def prepared_size(image: tuple[int, int], size: int, multiple: int, scale: float = 1.0) -> tuple[int, int]:
    """The height and width an image is resized to.

    The shorter side becomes `size * scale` and the ratio is kept, unless the longer side would exceed
    `MAX_STRETCH * size * scale`: then that is the longer side, and the shorter one follows the ratio down to
    one patch (so an image of 1 x 10000 works). Both sides are rounded to multiples of `multiple`.
    So no encoder needs to pad, and the windows' patches fall on one grid.

    Args:
        image: (H, W) of the image.
        size: the shorter side in pixels.
        multiple: the patch size.
        scale: multiplies `size`.
    """
    short, long = size * scale, size * scale * MAX_STRETCH
    factor = min(short / min(image), long / max(image))
    height, width = (max(1, int(side * factor / multiple + 0.5)) * multiple for side in image)
    return height, width


def _check(options: Options) -> None:
    for name in ("size", "window", "stride", "pad"):
        value = getattr(options, name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise InputError(f"{name} must be a number of pixels of at least 1, not {value!r}")
    if not options.scales or not all(0 < scale <= 16 for scale in options.scales):
        raise InputError(f"scales must be one or more numbers above 0 and up to 16, not {options.scales!r}")
    if options.stride is not None and (options.window is None or options.stride > options.window):
        raise InputError("stride needs a window that is at least as large: pixels in between would be missed")
    if options.refine not in ("none", "auto"):
        REFINERS.check(options.refine)
    for name, known in (("resize", RESIZES), ("label_scale", LABEL_SCALES)):
        if getattr(options, name) not in known:
            raise InputError(f"{name} must be one of {', '.join(known)}, not {getattr(options, name)!r}")
    if options.pad is not None and options.window is None:
        raise InputError("pad needs a window: a whole image is not padded")
    if options.background == "names":
        raise InputError(
            "background: only the class list of a data set names words for it (ttd eval); give them: 'sky; wall; tree'"
        )
    if options.background_words or options.background == ():
        words = options.background_words
        if not words or not all(isinstance(word, str) and word.strip() for word in words):
            raise InputError("background: give at least one word, none of them empty")
    elif not isinstance(options.background, bool) and options.background is not None:
        _check_unit("background", options.background)
        if options.prob_threshold is not None:
            raise InputError(
                "background cuts calibrated maps and prob_threshold the softmax: give one of them, or words for the "
                "background"
            )
    if options.logit_scale is not None and not _is_positive(options.logit_scale):
        raise InputError(f"logit_scale must be a number above 0, not {options.logit_scale!r}")
    for name in ("prob_threshold", "area_threshold"):
        if getattr(options, name) is not None:
            _check_unit(name, getattr(options, name))
    if isinstance(options.pamr_steps, bool) or not isinstance(options.pamr_steps, int) or options.pamr_steps < 0:
        raise InputError(f"pamr_steps must be a whole number of at least 0, not {options.pamr_steps!r}")
    if not options.pamr_dilations or not all(isinstance(d, int) and d >= 1 for d in options.pamr_dilations):
        raise InputError(f"pamr_dilations must be whole numbers of pixels from 1, not {options.pamr_dilations!r}")
    if options.pamr_grid not in ("quarter", "image"):
        raise InputError(f"pamr_grid must be 'quarter' or 'image', not {options.pamr_grid!r}")
    _check_unit("clip_weight", options.clip_weight)
    templates(options.tag_templates)
    if options.templates is not None:
        templates(options.templates)


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _check_unit(name: str, value: Any) -> None:
    if not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise InputError(f"{name} must be a number between 0 and 1, not {value!r}")
