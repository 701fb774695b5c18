"""The tokenizer of a model's folder, and whether it is the model's (ids, words, end token); CLIP's own, shipped with
the package, for OpenAI's and TCL's checkpoints bring none.

transformers makes a tokenizer of hardly any files, so a folder that lacks its vocabulary gives one that maps every text
to the same ids; a tokenizer of another model gives ids that the text tower has no embedding for, or none that it
pools at.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ttd.encoders.loading.files import check_pointer, model_type, read_json
from ttd.errors import ModelError, is_out_of_memory, missing_extra

log = logging.getLogger(__name__)

CONFIG = "tokenizer_config.json"
_VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model", "vocab.txt")
TOKENIZER_FILES = (
    CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "spiece.model",
    "tokenizer.model",
    "vocab.txt",
)
# Tables of embeddings are padded to round sizes: so much of one may be without a token.
_PADDING = 1024
_SAMPLE = 400
_FOUND = 0.1  # of a tokenizer's own words: 0.7 for CLIP's, none where its merges are missing


def load_tokenizer(folder: str | Path, default: Callable[[], Any] | None = None) -> Any:
    """The folder's own tokenizer, or the default's, or None where there is neither.

    Raises:
        ModelError: its files are incomplete, damaged or pointers.
        MissingExtra: a library that it needs is not installed.
    """
    folder = Path(folder)
    there = [name for name in TOKENIZER_FILES if (folder / name).is_file()]
    for name in there:
        check_pointer(folder / name)
    vocabularies = [name for name in there if name in _VOCABULARIES]
    if not vocabularies and CONFIG not in there:
        return default() if default else None
    if not vocabularies:
        raise ModelError(
            f"{folder} holds {CONFIG} but no vocabulary: put tokenizer.json, vocab.json with merges.txt, or "
            "spiece.model beside it, whichever the model's publisher has"
        )
    if vocabularies == ["vocab.json"] and "merges.txt" not in there:
        raise ModelError(f"{folder} holds vocab.json without merges.txt: put it, or tokenizer.json, beside it")
    return _load(folder, vocabularies)


def _load(folder: Path, vocabularies: list[str]) -> Any:
    from transformers import AutoTokenizer

    settings = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    named = settings.get("tokenizer_class")
    if vocabularies == ["tokenizer.json"] and named is None and model_type(folder / "config.json") != "clip":
        raise ModelError(
            f"{folder} holds tokenizer.json without {CONFIG}, which says how texts are padded: put it beside it"
        )
    _check_libraries(folder, named, vocabularies)
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except BaseException as error:  # transformers and the tokenizers' libraries raise whatever they meet
        if not _is_of_the_files(error):
            raise
        raise ModelError(
            f"the tokenizer of {folder} cannot be loaded ({cause(error)}): download its files again"
        ) from error


def token_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """The ids of each text, whole and without padding, start and end token included.

    Raises:
        ModelError: the tokenizer's files were read, but hold rules that it cannot follow.
    """
    try:
        ids: list[list[int]] = tokenizer(list(texts), truncation=False, padding=False, verbose=False)["input_ids"]
    except BaseException as error:
        if not _is_of_the_files(error):
            raise
        raise ModelError(
            f"the tokenizer {tokenizer.name_or_path} is damaged ({cause(error)}): download its files again"
        ) from error
    return ids


def _is_of_the_files(error: BaseException) -> bool:
    """Whether the files of a tokenizer are at fault, not the machine or the user.

    Where the tokenizers library panics, its error is not an `Exception`, and no module exports it.
    """
    of_library = isinstance(error, Exception) or type(error).__name__ == "PanicException"
    return of_library and not is_out_of_memory(error)


def _check_libraries(folder: Path, named: Any, vocabularies: list[str]) -> None:
    """Raise where the tokenizer needs SentencePiece, which is an extra."""
    pieces = [name for name in vocabularies if name.endswith(".model")]
    if named == "SiglipTokenizer" and not pieces:
        raise ModelError(
            f"{folder} holds tokenizer.json, but its {CONFIG} asks for SigLIP's own tokenizer: put spiece.model beside "
            "it"
        )
    needed = named == "SiglipTokenizer" or (pieces and "tokenizer.json" not in vocabularies)
    if needed and not (_installed("sentencepiece") and _installed("google.protobuf")):
        raise missing_extra("siglip", f"the tokenizer of {folder} needs sentencepiece and protobuf")


def _installed(module: str) -> bool:
    from importlib.util import find_spec

    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


def cause(error: BaseException) -> str:
    """What an error of a library says, in one line: of a long report, the line that names the fault."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    # huggingface_hub's checks of a configuration: "Validation error for field 'x':", then the fault.
    line = lines[1] if len(lines) > 1 and lines[0].endswith(":") else lines[0]
    line = re.sub(r"^\w*(Error|Exception): ", "", line)
    if isinstance(error, KeyError):
        line = f"{line} is missing or unknown"
    return (line if len(line) <= 200 else f"{line[:199]}…").rstrip(".:")


# ---------------------------------------------------------------- against the model


def check_tokenizer(
    tokenizer: Any, vocabulary: int, folder: object, *, end: int | Literal["highest"] | None = None
) -> None:
    """Raise where a tokenizer is not the text tower's.

    Args:
        tokenizer: a transformers tokenizer.
        vocabulary: rows of the tower's table of embeddings.
        folder: where both come from.
        end: the token at which the tower pools a text, "highest" for the highest of a text's ids; None where it pools
            elsewhere.

    Raises:
        ModelError: it knows no words, has ids beyond the table or far fewer than it, does not find its own words again,
            or ends no text with `end`.
    """
    size = len(tokenizer)
    remedy = "take tokenizer and weights from the same model"
    words = size - len(set(tokenizer.all_special_ids))
    if words < 1:
        raise ModelError(
            f"the tokenizer of {folder} knows no words: its vocabulary is missing; download its files again"
        )
    highest = max(tokenizer.get_vocab().values())
    if highest >= vocabulary:
        added = sorted(token for token, id in tokenizer.get_added_vocab().items() if id >= vocabulary)
        names = f", such as the added {added[0]}" if added else ""
        raise ModelError(
            f"the tokenizer of {folder} has tokens up to {highest}{names}, but the model has {vocabulary}: {remedy}"
        )
    if size < vocabulary - _PADDING and size < vocabulary / 2:
        raise ModelError(f"the tokenizer of {folder} has {size} tokens, but the model has {vocabulary}: {remedy}")
    if (share := _found_again(tokenizer)) is not None and share < _FOUND:
        raise ModelError(
            f"the tokenizer of {folder} splits words that it knows into pieces ({share:.0%} are found again): its "
            "merges are missing or another vocabulary's; download its files again"
        )
    if end is not None:
        _check_end(tokenizer, end, folder, remedy)


def _check_end(tokenizer: Any, end: int | str, folder: object, remedy: str) -> None:
    (ids,) = token_ids(tokenizer, ["a dog"])
    last = ids[-1] if ids else None
    if end == "highest" and last is not None and last == tokenizer.eos_token_id and ids.index(max(ids)) == len(ids) - 1:
        if higher := sorted(token for token, id in tokenizer.get_vocab().items() if id > last):
            log.warning(
                "the model of %s pools texts at their highest token, and its tokenizer has %d above the end token, "
                "such as %s: texts with one of them are pooled there; name the end token as eos_token_id in "
                "config.json if that is not meant",
                folder, len(higher), higher[0],
            )  # fmt: skip
        return
    if last is not None and last == end:
        return
    wanted = "their highest token" if end == "highest" else f"the end token {end}"
    found = f"ends them with {last}" if last is not None and last == tokenizer.eos_token_id else "ends them without one"
    raise ModelError(
        f"the model of {folder} pools texts at {wanted}, but its tokenizer {found}: {remedy}, or correct eos_token_id "
        "in config.json"
    )


def _found_again(tokenizer: Any) -> float | None:
    """Of a sample of the tokenizer's words, the share that it maps to themselves; None where it has no words."""
    ids = range(0, len(tokenizer), max(1, len(tokenizer) // _SAMPLE))
    special = set(tokenizer.all_special_ids)
    words = [(id, tokenizer.decode([id]).strip()) for id in ids if id not in special]
    words = [(id, word) for id, word in words if len(word) >= 3 and word.isalnum()]
    if not words:
        return None
    rows = token_ids(tokenizer, [word for _, word in words])
    return sum(id in row for (id, _), row in zip(words, rows, strict=True)) / len(words)


CLIP_VOCABULARY = 49_408
CLIP_TOKENIZER = Path(__file__).resolve().parents[2] / "assets" / "clip_tokenizer"


@cache
def clip_tokenizer() -> Any:
    """OpenAI's byte-pair encoding: 49,408 tokens, lower case, 49406 = start, 49407 = end."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(CLIP_TOKENIZER)


def tokenize(
    tokenizer: Any, texts: Sequence[str], max_tokens: int, pad_to: int | None = None
) -> tuple[Tensor, list[bool]]:
    """Token ids of texts, cut where they are too long; the last token of a cut text is still the end token.

    Args:
        tokenizer: a transformers tokenizer.
        texts: N strings.
        max_tokens: the longest row allowed, start and end token included.
        pad_to: the length of every row, filled with the tokenizer's own padding on its own side; None means
            the longest text's, filled with zeros on the right as OpenAI does (a causal tower never looks).

    Returns:
        Ids `[N,L]`, and for each text whether it was cut.
    """
    if not texts:
        return torch.zeros(0, pad_to or 0, dtype=torch.long), []
    rows = token_ids(tokenizer, texts)
    cut = [len(row) > max_tokens for row in rows]
    rows = [_shorten(row, max_tokens, tokenizer.eos_token_id) for row in rows]
    if pad_to is None:
        length, filler, left = max(map(len, rows)), 0, False
    else:
        length, filler, left = pad_to, tokenizer.pad_token_id, tokenizer.padding_side == "left"
    paddings = [[filler] * (length - len(row)) for row in rows]
    filled = [pad + row if left else row + pad for row, pad in zip(rows, paddings, strict=True)]
    return torch.tensor(filled), cut


def _shorten(row: list[int], max_tokens: int, end: int) -> list[int]:
    if len(row) <= max_tokens:
        return row
    return [*row[: max_tokens - 1], end] if row[-1] == end else row[:max_tokens]
