"""Test-time options: how an image is looked at and how questions about it are put."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from ttd.errors import InputError
from ttd.registry import REFINERS
from ttd.text.templates import templates

if TYPE_CHECKING:
    from ttd.encoders.base import Encoder

# The longer side is at most this many times `size`: 2048 for 448, as in TCL's protocol.
MAX_STRETCH = 2048 / 448


@dataclass(frozen=True)
class Options:
    """How an image is looked at and how questions are put; sizes in pixels.

    Published settings are protocols by name, see `ttd.inference.protocols`.

    Attributes:
        size: the shorter side before `scales`; None: the encoder's own `image_size`.
        scales: the image is seen once at each of these multiples of `size`.
        flip: each scale also mirrored.
        window: side of the sliding window; None: the whole image at once.
        stride: step of the window, at most `window`; None: half of it.
        templates: for heatmaps, masks and classes, also around whole captions; None: the encoder's usual
            ("tcl9" for TCL, "none" for a closed vocabulary, else OpenAI's 80).
        tag_templates: for scoring a caption's words.
        background: threshold in 0..1 under which a map means background, and of a caption's mask; True: the encoder's
            own; None or False: no background.
        refine: "none", "pamr", "crf", "sam" or a registered refiner's name; "auto": the encoder's own (PAMR for
            TCL, none elsewhere).
        sam_model: SAM-HQ's short name, hub id or folder for `refine="sam"`; None: "sam-hq".
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
    templates: str | Sequence[str] | None = None
    tag_templates: str | Sequence[str] = "none"
    background: float | bool | None = True
    refine: str = "none"
    sam_model: str | None = None
    clip_weight: float = 0.3
    stop_words: bool = True

    def __post_init__(self) -> None:
        for name in ("scales", "templates", "tag_templates"):
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
        """The background threshold, None for no background."""
        if self.background is None or self.background is False:
            return None
        return encoder.background if self.background is True else float(self.background)

    def caption_threshold(self, encoder: Encoder) -> float:
        """The threshold of one text's mask, which there is also without background."""
        if self.background is None or isinstance(self.background, bool):
            return encoder.caption_threshold
        return float(self.background)

    def refinement(self, encoder: Encoder) -> str:
        """`refine` with "auto" decided."""
        return encoder.default_refinement if self.refine == "auto" else self.refine

    def text_templates(self, encoder: Encoder) -> tuple[str, ...]:
        """`templates` with None decided."""
        return templates(encoder.default_templates if self.templates is None else self.templates)


VIEW_OPTIONS = ("size", "scales", "flip", "window", "stride")


def changed(options: Options, **changes: Any) -> Options:
    """The same options with single values changed.

    Raises:
        InputError: an unknown option, or a value out of range.
    """
    known = {field.name for field in fields(Options)}
    if unknown := sorted(set(changes) - known):
        raise InputError(f"unknown option {unknown[0]!r}: choose from {', '.join(sorted(known))}")
    return replace(options, **changes)


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
    for name in ("size", "window", "stride"):
        value = getattr(options, name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise InputError(f"{name} must be a number of pixels of at least 1, not {value!r}")
    if not options.scales or not all(0 < scale <= 16 for scale in options.scales):
        raise InputError(f"scales must be one or more numbers above 0 and up to 16, not {options.scales!r}")
    if options.stride is not None and (options.window is None or options.stride > options.window):
        raise InputError("stride needs a window that is at least as large: pixels in between would be missed")
    if options.refine not in ("none", "auto"):
        REFINERS.check(options.refine)
    if not isinstance(options.background, bool) and options.background is not None:
        _check_unit("background", options.background)
    _check_unit("clip_weight", options.clip_weight)
    templates(options.tag_templates)
    if options.templates is not None:
        templates(options.templates)


def _check_unit(name: str, value: Any) -> None:
    if not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise InputError(f"{name} must be a number between 0 and 1, not {value!r}")
