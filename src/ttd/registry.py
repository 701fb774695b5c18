"""Registries of things chosen by name: fixed lists, and entries added by this or other packages.

Another package names the module that registers an entry in its own entry points, under the entry's name:

    [project.entry-points."ttd.refiners"]
    smooth = "smooth_refiner"

Names are listed without importing anything, so that the command line's help may show them; the module of an entry is
imported when the entry is asked for.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Generic, TypeVar

from ttd.errors import InputError, ModelError, TTDError

log = logging.getLogger(__name__)

T = TypeVar("T")
_NAME = re.compile("[a-z][a-z0-9_+-]*")


class Registry(Generic[T]):
    """Entries of one sort by name.

    Args:
        what: the sort, for messages: "method".
        group: of the entry points in which other packages name their modules.
        own: names of the package's own entries, each with the module that registers it.
        special: names that are not entries and may be chosen too.
        reserved: names that no entry may have.
        error: raised for an unknown name.
    """

    def __init__(
        self,
        what: str,
        group: str,
        own: Mapping[str, str],
        *,
        special: tuple[str, ...] = (),
        reserved: tuple[str, ...] = (),
        error: type[TTDError] = InputError,
    ) -> None:
        self._what, self._group, self._own, self._error = what, group, dict(own), error
        self._special, self._reserved = special, (*special, *reserved)
        self._entries: dict[str, T] = {}
        self._origins: dict[str, str] = {}
        self._failed: dict[str, str] | None = None  # None: the entry points are not loaded yet

    def add(self, name: str, entry: T, origin: str) -> None:
        """Make an entry known; the same origin may do so again, as in a notebook.

        Args:
            name: lower case letters, digits, "-", "+" and "_".
            entry: what `find` gives.
            origin: where it is defined: its module, and what tells it from others in there.

        Raises:
            InputError: the name is taken or is not a name.
        """
        if not _NAME.fullmatch(name):
            raise InputError(f"{name!r} cannot name a {self._what}: use lower case letters, digits, - and _")
        own = self._own.get(name)
        taken = name in self._reserved or self._origins.get(name, origin) != origin
        if taken or (own is not None and origin != own and not origin.startswith(f"{own}.")):
            raise InputError(f"the {self._what} {name!r} is registered already: choose another name")
        self._entries[name], self._origins[name] = entry, origin

    def names(self) -> tuple[str, ...]:
        """All names, the package's own first; imports nothing."""
        from importlib.metadata import entry_points

        installed = sorted(point.name for point in entry_points(group=self._group)) if self._failed is None else []
        return tuple(dict.fromkeys([*self._own, *self._entries, *installed]))

    def choices(self) -> tuple[str, ...]:
        """All names that may be chosen: the special ones, then `names`."""
        return (*self._special, *self.names())

    def all(self) -> dict[str, T]:
        """Every entry by name, in the order of `names`; those of other packages that cannot be imported are missing."""
        for module in dict.fromkeys(self._own.values()):
            import_module(module)
        self._load_installed()
        return {name: self._entries[name] for name in dict.fromkeys([*self._own, *self._entries])}

    def find(self, name: str) -> T:
        """The entry with that name.

        Raises:
            TTDError: there is none (the registry's `error`).
        """
        if name not in self._entries and name in self._own:
            import_module(self._own[name])
        if name not in self._entries:
            failed = "".join(f"; {one} cannot be loaded: {why}" for one, why in self._load_installed().items())
            if name not in self._entries:
                known = ", ".join(self.choices())
                raise self._error(f"unknown {self._what} {name!r}: choose from {known}{failed}")
        return self._entries[name]

    def check(self, name: str) -> None:
        """Raise as `find` does for an unknown name; one of the package's own is not imported."""
        if name not in self._own:
            self.find(name)

    def _load_installed(self) -> dict[str, str]:
        """Import what other packages name in their entry points, once; gives the names that failed, and why."""
        if self._failed is None:
            from importlib.metadata import entry_points

            self._failed = {}
            for point in entry_points(group=self._group):
                try:
                    point.load()
                except Exception as error:  # another package's fault must not take the others away
                    self._failed[point.name] = why = f"{type(error).__name__}: {error}"
                    log.warning("the entry point %s (%s) cannot be loaded: %s", point.name, point.value, why)
        return self._failed


def origin_of(defined: Any) -> str:
    """Where a class or function is defined."""
    return f"{defined.__module__}.{defined.__qualname__}"


SCORES = ("s_pixel", "s_image", "s_text", "s_image+s_text", "s_seg")
"""How words are scored, see `ttd.scoring`."""
TABLE_FORMS = ("long", "nested")
"""Of the table of visible words, see `ttd.data.word_table`."""
LABEL_SCALES = ("calibrated", "norm", "norm-patches")
"""What maps compare by for labels, see `ttd.inference.options.Options.label_scale`."""
DTYPES = ("float32", "bfloat16", "float16")
DEVICES = ("cpu", "cuda", "mps")

ENCODERS: Registry[Any] = Registry(
    "kind of model",
    "ttd.encoders",
    {"clip": "ttd.encoders.clip", "siglip": "ttd.encoders.siglip", "tcl": "ttd.encoders.tcl"},
    error=ModelError,
)
METHODS: Registry[Any] = Registry(
    "method",
    "ttd.methods",
    {
        **dict.fromkeys(("maskclip", "sclip", "clearclip", "naclip", "values"), "ttd.encoders.methods"),
        "gem": "ttd.methods.gem",
        "sc-clip": "ttd.methods.sc_clip",
        "clip-surgery": "ttd.methods.clip_surgery",
        "cliptrase": "ttd.methods.cliptrase",
        "cliptrase-voc20": "ttd.methods.cliptrase",
        "proxyclip": "ttd.methods.proxyclip",
        "trident": "ttd.methods.trident",
    },
    error=ModelError,
)
REFINERS: Registry[Any] = Registry(
    "refinement",
    "ttd.refiners",
    {
        "pamr": "ttd.refine.pamr",
        "crf": "ttd.refine.crf",
        "sam": "ttd.refine.sam",
        "sam-points": "ttd.refine.sam_points",
    },
    special=("none", "auto"),
)
LOSS_TERMS: Registry[Any] = Registry(
    "loss term",
    "ttd.losses",
    dict.fromkeys(("distill", "tag", "rank"), "ttd.losses"),
    # The other settings of the config's section `loss`.
    reserved=("mean", "maps", "negatives", "negatives_weight", "relative", "floor", "compared"),
)
RULES: Registry[Any] = Registry(
    "selection",
    "ttd.rules",
    dict.fromkeys(("gap", "softmax", "min-max", "calibrated", "threshold", "negatives"), "ttd.selection"),
)
"""How scored words are selected, see `ttd.selection.SelectionRule`."""
DATASETS: Registry[Any] = Registry(
    "data set",
    "ttd.datasets",
    dict.fromkeys(
        (
            *("voc", "voc20", "context60", "context59", "coco-object", "coco-stuff", "ade20k", "cityscapes", "folder"),
            *("tagmask", "coco-80", "nus-wide", "refcoco", "refcoco+", "refcocog"),
        ),
        "ttd.evaluation.datasets.entries",
    ),
)
