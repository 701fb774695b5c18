"""Compares what two trees wrote: values of JSON, CSV, Parquet, pictures and tensors, in the words of `plan.py`."""

from __future__ import annotations

import csv
import json
import math
import tarfile
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tools.goldens.renames import Renames

MOST_NAMED = 3


@dataclass
class Difference:
    """What one golden's sides have in common and what not.

    Attributes:
        compared: numbers, texts and files that were held against each other.
        largest: the largest absolute difference of two numbers, of pictures the share of pixels that differ.
        where: of the largest difference.
        wrong: what no tolerance covers: other texts, sizes, lengths, missing names.
        added: names that only the new tree has.
    """

    compared: int = 0
    largest: float = 0.0
    where: str = ""
    wrong: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)

    def number(self, gap: float, where: str) -> None:
        """Counts one comparison of numbers."""
        self.compared += 1
        if gap > self.largest:
            self.largest, self.where = gap, where

    def check(self, good: bool, sentence: str) -> bool:
        """Counts one comparison of something else."""
        self.compared += 1
        if not good:
            self.wrong.append(sentence)
        return good

    def brief(self, tolerance: float) -> str:
        """Where the sides differ, in a few words."""
        found = list(self.wrong[:MOST_NAMED])
        if len(self.wrong) > MOST_NAMED:
            found.append(f"and {len(self.wrong) - MOST_NAMED} more")
        if self.largest > tolerance:
            found.append(f"{self.largest:.3g} at {self.where}, more than {tolerance:g}")
        return "; ".join(found)


class Comparison:
    """The files of one golden in two folders.

    Args:
        base, new: folder and renames of each side.
        ignored: fields that say nothing about the result; those that the new tree's table calls gone are added.
        fields: where given, the only fields of a JSON file's outermost object that count.
    """

    def __init__(
        self,
        base: tuple[Path, Renames],
        new: tuple[Path, Renames],
        *,
        ignored: Collection[str] = (),
        fields: Collection[str] = (),
    ) -> None:
        self.base, self.new = base, new
        self.ignored = {*ignored, *new[1].gone}
        self.fields = set(fields)
        self.found = Difference()

    def run(self, patterns: Collection[str]) -> Difference:
        """Compares all files that match; a pattern without a file on either side is wrong."""
        for pattern in patterns:
            sides = [_files(folder, renames, pattern) for folder, renames in (self.base, self.new)]
            for name in sorted(sides[0].keys() - sides[1].keys()):
                self.found.wrong.append(f"{name} is missing")
            self.found.added += sorted(sides[1].keys() - sides[0].keys())
            if not sides[0]:
                self.found.wrong.append(f"{pattern} is missing in the base")
            for name in sorted(sides[0].keys() & sides[1].keys()):
                self._file(name, sides[0][name], sides[1][name])
        return self.found

    def _file(self, name: str, base: Path, new: Path) -> None:
        kind = base.suffix or ".jsonl"  # of `stdout`
        if kind in _RECORDS:
            read = _RECORDS[kind]
            one, two = self.base[1].record(read(base)), self.new[1].record(read(new))
            if self.fields and kind == ".json":
                one, two = ({k: v for k, v in side.items() if k in self.fields} for side in (one, two))
            self._values(one, two, name)
        elif kind == ".png":
            self._pixels(name, *(np.asarray(Image.open(path)) for path in (base, new)))
        elif kind in _TENSORS:
            self._tensors(name, _TENSORS[kind](base), _TENSORS[kind](new))
        else:
            self.found.check(base.read_bytes() == new.read_bytes(), f"{name} has other bytes")

    def _values(self, one: Any, two: Any, where: str) -> None:
        if isinstance(one, dict) and isinstance(two, dict):
            for name in one:
                if name in self.ignored:
                    continue
                if self.found.check(name in two, f"{where}: {name} is missing"):
                    self._values(one[name], two[name], f"{where}: {name}")
            self.found.added += [f"{where}: {name}" for name in two if name not in one and name not in self.ignored]
        elif isinstance(one, list) and isinstance(two, list):
            if self.found.check(len(one) == len(two), f"{where} has {len(two)} entries, not {len(one)}"):
                for i, (a, b) in enumerate(zip(one, two, strict=True)):
                    self._values(a, b, f"{where}[{i}]")
        elif _is_number(one) and _is_number(two):
            self._numbers(where, one, two)
        else:
            same = type(one) is type(two) and one == two
            self.found.check(same, f"{where} is {_brief(two)}, not {_brief(one)}")

    def _numbers(self, where: str, one: float, two: float) -> None:
        if math.isfinite(one) and math.isfinite(two):
            self.found.number(abs(one - two), where)
        else:
            same = one == two or (math.isnan(one) and math.isnan(two))
            self.found.check(same, f"{where} is {two}, not {one}")

    def _pixels(self, name: str, one: np.ndarray, two: np.ndarray) -> None:
        if self.found.check(one.shape == two.shape, f"{name} has the size {two.shape}, not {one.shape}"):
            differ = (one != two).reshape(*one.shape[:2], -1).any(-1)
            self.found.number(float(differ.mean()), f"{name} (share of pixels)")

    def _tensors(self, name: str, one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> None:
        for key in sorted(one.keys() | two.keys()):
            if not self.found.check(key in one and key in two, f"{name}: {key} is on one side only"):
                continue
            a, b = one[key], two[key]
            same = (a.shape, a.dtype) == (b.shape, b.dtype)
            if self.found.check(same, f"{name}: {key} is {b.dtype}{b.shape}, not {a.dtype}{a.shape}") and a.size:
                gap = np.abs(a.astype(np.float64) - b.astype(np.float64))
                nan = np.isnan(a) != np.isnan(b) if a.dtype.kind == "f" else np.zeros(1, bool)
                self.found.check(not nan.any(), f"{name}: {key} has other NaN")
                self.found.number(float(np.nanmax(gap, initial=0.0)), f"{name}: {key}")


def _files(folder: Path, renames: Renames, pattern: str) -> dict[str, Path]:
    paths = [path for path in folder.glob(renames.file(pattern)) if path.is_file()]
    return {renames.our_file(path.relative_to(folder).as_posix()): path for path in paths}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _csv(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return [{name: _parsed(value) for name, value in row.items()} for row in csv.DictReader(stream)]


def _parsed(text: str) -> Any:
    try:
        return float(text)
    except (TypeError, ValueError):
        return text


def _jsonl(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def _safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    tensors: dict[str, np.ndarray] = load_file(path)
    return tensors


def _npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as content:
        return {name: content[name] for name in content.files}


def _tar(path: Path) -> dict[str, np.ndarray]:
    """Every member's bytes, under its name."""
    with tarfile.open(path) as tar:
        members = [member for member in tar.getmembers() if member.isfile()]
        return {m.name: np.frombuffer(tar.extractfile(m).read(), np.uint8) for m in members}  # type: ignore[union-attr]


_RECORDS = {
    ".json": lambda path: json.loads(path.read_text("utf-8")),
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".parquet": _parquet,
}
_TENSORS = {".safetensors": _safetensors, ".npz": _npz, ".tar": _tar}
