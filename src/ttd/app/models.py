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
from ttd.encoders.methods import Method, find_method, known_methods
from ttd.errors import InputError
from ttd.inference.options import Options
from ttd.inference.protocols import PROTOCOLS
from ttd.inference.views import EncodedImage
from ttd.lru_cache import LRUCache
from ttd.model import TTD
from ttd.viz.overlays import bounded

NO_ADAPTER = "none"
OWN_METHOD = "the model's own"


@dataclass(frozen=True)
class PageChoices:
    """The models and adapters that the page offers, by their labels.

    Attributes:
        models: label -> name for `ttd.load`, at least one; the first is the default.
        adapters: label -> name; may be empty.
        sam_model: SAM-HQ's name for `refine="sam"`; None: not offered.
        proxy_model: second backbones, "PROXY" or "PROXY,SAM"; methods that need others are not offered.
    """

    models: dict[str, str]
    adapters: dict[str, str]
    sam_model: str | None = None
    proxy_model: str | None = None

    @classmethod
    def of(
        cls,
        models: Sequence[str],
        adapters: Sequence[str] = (),
        sam_model: str | None = None,
        proxy_model: str | None = None,
    ) -> PageChoices:
        """The choices for names from the command line.

        Raises:
            InputError: no model is named.
        """
        if not models:
            raise InputError("the page needs at least one model: name one with --model")
        return cls(labelled(models), labelled(adapters), sam_model, proxy_model)

    @property
    def adapter_labels(self) -> list[str]:
        """No adapter, then the named ones."""
        return [NO_ADAPTER, *self.adapters]

    @property
    def refinements(self) -> list[str]:
        """The refinements that are installed here."""
        crf = ["crf"] if find_spec("pydensecrf") is not None else []
        sam = ["sam", "sam-points"] if self.sam_model else []
        return ["none", "pamr", *crf, *sam]

    @property
    def methods(self) -> list[str]:
        """The model's own method, then all whose packages and second backbones are there."""
        return [OWN_METHOD, *(one.name for one in known_methods() if one.installed and one.served_by(self.proxy_model))]

    def method(self, name: str) -> Method:
        """The method with that name, beside the page's second backbones.

        Raises:
            InputError: it is not offered.
        """
        if name not in self.methods[1:]:
            raise InputError(f"{name!r} is not one of the methods of this page: choose from the list")
        found = find_method(name)
        return found if found.second_backbone is None else found.with_second_backbone(str(self.proxy_model))

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
        others: the same model with other methods, by their names: the same towers, so the same lock.
    """

    ttd: TTD
    number: int
    lock: Lock = field(default_factory=Lock)
    others: dict[str, LoadedModel] = field(default_factory=dict)

    def with_method(self, method: Method) -> LoadedModel:
        """This model with another method; raises `ModelError` where the model takes none."""
        with self.lock:
            if method.name not in self.others:
                encoder: Any = self.ttd.encoder
                self.others[method.name] = replace(self, ttd=TTD(encoder.with_method(method)))
            return self.others[method.name]


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
        features = (view.features for view in self.shown.views)
        values = (value for one in features for value in (*vars(one).values(), *one.extras.values()))
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
    def use(self, model: str, adapter: str, method: str = OWN_METHOD) -> Iterator[ModelInUse]:
        """The model with two labels and a method, for this thread alone while the block runs.

        Raises:
            TTDError: it is not offered, or cannot be loaded.
        """
        chosen = None if method == OWN_METHOD else self.choices.method(method)
        loaded = self.get(model, adapter)
        loaded = loaded if chosen is None else loaded.with_method(chosen)
        with loaded.lock:
            yield ModelInUse(loaded, self._encoded)

    def get(self, model: str, adapter: str) -> LoadedModel:
        """The model with two labels and its lock, for uses longer than a question; raises as `use`."""
        names = self.choices.names(model, adapter)
        loaded = self._models.get(names)
        if loaded is not None:
            return loaded
        with self._loading:
            loaded = self._models.get(names)  # another thread may have loaded it in between
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
        key = (self._number, self.ttd.encoder.method_name, digest(path), *view.values())
        cached = self._encoded.get(key)
        image = cached
        if image is None:
            encoded = self.ttd.encode(read_upload(path, DECODED_SIDE), options)
            # The features do not change; what is shown of the image is all that is kept of it.
            small = replace(encoded, image=bounded(encoded.image, SHOWN_SIDE))
            image = PageImage(small, bounded(encoded.image, CANVAS_SIDE), self.ttd.notice(encoded))
            self._encoded.put(key, image)
        return replace(image, shown=replace(image.shown, options=options), newly_encoded=cached is None)
