"""Protocols: published settings by name, for each kind of question.

A protocol is one entry of `PROTOCOLS`; `options` and every method of `ttd.TTD` take its name in place of `Options`.
Needs no torch, so that the command line's help may list the names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from ttd.errors import InputError
from ttd.inference.options import Options, changed

if TYPE_CHECKING:
    from ttd.encoders.base import Encoder

Task = Literal["tags", "masks", "labels"]


@dataclass(frozen=True)
class Protocol:
    """How one publication looks at images and asks about them.

    Attributes:
        tags: for scoring a caption's words.
        masks: for heatmaps, the mask of a caption and a label for every pixel.
        labels: for scoring classes on whole images; their names stand in `templates`.
        cut_everywhere: whether the threshold also cuts where a data set has no background class: what lies below
            predicts nothing. Otherwise the highest map wins everywhere there.
        source: where the settings were published.
    """

    tags: Options
    masks: Options
    labels: Options
    cut_everywhere: bool
    source: str


# The authors' tags: 224 px, one scale, mirrored too, every word of the caption.
_TAGS = Options(size=224, flip=True, stop_words=False)
_TCL = Options(size=448, window=448, stride=224, templates="tcl9", refine="pamr", background=0.4)
_TCL_LABELS = replace(_TAGS, templates="tcl9")  # decided here: looked at as for words

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
        source="TTD's README",
    ),
    "tcl": Protocol(_TAGS, _TCL, _TCL_LABELS, False, "TCL's code, with PAMR"),
    "tcl-plain": Protocol(
        _TAGS, replace(_TCL, refine="none", background=0.5), _TCL_LABELS, False, "TCL's code, without PAMR"
    ),
}


def find_protocol(name: str) -> Protocol:
    """The protocol of that name.

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
    with_background: bool,
    encoder: Encoder | None,
    threshold: float | None = None,
) -> Options:
    """The options for a label of every pixel of a data set.

    Args:
        protocol: its name.
        changes: single values in place of the protocol's.
        dataset: its name, for which an encoder may have a threshold of its own.
        with_background: whether the data set has a background class.
        encoder: None where the model is not there yet.
        threshold: the data set's, for an encoder without one of its own for it; None: the encoder's usual one.
    """
    entry = find_protocol(protocol)
    own: dict[str, Any] = {}
    if not entry.cut_everywhere and not with_background:
        own["background"] = False
    elif entry.masks.background is True and entry.cut_everywhere and encoder is not None:
        own["background"] = encoder.backgrounds.get(dataset, True if threshold is None else threshold)
    return changed(entry.masks, **{**own, **changes})


def unrefined_first(given: Options, encoder: Encoder) -> dict[str, Options]:
    """What a page of images shows of a model: titles, each with its options.

    "found" alone, or "found" without refinement and "refined (pamr)" where the options refine.
    """
    refinement = given.refinement(encoder)
    found = {"found": replace(given, refine="none")}
    return found if refinement == "none" else {**found, f"refined ({refinement})": given}
