"""Loaded models and encoded pictures, kept for the next question; one question at a time per model."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

from torch import Tensor

from ttd.app.choices import Choices
from ttd.app.recent import Recent
from ttd.app.uploads import digest, read_upload
from ttd.inference import resolve
from ttd.model import TTD
from ttd.pictures import bounded
from ttd.views import EncodedImage

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
    """An encoded picture.

    Attributes:
        full: at the picture's own size, for downloads.
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

    def see(self, path: str, options: dict[str, Any]) -> Seen:
        """A sent picture, encoded only where this model has not seen it with the same view settings.

        Args:
            path: the sent file.
            options: of `TTD.encode`; those that concern no view do not matter here.
        """
        view = resolve(**options).view
        key = (self._number, digest(path), *view.values())
        held = self._encoded.get(key)
        encoded = held or self.model.encode(read_upload(path), **options)
        if held is None:
            self._encoded.put(key, encoded)
        encoded = replace(encoded, options=resolve(**options))
        shown = replace(encoded, picture=bounded(encoded.picture, SHOWN_SIDE))
        return Seen(encoded, shown, held is None)


def encoded_bytes(encoded: EncodedImage) -> int:
    """What an encoded picture occupies in memory, about."""
    views = [view.features for view in encoded.views]
    tensors = [value for one in views for value in vars(one).values() if isinstance(value, Tensor)]
    return encoded.picture.width * encoded.picture.height * 3 + sum(t.nbytes for t in tensors)
