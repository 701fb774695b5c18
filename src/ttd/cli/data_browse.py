"""`ttd data browse`: look at a table of visible words without taking a shard apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ttd.cli.options import VERBOSE_OPTION
from ttd.cli.options.model import ModelChoice, optional_model_options
from ttd.cli.output import start_logging
from ttd.errors import InputError
from ttd.text.words import printable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    from ttd.data.word_table import Tokens
    from ttd.model import TTD
    from ttd.viz.word_page import PairView

MOST_MAPS = 5
RECORD = "tags.json"


@click.command()
@click.argument("table")
@click.argument("sources", nargs=-1)
@click.option("--images", metavar="DIR", help="Where a captions file's image paths start from.")
@click.option("--count", type=click.IntRange(1), default=20, show_default=True, help="How many pairs.")
@click.option("--out", default="words.html", show_default=True, metavar="FILE.html", help="The page.")
@click.option("--no-maps", is_flag=True, help="Words alone, without a model.")
@optional_model_options
@VERBOSE_OPTION
def browse(
    table: str,
    sources: tuple[str, ...],
    images: str | None,
    count: int,
    out: str,
    no_maps: bool,
    model: ModelChoice,
    verbose: bool,
) -> int:
    """Write one HTML page of pairs with their words coloured and maps of the visible ones.

    \b
    ttd data browse tags                         (what ttd data tag --out tags wrote)
    ttd data browse nouns --model mini --count 50 --out nouns.html
    ttd data browse words.parquet shards/ --no-maps

    TABLE is the folder of `ttd data tag`, whose pairs and model are in its tags.json, or a Parquet file; SOURCES and
    --model replace those.
    """
    from tqdm import tqdm

    from ttd.data.sources import PairSource
    from ttd.data.word_table import some_pairs
    from ttd.files import write_file
    from ttd.viz.word_page import word_page

    start_logging(verbose)
    record = _record(Path(table))
    named = sources or tuple(record["sources"])
    if not named:
        raise InputError(f"{table} does not say where its pairs are: name them after the table")
    source = PairSource(named, images=images or record["images"])
    folder = Path(table) / "tags"
    rows = some_pairs(folder if folder.is_dir() else Path(table), count)
    chosen = model if model.model else _recorded_model(model, record)
    loaded = None if no_maps or not chosen.model else chosen.load()
    views = _views(rows, source, loaded)
    with tqdm(total=len(rows), unit="pair", disable=None) as bar:
        shown = []
        for view in views:
            shown.append(view)
            bar.update()
    if not shown:
        raise InputError(f"none of the pairs of {table} is in {', '.join(named)}: name the sources that it was made of")
    about = f"{len(shown)} pairs, evenly over the table."
    if len(shown) < len(rows):
        about += f" {len(rows) - len(shown)} more are missing or damaged."
        click.echo(about, err=True)
    about += " Maps: " + ("none." if loaded is None else f"{chosen.model}, scaled word by word.")
    write_file(Path(out), word_page(f"Visible words: {Path(table).name}", about, shown), errors="replace")
    click.echo(f"wrote {printable(out)}: {len(shown)} pairs")
    return 1 if len(shown) < len(rows) else 0


def _record(table: Path) -> dict[str, Any]:
    """What `ttd data tag` recorded: sources, images, model and settings; empty without a record."""
    from ttd.files.documents import read_json
    from ttd.files.schema import any_text, each, fields, number, optional

    empty: dict[str, Any] = {"sources": [], "images": None, "model": None, "settings": {}}
    path = table / RECORD if table.is_dir() else table.parent / RECORD
    if not path.is_file():
        return empty
    texts = {name: optional(any_text) for name in ("adapter", "method")}
    settings = fields({}, {**texts, "adapter_scale": optional(number)})
    maybe = {"sources": each(any_text), "images": optional(any_text)}
    return {**empty, **read_json(path, fields({"model": optional(any_text), "settings": settings}, maybe))}


def _recorded_model(model: ModelChoice, record: dict[str, Any]) -> ModelChoice:
    settings = record["settings"]
    return replace(
        model,
        model=record["model"] or "",
        adapter=model.adapter or settings.get("adapter"),
        adapter_scale=settings.get("adapter_scale") or model.adapter_scale,
        method=model.method or settings.get("method"),
    )


def _views(rows: Sequence[tuple[str, str, Tokens]], source: Any, model: TTD | None) -> Iterator[PairView]:
    """The pairs that the source has and that can be read."""
    import pyarrow as pa

    from ttd.data.bad_samples import BadSample
    from ttd.data.tables import PAIRS, numbered
    from ttd.viz.word_page import PairView

    batch = pa.record_batch([[row[i] for row in rows] for i in range(2)], schema=PAIRS)
    ((numbers, _),) = numbered([batch], source.shards)
    for (shard, key, captions), number in zip(rows, numbers.tolist(), strict=True):
        if number < 0:
            continue
        try:
            pair = source[number]
        except BadSample:
            continue
        tokens = [None] * len(pair.captions) if captions is None else captions
        if len(tokens) != len(pair.captions):
            raise InputError(f"the table has {len(tokens)} captions of {key!r}, which has {len(pair.captions)} now")
        maps = {} if model is None or captions is None else _maps(model, pair.image, captions)
        yield PairView(f"{shard} {key}", pair.image, list(zip(pair.captions, tokens, strict=True)), maps)


def _maps(model: TTD, image: Image.Image, captions: Any) -> dict[str, npt.NDArray[np.float32]]:
    """Maps of the visible words, function words and punctuation last."""
    from ttd.cli.tag import small_heatmaps

    visible = [token for tokens in captions for token in tokens if token.selected and token.word]
    visible.sort(key=lambda token: (token.is_stop or token.is_punct, -(token.score or 0.0)))
    words = list(dict.fromkeys(token.word.lower() for token in visible))[:MOST_MAPS]
    if not words:
        return {}
    encoded = model.encode(image)
    return dict(zip(words, small_heatmaps(model, encoded, image, words), strict=True))
