"""Damaged pairs: skipped, counted by reason, named in a report, and too many of them stop the job."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ttd.errors import InputError
from ttd.files import write_file

TRUNCATED = "truncated shard"
UNREADABLE = "unreadable shard"
MISSING_IMAGE = "missing image"
BROKEN_IMAGE = "broken image"
BOMB = "image too large"
MISSING_CAPTION = "missing caption"
EMPTY_CAPTION = "empty caption"
ENCODING = "wrong encoding"
BROKEN_JSON = "broken json"
BROKEN_LINE = "broken line"
TWICE = "name twice"
NO_ANSWER = "no answer of the tagger"
REASONS = (
    TRUNCATED,
    UNREADABLE,
    MISSING_IMAGE,
    BROKEN_IMAGE,
    BOMB,
    MISSING_CAPTION,
    EMPTY_CAPTION,
    ENCODING,
    BROKEN_JSON,
    BROKEN_LINE,
    TWICE,
    NO_ANSWER,
)  # fmt: skip

TRUNCATED_CAPTIONS = "truncated_captions"  # a count beside the damage, for these are used
MOST_NAMED = 100_000  # samples that a report names; it counts them all


class BadSample(InputError):
    """A pair that cannot be used.

    Attributes:
        reason: one of `REASONS`, the same for all pairs with this fault.
        shard: name of the shard.
        key: of the pair, "" where the shard itself is damaged.
        detail: what exactly, may be empty.
    """

    def __init__(self, reason: str, shard: str, key: str, detail: str = "") -> None:
        place = f"pair {key!r} of {shard}" if key else shard
        super().__init__(f"{place} is damaged ({reason}{': ' if detail else ''}{detail}): skip or replace it")
        self.reason = reason
        self.shard = shard
        self.key = key
        self.detail = detail

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, self.shard, self.key, self.detail)

    def to_dict(self) -> dict[str, str]:
        """For a report."""
        return {"shard": self.shard, "key": self.key, "reason": self.reason, "detail": self.detail}


@dataclass(frozen=True)
class _Named:
    reason: str
    detail: str


class BadSampleReport:
    """Counts damaged pairs, each once however often it is met, and stops the job when they are too many.

    Attributes:
        total: pairs that the job goes through.
        shards: shards that it goes through.
        limit: the share of damaged pairs, and of damaged shards, 0..1, above which the job stops.
        counts, unknown: what is not damage, see `ttd.data.shard_jobs.ShardNotes`.
    """

    def __init__(self, total: int, shards: int = 0, limit: float = 0.1) -> None:
        if not 0 <= limit <= 1:
            raise InputError(f"the limit of damaged pairs is a share between 0 and 1, not {limit}")
        self.total = total
        self.shards = shards
        self.limit = limit
        self.counts: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()
        self._pairs: dict[tuple[str, str], _Named] = {}
        self._shards: dict[str, _Named] = {}

    def __len__(self) -> int:
        """Damaged pairs and damaged shards."""
        return len(self._pairs) + len(self._shards)

    def add(self, damage: BadSample) -> None:
        """Count one damaged pair, or a shard where its key is empty.

        Raises:
            InputError: more than `limit` of all pairs, or of all shards, are damaged.
        """
        named = _Named(damage.reason, damage.detail)
        if damage.key:
            self._pairs.setdefault((damage.shard, damage.key), named)
        else:
            self._shards.setdefault(damage.shard, named)
        self._check()

    def count(self, counts: Mapping[str, int], unknown: Mapping[str, int]) -> None:
        """What was noted of a shard beside its damage."""
        self.counts.update(counts)
        self.unknown.update(unknown)

    def reasons(self) -> dict[str, int]:
        """Counts by reason, the most frequent first."""
        counts = Counter(named.reason for named in (*self._pairs.values(), *self._shards.values()))
        return dict(counts.most_common())

    def summary(self) -> str:
        """One line for people."""
        if not len(self):
            return f"no damage in {self.total:,} pairs"
        parts = ", ".join(f"{count:,} {reason}" for reason, count in self.reasons().items())
        return f"{len(self._pairs):,} of {self.total:,} pairs skipped, {len(self._shards)} shards damaged: {parts}"

    def to_dict(self, most: int = MOST_NAMED) -> dict[str, Any]:
        """The whole report as plain values; `most` samples are named, all are counted."""
        named = [
            BadSample(named.reason, shard, key, named.detail).to_dict()
            for (shard, key), named in list(self._pairs.items())[:most]
        ]
        return {
            "pairs": self.total,
            "damaged": len(self._pairs),
            "limit": self.limit,
            "reasons": self.reasons(),
            TRUNCATED_CAPTIONS: self.counts[TRUNCATED_CAPTIONS],
            "shards": [
                BadSample(named.reason, shard, "", named.detail).to_dict() for shard, named in self._shards.items()
            ],
            "samples": named,
            "samples_not_named": len(self._pairs) - len(named),
        }

    def cut_sentence(self, tokens: int | None) -> str:
        """The message about captions longer than `tokens` (None: not known here); "" where there were none."""
        many = self.counts[TRUNCATED_CAPTIONS]
        verb = "caption was" if many == 1 else "captions were"
        length = "" if tokens is None else f"the {tokens} tokens that "
        said = f"{many:,} {verb} longer than {length}the model takes: only the beginning counted"
        return said if many else ""

    def write(self, path: str | Path) -> None:
        """Write `to_dict()` as JSON, whole or not at all."""
        text = json.dumps(self.to_dict(), indent=1) + "\n"
        write_file(path, text)

    def _check(self) -> None:
        for count, total, what in (
            (len(self._pairs), self.total, "pairs"),
            (len(self._shards), self.shards, "shards"),
        ):
            if total and count > self.limit * total:
                raise InputError(
                    f"more than {self.limit:.1%} of the {total:,} {what} are damaged ({self._worst()}): "
                    "repair the data, or allow a larger share"
                )

    def _worst(self) -> str:
        counts = ", ".join(f"{count} {reason}" for reason, count in self.reasons().items())
        shard, key = next(iter(self._pairs), (next(iter(self._shards), ""), ""))
        return f"{counts}; the first is {key + ' in ' if key else ''}{shard}"
