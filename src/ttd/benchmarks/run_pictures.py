"""Which items of one or several runs a page shows, and what their models make of these items."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from ttd.benchmarks.benchmark import Benchmark
from ttd.benchmarks.shares import Shares
from ttd.benchmarks.showing import MarkedWords, Panel, best_median_worst, most_changed

if TYPE_CHECKING:
    from ttd.model import TTD

@dataclass(frozen=True)
class PictureSource:
    """A run whose items can be shown.

    Attributes:
        title: over its pictures.
        folder: holds its measurements.
        benchmark: what they mean.
        open: gives the model, and the benchmark as it is put to it; called once.
    """

    title: str
    folder: Path
    benchmark: Benchmark
    open: Callable[[], tuple[TTD, Benchmark]]


@dataclass(frozen=True)
class FoundItem:
    """One run on one item: its measures, pictures and words."""

    run: str
    quality: Mapping[str, float]
    found: tuple[Panel, ...]
    words: tuple[MarkedWords, ...]


@dataclass
class Card:
    """One item, with what every run found, in the runs' order."""

    id: str
    given: tuple[Panel, ...] = ()
    found: list[FoundItem] = field(default_factory=list)


@dataclass(frozen=True)
class Section:
    """Some items and why they are shown."""

    title: str
    cards: tuple[Card, ...]


def sections(runs: Sequence[PictureSource], count: int) -> list[Section]:
    """Best, median and worst items by each measure of the last run; of several, also what changed most since the first.

    Only items that every run measured are shown. An item that is in several sections is asked about once.

    Args:
        runs: on the same data; e.g. before, after, refined.
        count: items per section.

    Returns:
        no section where the benchmark shows no pictures.
    """
    qualities = [_qualities(run) for run in runs]
    shared = set(qualities[0]).intersection(*qualities[1:])
    last = {name: qualities[-1][name] for name in shared}
    chosen: dict[str, list[str]] = {}
    for measure in dict.fromkeys(measure for quality in qualities[-1].values() for measure in quality):
        after = {name: quality[measure] for name, quality in last.items() if measure in quality}
        for group, ids in best_median_worst(after, count).items():
            chosen[f"{group} by {measure}"] = ids
        if len(runs) > 1:
            before = {name: qualities[0][name].get(measure, float("nan")) for name in shared}
            for group, ids in most_changed(before, after, count).items():
                chosen[f"{group} in {measure}"] = ids
    cards = {name: Card(name) for ids in chosen.values() for name in ids}
    for run, quality in zip(runs, qualities, strict=True):
        _ask(run, quality, cards)
    return [Section(title, tuple(cards[name] for name in ids)) for title, ids in chosen.items()]


def _qualities(run: PictureSource) -> dict[str, dict[str, float]]:
    """Measures of every item that has any."""
    lines = Shares(run.folder).records(sample.id for sample in run.benchmark.samples)
    return {line["id"]: quality for line in lines if (quality := run.benchmark.quality(line))}


def _ask(run: PictureSource, quality: Mapping[str, Mapping[str, float]], cards: Mapping[str, Card]) -> None:
    """Adds what one run found to the cards."""
    if not cards:
        return
    model, benchmark = run.open()
    numbers = {sample.id: number for number, sample in enumerate(benchmark.samples)}
    lines = Shares(run.folder).records(cards)
    for line in tqdm(lines, total=len(cards), desc="pictures", disable=None, file=sys.stderr):
        card, name = cards[line["id"]], line["id"]
        shown = benchmark.show(model, numbers[name], line)
        card.given = card.given or shown.given
        card.found.append(FoundItem(run.title, quality[name], shown.found, shown.words))
