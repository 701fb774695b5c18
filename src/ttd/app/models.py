"""Loaded models and encoded images, kept for the next question; one question at a time per model."""

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
class Choices:
    """Labels on the page and the names behind them.

    Attributes:
        models: label -> name as `ttd.load` takes it, at least one; the first is shown first.
        adapters: label -> name; may be empty.
        sam_model: SAM-HQ's name for `refine="sam"`, None where it is not offered.
    """

    models: dict[str, str]
    adapters: dict[str, str]
    sam_model: str | None = None

    @classmethod
    def of(cls, models: Sequence[str], adapters: Sequence[str] = (), sam_model: str | None = None) -> Choices:
        """Labels for names as they stand on the command line.

        Raises:
            InputError: no model at all.
        """
        if not models:
            raise InputError("the page needs at least one model: name one with --model")
        return cls(labelled(models), labelled(adapters), sam_model)

    @property
    def adapter_labels(self) -> list[str]:
        """No adapter, then those that were named."""
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
        """The names behind two labels.

        Raises:
            InputError: a label that is not offered.
        """
        if model not in self.models:
            raise InputError(f"{model!r} is not one of the models of this page: choose from the list")
        if adapter in ("", NO_ADAPTER):
            return self.models[model], None
        if adapter not in self.adapters:
            raise InputError(f"{adapter!r} is not one of the adapters of this page: choose from the list")
        return self.models[model], self.adapters[adapter]


def labelled(names: Iterable[str]) -> dict[str, str]:
    """A short label for every distinct name: a path's last part where no other name has the same."""
    names = list(dict.fromkeys(names))
    ends = [Path(name).name if Path(name).exists() else name for name in names]
    return {
        (end if end and ends.count(end) == 1 and end != NO_ADAPTER else name): name
        for name, end in zip(names, ends, strict=True)
    }


K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Keeps values until their sizes add up to more than `limit`; then the one unused for longest goes.

    Args:
        limit: in whatever unit `size` answers; the newest value stays even where it alone exceeds it.
        size: of a value, asked once when it is put in.
    """

    def __init__(self, limit: int, size: Callable[[V], int] = lambda _: 1) -> None:
        self._limit = limit
        self._size = size
        self._held: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: K) -> V | None:
        """The value, which now counts as used last; None where it is not held."""
        with self._lock:
            if key not in self._held:
                return None
            self._held.move_to_end(key)
            return self._held[key][0]

    def put(self, key: K, value: V) -> list[V]:
        """Holds `value`; the values that had to go for it, longest unused first."""
        size = self._size(value)
        with self._lock:
            self._held.pop(key, None)
            self._held[key] = (value, size)
            gone = []
            while len(self._held) > 1 and sum(size for _, size in self._held.values()) > self._limit:
                gone.append(self._held.popitem(last=False)[1][0])
            return gone

    def drop(self, wanted: Callable[[K], bool]) -> None:
        """Forgets every value whose key is `wanted`."""
        with self._lock:
            for key in [key for key in self._held if wanted(key)]:
                del self._held[key]

    def __len__(self) -> int:
        with self._lock:
            return len(self._held)


MOST_MODELS = 4
ENCODED_BYTES = 1 << 30
SHOWN_SIDE = 512  # pixels of the longer side at which maps are computed for the page

_numbers = itertools.count()


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model; whoever asks it holds `lock`, because neither its memory of texts nor torch's modules promise
    to serve two threads.
    """

    model: TTD
    lock: Lock = field(default_factory=Lock)
    number: int = field(default_factory=lambda: next(_numbers))


@dataclass(frozen=True)
class Seen:
    """An encoded image.

    Attributes:
        full: at the image's own size, for downloads.
        shown: the same features, but maps come out at `SHOWN_SIDE` pixels at most.
        fresh: whether it was encoded just now.
    """

    full: EncodedImage
    shown: EncodedImage
    fresh: bool


class ModelPool:
    """Models by their labels on the page, loaded when first asked for.

    Args:
        choices: what is offered.
        load: gives a model for (name, adapter); `ttd.load` with the options of the command line.
    """

    def __init__(self, choices: Choices, load: Callable[[str, str | None], TTD]) -> None:
        self.choices = choices
        self._load = load
        self._models: Recent[tuple[str, str | None], Loaded] = Recent(MOST_MODELS)
        self._loading = Lock()
        self._encoded: Recent[tuple[Any, ...], EncodedImage] = Recent(ENCODED_BYTES, encoded_bytes)

    @contextmanager
    def ask(self, model: str, adapter: str) -> Iterator[Asked]:
        """The model behind two labels, for this thread alone while the block runs.

        Raises:
            TTDError: not offered, or it cannot be loaded.
        """
        loaded = self._get(self.choices.names(model, adapter))
        with loaded.lock:
            yield Asked(loaded, self._encoded)

    def hold(self, model: str, adapter: str) -> Loaded:
        """The model behind two labels with its lock, for whoever asks it as long as the page is open.

        Raises:
            TTDError: as `ask`.
        """
        return self._get(self.choices.names(model, adapter))

    def _get(self, names: tuple[str, str | None]) -> Loaded:
        loaded = self._models.get(names)
        if loaded is not None:
            return loaded
        with self._loading:
            loaded = self._models.get(names)  # perhaps another visitor asked for it meanwhile
            if loaded is None:
                loaded = Loaded(self._load(*names))
                for gone in self._models.put(names, loaded):
                    self._encoded.drop(lambda key, number=gone.number: key[0] == number)  # type: ignore[misc]
            return loaded


class Asked:
    """A model that one thread holds."""

    def __init__(self, loaded: Loaded, encoded: Recent[tuple[Any, ...], EncodedImage]) -> None:
        self.model = loaded.model
        self._number = loaded.number
        self._encoded = encoded

    def see(self, path: str, options: Options) -> Seen:
        """A sent image, encoded only where this model has not seen it with the same view settings.

        Args:
            path: the sent file.
            options: of `TTD.encode`; those that concern no view do not matter here.
        """
        view = options.view
        key = (self._number, digest(path), *view.values())
        held = self._encoded.get(key)
        encoded = held or self.model.encode(read_upload(path), options)
        if held is None:
            self._encoded.put(key, encoded)
        encoded = replace(encoded, options=options)
        shown = replace(encoded, image=bounded(encoded.image, SHOWN_SIDE))
        return Seen(encoded, shown, held is None)


def encoded_bytes(encoded: EncodedImage) -> int:
    """What an encoded image occupies in memory, about."""
    views = [view.features for view in encoded.views]
    tensors = [value for one in views for value in vars(one).values() if isinstance(value, Tensor)]
    return encoded.image.width * encoded.image.height * 3 + sum(t.nbytes for t in tensors)
