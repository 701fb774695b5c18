"""What a model on disk is: its files, what its encoder computes with, and where it differs from the catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ttd.encoders.base import Encoder
from ttd.encoders.loading.catalogue import ModelEntry, ModelShape
from ttd.encoders.loading.checkpoints import sha256
from ttd.encoders.loading.formats import Source
from ttd.encoders.loading.weights import weights_files

_ROUNDING = 0.01  # of the sizes that publishers show


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights: its path, its size in bytes, its SHA-256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Inspection:
    """What a model is.

    Attributes:
        kind, format: see `Source.kind` and `Source.layout`.
        files: of its weights.
        shape: its sizes, heads, activation and tokens, as the catalogue lists them.
        max_tokens: longest text.
        end_token: of its tokenizer; None without one.
        pooled: the token at which texts are pooled, "highest" for the highest of a text's; None where nothing says so.
        mean, std: of images.
        settings: what decides answers besides what the model is, calibration among it.
        fingerprint: its identity, see `ttd.encoders.identity`.
        differences: from the catalogue's row, each as a sentence.
    """

    kind: str
    format: str
    files: tuple[WeightsFile, ...]
    shape: ModelShape
    max_tokens: int
    end_token: int | None
    pooled: int | str | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    settings: dict[str, Any]
    fingerprint: str
    differences: tuple[str, ...]


def inspect_model(source: Source, encoder: Encoder, entry: ModelEntry | None = None) -> Inspection:
    """What a recognised model is.

    Args:
        source: where it lies.
        encoder: the same, built.
        entry: the catalogue's row that it should be.
    """
    identity, tokenizer = encoder.identity(), getattr(encoder, "tokenizer", None)
    files = tuple(_file(path) for path in weights_files(source.weights or source.path))
    shape = _shape(encoder, identity, tokenizer)
    return Inspection(
        kind=source.kind,
        format=source.layout,
        files=files,
        shape=shape,
        max_tokens=encoder.max_tokens,
        end_token=None if tokenizer is None else tokenizer.eos_token_id,
        pooled=identity.get("text", {}).get("pooled"),
        mean=encoder.mean,
        std=encoder.std,
        settings=encoder.settings(),
        fingerprint=encoder.fingerprint(),
        differences=() if entry is None else tuple(_differences(entry, source.kind, files, shape)),
    )


def _file(path: Path) -> WeightsFile:
    return WeightsFile(str(path), path.stat().st_size, sha256(path))


def _shape(encoder: Encoder, identity: dict[str, Any], tokenizer: Any) -> ModelShape:
    towers = [identity.get(tower, {}) for tower in ("vision", "text")]
    activations = list(dict.fromkeys(tower["hidden_act"] for tower in towers if "hidden_act" in tower))
    heads = [tower.get("num_attention_heads") for tower in towers]
    return ModelShape(
        patch_size=encoder.patch_size,
        image_size=encoder.image_size,
        vision_heads=heads[0],
        text_heads=heads[1],
        activation=" and ".join(map(str, activations)) or None,
        tokens=None if tokenizer is None else len(tokenizer),
    )


def _differences(entry: ModelEntry, kind: str, files: tuple[WeightsFile, ...], shape: ModelShape) -> Iterator[str]:
    if kind != entry.kind:
        yield f"the kind is {kind}, in the catalogue {entry.kind}"
    size = sum(file.size for file in files)
    if entry.size is not None and abs(size - entry.size) > _ROUNDING * entry.size:
        yield f"the weights have {size:,} bytes, in the catalogue about {entry.size:,}"
    if entry.sha256 is not None and [file.sha256 for file in files] != [entry.sha256]:
        yield f"the hash of the weights is {files[0].sha256}, in the catalogue {entry.sha256}"
    listed = {} if entry.shape is None else asdict(entry.shape)
    for name, found in asdict(shape).items():
        if listed.get(name) is not None and found != listed[name]:
            yield f"{name} is {found}, in the catalogue {listed[name]}"
