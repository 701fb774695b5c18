"""How each benchmark asks the model: the authors' published settings and TCL's own, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ttd.errors import InputError
from ttd.inference.options import resolve

if TYPE_CHECKING:
    from ttd.encoders.base import Encoder

PROTOCOLS = ("paper", "tcl", "tcl-plain", "default")
# The authors' thresholds for TCL where they are not 0.40 (their README).
_TCL_BACKGROUND = {"coco-object": 0.45, "ade20k": 0.45, "context59": 0.45, "context60": 0.45}


def tag_options(protocol: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """For scoring words: 224 px, one scale, mirrored too; "default": as `ttd tag` does."""
    start = {"protocol": "default" if _known(protocol) == "default" else "paper-tags"}
    return {**start, **{name: given[name] for name in ("size", "flip") if name in given}}


def mask_options(protocol: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """For a caption's mask."""
    names = {"paper": "paper-captions", "tcl": "tcl", "tcl-plain": "tcl-plain", "default": "default"}
    return {"protocol": names[_known(protocol)], **given}


def label_options(protocol: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """For scoring classes on whole images: looked at as for words, class names in templates (decided here)."""
    names = {"paper": {"templates": "openai80"}, "tcl": {"templates": "tcl9"}, "tcl-plain": {"templates": "tcl9"}}
    return {**tag_options(protocol, given), **names.get(_known(protocol), {})}


def class_options(
    protocol: str, given: Mapping[str, Any], benchmark: str, *, with_background: bool, calibrated: bool
) -> dict[str, Any]:
    """For a label of every pixel.

    "paper" cuts also where a data set has no background class, and what lies below predicts nothing; the other
    protocols take the highest map everywhere there.
    """
    options: dict[str, Any] = {"protocol": "paper-classes" if _known(protocol) == "paper" else protocol}
    if protocol == "paper" and calibrated:
        options["background"] = _TCL_BACKGROUND.get(benchmark, 0.40)
    elif protocol != "paper" and not with_background:
        options["background"] = False
    return {**options, **given}


def unrefined_first(options: Mapping[str, Any], encoder: Encoder) -> dict[str, dict[str, Any]]:
    """What a page of images shows of a model: titles, each with its changes to `options`.

    "found" alone, or "found" without refinement and "refined (pamr)" where the options refine.
    """
    refinement = resolve(**options).refinement(encoder)
    found: dict[str, dict[str, Any]] = {"found": {"refine": "none"}}
    return found if refinement == "none" else {**found, f"refined ({refinement})": {}}


def _known(protocol: str) -> str:
    if protocol not in PROTOCOLS:
        raise InputError(f"unknown protocol {protocol!r}: choose from {', '.join(PROTOCOLS)}")
    return protocol
