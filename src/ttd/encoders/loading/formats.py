"""Models on disk: which family's format a folder or file is in, and the card `ttd.json` beside the weights.

The card holds what no weights file says: the last-block method, thresholds, the image side, the words that a
small model knows, and the fingerprint of the base, so that a folder loads without options and a wrong adapter
is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttd.encoders.families import Family, Format, families, find_family
from ttd.errors import ModelError
from ttd.files import whole_file
from ttd.safe_paths import name_fault

if TYPE_CHECKING:
    from torch import Tensor

CARD = "ttd.json"
CARD_FORMAT = 1
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")


@dataclass(frozen=True)
class Card:
    """The contents of `ttd.json`. What is None is left to the encoder.

    Attributes:
        kind: of the encoder, see `ttd.encoders.families`.
        method: protocol of the last block ("maskclip", "values", ...).
        image_size: native side in pixels.
        background: threshold in 0..1 under which a map means background.
        fingerprint: `Encoder.fingerprint()` of the base, before any adapter.
        vocabulary: name of a text file in the folder with one known word per line.
        base: in an adapter's folder, the name of the model that it was trained on.
    """

    kind: str
    method: str | None = None
    image_size: int | None = None
    background: float | None = None
    fingerprint: str | None = None
    vocabulary: str | None = None
    base: str | None = None


@dataclass(frozen=True)
class Source:
    """A model on disk whose format is known.

    Attributes:
        kind: of the encoder, see `ttd.encoders.families`.
        layout: name of the family's `Format`.
        path: the folder, or the weights file.
        card: what `ttd.json` beside it says, None without one.
        tensors: the parameters of a file by their names; None for folders, which their encoder reads.
    """

    kind: str
    layout: str
    path: Path
    card: Card | None = None
    tensors: dict[str, Tensor] | None = None


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
    return Card(**content)


def write_card(folder: str | Path, card: Card) -> None:
    """Write `ttd.json` into a model's or adapter's folder, in one step; what is None is left out."""
    path = Path(folder) / CARD
    content = {name: value for name, value in asdict(card).items() if value is not None}
    _check_card(path, content)
    with whole_file(path) as temporary:
        text = json.dumps({"format": CARD_FORMAT, **content}, indent=1)
        temporary.write_text(text + "\n", encoding="utf-8")


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
    for name in ("kind", "method", "fingerprint", "vocabulary", "base"):
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
    threshold = content.get("background", 0.5)
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise ModelError(f'{path}: "background" must be a number from 0 to 1')
    words = content.get("vocabulary", "words.txt")
    if name_fault(words):
        raise ModelError(f'{path}: "vocabulary" must name a file in the same folder, without any path')


# ---------------------------------------------------------------- formats


def recognise(path: str | Path) -> Source:
    """Find out which format a model's folder or file is in.

    Raises:
        ModelError: nothing is there, it is an adapter or another kind of model, or a file of it is missing or
            damaged.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return _recognise_file(path)
    if not path.is_dir():
        raise ModelError(f"there is no model at {path}: check the path")
    if (found := _format_of_folder(path)) is not None:
        family, format = found
        _check_weights(path, format.weights)
        return _source(family, format, path)
    if (path / "adapter_config.json").is_file():
        raise ModelError(f"{path} is an adapter, not a model: pass it as adapter, with its base as the model")
    if (path / "config.json").is_file():
        model_type = read_json(path / "config.json").get("model_type")
        raise ModelError(
            f"{path / 'config.json'} describes a {model_type!r} model: only {' and '.join(_model_types())} can be read"
        )
    files = sorted(f for f in path.iterdir() if f.suffix in WEIGHT_SUFFIXES and not f.name.startswith("."))
    if len(files) == 1:
        return _recognise_file(files[0])
    raise ModelError(
        f"{path} holds no model that can be read: it needs config.json ({' or '.join(_model_types())}) or "
        f"{' or '.join(_configs())} with the weights, or one checkpoint file"
    )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; ModelError names the file where it is missing, damaged, or no object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON ({error}): restore or download it again") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} must hold a JSON object: restore or download it again")
    return content


def weights_file(folder: Path, candidates: Iterable[str]) -> Path | None:
    """The first of the candidates that is in the folder."""
    return next((folder / name for name in candidates if (folder / name).is_file()), None)


def index_shards(index: Path) -> list[str]:
    """The file names that a `*.safetensors.index.json` lists; ModelError where it lists anything else."""
    weight_map = read_json(index).get("weight_map")
    names = list(weight_map.values()) if isinstance(weight_map, dict) else []
    if not names or any(name_fault(name) for name in names):
        raise ModelError(f'{index} has no "weight_map" of names of files beside it: download it again')
    return sorted(set(names))


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


def _format_of_folder(folder: Path) -> tuple[Family, Format] | None:
    """The format that a folder's files show: by config.json, unless that belongs to another library."""
    config = folder / "config.json"
    model_type = read_json(config).get("model_type") if config.is_file() else None
    formats = _formats()
    for family, format in formats:
        if format.model_type is not None and format.model_type == model_type:
            return family, format
    for family, format in formats:  # timm writes a config.json beside open_clip_config.json
        if format.config is not None and (folder / format.config).is_file():
            if format.config.endswith(".json"):
                read_json(folder / format.config)
            return family, format
    return None


def _source(family: Family, format: Format, path: Path, tensors: dict[str, Tensor] | None = None) -> Source:
    folder = path if path.is_dir() else path.parent
    card = read_card(folder)
    if card and card.kind != family.kind:
        raise ModelError(
            f'{folder / CARD} says "{card.kind}" but {path.name} is a {family.kind} model: correct the card'
        )
    return Source(family.kind, format.name, path, card, tensors)


def _formats() -> list[tuple[Family, Format]]:
    return [(family, format) for family in families() for format in family.formats]


def _model_types() -> list[str]:
    return [format.model_type for _, format in _formats() if format.model_type is not None]


def _configs() -> list[str]:
    return [format.config for _, format in _formats() if format.config is not None]


def _check_weights(folder: Path, candidates: tuple[str, ...]) -> None:
    """Raise where the folder's weights are missing or cut off, which costs reading their headers only."""
    found = weights_file(folder, candidates)
    if found is None:
        raise ModelError(f"{folder} has a configuration but no weights: put {candidates[0]} beside it")
    shards = [found]
    if found.name.endswith(".index.json"):
        shards = [folder / name for name in index_shards(found)]
    for shard in shards:
        check_safetensors(shard)


def check_safetensors(path: Path) -> None:
    """Raise ModelError where a safetensors file is missing, cut off, or none; other suffixes pass."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ModelError(f"{path} is missing: download or copy it again")
    if path.suffix != ".safetensors":
        return
    try:
        with safe_open(path, "pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged or cut off ({error}): download or copy it again") from error


def _recognise_file(path: Path) -> Source:
    from ttd.encoders.loading.checkpoints import read_tensors

    if path.suffix not in WEIGHT_SUFFIXES:
        raise ModelError(f"{path} is not a checkpoint: {', '.join(WEIGHT_SUFFIXES)} can be read")
    if any(path.name in format.weights for _, format in _formats()) and (
        (path.parent / "config.json").is_file() or any((path.parent / name).is_file() for name in _configs())
    ):
        return recognise(path.parent)
    if path.name in ADAPTER_WEIGHTS:
        raise ModelError(f"{path} is an adapter, not a model: pass its folder as adapter=")
    check_safetensors(path)
    tensors = read_tensors(path)
    fitting = [
        (len(f.parameters), family, f) for family, f in _formats() if f.parameters and f.parameters <= set(tensors)
    ]
    if not fitting:
        raise ModelError(
            f"{path} is in no format that can be read from a single file (OpenAI's CLIP, TCL); its first "
            f"parameter is {min(tensors, default='none')}: a Hugging Face model needs config.json beside it"
        )
    _, family, format = max(fitting, key=lambda one: one[0])  # the most particular one
    return _source(family, format, path, tensors)
