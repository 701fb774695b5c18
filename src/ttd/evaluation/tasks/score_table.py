"""A table of scores that is written by rows and read by columns, in a temporary file."""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterator

import numpy as np

from ttd.evaluation.metrics import auc

_VALUES_AT_ONCE = 500_000


class ScoreTable:
    """One row of V numbers for each of S images; memory holds some columns of it at a time.

    Args:
        dtype: of the numbers.
    """

    def __init__(self, dtype: type[np.generic]) -> None:
        self.dtype = np.dtype(dtype)
        self.rows = self.width = 0
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (gone with this object)

    def add(self, row: np.ndarray) -> None:
        """One image's numbers [V]; V is the same for all."""
        if self.rows and len(row) != self.width:
            raise ValueError(f"a row of {len(row)} numbers in a table of {self.width}")
        self.width = len(row)
        self._file.write(row.astype(self.dtype, copy=False).tobytes())
        self.rows += 1

    def columns(self) -> Iterator[np.ndarray]:
        """Each column [S], in order."""
        at_once = max(1, _VALUES_AT_ONCE // max(self.rows, 1))
        rows_at_once = max(1, _VALUES_AT_ONCE // max(self.width, 1))
        for first in range(0, self.width, at_once):
            last = min(first + at_once, self.width)
            block = np.empty((last - first, self.rows), self.dtype)
            self._file.seek(0)
            for start in range(0, self.rows, rows_at_once):
                count = min(rows_at_once, self.rows - start)
                content = self._file.read(count * self.width * self.dtype.itemsize)
                part = np.frombuffer(content, self.dtype).reshape(count, self.width)
                block[:, start : start + count] = part[:, first:last].T
            yield from block
        self._file.seek(0, 2)


class PresentAboveAbsent:
    """How often s_pixel of a word in the image exceeds that of one that is not, as images come."""

    def __init__(self) -> None:
        self._scores, self._present = ScoreTable(np.float32), ScoreTable(np.bool_)
        self._images = Mean()

    def add(self, scores: np.ndarray, present: np.ndarray) -> None:
        """One image: scores [V] of the vocabulary, and which of its words the image shows, bool [V]."""
        scores = scores.astype(np.float32)
        self._scores.add(scores)
        self._present.add(present)
        self._images.add(auc(scores[present], scores[~present]))

    def __bool__(self) -> bool:
        return self._scores.rows > 0

    @property
    def numbers(self) -> dict[str, float]:
        """ "AUC per image": over the words within an image; "AUC per word": over the images for one word."""
        words = Mean()
        for scores, present in zip(self._scores.columns(), self._present.columns(), strict=True):
            words.add(auc(scores[present], scores[~present]))
        return {"AUC per image": self._images.value, "AUC per word": words.value}


class Mean:
    """The mean of numbers that come one by one, 8 bytes for each; NaN ones do not count."""

    def __init__(self) -> None:
        self.known = array("d")

    def add(self, value: float) -> None:
        """Takes one in."""
        if not np.isnan(value):
            self.known.append(value)

    @property
    def value(self) -> float:
        """NaN without numbers. Summed as NumPy sums an array, so it is the mean of the array to the last digit."""
        return float(np.mean(np.frombuffer(self.known))) if self.known else float("nan")
