"""A run's log: `log.jsonl`, a progress bar, TensorBoard, images of fixed samples.

A step's numbers have the same names in the log and in TensorBoard: `loss`; every term that is trained, unweighted, as
`distill`, `tag`, `rank`, and its weight as `distill_weight` ...; `lr`; `grad_norm` (before clipping); `selected` (share
of the captions' words); `images`, `images_per_second`, `damaged`, `truncated_captions`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ttd.data.sources import BadSample
from ttd.errors import missing_extra
from ttd.files import write_file
from ttd.files.documents import parse_json, refused
from ttd.files.schema import any_number, count, fields, mapping
from ttd.maps import norm, union
from ttd.results import TaggedWord
from ttd.text.words import split_words
from ttd.training.augment import Crop
from ttd.training.dataset import Batch, PreparedPair, Steps
from ttd.training.objective import Objective
from ttd.viz.figures import caption_chips, heatmap_panels
from ttd.viz.overlays import save_png, stack
from ttd.viz.typography import paragraph

LOG = "log.jsonl"
_ENTRY = fields({"step": count, "loss": any_number})
_VALUES = mapping(any_number)


class Journal:
    """The log of the process that writes; a resumed run continues after its checkpoint.

    Args:
        folder: of the run.
        done: steps that the checkpoint holds; what the log says of later ones is dropped.
        total: steps of the run.
        tensorboard: also write event files.
        quiet: no progress bar whatever stderr is.
    """

    def __init__(self, folder: Path, done: int, total: int, *, tensorboard: bool = False, quiet: bool = False) -> None:
        self._path = folder / LOG
        _drop_after(self._path, done)
        self._events = _event_writer(folder, done) if tensorboard else None
        self._bar = tqdm(total=total, initial=done, desc="training", unit="step", disable=quiet or None)

    def step(self, entry: dict[str, Any], *, write: bool) -> None:
        """One step's numbers, "step" and "loss" among them; `write` puts them into the log."""
        self._bar.set_postfix(loss=f"{entry['loss']:.4f}", images=f"{entry['images_per_second']:.1f}/s", refresh=False)
        self._bar.update()
        if not write:
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        if self._events is not None:
            for name, value in entry.items():
                if name not in ("step", "epoch"):
                    self._events.add_scalar(name, value, entry["step"])

    def close(self) -> None:
        """Ends the bar and the event file."""
        self._bar.close()
        if self._events is not None:
            self._events.close()


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The entries of a run's log, in order; a last line that was cut off by a crash is left out.

    Raises:
        InputError: another line is damaged.
    """
    path = folder / LOG
    lines = path.read_bytes().split(b"\n") if path.is_file() else [b""]
    entries = []
    for number, line in enumerate(lines[:-1], 1):
        with refused(f"{path}, line {number}", "restore it, or remove the file: the run goes on without its past"):
            entry = parse_json(line, _ENTRY, nan=True)
            _VALUES(entry)
            entries.append(entry)
    return entries


def _drop_after(path: Path, done: int) -> None:
    kept = [entry for entry in read_log(path.parent) if entry["step"] <= done]
    write_file(path, "".join(json.dumps(entry) + "\n" for entry in kept))


def _event_writer(folder: Path, done: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise missing_extra("tensorboard", "run.tensorboard, which may be left off, needs TensorBoard") from error
    return SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)


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
