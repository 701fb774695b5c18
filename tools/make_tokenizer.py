"""Writes CLIP's tokenizer (vocab.json, merges.txt, tokenizer_config.json) from OpenAI's merges file.

python tools/make_tokenizer.py bpe_simple_vocab_16e6.txt.gz src/ttd/assets/clip_tokenizer

The merges file (MIT, OpenAI) lies in the wheel of `open-clip-torch`: pip download --no-deps open-clip-torch
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

MERGES = 48_894


def byte_symbols() -> list[str]:
    """The 256 printable stand-ins for bytes in the order of CLIP's vocabulary."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]


def main(source: str, target: str) -> None:
    with gzip.open(source, "rt", encoding="utf-8") as file:
        merges = file.read().split("\n")[1 : 1 + MERGES]
    symbols = byte_symbols()
    words = [*symbols, *(s + "</w>" for s in symbols), *("".join(m.split()) for m in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    if len(set(words)) != 49_408:
        raise SystemExit(f"expected 49,408 distinct tokens, got {len(set(words)):,}")
    folder = Path(target)
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {word: i for i, word in enumerate(words)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False, separators=(",", ":")), "utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", "utf-8")
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
