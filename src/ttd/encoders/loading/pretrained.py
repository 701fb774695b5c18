"""transformers folders and hub ids: the model, its tokenizer, its image statistics, read and written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer
from transformers.utils import logging
from transformers.utils.hub import cached_file

from ttd.encoders.loading.formats import check_references
from ttd.errors import ModelError, is_out_of_memory

_TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "vocab.json", "spiece.model")


def load_pretrained(model_class: Any, source: str | Path, model_type: str) -> Any:
    """Load a folder or hub id as `model_class`, in float32.

    Raises:
        ModelError: it cannot be read, describes another kind of model, or lacks parameters.
    """
    check_references(source)
    try:
        config = AutoConfig.from_pretrained(source)
        if config.model_type != model_type:
            raise ModelError(f"{source} holds a {config.model_type!r} model where {model_type!r} is expected")
        with without_bars():
            model, report = model_class.from_pretrained(
                source, config=config, dtype=torch.float32, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(f"{source} cannot be loaded as a {model_type} model: {_first_line(error)}") from error
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise ModelError(f"{source} is incomplete: it lacks {missing}; fetch it again")
    return model


def load_statistics(source: str | Path) -> dict[str, tuple[float, ...]]:
    """`mean` and `std` of a folder's `preprocessor_config.json`; nothing where there is none."""
    path = _find(source, "preprocessor_config.json")
    if path is None:
        return {}
    settings = json.loads(Path(path).read_text("utf-8"))
    named = {"mean": settings.get("image_mean"), "std": settings.get("image_std")}
    return {name: tuple(map(float, values)) for name, values in named.items() if values}


def load_tokenizer(source: str | Path, default: Callable[[], Any] | None = None) -> Any:
    """The folder's own tokenizer, or the default's, or None where there is neither."""
    if any(_find(source, name) for name in _TOKENIZER_FILES):
        try:
            return AutoTokenizer.from_pretrained(source)
        except (OSError, ValueError, ImportError, KeyError) as error:
            raise ModelError(f"the tokenizer of {source} cannot be loaded: {_first_line(error)}") from error
    return default() if default else None


def image_processor(
    name: str, mean: tuple[float, ...], std: tuple[float, ...], image_size: int, size: dict[str, int]
) -> dict[str, Any]:
    """The content of `preprocessor_config.json`: bicubic, a square crop of `image_size`."""
    return {
        "image_processor_type": name,
        "image_mean": list(mean),
        "image_std": list(std),
        "size": size,
        "crop_size": {"height": image_size, "width": image_size},
        "resample": 3,
    }


def save_pretrained(folder: Path, model: Any, tokenizer: Any, processor: dict[str, Any]) -> None:
    """Write a transformers folder.

    Args:
        folder: gets the files; the caller sees to it that it appears whole.
        model: a transformers model without adapter.
        tokenizer: None: none is written.
        processor: see `image_processor`.
    """
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=1) + "\n", encoding="utf-8")
    with without_bars():
        model.save_pretrained(folder)


@contextmanager
def without_bars() -> Iterator[None]:
    """No bar for weights that are read from the disk; transformers' bars heed no terminal."""
    # transformers switches huggingface_hub's bars with its own: downloads must have theirs back.
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _find(source: str | Path, name: str) -> str | None:
    if Path(source).is_dir():
        path = Path(source) / name
        return str(path) if path.is_file() else None
    found: str | None = cached_file(
        str(source),
        name,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    return found


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
