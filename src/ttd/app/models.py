"""Loaded models and encoded images, cached for the next question; a model serves one thread at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

from PIL import Image
from torch import Tensor

from ttd.app.uploads import digest, read_upload
from ttd.errors import InputError
from ttd.inference.options import Options
from ttd.inference.protocols import PROTOCOLS
from ttd.inference.views import EncodedImage
from ttd.lru_cache import LRUCache
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


MAX_MODELS = 4
ENCODED_BYTES = 1 << 30
SHOWN_SIDE = 512  # pixels of the longer side at which maps are computed for the page
CANVAS_SIDE = 1024  # of the image under them
# Pixels of the longer side at which an upload is decoded and encoded: the most that a protocol looks at (448 on the
# shorter side and `MAX_STRETCH` times that on the longer). A photo of 49 megapixels takes 12 MB instead of 147.
DECODED_SIDE = 2048


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
        shown: for maps of at most `SHOWN_SIDE` pixels.
        canvas: the image itself, of at most `CANVAS_SIDE` pixels.
        notice: where it is not what the model learned from, see `TTD.notice`.
        newly_encoded: whether it was encoded just now, not found in the cache.
    """

    shown: EncodedImage
    canvas: Image.Image
    notice: str | None = None
    newly_encoded: bool = False

    @property
    def bytes(self) -> int:
        """The approximate size in memory."""
        values = (value for view in self.shown.views for value in vars(view.features).values())
        pixels = sum(image.width * image.height * 3 for image in (self.shown.image, self.canvas))
        return pixels + sum(value.nbytes for value in values if isinstance(value, Tensor))

    def full(self, path: str) -> PageImage:
        """The same features for maps at the own size of the uploaded image, which is decoded again."""
        return replace(self, shown=replace(self.shown, image=read_upload(path)))


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
        self._encoded: LRUCache[tuple[Any, ...], PageImage] = LRUCache(ENCODED_BYTES, lambda image: image.bytes)

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

    def __init__(self, loaded: LoadedModel, encoded: LRUCache[tuple[Any, ...], PageImage]) -> None:
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
        image = cached
        if image is None:
            encoded = self.ttd.encode(read_upload(path, DECODED_SIDE), options)
            # The features do not change; what is shown of the image is all that is kept of it.
            small = replace(encoded, image=bounded(encoded.image, SHOWN_SIDE))
            image = PageImage(small, bounded(encoded.image, CANVAS_SIDE), self.ttd.notice(encoded))
            self._encoded.put(key, image)
        return replace(image, shown=replace(image.shown, options=options), newly_encoded=cached is None)
