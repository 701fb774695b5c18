"""`ttd models`: what has a short name, and the methods; `check` shows what one model is."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ttd.cli.options import clean_text
from ttd.cli.options.model import DEVICE_OPTION
from ttd.cli.output import say, start_logging, table
from ttd.runs.results_file import json_line
from ttd.text.words import printable

if TYPE_CHECKING:
    from PIL import Image

    from ttd.encoders.loading.inspection import Inspection
    from ttd.model import TTD


_REPEATS = 3


@click.command()
@click.argument("name")
@click.option("--image", metavar="FILE", help="A photo to tag; with --caption.")
@click.option("--caption", help="The photo's caption.")
@DEVICE_OPTION
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def check(name: str, image: str | None, caption: str | None, device: str | None, as_json: bool) -> int:
    """Download a model where need be, and say what it is and how fast.

    Size and free space come before a download; then files and hashes, kind, activation, heads, tokenizer, end token,
    image statistics, calibration and other settings, identity, seconds for an image, and the tags of a photo of yours.
    What differs from the catalogue is said, and the exit code is 1.

    \b
    ttd models check clip-vit-b16 --image photo.jpg --caption "a dog on the grass"
    """
    import ttd
    from ttd.encoders.loading.catalogue import find_entry
    from ttd.encoders.loading.downloads import cache_folder, free_space
    from ttd.encoders.loading.inspection import inspect_model
    from ttd.encoders.registry import find_model, load_encoder
    from ttd.images import read_image

    if (image is None) != (caption is None):
        raise click.UsageError("--image and --caption belong together.", click.get_current_context())
    start_logging(True)
    photo = None if image is None else read_image(image)
    _announce(name)
    source = find_model(name)
    encoder = load_encoder(name, device=device)
    found = inspect_model(source, encoder, find_entry(name))
    model = ttd.TTD(encoder)
    seconds = _seconds(model, photo)
    tags = None if photo is None or caption is None else model.tag(photo, clean_text(caption)).to_dict()
    record = {
        "name": name,
        "path": str(source.path),
        **asdict(found),
        "free_space": free_space(cache_folder()),
        "device": str(encoder.device),
        "seconds_per_image": seconds,
        "tags": tags,
    }
    click.echo(json_line(record) if as_json else "\n".join(_lines(record, found)))
    for difference in found.differences:
        say(f"{name} differs from the catalogue: {difference}", err=True)
    return 1 if found.differences else 0


def _announce(name: str) -> None:
    """What a download will need, where a model with a short name is not on this machine yet."""
    from ttd.encoders.loading.catalogue import find_entry
    from ttd.encoders.loading.downloads import cache_folder, check_space, free_space, human_size
    from ttd.encoders.loading.hub import model_on_disk

    entry = find_entry(name)
    if entry is None:
        return
    place = cache_folder()
    if entry.hub_id is not None:
        there = model_on_disk(entry.hub_id, entry) is not None
    else:
        released = [] if entry.file is None else [Path(entry.file), Path(entry.file).with_suffix(".safetensors")]
        there = not released or any((place / file).is_file() for file in released)
    if there:
        return
    space = human_size(free_space(place))
    say(
        f"{name} is not on this machine: {human_size(entry.size)} from {entry.source}; {space} free in {place}",
        err=True,
    )
    if entry.size is not None:
        check_space(place, entry.size, name)


def _seconds(model: TTD, photo: Image.Image | None) -> float:
    """The median time of encoding one image, after one for warming up."""
    import numpy as np
    from PIL import Image

    side = model.encoder.image_size
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    image = Image.fromarray(noise) if photo is None else photo
    times = []
    for _ in range(_REPEATS + 1):
        start = time.perf_counter()
        model.encode(image)
        times.append(time.perf_counter() - start)
    return round(statistics.median(times[1:]), 4)


def _lines(record: dict[str, Any], found: Inspection) -> list[str]:
    """The same for people."""
    shape = found.shape
    rows = [("path", record["path"])]
    for file in found.files:
        rows.append(("file", f"{Path(file.path).name}  {file.size:,} bytes  sha256 {file.sha256}"))
    tokenizer = "none" if shape.tokens is None else f"{shape.tokens} tokens, end {found.end_token}"
    rows += [
        ("kind", f"{found.kind} ({found.format})"),
        ("image", f"{shape.image_size} pixels, patches of {shape.patch_size}"),
        ("heads", f"{_or_none(shape.vision_heads)} (vision), {_or_none(shape.text_heads)} (text)"),
        ("activation", _or_none(shape.activation)),
        ("tokenizer", f"{tokenizer}; at most {found.max_tokens} in a text, pooled at {found.pooled or 'the last'}"),
        ("mean, std", f"{_numbers(found.mean)}, {_numbers(found.std)}"),
        *((name, _setting(value)) for name, value in found.settings.items() if name != "image_size" and value != {}),
        ("identity", found.fingerprint),
        ("speed", f"{record['seconds_per_image']:.3f} s for an image on {record['device']}"),
    ]
    if record["tags"] is not None:
        words = {word["text"]: word["score"] for word in record["tags"]["words"]}
        rows.append(("tags", ", ".join(f"{word} {words[word]:.3f}" for word in record["tags"]["selected"]) or "none"))
    width = max(len(title) for title, _ in rows)
    return [f"{title:<{width}}  {printable(text)}" for title, text in rows]


def _setting(value: object) -> str:
    return json_line(value) if isinstance(value, dict) else _or_none(value, "none")


def _or_none(value: object, none: str = "not known") -> str:
    return none if value is None else str(value)


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@click.pass_context
def models(ctx: click.Context, as_json: bool) -> None:
    """List the models and adapters that have a short name, and the methods and protocols, with their sources."""
    if ctx.invoked_subcommand is not None:
        return
    from ttd.encoders.loading.catalogue import known_models
    from ttd.encoders.methods import known_methods
    from ttd.inference.protocols import PROTOCOLS

    entries, methods = known_models(), known_methods()
    if as_json:
        for entry in entries:
            click.echo(json_line(asdict(entry)))
        for method in methods:
            record = {"name": method.name, "what": "method", "protocol": method.protocol, "source": method.source}
            click.echo(json_line({**record, "licence": method.licence or None}))
        for name, protocol in PROTOCOLS.items():
            record = {"name": name, "what": "protocol", "source": protocol.source}
            click.echo(json_line({**record, "licence": protocol.licence or None}))
        return
    rows = [
        (
            e.name,
            f"{e.what} of {e.base}" if e.base else e.what,
            e.kind,
            size(e.size),
            e.licence,
            e.source,
            e.notes,
        )
        for e in entries
    ]
    click.echo(table(("name", "what", "kind", "size", "licence", "source", "notes"), rows))
    click.echo()
    shown = [(m.name, m.protocol, m.licence or "-", m.source) for m in methods]
    click.echo(table(("method", "protocol", "licence", "source"), shown))
    click.echo()
    rows_of = [(name, protocol.licence or "-", protocol.source) for name, protocol in PROTOCOLS.items()]
    click.echo(table(("protocol", "licence", "source"), rows_of))


models.add_command(check)


def size(number: int | None) -> str:
    """Bytes as a person reads them; a dash where unknown."""
    if number is None:
        return "-"
    if number < 1e6:
        return f"{number / 1e3:.0f} kB"
    return f"{number / 1e9:.2f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"
