"""CLIP's tokenizer, shipped with the package: OpenAI's and TCL's checkpoints need it and bring none."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

CLIP_VOCABULARY = 49_408
CLIP_TOKENIZER = Path(__file__).resolve().parents[1] / "assets" / "clip_tokenizer"


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
    rows = tokenizer(list(texts), truncation=False, padding=False, verbose=False)["input_ids"]
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
