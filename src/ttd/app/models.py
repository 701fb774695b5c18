"""Loaded models and encoded images, cached for the next question; a model serves one thread at a time."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any, Generic, TypeVar

from torch import Tensor

from ttd.app.uploads import digest, read_upload
from ttd.errors import InputError
from ttd.inference.options import Options
from ttd.inference.protocols import PROTOCOLS
from ttd.inference.views import EncodedImage
from ttd.model import TTD
from ttd.viz.overlays import bounded

NO_ADAPTER = "none"


@dataclass(frozen=True)
class PageChoices:
    """The models and adapters that the page offers, by their labels.

    Attributes:
        models: label -> name for `ttd.load`, at least one; the first is the default.
        adapters: label -> name; may be empty.
        sam_model: SAM-HQ's name for `refine="sam"`; None: not offered.
    """

    models: dict[str, str]
    adapters: dict[str, str]
    sam_model: str | None = None

    @classmethod
    def of(cls, models: Sequence[str], adapters: Sequence[str] = (), sam_model: str | None = None) -> PageChoices:
        """The choices for names from the command line.

        Raises:
            InputError: no model is named.
        """
        if not models:
            raise InputError("the page needs at least one model: name one with --model")
        return cls(labelled(models), labelled(adapters), sam_model)

    @property
    def adapter_labels(self) -> list[str]:
        """No adapter, then the named ones."""
        return [NO_ADAPTER, *self.adapters]

    @property
    def refinements(self) -> list[str]:
        """The refinements that are installed here."""
        crf = ["crf"] if find_spec("pydensecrf") is not None else []
        sam = ["sam"] if self.sam_model else []
        return ["none", "pamr", *crf, *sam]

    @property
    def protocols(self) -> list[str]:
        """All protocols by name."""
        return list(PROTOCOLS)

    def names(self, model: str, adapter: str) -> tuple[str, str | None]:
        """The names of a model and an adapter by their labels; None for no adapter.

        Raises:
            InputError: a label is not offered.
        """
        if model not in self.models:
            raise InputError(f"{model!r} is not one of the models of this page: choose from the list")
        if adapter in ("", NO_ADAPTER):
            return self.models[model], None
        if adapter not in self.adapters:
            raise InputError(f"{adapter!r} is not one of the adapters of this page: choose from the list")
        return self.models[model], self.adapters[adapter]


def labelled(names: Iterable[str]) -> dict[str, str]:
    """A label for every distinct name: a path's last part, or the whole name where two would be equal."""
    names = list(dict.fromkeys(names))
    ends = [Path(name).name if Path(name).exists() else name for name in names]
    return {
        (end if end and ends.count(end) == 1 and end != NO_ADAPTER else name): name
        for name, end in zip(names, ends, strict=True)
    }


K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LRUCache(Generic[K, V]):
    """A cache of limited size: the least recently used values are removed. Several threads may use it.

    Args:
        limit: of the sum of all sizes; the newest value stays even where it alone exceeds the limit.
        size: of a value, computed once when it is put in; by default every value counts as one.
    """

    def __init__(self, limit: int, size: Callable[[V], int] = lambda _: 1) -> None:
        self._limit = limit
        self._size = size
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: K) -> V | None:
        """The value, which becomes the most recently used; None where it is not cached."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, key: K, value: V) -> list[V]:
        """Adds `value`; returns the values that were removed for it, least recently used first."""
        size = self._size(value)
        with self._lock:
            self._values.pop(key, None)
            self._values[key] = (value, size)
            removed = []
            while len(self._values) > 1 and sum(size for _, size in self._values.values()) > self._limit:
                removed.append(self._values.popitem(last=False)[1][0])
            return removed

    def drop(self, wanted: Callable[[K], bool]) -> None:
        """Removes every value for whose key `wanted` is true."""
        with self._lock:
            for key in [key for key in self._values if wanted(key)]:
                del self._values[key]

    def __len__(self) -> int:
        with self._lock:
            return len(self._values)


MAX_MODELS = 4
ENCODED_BYTES = 1 << 30
SHOWN_SIDE = 512  # pixels of the longer side at which maps are computed for the page


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model and the lock to hold while it computes: neither its cache of texts nor torch's modules are thread-safe.

    Attributes:
        number: another one for every loaded model of a pool.
    """

    ttd: TTD
    number: int
    lock: Lock = field(default_factory=Lock)


@dataclass(frozen=True)
class PageImage:
    """An uploaded image, encoded.

    Attributes:
        full: at the image's own size, for downloads.
        shown: the same features, for maps of at most `SHOWN_SIDE` pixels.
        newly_encoded: whether it was encoded just now, not found in the cache.
    """

    full: EncodedImage
    shown: EncodedImage
    newly_encoded: bool


class ModelPool:
    """Models by their labels on the page, loaded when they are first used.

    Args:
        choices: what the page offers.
        load: loads a model by (name, adapter): `ttd.load` with the options of the command line.
    """

    def __init__(self, choices: PageChoices, load: Callable[[str, str | None], TTD]) -> None:
        self.choices = choices
        self._load = load
        self._models: LRUCache[tuple[str, str | None], LoadedModel] = LRUCache(MAX_MODELS)
        self._loading = Lock()
        self._numbers = itertools.count()
        self._encoded: LRUCache[tuple[Any, ...], EncodedImage] = LRUCache(ENCODED_BYTES, encoded_bytes)

    @contextmanager
    def use(self, model: str, adapter: str) -> Iterator[ModelInUse]:
        """The model with two labels, for this thread alone while the block runs.

        Raises:
            TTDError: it is not offered, or cannot be loaded.
        """
        loaded = self.get(model, adapter)
        with loaded.lock:
            yield ModelInUse(loaded, self._encoded)

    def get(self, model: str, adapter: str) -> LoadedModel:
        """The model with two labels and its lock, for uses longer than a question; raises as `use`."""
        names = self.choices.names(model, adapter)
        loaded = self._models.get(names)
        if loaded is not None:
            return loaded
        with self._loading:
            loaded = self._models.get(names)  # another thread may have loaded it meanwhile
            if loaded is None:
                loaded = LoadedModel(self._load(*names), next(self._numbers))
                for removed in self._models.put(names, loaded):
                    self._encoded.drop(lambda key, number=removed.number: key[0] == number)  # type: ignore[misc]
            return loaded


class ModelInUse:
    """A model that one thread uses, and the cache of encoded images."""

    def __init__(self, loaded: LoadedModel, encoded: LRUCache[tuple[Any, ...], EncodedImage]) -> None:
        self.ttd = loaded.ttd
        self._number = loaded.number
        self._encoded = encoded

    def encode(self, path: str, options: Options) -> PageImage:
        """An uploaded image, encoded where it is not in the cache for this model and the same view settings.

        Args:
            path: of the uploaded file.
            options: of `TTD.encode`; only its view settings (size, windows, ...) are part of the cache's key.
        """
        view = options.view
        key = (self._number, digest(path), *view.values())
        cached = self._encoded.get(key)
        encoded = cached or self.ttd.encode(read_upload(path), options)
        if cached is None:
            self._encoded.put(key, encoded)
        encoded = replace(encoded, options=options)
        shown = replace(encoded, image=bounded(encoded.image, SHOWN_SIDE))
        return PageImage(encoded, shown, cached is None)


def encoded_bytes(encoded: EncodedImage) -> int:
    """The approximate size of an encoded image in memory, in bytes."""
    views = [view.features for view in encoded.views]
    tensors = [value for one in views for value in vars(one).values() if isinstance(value, Tensor)]
    return encoded.image.width * encoded.image.height * 3 + sum(t.nbytes for t in tensors)
