"""A training step against the bare vision tower, and against the same step written plainly, in one run.

ViT-B/16's shapes with random weights, LoRA of the paper's size, 448 px, batch 4, captions of ten words, float32 on
the CPU. Wanted: at most 1.25 times the vision tower's forward and backward pass; the plain step (77 tokens for every
string, one text forward each, a second pass of both towers to score the words) at least 1.8 times ours.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import CLIPConfig, CLIPModel

from ttd.encoders import CLIPEncoder, Encoder
from ttd.encoders.loading.tokenizers import clip_tokenizer
from ttd.losses import l_distill, l_tag, targets
from ttd.scoring import s_pixel, select_largest_gap
from ttd.text.words import split_words
from ttd.training.augment import Crop, normalised
from ttd.training.config import read_config
from ttd.training.dataset import Batch, PreparedPair, Steps
from ttd.training.lora import Adapter
from ttd.training.objective import Objective

SIDE, BATCH, ROUNDS = 448, 4, 3
MOST_OVERHEAD, LEAST_GAIN = 1.25, 1.8
CAPTIONS = [
    "a brown dog jumps over the fence near a lake",
    "two children ride bicycles along an empty street in summer",
    "the spider's web between old branches after the morning rain",
    "stock photo of a red bus in front of houses",
]


def step_parts() -> tuple[Objective, Batch]:
    """The objective of the paper's recipe and a batch of noise with four captions."""
    torch.manual_seed(0)
    vision = {"patch_size": 16, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    encoder = CLIPEncoder(CLIPModel(CLIPConfig(vision_config={**vision, "num_hidden_layers": 12})), clip_tokenizer())
    return objective_and_batch(encoder, BATCH, SIDE, "float32")


def objective_and_batch(encoder: Encoder, count: int, side: int, precision: str) -> tuple[Objective, Batch]:
    """The paper's recipe on `count` images of noise with the captions above in turn, on the encoder's device."""
    settings = [f"run.precision={precision}", "model.name=clip-vit-b16", f"optimiser.batch={count}"]
    config = read_config(None, settings)
    objective = Objective(encoder, Adapter(encoder, config.model, 0), config).train().to(encoder.device)
    captions = [CAPTIONS[i % len(CAPTIONS)] for i in range(count)]
    samples = [
        PreparedPair(
            item=i,
            key=str(i),
            crop=Crop(torch.randint(0, 256, (side, side, 3), dtype=torch.uint8).numpy(), (0, 0, side, side)),
            captions=[caption],
            words=[list(dict.fromkeys(word.text.lower() for word in split_words(caption)))],
            given=None,
        )
        for i, caption in enumerate(captions)
    ]
    steps = Steps.__new__(Steps)  # only its collation is wanted, which needs no data on disk
    steps.config = config
    return objective, steps.collate(samples, epoch=0).to(encoder.device)


def bare_vision(objective: Objective, batch: Batch) -> Callable[[], float]:
    """Forward and backward of the vision tower with the same LoRA, nothing else."""
    encoder = objective.encoder
    pixels = normalised(batch.pixels, batch.rects, encoder.mean, encoder.std)
    weights = torch.randn(1, encoder.embedding_size, 1, 1)

    def run() -> float:
        loss = (encoder.encode_pixels(pixels) * weights).mean()
        loss.backward()
        return float(loss.detach())

    return run


def our_step(objective: Objective, batch: Batch) -> Callable[[], float]:
    def run() -> float:
        loss = objective(batch).loss / len(batch)
        loss.backward()
        return float(loss.detach())

    return run


def plain_step(objective: Objective, batch: Batch) -> Callable[[], float]:
    """The equations without any thought of cost: the same loss."""
    encoder = objective.encoder
    pixels = normalised(batch.pixels, batch.rects, encoder.mean, encoder.std)

    def embed(text: str) -> Tensor:
        ids, _ = encoder.tokenize([text])
        padded = torch.zeros(1, encoder.max_tokens, dtype=torch.long)
        padded[:, : ids.shape[1]] = ids
        states = encoder.backbone.text_model(input_ids=padded).last_hidden_state
        return normalize(encoder.backbone.text_projection(states[:, int(padded.argmax())]), dim=-1)

    def run() -> float:
        loss = torch.zeros(())
        with torch.no_grad():
            scored = encoder.encode_image(pixels)
            chosen = []
            for b, caption in enumerate(CAPTIONS):
                text = torch.cat([embed(word) for word in _words(caption)])
                chosen.append(select_largest_gap(s_pixel(encoder.similarity(scored.select([b]), text))))
        features = encoder.encode_image(pixels)
        for b, caption in enumerate(CAPTIONS):
            text = torch.cat([embed(word) for word in _words(caption)])
            sim = encoder.similarity(features.select([b]), text)
            wanted = targets(sim)
            distill = l_distill(encoder.similarity(features.select([b]), embed(caption)), wanted, chosen[b])
            loss = loss + (distill + l_tag(sim, wanted, chosen[b], torch.ones(1, len(text)))).sum() / BATCH
        loss.backward()
        return float(loss.detach())

    return run


def _words(caption: str) -> list[str]:
    return list(dict.fromkeys(word.text.lower() for word in split_words(caption)))


def parts(objective: Objective, batch: Batch) -> dict[str, float]:
    """Seconds of the forward pass's pieces."""
    seconds = {}
    pixels = normalised(batch.pixels, batch.rects, objective.encoder.mean, objective.encoder.std)
    seconds["images"] = _seconds(lambda: objective.encoder.encode_pixels(pixels))
    seconds["words"] = _seconds(lambda: objective.encoder.encode_text(batch.words))
    seconds["captions"] = _seconds(lambda: objective.encoder.encode_text(batch.captions))
    whole = _seconds(lambda: objective(batch))
    return seconds | {"maps, scores, losses": max(0.0, whole - sum(seconds.values()))}


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    objective, batch = step_parts()
    runs = {
        "vision tower": bare_vision(objective, batch),
        "our step": our_step(objective, batch),
        "plain step": plain_step(objective, batch),
    }
    losses = {name: run() for name, run in runs.items()}
    if abs(losses["our step"] - losses["plain step"]) > 1e-4:
        raise SystemExit(f"the two steps differ: {losses}")
    # In turns, so that whatever else the machine does falls on all of them.
    times = {name: _seconds(run) for name, run in runs.items()}
    for _ in range(ROUNDS - 1):
        times = {name: min(times[name], _seconds(run)) for name, run in runs.items()}
    overhead, gain = times["our step"] / times["vision tower"], times["plain step"] / times["our step"]
    print(
        f"training step, {BATCH} images of {SIDE} px, {len(batch.words)} words: "
        + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in times.items())
        + f"; {overhead:.2f} times the vision tower (wanted: at most {MOST_OVERHEAD}), the plain step takes "
        f"{gain:.2f} times as long (wanted: at least {LEAST_GAIN}), same loss"
    )
    print("  forward: " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in parts(objective, batch).items()))


if __name__ == "__main__":
    main()
