"""Families of encoders: one class and one `@register_encoder(...)` each, also from another package.

A family says by its formats how its models lie on disk; nothing else in the package lists kinds of encoders. Another
package registers its own by naming the module that holds the class in its entry points:

    [project.entry-points."ttd.encoders"]
    colour = "colour_encoder"
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, TypeVar

from ttd.errors import InputError, ModelError

if TYPE_CHECKING:
    from ttd.encoders.base import Encoder

log = logging.getLogger(__name__)

GROUP = "ttd.encoders"
HF_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")

_OWN = {"clip": "ttd.encoders.clip", "siglip": "ttd.encoders.siglip", "tcl": "ttd.encoders.tcl"}
_KIND = re.compile("[a-z][a-z0-9_-]*")


@dataclass(frozen=True)
class Format:
    """One way in which a family's models lie on disk: give one of `model_type`, `config` and `parameters`.

    Attributes:
        name: tells the family's formats apart, see `Source.layout`.
        model_type: of a folder whose `config.json` has this `model_type`.
        config: of a folder that holds a file of this name.
        parameters: of a single file of weights: parameters that it must have, by name.
        weights: names of a folder's weights, the preferred first.
        needs: a folder from a hub is complete only with at least one of these files.
    """

    name: str
    model_type: str | None = None
    config: str | None = None
    parameters: frozenset[str] = frozenset()
    weights: tuple[str, ...] = HF_WEIGHTS
    needs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if sum(map(bool, (self.model_type, self.config, self.parameters))) != 1:
            raise InputError(f"the format {self.name!r} needs one of model_type, config and parameters")


@dataclass(frozen=True)
class Family:
    """A registered family: its kind, its class, and how its models lie on disk."""

    kind: str
    encoder: type[Encoder]
    formats: tuple[Format, ...]


_FAMILIES: dict[str, Family] = {}
E = TypeVar("E", bound="type[Encoder]")


def register_encoder(kind: str, *formats: Format) -> Callable[[E], E]:
    """Make a subclass of `ttd.encoders.Encoder` a family whose models `ttd.load` finds by their files.

    Args:
        kind: its name in cards and messages: lower case, digits, "-" and "_".
        formats: how its models lie on disk; the class reads them in `from_source`.

    Returns:
        A decorator, which sets the class's `kind`.

    Raises:
        InputError: the kind is taken or no name.
    """
    if not _KIND.fullmatch(kind):
        raise InputError(f"{kind!r} is not a kind of encoder: use lower case letters, digits, - and _")

    def register(encoder: E) -> E:
        module, taken = encoder.__module__, _FAMILIES.get(kind)
        same = taken is not None and (taken.encoder.__module__, taken.encoder.__qualname__) == (
            module,
            encoder.__qualname__,
        )
        if _OWN.get(kind, module) != module or (taken is not None and not same):
            raise InputError(f"the kind {kind!r} of {module} is taken by another encoder: choose another name")
        encoder.kind = kind
        _FAMILIES[kind] = Family(kind, encoder, formats)
        return encoder

    return register


def families() -> tuple[Family, ...]:
    """Every family: the package's own first, then those of other packages. Imports torch and transformers."""
    for module in _OWN.values():
        import_module(module)
    _load_installed()
    others = [kind for kind in _FAMILIES if kind not in _OWN]
    return tuple(_FAMILIES[kind] for kind in (*_OWN, *others))


def find_family(kind: str) -> Family:
    """The family of that kind.

    Raises:
        ModelError: there is none.
    """
    known = {family.kind: family for family in families()}
    if kind not in known:
        broken = "".join(
            f"; {name} is installed but cannot be loaded: {why}" for name, why in _load_installed().items()
        )
        raise ModelError(
            f"unknown kind of model {kind!r}: install the package that brings it, or use one of "
            f"{', '.join(known)}{broken}"
        )
    return known[kind]


@cache
def _load_installed() -> dict[str, str]:
    return load_entry_points(GROUP)


def load_entry_points(group: str) -> dict[str, str]:
    """Import what other packages name in a group of entry points; gives the names that failed, and why."""
    from importlib.metadata import entry_points

    failed: dict[str, str] = {}
    for point in entry_points(group=group):
        try:
            point.load()
        except Exception as error:  # another package's fault must not take the others away
            failed[point.name] = f"{type(error).__name__}: {error}"
            log.warning("the entry point %s (%s) cannot be loaded: %s", point.name, point.value, failed[point.name])
    return failed
