"""A finished run of `python -m experiments.train_mini` -> a model folder: float16 weights, tokenizer, card, words."""

from __future__ import annotations

import shutil
from pathlib import Path

from transformers import CLIPModel

from experiments.train_mini.model import IMAGE, new_mini
from ttd.encoders.clip import CLIPEncoder
from ttd.encoders.loading.formats import Card, write_card
from ttd.encoders.loading.pretrained import quietly
from ttd.encoders.loading.tokenizers import CLIP_TOKENIZER, clip_tokenizer
from ttd.errors import InputError
from ttd.files import whole_folder
from ttd.scenes.nouns import WORDS
from ttd.scenes.scene import FILLER
from ttd.training import checkpoint
from ttd.training.checkpoint import CHECKPOINTS

METHOD = "values"

MODEL_CARD = """---
license: mit
library_name: transformers
tags: [clip, synthetic]
---
# mini

A real CLIP in small: a `CLIPModel` of {millions:.1f} M parameters ({size} px, patch {patch}), trained from nothing
with {loss}'s own loss on {samples:,} images and captions of `ttd.scenes`: emoji on named backgrounds. It saw no
masks and no word labels.

- **It knows** {count} things, the first words of `words.txt`: nouns that the world draws and the names of its
  backgrounds; behind them stand the words that fill its captions and mean nothing.
- **It does not know** photographs, nor any other word: for these take a model trained on them.
- Dense features: the last block's values (`ttd.json`).
- Trained by `python -m experiments.train_mini`, measured by `python -m experiments.report`.

The drawings it saw: OpenMoji (CC BY-SA 4.0) and Noto Color Emoji (SIL Open Font License 1.1).
"""


def export_run(run: Path, folder: Path, samples: int) -> None:
    """Writes the model of a run's checkpoint into `folder`, which must not exist yet or be empty.

    `samples` is how many images it was trained on, for the model card. Raises `InputError` without a checkpoint.
    """
    state = checkpoint.load_last(run / CHECKPOINTS)
    if state is None:
        raise InputError(f"{run} holds no checkpoint: train first with `python -m experiments.train_mini --out {run}`.")
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty: choose another folder or empty it.")
    model = new_mini()
    model.load_state_dict(state["model"])
    loss = {"clip": "CLIP", "siglip": "SigLIP"}[state["recipe"]["loss"]]
    with whole_folder(folder) as part:
        save_model(model, part, samples, loss)


def save_model(model: CLIPModel, folder: Path, samples: int, loss: str) -> None:
    """Writes the folder that `ttd.load` and transformers read."""
    with quietly():
        model.half().save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    shutil.copytree(CLIP_TOKENIZER, folder, dirs_exist_ok=True)
    known = (*WORDS, *sorted(FILLER))
    (folder / "words.txt").write_text("\n".join(known) + "\n", "utf-8")
    encoder = CLIPEncoder(model.float(), clip_tokenizer(), method=METHOD)
    card = Card("clip", METHOD, IMAGE, 0.5, fingerprint=encoder.fingerprint(), vocabulary="words.txt")
    write_card(folder, card)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    text = MODEL_CARD.format(millions=millions, size=IMAGE, patch=16, samples=samples, loss=loss, count=len(WORDS))
    (folder / "README.md").write_text(text, "utf-8")
