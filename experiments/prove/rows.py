"""A row of the proof: one adapter or base measured, as a small JSON file; differences between rows with intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from experiments.prove.measured import Measured
from ttd.files import write_file
from ttd.files.documents import read_json
from ttd.files.schema import any_number, any_text, count, each, fields, mapping, optional

ROWS = Path(__file__).parents[1] / "rows"
"""The finished rows, one folder for each base model."""
PRUNED, FITTED = "pruned.json", "fitted.{}.json"
"""Beside the rows: the share of wrong pairs before and after pruning; the pair w, c fitted to the base by a block."""
DIGITS = 5

_NUMBERS = mapping(optional(any_number))
_ROW = fields(
    {
        "run": any_text,
        "seed": optional(count),
        "base": any_text,
        "method": any_text,
        "config": any_text,
        "settings": each(any_text),
        "scenes": mapping(count),
        "numbers": _NUMBERS,
        "without": mapping(each(optional(any_number))),
        "controls": _NUMBERS,
    },
    others=False,
)


@dataclass(frozen=True)
class Row:
    """What was measured of one adapter, or of a base without one.

    Attributes:
        run: its name in the plan.
        seed: of the training; None for a base.
        base: fingerprint of the base model.
        method: of the last block.
        config, settings: of the training; empty for a base.
        scenes: how many for "training", "test" and "validation".
        numbers, without, controls: see `experiments.prove.measured.Measured`.
    """

    run: str
    seed: int | None
    base: str
    method: str
    config: str
    settings: list[str]
    scenes: dict[str, int]
    numbers: dict[str, float] = field(repr=False)
    without: dict[str, list[float]] = field(repr=False)
    controls: dict[str, float] = field(repr=False)

    @property
    def file_name(self) -> str:
        """Of the file that holds it."""
        return f"{self.run}.json" if self.seed is None else f"{self.run}-{self.seed}.json"

    def write(self, folder: Path) -> None:
        """As JSON, whole or not at all; rounded, a measure in a line."""
        content: dict[str, Any] = _rounded(asdict(self))
        parts = [f' "{name}": {_text(value)}' for name, value in content.items()]
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder / self.file_name, "{\n" + ",\n".join(parts) + "\n}\n")

    @classmethod
    def read(cls, path: Path) -> Row:
        """What `write` wrote.

        Raises:
            InputError: the file is something else.
        """
        return cls(**read_json(path, _ROW, nan=True))


def read_rows(folder: Path, run: str) -> list[Row]:
    """The rows of a run that are finished, by seed."""
    paths = [path for path in folder.glob(f"{run}*.json") if path.stem.removeprefix(run).lstrip("-").isdigit()]
    paths += [path for path in (folder / f"{run}.json",) if path.exists()]
    return sorted((Row.read(path) for path in paths), key=lambda row: row.seed or 0)


@dataclass(frozen=True)
class Difference:
    """After minus before, after being the mean over seeds.

    Attributes:
        mean: of the seeds.
        error: half the width of its 95 % interval, over scenes and over seeds.
        seeds: the difference of every seed.
    """

    mean: float
    error: float
    seeds: tuple[float, ...]

    def is_better(self, sign: int = 1) -> bool:
        """Whether the mean is better by more than its half-width, and no seed worse by more than that."""
        return sign * self.mean > self.error and all(sign * one >= -self.error for one in self.seeds)


def difference(before: Row, after: Sequence[Row], name: str) -> Difference:
    """Of one measure, paired over the scenes.

    Over scenes: the jackknife of the paired difference, each of the G groups left out in turn, which needs no formula
    for a ratio such as F1 or mIoU. Over seeds: Student's t; one seed says nothing about seeds, and the interval is then
    that over scenes alone. The two add up as independent errors do.
    """
    seeds = [row.numbers[name] - before.numbers[name] for row in after]
    parts = np.array([row.without[name] for row in after]).mean(0) - np.array(before.without[name])
    groups = len(parts)
    over_scenes = 1.96 * math.sqrt((groups - 1) / groups * float(((parts - parts.mean()) ** 2).sum()))
    over_seeds = 0.0
    if len(seeds) > 1:
        over_seeds = float(student.ppf(0.975, len(seeds) - 1) * np.std(seeds, ddof=1) / math.sqrt(len(seeds)))
    return Difference(float(np.mean(seeds)), math.hypot(over_scenes, over_seeds), tuple(seeds))


def row_of(measured: Measured, **about: Any) -> Row:
    """A row of what was measured and what is known about it."""
    return Row(**about, numbers=measured.numbers, without=measured.without, controls=measured.controls)


def write_numbers(numbers: dict[str, float], path: Path) -> None:
    """Numbers that belong to no row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, _text(_rounded(numbers)) + "\n")


def read_numbers(path: Path) -> dict[str, float]:
    """What `write_numbers` wrote."""
    return dict(read_json(path, _NUMBERS, nan=True))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return round(value, DIGITS) if isinstance(value, float) else value


def _text(value: Any) -> str:
    if isinstance(value, dict) and value:
        return "{\n" + ",\n".join(f'  "{name}": {json.dumps(one)}' for name, one in value.items()) + "\n }"
    return json.dumps(value)
