"""Protocols: published settings by name, for each kind of question.

A protocol is one entry of `PROTOCOLS`; `options` and every method of `ttd.TTD` take its name in place of `Options`.
Needs no torch, so that the command line's help may list the names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from ttd.errors import InputError
from ttd.inference.options import OPENCV_LONGEST, Options, changed

if TYPE_CHECKING:
    from ttd.encoders.base import Encoder

Task = Literal["tags", "masks", "labels"]
BACKGROUND_WORD = "background"  # means the background in a list that has no other word for it
BY_NAMES = "names"


@dataclass(frozen=True)
class Protocol:
    """How one publication looks at images and asks about them.

    Attributes:
        tags: for scoring a caption's words.
        masks: for heatmaps, the mask of a caption and a label for every pixel.
        labels: for scoring classes on whole images; their names are put into `templates`.
        cut_everywhere: whether the threshold also cuts where a data set has no background class: pixels below
            predicts nothing. Otherwise the highest map wins everywhere there.
        source: where the settings were published.
        licence: of that code; "" where there is none, or none is named.
        datasets: what differs from `masks` on single data sets, by their names.
        classes: whose class lists spell the names, folders of `ttd/assets/classes` in the order in which they are
            searched; then the package's own.
        synonyms: whether all names of a class in these lists are asked for, and the words for the background.
    """

    tags: Options
    masks: Options
    labels: Options
    cut_everywhere: bool
    source: str
    licence: str = ""
    datasets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    synonyms: bool = False


# The authors' tags: 224 px, one scale, mirrored too, every word of the caption.
_TAGS = Options(size=224, flip=True, stop_words=False)
_TCL = Options(size=448, window=448, stride=224, resize="opencv", templates="tcl9", refine="pamr", background=0.4)
_TCL_LABELS = replace(_TAGS, templates="tcl9")  # decided here: looked at as for words
_MASKCLIP = Options(size=512, resize="opencv", templates="maskclip85", background=False)
_SCLIP = Options(
    size=336, window=224, stride=112, resize="opencv", templates="openai80", logit_scale=40.0, background=False,
    pamr_dilations=(8, 16), pamr_grid="image",
)  # fmt: skip
_CLEARCLIP = replace(_SCLIP, size=448, window=448, stride=224, pad=16, logit_scale=50.0)
_PROXYCLIP = replace(_SCLIP, window=336, stride=112, pad=56)
_TRIDENT = replace(_SCLIP, window=336, stride=224, resize="opencv-patches")
# A picture squeezed into a square, each map from its lowest to its highest value.
_GEM = Options(size=448, resize="square", templates=("a photo of a {}.",), label_scale="norm")
_SURGERY = replace(_GEM, size=512, templates="maskclip85", label_scale="norm-patches")
_CLIPTRASE = Options(size=336, templates="openai80", background=False)
_WHOLE = {"window": OPENCV_LONGEST, "stride": OPENCV_LONGEST}  # one window, from which labels go by way of its pixels
_LARGER = {"cityscapes": {"size": 560}, "coco-stuff": {"size": 448}}


def _peer(masks: Options, *, source: str, datasets: Mapping[str, Mapping[str, Any]], **more: Any) -> Protocol:
    """A method's own protocol for label maps; words and whole images are encoded as in `paper`."""
    labels = replace(_TAGS, templates="openai80")
    return Protocol(_TAGS, masks, labels, False, source, datasets=datasets, synonyms=True, **more)


PROTOCOLS: dict[str, Protocol] = {
    "default": Protocol(Options(), Options(), Options(), False, "one look at the image, the encoder's own size"),
    "paper": Protocol(
        tags=_TAGS,
        # The threshold is 0.40 for TCL (data sets may differ), 0.5 elsewhere.
        masks=Options(
            size=448,
            scales=(1.0, 0.5, 1.5, 2.0),
            flip=True,
            window=448,
            stride=224,
            templates="openai80",
            refine="auto",
        ),
        labels=replace(_TAGS, templates="openai80"),
        cut_everywhere=True,
        source="TTD's README and Table 6",
        classes=("mmseg",),
    ),
    "tcl": Protocol(_TAGS, _TCL, _TCL_LABELS, False, "TCL's code, with PAMR", "MIT", classes=("mmseg",)),
    "tcl-plain": Protocol(
        _TAGS,
        replace(_TCL, refine="none", background=0.5),
        _TCL_LABELS,
        False,
        "TCL's code, without PAMR",
        "MIT",
        classes=("mmseg",),
    ),
    "maskclip": Protocol(
        _TAGS,
        _MASKCLIP,
        replace(_TAGS, templates="maskclip85"),
        False,
        "MaskCLIP's configurations, without its refinements",
        "Apache-2.0",
        datasets={"cityscapes": {"size": 1024}, "context59": {"size": 520}, "context60": {"size": 520}},
        classes=("mmseg",),
    ),
    "sclip": _peer(
        _SCLIP,
        source="SCLIP's code (b56bd30)",
        datasets={
            **_LARGER,
            "voc": {"logit_scale": 65.0, "prob_threshold": 0.1, "area_threshold": 0.1},
            "context60": {"logit_scale": 50.0, "prob_threshold": 0.1},
            "coco-object": {"logit_scale": 50.0, "prob_threshold": 0.1},
        },
        classes=("sclip",),
    ),
    "naclip": _peer(
        replace(_SCLIP, refine="pamr"),
        source="NACLIP's code (0cac3a6), with PAMR",
        licence="MIT",
        datasets={
            **_LARGER,
            "voc": {**_WHOLE, "prob_threshold": 0.1},
            "voc20": _WHOLE,
            "context60": {"prob_threshold": 0.1},
            "coco-object": {"prob_threshold": 0.1},
        },
        classes=("sclip",),
    ),
    "clearclip": _peer(
        _CLEARCLIP,
        source="ClearCLIP's code (ad68a40)",
        datasets={
            "voc": {"prob_threshold": 0.5},
            "context60": {"prob_threshold": 0.15},
            "coco-object": {"prob_threshold": 0.4},
            "cityscapes": {"window": 224, "stride": 224},
        },
        classes=("clearclip", "sclip"),
    ),
    "sc-clip": _peer(
        _SCLIP,
        source="SC-CLIP's code (0417ba9)",
        datasets={
            "voc": {"logit_scale": 50.0, "prob_threshold": 0.15, "area_threshold": 0.1},
            "context60": {"prob_threshold": 0.15},
            "coco-object": {"logit_scale": 55.0, "prob_threshold": 0.35},
            "cityscapes": {"size": 560},
        },
        classes=("sclip",),
    ),
    "proxyclip": _peer(
        _PROXYCLIP,
        source="ProxyCLIP's code (e7b767f)",
        datasets={
            "voc": {"prob_threshold": 0.2},
            "context60": {"prob_threshold": 0.15},
            "coco-object": {"prob_threshold": 0.25},
            "cityscapes": {"size": 448, "window": 224, "stride": 112},
            "ade20k": {"size": 448},
        },
        classes=("proxyclip", "sclip"),
    ),
    "trident": _peer(
        _TRIDENT,
        source="Trident's code (a93b346), without SAM's refinement",
        datasets={"voc": {"prob_threshold": 0.2}},
        classes=("proxyclip", "sclip"),
    ),
    "gem": Protocol(
        _TAGS, _GEM, replace(_TAGS, templates=_GEM.templates), False, "GEM's code (5fa677c)", "MIT", classes=("mmseg",)
    ),
    "clip-surgery": Protocol(
        _TAGS,
        _SURGERY,
        replace(_TAGS, templates="maskclip85"),
        False,
        "CLIP Surgery's demo (d4696d4)",
        classes=("mmseg",),
    ),
    "cliptrase": _peer(
        _CLIPTRASE,
        source="CLIPtrase's code (2b7de61), the whole image in place of its middle",
        datasets={},
        classes=("sclip",),
    ),
}


def find_protocol(name: str) -> Protocol:
    """The protocol with that name.

    Raises:
        InputError: there is none.
    """
    if name not in PROTOCOLS:
        raise InputError(f"unknown protocol {name!r}: choose from {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def options(given: Options | str | None, task: Task, **changes: Any) -> Options:
    """The options for one kind of question.

    Args:
        given: options as they are, a protocol's name, or None for "default".
        task: which of the protocol's options.
        **changes: single values in place of the protocol's.

    Raises:
        InputError: an unknown protocol or option, or a value out of range.
    """
    start = given if isinstance(given, Options) else getattr(find_protocol(given or "default"), task)
    return changed(start, **changes)


def class_options(
    protocol: str,
    changes: Mapping[str, Any],
    dataset: str,
    *,
    background: tuple[str, ...] | None,
    encoder: Encoder | None,
    threshold: float | None = None,
) -> Options:
    """The options for a label of every pixel of a data set.

    Args:
        protocol: its name.
        changes: single values in place of the protocol's; "names" as background means the words of `background`.
        dataset: its name, for which a protocol or an encoder may have settings of its own.
        background: the words for the background that the class list names, where the data set has that class (possibly
            none); None: it has no background.
        encoder: None where the model is not there yet.
        threshold: the data set's, for an encoder without one of its own for it; None: the encoder's usual one.

    Raises:
        InputError: an unknown protocol or option, a value out of range, or words for the background that are not there.
    """
    entry = find_protocol(protocol)
    own: dict[str, Any] = dict(entry.datasets.get(dataset, {}))
    if "window" in changes and "stride" not in changes:
        own.pop("stride", None)
    if not entry.cut_everywhere and background is None:
        own["background"] = False
    elif entry.synonyms:
        own["background"] = background or (BACKGROUND_WORD,)
    elif entry.masks.background is True and entry.cut_everywhere and encoder is not None:
        own["background"] = encoder.backgrounds.get(dataset, True if threshold is None else threshold)
    # A number cuts p in place of the protocol's own cut of the softmax, and the other way round.
    given = changes.get("background")
    if "prob_threshold" not in changes and isinstance(given, int | float) and given is not False:
        own["prob_threshold"] = None
    if "background" not in changes and "prob_threshold" in changes and not isinstance(own.get("background"), tuple):
        own["background"] = False
    own.update(changes)
    if given == BY_NAMES:
        if not background:
            raise InputError(
                f"--background names: the class list of {dataset} names no words for the background; write them after "
                "`background;` in the list of --classes, or give them: --background 'sky; wall; tree'"
            )
        own["background"] = background
    return changed(entry.masks, **own)


def unrefined_first(given: Options, encoder: Encoder) -> dict[str, Options]:
    """What a page of images shows of a model: titles, each with its options.

    "found" alone, or "found" without refinement and "refined (pamr)" where the options refine.
    """
    refinement = given.refinement(encoder)
    found = {"found": replace(given, refine="none")}
    return found if refinement == "none" else {**found, f"refined ({refinement})": given}
