"""Families of encoders: one class and one `@register_encoder(...)` each, also from another package.

A family says by its formats how its models lie on disk; nothing else in the package lists kinds of encoders. Another
package registers its own by naming the module that holds the class in its entry points:

    [project.entry-points."ttd.encoders"]
    colour = "colour_encoder"
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from ttd.errors import InputError
from ttd.registry import ENCODERS, origin_of

if TYPE_CHECKING:
    from ttd.encoders.base import Encoder

HF_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "model.fp16.safetensors",
    "pytorch_model.fp16.bin",
)


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

    def register(encoder: E) -> E:
        ENCODERS.add(kind, Family(kind, encoder, formats), origin_of(encoder))
        encoder.kind = kind
        return encoder

    return register


def families() -> tuple[Family, ...]:
    """Every family: the package's own first, then those of other packages. Imports torch and transformers."""
    return tuple(ENCODERS.all().values())


def find_family(kind: str) -> Family:
    """The family of that kind.

    Raises:
        ModelError: there is none.
    """
    family: Family = ENCODERS.find(kind)
    return family
