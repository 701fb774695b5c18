"""Images of fixed samples while training: so that a person sees it learn, or sees the maps die."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ttd.data.sources import BadSample
from ttd.maps import norm, union
from ttd.results import TaggedWord
from ttd.text.words import split_words
from ttd.training.augment import Crop
from ttd.training.dataset import Batch, PreparedPair, Steps
from ttd.training.objective import Objective
from ttd.viz.figures import caption_chips, heatmap_panels
from ttd.viz.overlays import save_png, stack
from ttd.viz.typography import paragraph

FOLDER = "watch"
MOST_WORDS = 5  # word maps per sample, the best first
_WIDTH = 1020


class Watch:
    """The first samples of the data, not augmented, drawn again and again.

    Args:
        steps: the run's data.
        folder: of the run.
    """

    def __init__(self, steps: Steps, folder: Path) -> None:
        self._steps, self._folder = steps, folder
        self._batch, self._captions = _fixed(steps, steps.config.run.watch_samples)

    def draw(self, objective: Objective, step: int) -> Path | None:
        """Write `watch/step-N.png`: captions by score, the caption's map, the union, the selected words' maps."""
        if self._batch is None:
            return None
        was_training = objective.training
        objective.eval()
        with torch.no_grad():
            inputs = objective.inputs(self._batch.to(objective.encoder.device))
        objective.train(was_training)
        pages = []
        for b in range(len(self._batch)):
            cells = inputs.inside[b].nonzero()
            top, left = cells.amin(0).tolist()
            bottom, right = (cells.amax(0) + 1).tolist()
            part = (..., slice(top, bottom), slice(left, right))
            selected = inputs.selected[b, : inputs.scores.shape[1]]
            goals = inputs.targets[b, : len(selected)][part]
            pages.append(
                _page(
                    _image(self._batch, b),
                    self._captions[b],
                    self._words(b),
                    inputs.scores[b].tolist(),
                    selected,
                    norm(inputs.caption_sim[b, 0][part]),
                    goals,
                )
            )
        path = self._folder / FOLDER / f"step-{step:08d}.png"
        save_png(stack(pages), path)
        return path

    def _words(self, b: int) -> list[str]:
        assert self._batch is not None
        rows, valid = self._batch.word_rows[b].tolist(), self._batch.word_valid[b].tolist()
        return [self._batch.words[row] for row, there in zip(rows, valid, strict=True) if there]


def _fixed(steps: Steps, number: int) -> tuple[Batch | None, list[str]]:
    """The first undamaged pairs, each as large as the crop allows, with their first captions."""
    samples: list[PreparedPair] = []
    for item in range(min(len(steps.source), 10 * number)):
        try:
            pair = steps.source[item]
        except BadSample:
            continue
        sample = steps.sample(pair, item, epoch=0)
        fitted = _fit(pair.image, steps.config.augment.crop)
        given = None if sample.given is None else sample.given[:1]
        samples.append(PreparedPair(item, sample.key, fitted, sample.captions[:1], sample.words[:1], given))
        if len(samples) == number:
            break
    return (steps.collate(samples, epoch=0) if samples else None), [s.captions[0] for s in samples]


def _fit(image: Image.Image, side: int) -> Crop:
    factor = side / max(image.size)
    width, height = (max(1, round(length * factor)) for length in image.size)
    pixels = np.zeros((side, side, 3), np.uint8)
    pixels[:height, :width] = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0))
    return Crop(pixels, (0, 0, height, width))


def _image(batch: Batch, b: int) -> Image.Image:
    top, left, bottom, right = batch.rects[b].tolist()
    return Image.fromarray(batch.pixels[b, top:bottom, left:right].numpy())


def _page(
    image: Image.Image,
    caption: str,
    words: list[str],
    scores: list[float],
    selected: Tensor,
    caption_map: Tensor,
    goals: Tensor,
) -> Image.Image:
    place = {word: n for n, word in enumerate(words)}
    chips = caption_chips(
        caption,
        [
            TaggedWord(w.text, w.index, w.start, w.end, scores[n], bool(selected[n]))
            for w in split_words(caption)
            if (n := place.get(w.text.lower(), -1)) >= 0
        ],
    )
    maps = {"caption's map": caption_map, "union (its target)": union(goals, selected)}
    best = sorted((n for n in range(len(words)) if selected[n]), key=lambda n: -scores[n])
    maps |= {f"“{words[n]}”": goals[n] for n in best[:MOST_WORDS]}
    panels = heatmap_panels(
        image,
        {name: values.float().cpu().numpy() for name, values in maps.items()},
        {f"“{words[n]}”": f"{scores[n]:.3f}" for n in best},
        left_out=max(0, len(best) - MOST_WORDS),
    )
    return stack([paragraph(chips, _WIDTH), panels])
