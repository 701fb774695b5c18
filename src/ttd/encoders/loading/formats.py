"""Models on disk: which family's format a folder or file is in, and the card `ttd.json` beside the weights.

The card holds what no weights file says: the last-block method, thresholds, the image side, the words that a
small model knows, and the fingerprint of the base, so that a folder loads without options and a wrong adapter
is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttd.encoders.calibration import Calibration, parse_calibration
from ttd.encoders.families import Family, Format, families, find_family
from ttd.encoders.loading.files import model_type, read_json
from ttd.encoders.loading.weights import (
    WEIGHT_SUFFIXES,
    check_safetensors,
    find_weights,
    index_shards,
    other_weights,
    unwrapped,
    weights_file,
    weights_files,
)
from ttd.errors import InputError, ModelError
from ttd.files import write_file
from ttd.files.safe_paths import name_fault

if TYPE_CHECKING:
    from torch import Tensor

CARD = "ttd.json"
CARD_FORMAT = 1
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


@dataclass(frozen=True)
class Card:
    """The contents of `ttd.json`. What is None is left to the encoder.

    Attributes:
        kind: of the encoder, see `ttd.encoders.families`.
        method: protocol of the last block ("maskclip", "values", ...).
        image_size: native side in pixels.
        background: threshold in 0..1 under which a map means background; of an adapter, in place of its base's.
        caption_threshold: threshold in 0..1 of a caption's mask; of an adapter, in place of its base's.
        calibration: how cosines become maps in 0..1; in an adapter's folder, what it was trained with.
        fingerprint: `Encoder.fingerprint()` of the base, before any adapter.
        vocabulary: name of a text file in the folder with one known word per line.
        domain: name of a file in the folder with the rule that tells what the model learned from, see `Domain`.
        base: in an adapter's folder, the name of the model that it was trained on.
    """

    kind: str
    method: str | None = None
    image_size: int | None = None
    background: float | None = None
    caption_threshold: float | None = None
    calibration: Calibration | None = None
    fingerprint: str | None = None
    vocabulary: str | None = None
    domain: str | None = None
    base: str | None = None


@dataclass(frozen=True)
class Source:
    """A model on disk whose format is known.

    Attributes:
        kind: of the encoder, see `ttd.encoders.families`.
        layout: name of the family's `Format`.
        path: the folder, or the weights file.
        card: what `ttd.json` beside it says, None without one.
        tensors: the parameters of a file by their names; None for folders, whose weights their encoder reads.
        weights: the file of the weights, or the index of their shards.
    """

    kind: str
    layout: str
    path: Path
    card: Card | None = None
    tensors: dict[str, Tensor] | None = None
    weights: Path | None = None


# ---------------------------------------------------------------- the card


def read_card(folder: str | Path) -> Card | None:
    """The card of a model's or adapter's folder, None where there is none; ModelError where it is wrong."""
    path = Path(folder) / CARD
    if not path.is_file():
        return None
    content = read_json(path)
    version = content.pop("format", None)
    if version != CARD_FORMAT:
        raise ModelError(
            f"{path} has the format {version!r} where this version of ttd reads {CARD_FORMAT}: update ttd or "
            'write "format": 1'
        )
    unknown = sorted(set(content) - {field.name for field in fields(Card)})
    if unknown:
        raise ModelError(f"{path} has unknown entries ({', '.join(unknown)}): remove or correct them")
    _check_card(path, content)
    if "calibration" in content:
        content["calibration"] = parse_calibration(content["calibration"])
    return Card(**content)


def write_card(folder: str | Path, card: Card) -> None:
    """Write `ttd.json` into a model's or adapter's folder, in one step; what is None is left out."""
    path = Path(folder) / CARD
    content = {name: value for name, value in asdict(card).items() if value is not None}
    _check_card(path, content)
    write_file(path, json.dumps({"format": CARD_FORMAT, **content}, indent=1) + "\n")


def read_vocabulary(folder: str | Path, card: Card) -> frozenset[str] | None:
    """The words that the card's vocabulary file lists, None where the card names no file."""
    if card.vocabulary is None:
        return None
    path = Path(folder) / card.vocabulary
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}, the vocabulary that {CARD} names, cannot be read: restore it") from error
    return frozenset(word for line in lines if (word := line.strip()))


def _check_card(path: Path, content: Mapping[str, Any]) -> None:
    for name in ("kind", "method", "fingerprint", "vocabulary", "domain", "base"):
        if not isinstance(content.get(name, ""), str):
            raise ModelError(f'{path}: "{name}" must be text')
    if not content.get("kind"):
        raise ModelError(f'{path}: "kind" is missing: name the kind of encoder, such as "clip"')
    try:
        find_family(content["kind"])
    except ModelError as error:
        raise ModelError(f'{path}: "kind": {error}') from None
    size = content.get("image_size", 1)
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ModelError(f'{path}: "image_size" must be a positive whole number of pixels')
    for name in ("background", "caption_threshold"):
        threshold = content.get(name, 0.5)
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
            raise ModelError(f'{path}: "{name}" must be a number from 0 to 1')
    if "calibration" in content:
        try:
            parse_calibration(content["calibration"])
        except InputError as error:
            raise ModelError(f'{path}: "calibration": {error}') from None
    for name in ("vocabulary", "domain"):
        if name_fault(content.get(name, "x")):
            raise ModelError(f'{path}: "{name}" must name a file in the same folder, without any path')


# ---------------------------------------------------------------- formats


def recognise(path: str | Path, weights: str | None = None) -> Source:
    """Find out which format a model's folder or file is in.

    Args:
        path: the folder, or a file of weights.
        weights: name of the file of a folder that is meant, whatever else lies there.

    Raises:
        ModelError: nothing is there, it is an adapter or another kind of model, or a file of it is missing or
            damaged.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return _recognise_file(path)
    if not path.is_dir():
        raise ModelError(f"there is no model at {path}: check the path")
    if described := _formats_of_folder(path):
        family, format = _with_weights(path, described, weights)
        found = path / weights if weights else find_weights(path, format.weights)
        weights_files(found)
        return _source(family, format, path, found)
    if (path / "adapter_config.json").is_file():
        raise ModelError(f"{path} is an adapter, not a model: pass it as adapter, with its base as the model")
    if (path / "config.json").is_file():
        config, known = path / "config.json", " and ".join(_model_types())
        raise ModelError(f"{config} describes a {model_type(config)!r} model: only {known} can be read")
    files = other_weights(path)
    if len(files) == 1:
        return _recognise_file(files[0])
    if len(files) > 1:
        names = ", ".join(file.name for file in files[:4])
        raise ModelError(f"{path} holds {len(files)} files of weights ({names}): name the one to use")
    raise ModelError(
        f"{path} holds no model that can be read: it needs config.json ({' or '.join(_model_types())}) or "
        f"{' or '.join(_configs())} with the weights, or one checkpoint file"
    )


def check_references(folder: str | Path) -> None:
    """Raise where files of a model's folder would have transformers read weights from elsewhere; hub ids pass."""
    folder = Path(folder)
    for kind in ("safetensors", "bin"):
        for index in folder.glob(f"*.{kind}.index.json"):
            index_shards(index)
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{folder} holds a model and an adapter_config.json, which names another base: put the adapter into a "
            "folder of its own and name both"
        )


def _formats_of_folder(folder: Path) -> list[tuple[Family, Format]]:
    """The formats that a folder's configurations show: by config.json first, unless that is another library's."""
    kind = model_type(folder / "config.json")
    formats = _formats()
    described = [(a, f) for a, f in formats if kind is not None and f.model_type == kind]
    for family, format in formats:  # timm writes a config.json beside open_clip_config.json
        if format.config is not None and (folder / format.config).is_file():
            if format.config.endswith(".json"):
                read_json(folder / format.config)
            described.append((family, format))
    return described


def _with_weights(folder: Path, described: list[tuple[Family, Format]], weights: str | None) -> tuple[Family, Format]:
    """Of the formats that a folder's configurations show, the first whose weights are there under their own name."""
    for family, format in described:
        names = [name for name in format.weights if weights in (None, name)]
        if weights_file(folder, names) is not None:
            return family, format
    if weights is not None:
        raise ModelError(f"{folder} lacks {weights}, the file that belongs to this model: put it beside the others")
    return described[0]


def _source(
    family: Family, format: Format, path: Path, weights: Path | None, tensors: dict[str, Tensor] | None = None
) -> Source:
    folder = path if path.is_dir() else path.parent
    card = read_card(folder)
    if card and card.kind != family.kind:
        raise ModelError(
            f'{folder / CARD} says "{card.kind}" but {path.name} is a {family.kind} model: correct the card'
        )
    return Source(family.kind, format.name, path, card, tensors, weights)


def _formats() -> list[tuple[Family, Format]]:
    return [(family, format) for family in families() for format in family.formats]


def _model_types() -> list[str]:
    return [format.model_type for _, format in _formats() if format.model_type is not None]


def _configs() -> list[str]:
    return [format.config for _, format in _formats() if format.config is not None]


def _recognise_file(path: Path) -> Source:
    from ttd.encoders.loading.checkpoints import read_tensors

    if path.suffix not in WEIGHT_SUFFIXES:
        raise ModelError(f"{path} is not a checkpoint: {', '.join(WEIGHT_SUFFIXES)} can be read")
    if path.name in ADAPTER_WEIGHTS:
        raise ModelError(f"{path} is an adapter, not a model: pass its folder as adapter=")
    described = _formats_of_folder(path.parent)
    for family, format in described:
        if path.name in format.weights:
            weights_files(path)
            return _source(family, format, path.parent, path)
    check_safetensors(path)
    tensors = read_tensors(path)
    fitting = [
        (len(f.parameters), family, f, plain)
        for family, f in _formats()
        if f.parameters and (plain := unwrapped(tensors, f.parameters, path)) is not None
    ]
    best = max(fitting, key=lambda one: one[0], default=None)  # the most particular one
    # What lies beside a file describes it, unless its parameters are those of another family.
    for family, format in described:
        if best is None or best[1] is family:
            return _source(family, format, path.parent, path, tensors if best is None else best[3])
    if best is None:
        raise ModelError(
            f"{path} is in no format that can be read from a single file (OpenAI's CLIP, TCL); its first "
            f"parameter is {min(tensors, default='none')}: a Hugging Face model needs config.json beside it"
        )
    _, family, format, plain = best
    return _source(family, format, path, path, plain)
