"""A page of images: HTML in one file with its images inside, for any browser, without network requests."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from ttd.evaluation.benchmark import Benchmark
from ttd.evaluation.report.panels import LEFT, MISSED, RIGHT, WRONG, MarkedWords, Panel, best_median_worst, most_changed
from ttd.files import write_file
from ttd.runs.results_file import RunRecords
from ttd.text.words import printable
from ttd.viz.overlays import inline_image

if TYPE_CHECKING:
    from ttd.model import TTD


@dataclass(frozen=True)
class ImageSource:
    """A run whose items can be shown.

    Attributes:
        title: over its images.
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
    """One run on one item: its measures, images and words."""

    run: str
    quality: Mapping[str, float]
    found: tuple[Panel, ...]
    words: tuple[MarkedWords, ...]


@dataclass
class ItemView:
    """One item, with what every run found, in the runs' order."""

    id: str
    given: tuple[Panel, ...] = ()
    found: list[FoundItem] = field(default_factory=list)


@dataclass(frozen=True)
class Section:
    """Some items and why they are shown."""

    title: str
    items: tuple[ItemView, ...]


def sections(runs: Sequence[ImageSource], count: int) -> list[Section]:
    """Best, median and worst items by each measure of the last run; of several, also what changed most since the first.

    Only items that every run measured are shown. An item that is in several sections is asked about once.

    Args:
        runs: on the same data; e.g. before, after, refined.
        count: items per section.

    Returns:
        no section where the benchmark shows no images.
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
    views = {name: ItemView(name) for ids in chosen.values() for name in ids}
    for run, quality in zip(runs, qualities, strict=True):
        _ask(run, quality, views)
    return [Section(title, tuple(views[name] for name in ids)) for title, ids in chosen.items()]


def _qualities(run: ImageSource) -> dict[str, dict[str, float]]:
    """Measures of every item that has any."""
    lines = RunRecords(run.folder).records((sample.id for sample in run.benchmark.samples), run.benchmark.check)
    return {line["id"]: quality for line in lines if (quality := run.benchmark.quality(line))}


def _ask(run: ImageSource, quality: Mapping[str, Mapping[str, float]], views: Mapping[str, ItemView]) -> None:
    """Adds what one run found to the views of its items."""
    if not views:
        return
    model, benchmark = run.open()
    numbers = {sample.id: number for number, sample in enumerate(benchmark.samples)}
    lines = RunRecords(run.folder).records(views, run.benchmark.check)
    for line in tqdm(lines, total=len(views), desc="images", disable=None, file=sys.stderr):
        view, name = views[line["id"]], line["id"]
        shown = benchmark.show(model, numbers[name], line)
        view.given = view.given or shown.given
        view.found.append(FoundItem(run.title, quality[name], shown.found, shown.words))


MARKS = {RIGHT: "✓", WRONG: "✗", MISSED: "○"}
MEANINGS = {RIGHT: "selected, true", WRONG: "selected, not true", MISSED: "true, not selected"}
HEAD = "<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport content='width=device-width'>"
LEAST_PANEL = 220  # pixels of an image's width on the page, however many are next to it
FIRST_TAGGERS = 1  # shown at once; the others on a click
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:1.2em;color:#141414;background:#fff}
h1{font-size:1.5em;margin:.2em 0}h2{margin:1.4em 0 .3em;border-bottom:2px solid #141414}
h3{font-size:1em;margin:0 0 .3em;font-weight:600}
section.item{border:1px solid #ccc;border-radius:6px;padding:.6em .7em;margin:.7em 0}
.row{display:flex;flex-wrap:wrap;gap:14px;align-items:flex-start}
.run{border-left:4px solid #0072b2;padding-left:8px}.given{border-left:4px solid #aaa;padding-left:8px}
.panels{display:flex;gap:8px;flex-wrap:wrap}
figure{margin:0;width:var(--panel)}figure img{width:100%;display:block}figcaption{font-size:13px;line-height:1.3}
.key{display:inline-block;width:.8em;height:.8em;border:1px solid #141414;margin:0 .2em 0 .5em;vertical-align:-.05em}
.entry{white-space:nowrap}.legend{margin:.2em 0;font-size:13px}
.words{margin:.25em 0;line-height:2}.words b{font-weight:600;margin-right:.6em;font-size:13px;color:#555}
.w{border-radius:4px;padding:.1em .35em;white-space:nowrap;overflow-wrap:anywhere}
.right{background:#0072b2;color:#fff}
.wrong{background:#e69f00;color:#141414;text-decoration:line-through;text-decoration-thickness:2px}
.missed{background:#fff;color:#141414;border:2px dashed #cc79a7;padding:0 .25em}
.mark{display:inline-block;line-height:1;margin-right:.25em}
details>summary{font-size:13px;color:#555;cursor:pointer}.number{font-weight:400;color:#333;font-size:13px}
"""


def write_images(path: Path, title: str, about: str, parts: Sequence[Section]) -> None:
    """Writes the page; `about` says what is shown."""
    most = max((_panels(view) for part in parts for view in part.items), default=1)
    body = "".join(_section(part) for part in parts)
    text = (
        f"{HEAD}<title>{escape(title)}</title><style>{STYLE}"
        f":root{{--panel:clamp({LEAST_PANEL}px,calc((100vw - 130px - {most} * 8px) / {most}),320px)}}</style></head>"
        f"<body><h1>{escape(title)}</h1><p>{escape(about)}</p>{_key(parts)}{body}</body></html>\n"
    )
    write_file(path, text, errors="replace")


def _panels(view: ItemView) -> int:
    return len(view.given) + sum(len(item.found) for item in view.found)


def _key(parts: Sequence[Section]) -> str:
    """What the marks of words and masks mean, where there are any."""
    items = [item for part in parts for view in part.items for item in view.found]
    if not any(item.words for item in items):
        return ""
    marks = " ".join(f"{_word(MEANINGS[mark], mark)}" for mark in MARKS)
    return (
        f"<p class=words><b>Words:</b> {marks} &nbsp; plain: neither. <b>&nbsp; Masks:</b> blue right, orange and "
        "striped wrong, pink and cross-hatched missed.</p>"
    )


def _section(part: Section) -> str:
    return f"<h2>{escape(part.title)}</h2>" + "".join(_item(view) for view in part.items)


def _item(view: ItemView) -> str:
    given = f"<div class=given><h3>item</h3>{_figures(view.given)}</div>"
    runs = "".join(_run(item) for item in view.found)
    head = f"<h3>{escape(printable(view.id))}</h3>{_words(view.found)}{_legend(view)}"
    return f"<section class=item>{head}<div class=row>{given}{runs}</div></section>"


def _run(item: FoundItem) -> str:
    head = f"<h3>{escape(item.run)} <span class=number>{escape(_numbers(item.quality))}</span></h3>"
    return f"<div class=run>{head}{_figures(item.found)}</div>"


def _numbers(quality: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {'–' if math.isnan(value) else format(value, '.2f')}" for name, value in quality.items())


def _figures(panels: Iterable[Panel]) -> str:
    return "<div class=panels>" + "".join(_figure(panel) for panel in panels) + "</div>"


def _figure(panel: Panel) -> str:
    title, source = escape(panel.title), inline_image(panel.image)
    return f"<figure><img alt='{title}' loading=lazy src='{source}'><figcaption>{title}</figcaption></figure>"


def _legend(view: ItemView) -> str:
    """What the colours of all images of an item mean, once."""
    panels = (*view.given, *(panel for item in view.found for panel in item.found))
    colours = dict(entry for panel in panels for entry in panel.legend)
    keys = " ".join(
        f"<span class=entry><span class=key style='background:rgb{colour}'></span>{escape(name)}</span>"
        for name, colour in colours.items()
    )
    return f"<p class=legend>{keys}</p>" if keys else ""


def _words(items: Sequence[FoundItem]) -> str:
    """Each run's first tagger, the others behind a click; with several runs each line says whose it is."""
    shown, hidden = [], []
    for item in items:
        names = [f"{item.run}: {words.title}" if len(items) > 1 else words.title for words in item.words]
        lines = [_line(name, words) for name, words in zip(names, item.words, strict=True)]
        shown += lines[:FIRST_TAGGERS]
        hidden += lines[FIRST_TAGGERS:]
    more = f"<details><summary>other taggers</summary>{''.join(hidden)}</details>" if hidden else ""
    return "".join(shown) + more


def _line(title: str, words: MarkedWords) -> str:
    text = " ".join(_word(word, mark) for word, mark in words.words)
    return f"<p class=words><b>{escape(title)}</b> {text}</p>"


def _word(word: str, mark: str) -> str:
    text = escape(printable(word))
    if mark == LEFT:
        return text
    return f"<span class='w {mark}' title='{MEANINGS[mark]}'><span class=mark>{MARKS[mark]}</span>{text}</span>"
