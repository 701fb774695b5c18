"""Methods (`--method`): how the blocks of a CLIP's vision tower become dense features and maps, by name.

A method is one `Method` with up to three hooks and one `register_method(...)`, here or in another package, which names
its module in its entry points:

    [project.entry-points."ttd.methods"]
    mine = "my_method"

The package's own five change the last block alone, by two switches: what replaces attention, and whether the residual
and the MLP stay.

| method    | attention                      | residual + MLP |
|-----------|--------------------------------|----------------|
| maskclip  | identity                       | kept           |
| sclip     | softmax(q q') + softmax(k k')  | kept           |
| clearclip | softmax(q q')                  | dropped        |
| naclip    | softmax(k k' + Gaussian window)| dropped        |
| values    | identity                       | dropped        |

Shapes: B images, h x w patches, L = 1 + h*w tokens (the class token first), D width, C embedding channels, N texts.
Needs no torch, so that the command line's help may list the names.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttd.encoders.calibration import Calibration
from ttd.errors import InputError
from ttd.registry import METHODS

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ttd.encoders.features import Raised

DEFAULT = "maskclip"
ATTENTIONS = ("identity", "qq", "kk", "qq+kk")


@dataclass(frozen=True)
class Patches:
    """What a `patches` hook gives where it is more than the patches of CLIP's own grid.

    Attributes:
        tokens: `[B,h'*w',D]`, what the projection into the shared space gets.
        grid: (h', w'), any grid over the padded pixels.
        class_token: `[B,D]`, the method's own class token; projected and normalised it is `Context.class_token`. The
            pooled embedding stays CLIP's own.
        extras: what the other hooks look at, by name, `[B,...]` each.
    """

    tokens: Tensor
    grid: tuple[int, int]
    class_token: Tensor | None = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """What a hook may look at besides the features.

    Attributes:
        pixels: `[B,3,H,W]`, normalised: of the windows that are encoded, padding included.
        mean, std: with which they are normalised.
        places: where they lie, int64 `[B,5]`: top, left, height and width of the whole image in its pixels, and 1 where
            the window is mirrored; None where nobody says (training): each is a whole image.
        image: `[1,3,H',W']`, normalised: the whole image, for a method with `together`; else None.
        original: uint8 `[H",W",3]`, RGB: the same before it was resized; None where it is not known (training).
        second: what the method's `second_backbone` made; None where it names none. It is frozen: gradients reach
            neither its parameters nor, through it, the pixels.
        class_token: `[B,C]`, normalised, where `patches` gave one; only `similarity` and `finish` see it.
        extras: what `patches` gave besides; as `class_token`.
        classes: int64 `[N]`, to which class each text belongs where several name one (as words for the background do);
            None: each is one by itself. Only `similarity` and `finish` see it.
        encode_text: `encode_text(texts, templates)` -> `[M,C]`, normalised: embeddings of other texts than those that
            are asked about, such as the empty sentence.
    """

    pixels: Tensor
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    places: Tensor | None = None
    image: Tensor | None = None
    original: Tensor | None = None
    second: Any = None
    class_token: Tensor | None = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    classes: Tensor | None = None
    encode_text: Callable[[Sequence[str], Sequence[str]], Tensor] | None = None

    def colours(self, pixels: Tensor | None = None) -> Tensor:
        """Normalised pixels (these, or others of the same model) back in 0..1, for another backbone's statistics."""
        pixels = self.pixels if pixels is None else pixels
        mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return pixels * std + mean


PatchesHook = Callable[["Sequence[Any]", "Sequence[Tensor]", "tuple[int, int]", Context], "Tensor | Patches"]
SimilarityHook = Callable[["Tensor", "Tensor", "Tensor", Context], "Tensor"]
FinishHook = Callable[["Tensor", Context], "Tensor | Raised"]


@dataclass(frozen=True)
class LastBlock:
    """`patches` of a method that changes the last block alone.

    Attributes:
        attention: "identity", "qq", "kk" or "qq+kk"; the products are scaled by hs**-0.5 as in CLIP.
        gaussian_sigma: width in patches of a Gaussian window added before the softmax; None for none.
        residual_mlp: whether the block's two residual paths and its MLP stay.
    """

    attention: str = "identity"
    gaussian_sigma: float | None = None
    residual_mlp: bool = True

    def __post_init__(self) -> None:
        if self.attention not in ATTENTIONS:
            raise InputError(f"unknown attention {self.attention!r}: choose one of {', '.join(ATTENTIONS)}")
        if self.gaussian_sigma is not None and (self.attention == "identity" or self.gaussian_sigma <= 0):
            raise InputError("a Gaussian window needs a positive width and an attention other than 'identity'")

    def __call__(
        self, blocks: Sequence[Any], hidden_states: Sequence[Tensor], grid: tuple[int, int], context: Context
    ) -> Tensor:
        """The patches `[B,h*w,D]`, see `Method.patches`."""
        from ttd.encoders.last_block import dense_patches

        return dense_patches(
            blocks[-1], hidden_states[-1], grid, self.attention, self.gaussian_sigma, self.residual_mlp
        )


@dataclass(frozen=True)
class Method:
    """One entry of `--method`.

    Attributes:
        name: lower case, for `--method` and cards.
        source: where it was published, for people.
        patches: `patches(blocks, hidden_states, grid, context)` -> `[B,h*w,D]`, what the projection into the shared
            space gets, or `Patches`. `blocks` are the tower's (transformers' `CLIPEncoderLayer`, adapted or not),
            `hidden_states[-1]` is what enters the last one, `[B,1+h*w,D]`, and `grid` is (h, w). None: MaskCLIP's.
        similarity: `similarity(dense [B,C,h,w], pooled [B,C], text [N,C] or [B,N,C], context)` -> `[B,N,h,w]`; features
            and texts are normalised. None: cosines.
        finish: `finish(logits [B,N,h,w], context)` -> `[B,N,h',w']` of each window, before windows, scales and
            mirrorings are averaged, or `Raised` where one text is to win at each pixel. None: as they are.
        protocol: the name of the protocol that `ttd eval` follows where none is named.
        refine: what `refine="auto"` means.
        licence: of the authors' code; "" where they name none.
        positions: how position embeddings fit another grid: `positions([1,D,s,s], (h, w))` -> `[1,D,h,w]`.
            None: bicubically, by size.
        second_backbone: makes the second backbone, `second_backbone(device)` -> `Context.second`: a module, or an
            object of several; called when it is first needed.
        every_state: whether `hidden_states` are what enters each of the blocks, not the last one alone.
        together: whether `patches` gets all windows of one image in one call, `hidden_states` `[W,1+h*w,D]` with their
            `context.places`, and gives `Patches` of the whole image, `[1,h'*w',D]`.
        calibration: of what `similarity` or `finish` gives, where that is not a cosine; None: the model's.
        uses_query: whether the last block's q takes part in `patches`, so that training reaches it.
        package: that its hooks import, where it is none that everybody has.
    """

    name: str
    source: str
    patches: PatchesHook | None = None
    similarity: SimilarityHook | None = None
    finish: FinishHook | None = None
    protocol: str = "paper"
    refine: str = "none"
    licence: str = ""
    positions: Callable[[Tensor, tuple[int, int]], Tensor] | None = None
    second_backbone: Callable[[torch.device], Any] | None = None
    every_state: bool = False
    together: bool = False
    uses_query: bool = True
    calibration: Calibration | None = None
    package: str = ""

    @property
    def installed(self) -> bool:
        """Whether its `package` is there."""
        return not self.package or find_spec(self.package) is not None

    def served_by(self, names: str | None) -> bool:
        """Whether all its second backbones are among those named, "PROXY" or "PROXY,SAM"; one without needs none."""
        if self.second_backbone is None:
            return True
        return names is not None and len(names.split(",")) >= getattr(self.second_backbone, "count", sys.maxsize)

    def with_second_backbone(self, name: str | Path) -> Method:
        """The same method beside another second backbone, by the name that its `second_backbone.named` takes.

        Raises:
            InputError: it has none that is known by name.
        """
        named = getattr(self.second_backbone, "named", None)
        if named is None:
            raise InputError(f"the method {self.name} has no second backbone: leave the proxy model out")
        return replace(self, second_backbone=named(name))

    def key(self) -> str:
        """Another text where other features are to be expected: a hook's settings, or its module's file, changed.

        Raises:
            InputError: a hook's code cannot be found, or a second backbone takes part, whose weights nobody knows.
        """
        if self.second_backbone is not None:
            raise InputError(f"features of the method {self.name!r} cannot be kept: its second backbone may change")
        hooks = [_described(hook) for hook in (self.patches, self.positions)]
        return repr((self.name, hooks, self.every_state, self.together))


def register_method(method: Method) -> Method:
    """Make a method known by its name; gives it back.

    Raises:
        InputError: the name is taken or is not a name.
    """
    METHODS.add(method.name, method, method.source)
    return method


def method_names() -> tuple[str, ...]:
    """The names of all methods, also those of other packages; imports none."""
    return METHODS.names()


def known_methods() -> tuple[Method, ...]:
    """Every method, also those of other packages."""
    return tuple(METHODS.all().values())


def find_method(name: str) -> Method:
    """The method with that name.

    Raises:
        ModelError: there is none.
    """
    method: Method = METHODS.find(name)
    return method


def _described(hook: Any) -> str:
    if hook is None or is_dataclass(hook):
        return repr(hook)
    try:
        file = inspect.getsourcefile(hook)
    except TypeError:
        file = None
    if file is None or not Path(file).is_file():
        raise InputError(f"the code of {hook!r} is in no file: define it in a module")
    return f"{hook.__module__}.{hook.__qualname__} {hashlib.sha256(Path(file).read_bytes()).hexdigest()}"


def enlarged_positions(native: Tensor, grid: tuple[int, int]) -> Tensor:
    """Position embeddings `[1,D,s,s]` -> `[1,D,h,w]` as the code of SCLIP, NACLIP and ClearCLIP makes them.

    Bicubically by the factors (h + 0.1) / s and (w + 0.1) / s, which also say where the samples lie; as many positions
    as there are already stay as they are, whatever the grid's shape.
    """
    from torch.nn.functional import interpolate

    side = native.shape[-1]
    if grid[0] * grid[1] == side * side:
        return native.reshape(*native.shape[:2], *grid)
    factors = ((grid[0] + 0.1) / side, (grid[1] + 0.1) / side)
    return interpolate(native, scale_factor=factors, mode="bicubic", align_corners=False)


for _method in (
    Method(
        "maskclip",
        "Zhou et al., ECCV 2022; as in TCL and TTD",
        LastBlock(),
        refine="crf",
        licence="Apache-2.0",
        uses_query=False,
    ),
    Method("sclip", "Wang et al., ECCV 2024", LastBlock("qq+kk"), protocol="sclip", positions=enlarged_positions),
    Method(
        "clearclip",
        "Lan et al., ECCV 2024",
        LastBlock("qq", residual_mlp=False),
        protocol="clearclip",
        positions=enlarged_positions,
    ),
    Method(
        "naclip",
        "Hajimiri et al., WACV 2025",
        LastBlock("kk", gaussian_sigma=5.0, residual_mlp=False),
        protocol="naclip",
        licence="MIT",
        positions=enlarged_positions,
        uses_query=False,
    ),
    Method("values", "the last block's values, projected", LastBlock(residual_mlp=False), uses_query=False),
):
    METHODS.add(_method.name, _method, __name__)
