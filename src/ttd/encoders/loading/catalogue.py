"""The table of models and adapters that have a short name.

A new model of a known format is one more row; nothing else has to change. Sizes are bytes of the weights
file, rounded as the publishers show them. Hashes and licences stand here only where they were read on the
publisher's page; a revision is pinned wherever a hash is given, so that both speak of the same file.
"""

from __future__ import annotations

from dataclasses import dataclass

MODEL_PAGE = "see the model's page"

TCL_URL = "https://github.com/kakaobrain/tcl/releases/download/v1.0.0/tcl.pth"
TTD_ADAPTER_URL = "https://drive.google.com/file/d/1_H_OMaPncJ4uzAFSn9Cms6LBzk_oYZCR/view"


IN_PACKAGE = "in the package"


@dataclass(frozen=True)
class ModelShape:
    """What a model's parameters do not all show. None: not known, or the model has none.

    Attributes:
        patch_size, image_size: sides in pixels; the native side of images.
        vision_heads, text_heads: attention heads of a block.
        activation: in transformers' words.
        tokens: length of its tokenizer.
    """

    patch_size: int
    image_size: int
    vision_heads: int | None = None
    text_heads: int | None = None
    activation: str | None = None
    tokens: int | None = None


def _openai(patch: int, image: int = 224, *, large: bool = False) -> ModelShape:
    return ModelShape(patch, image, *((16, 12) if large else (12, 8)), "quick_gelu", 49_408)


def _laion(patch: int) -> ModelShape:
    return ModelShape(patch, 224, 12, 8, "gelu", 49_408)


def _siglip(image: int, tokens: int) -> ModelShape:
    return ModelShape(16, image, 12, 12, "gelu_pytorch_tanh", tokens)


@dataclass(frozen=True)
class ModelEntry:
    """One row of the catalogue.

    Attributes:
        name: the short name that `load` takes.
        kind: of the encoder ("clip", "siglip", "tcl"), "sam_hq" for what refines masks, or of a second backbone
            ("vit", "sam").
        source: a hub id (`org/name`), a URL, or "in the package".
        size: bytes of the weights, None where unknown.
        licence: the publisher's licence of the weights.
        sha256: of the weights file, None where no published hash was seen.
        what: "model", "adapter", "refiner" or "second backbone".
        base: for an adapter, the short name of the model that it belongs to.
        revision: the hub commit that `sha256` belongs to.
        weights: the file of weights that is loaded, and that `sha256` is of, whatever else a repository holds.
        file: the file name under which a release is kept in the cache.
        notes: one line for people.
        shape: what its publisher's configuration says; what `ttd models check` compares a model with.
    """

    name: str
    kind: str
    source: str
    size: int | None
    licence: str
    sha256: str | None = None
    what: str = "model"
    base: str | None = None
    revision: str | None = None
    weights: str | None = None
    file: str | None = None
    notes: str = ""
    shape: ModelShape | None = None

    @property
    def hub_id(self) -> str | None:
        """`org/name` on a hub, None for what comes from elsewhere."""
        return None if self.source == IN_PACKAGE or "://" in self.source else self.source


CATALOGUE: tuple[ModelEntry, ...] = (
    ModelEntry("mini", "clip", IN_PACKAGE, 17_478_106, "MIT", notes="needs no download; drawn scenes only"),
    ModelEntry(
        "mini+ttd",
        "clip",
        IN_PACKAGE,
        151_640,
        "MIT",
        what="adapter",
        base="mini",
        notes="the paper's recipe",
    ),
    ModelEntry(
        "mini+negatives",
        "clip",
        IN_PACKAGE,
        151_640,
        "MIT",
        what="adapter",
        base="mini",
        notes="our own recipe, not the paper's",
    ),
    ModelEntry("clip-vit-b32", "clip", "openai/clip-vit-base-patch32", 605_000_000, MODEL_PAGE, shape=_openai(32)),
    ModelEntry(
        "clip-vit-b16",
        "clip",
        "openai/clip-vit-base-patch16",
        599_000_000,
        MODEL_PAGE,
        notes="the base of the paper's MaskCLIP",
        shape=_openai(16),
    ),
    ModelEntry(
        "clip-vit-l14",
        "clip",
        "openai/clip-vit-large-patch14",
        1_710_000_000,
        MODEL_PAGE,
        shape=_openai(14, large=True),
    ),
    ModelEntry(
        "clip-vit-l14-336",
        "clip",
        "openai/clip-vit-large-patch14-336",
        1_710_000_000,
        MODEL_PAGE,
        notes="native side 336 pixels",
        shape=_openai(14, 336, large=True),
    ),
    ModelEntry(
        "openclip-vit-b32",
        "clip",
        "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        605_000_000,
        MODEL_PAGE,
        notes="trained on LAION-2B",
        shape=_laion(32),
    ),
    ModelEntry(
        "openclip-vit-b16",
        "clip",
        "laion/CLIP-ViT-B-16-laion2B-s34B-b88K",
        599_000_000,
        "MIT",
        sha256="3f25d29d3cc74e1d25d47e0593b4dd0864ced1e9b4d8e486a247ca4502f227f1",
        revision="7288da5a0d6f0b51c4a2b27c624837a9236d0112",
        weights="open_clip_model.safetensors",
        notes="trained on LAION-2B",
        shape=_laion(16),
    ),
    ModelEntry(
        "siglip-base-patch16-224",
        "siglip",
        "google/siglip-base-patch16-224",
        813_000_000,
        "Apache-2.0",
        shape=_siglip(224, 32_000),
    ),
    ModelEntry(
        "siglip-base-patch16-384",
        "siglip",
        "google/siglip-base-patch16-384",
        814_000_000,
        "Apache-2.0",
        shape=_siglip(384, 32_000),
    ),
    ModelEntry(
        "siglip2-base-patch16-224",
        "siglip",
        "google/siglip2-base-patch16-224",
        1_500_000_000,
        MODEL_PAGE,
        notes="many languages",
        shape=_siglip(224, 256_000),
    ),
    ModelEntry(
        "tcl",
        "tcl",
        TCL_URL,
        713_000_000,
        "MIT",
        shape=ModelShape(16, 448, 12, 8, "quick_gelu", 49_408),
        file="tcl.pth",
        notes="size computed: 178.3 M parameters in float32",
    ),
    ModelEntry(
        "tcl+ttd",
        "tcl",
        TTD_ADAPTER_URL,
        None,
        "not stated",
        what="adapter",
        base="tcl",
        file="TCL+TTD.pt",
        notes="the authors' adapter: unpublished format, to be fetched by hand",
    ),
    ModelEntry(
        "sam-hq",
        "sam_hq",
        "syscv-community/sam-hq-vit-base",
        379_000_000,
        MODEL_PAGE,
        what="refiner",
        notes="for --refine sam; size computed: 94.8 M parameters in float32",
    ),
    *(
        ModelEntry(name, "vit", f"facebook/{name}", 343_000_000, "Apache-2.0", what="second backbone", notes=notes)
        for name, notes in (("dino-vitb8", "for --method proxyclip"), ("dino-vitb16", "for --method trident"))
    ),
    ModelEntry(
        "sam-vit-base",
        "sam",
        "facebook/sam-vit-base",
        375_000_000,
        "Apache-2.0",
        what="second backbone",
        notes="for --method trident",
    ),
)


def known_models() -> list[ModelEntry]:
    """All models and adapters that have a short name, in the order of the catalogue."""
    return list(CATALOGUE)


def find_entry(name: str, what: str = "model") -> ModelEntry | None:
    """The row with this short name, ignoring case, or of a second backbone with this hub id; None: there is none."""
    rows = [entry for entry in CATALOGUE if entry.what == what]
    named = [entry for entry in rows if entry.name == name.lower()]
    by_id = [entry for entry in rows if what == "second backbone" and entry.source == name]
    return next(iter((*named, *by_id)), None)
