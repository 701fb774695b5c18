"""`ttd compare`: models x adapters x methods x protocols x benchmarks, one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ttd.cli.eval import says_something, table_text
from ttd.cli.options import VERBOSE_OPTION, NameOf, with_options
from ttd.cli.options.model import (
    ADAPTER_OPTION,
    METHOD_OPTION,
    MODEL_OPTIONS,
    ModelChoice,
    ProtocolChanges,
    protocol_changes,
)
from ttd.cli.output import print_skipped, run_folder, start_logging
from ttd.cli.report import format_options, write_formats
from ttd.encoders.methods import find_method
from ttd.inference.protocols import PROTOCOLS
from ttd.registry import DATASETS, METHODS
from ttd.text.words import printable

if TYPE_CHECKING:
    from ttd.evaluation.compare import Compared
    from ttd.evaluation.registry import Choices
    from ttd.evaluation.report.finished_run import FinishedRun

SEED = "{seed}"


@dataclass(frozen=True)
class Asked:
    """A benchmark as it was named: NAME=ROOT, or NAME:SPLIT=ROOT."""

    title: str
    name: str
    split: str | None
    root: Path


@dataclass(frozen=True)
class RowChoice:
    """What makes a row: a model, its adapters (one for each seed), and a protocol (None: the method's own)."""

    model: ModelChoice
    adapters: tuple[str | None, ...]
    pattern: str | None
    protocol: str | None


def benchmarks(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> list[Asked]:
    """The benchmarks, each with its folder."""
    found = []
    for value in values:
        title, is_given, root = value.partition("=")
        name, _, split = title.partition(":")
        if not is_given or not root or name not in DATASETS.names():
            known = ", ".join(DATASETS.names())
            raise click.BadParameter(f"{value!r} is not NAME=ROOT with NAME one of {known}.", ctx, parameter)
        found.append(Asked(title, name, split or None, Path(root)))
    if len({one.title for one in found}) < len(found):
        raise click.BadParameter("a benchmark is named twice; distinguish its splits as NAME:SPLIT.", ctx, parameter)
    return found


def seed_list(ctx: click.Context, parameter: click.Parameter, value: str | None) -> list[str]:
    """The seeds, separated by commas."""
    return [seed.strip() for seed in value.split(",") if seed.strip()] if value else []


def encoder_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds what decides how models are loaded, but adapters and methods."""
    own = (ADAPTER_OPTION, METHOD_OPTION)
    return with_options([option for option in MODEL_OPTIONS if option not in own], command)


@click.command()
@click.option("--benchmark", "asked", multiple=True, required=True, callback=benchmarks, metavar="NAME[:SPLIT]=ROOT",
    help="A benchmark and the folder of its data; repeatable.",
)  # fmt: skip
@click.option("--model", "models", multiple=True, required=True, metavar="NAME", help="As for ttd eval; repeatable.")
@click.option(
    "--adapter",
    "adapters",
    multiple=True,
    metavar="NAME",
    help="As for ttd eval, none for the model alone; repeatable. {seed} in it is replaced by each of --seeds.",
)
@click.option("--method", "methods", multiple=True, type=NameOf(METHODS.names), help="Repeatable.")
@click.option("--protocol", "protocols", multiple=True, type=NameOf(lambda: PROTOCOLS),
    help="Repeatable; by default each method's own.",
)  # fmt: skip
@click.option(
    "--seeds", callback=seed_list, metavar="0,1,2", help="One adapter for each: mean and deviation in one row."
)
@encoder_settings
@protocol_changes
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N items of each benchmark.")
@format_options
@click.option("--out", required=True, metavar="DIR", help="For table.md, and a folder of ttd eval for each cell.")
@VERBOSE_OPTION
def compare(
    asked: list[Asked],
    models: tuple[str, ...],
    adapters: tuple[str, ...],
    methods: tuple[str, ...],
    protocols: tuple[str, ...],
    seeds: list[str],
    changes: ProtocolChanges,
    limit: int | None,
    formats: tuple[str, ...],
    out: str,
    verbose: bool,
    **encoder: Any,
) -> int:
    """Measure every model with every adapter, method and protocol on every benchmark, and write one table.

    \b
    ttd compare --benchmark voc=VOCdevkit/VOC2012 --benchmark tagmask=set --model mini \\
        --adapter none --adapter mini+ttd --method maskclip --method naclip --out runs/table
    ttd compare --benchmark voc=VOC --model tcl --adapter none --adapter runs/ttd-{seed} --seeds 0,1,2 --out runs/table

    Rows are compared with the first one: "+x" and its 95 % interval by a paired bootstrap over images or captions.
    Every cell is a folder of `ttd eval` in DIR; run the same command again after an interruption: what was measured
    is kept. An adapter that was trained on another of the models is left out there, and named.
    """
    from ttd.evaluation.compare import comparison

    start_logging(verbose)
    rows = list(_rows(models, adapters, methods, protocols, seeds, encoder))
    _check(asked, rows, changes)
    folder = run_folder(Path(out))
    skipped: list[tuple[str, str]] = []
    found = [one for row in rows if (one := _measure(row, asked, changes, limit, folder, skipped))]
    if not found:
        raise click.UsageError("None of the adapters was trained on any of the models.")
    table = comparison(found)
    click.echo(table_text(table))
    written = tuple(dict.fromkeys(("markdown", *formats)))
    write_formats({"compare": [table]}, written, folder, "table")
    print_skipped(skipped)
    return 1 if skipped else 0


def _rows(
    models: tuple[str, ...],
    adapters: tuple[str, ...],
    methods: tuple[str, ...],
    protocols: tuple[str, ...],
    seeds: list[str],
    encoder: dict[str, Any],
) -> Iterator[RowChoice]:
    if bool(seeds) != any(SEED in adapter for adapter in adapters):
        raise click.UsageError(f"--seeds and {SEED} in an --adapter go together: give both, or neither.")
    patterns = [None if adapter == "none" else adapter for adapter in adapters] or [None]
    # What is named twice is one row.
    once = dict.fromkeys
    rows = product(once(models), once(patterns), once(methods or (None,)), once(protocols or (None,)))
    for name, pattern, method, protocol in rows:
        one_each = seeds if pattern and SEED in pattern else [""]
        choice = ModelChoice(model=name, adapter=None, method=method, **encoder)
        if method and find_method(method).second_backbone is None:  # the others in the table may have one
            choice = replace(choice, proxy_model=None)
        yield RowChoice(choice, tuple(pattern and pattern.replace(SEED, s) for s in one_each), pattern, protocol)


def _choices(protocol: str, one: Asked, changes: ProtocolChanges) -> Choices:
    """Of the protocol's changes those that say something about this benchmark."""
    from ttd.evaluation.registry import Choices

    given = {name: value for name, value in changes.changes().items() if says_something(_option(name), one.name)}
    return Choices(protocol=protocol, given=given, split=one.split)


def _option(change: str) -> str:
    return f"--{change.replace('_', '-')}"


def _check(asked: list[Asked], rows: list[RowChoice], changes: ProtocolChanges) -> None:
    """Opens every benchmark once before a model is loaded, so that a wrong path is answered at once."""
    from ttd.evaluation.registry import open_benchmark

    rules = dict.fromkeys((row.protocol or row.model.own_protocol, row.model.method) for row in rows)
    for one, (protocol, method) in product(asked, rules):
        benchmark = open_benchmark(one.name, one.root, _choices(protocol, one, changes))
        for refine in {options.refine for options in benchmark.options.values()}:
            _check_refinement(refine, method)
    known = {name for one in asked for name in _choices("default", one, changes).given or {}}
    if strange := set(changes.changes()) - known:
        raise click.UsageError(f"{_option(min(strange))} does not apply to these benchmarks: leave it out.")


def _check_refinement(refine: str, method: str | None) -> None:
    """Raises `MissingExtra` where a later row would: what is automatic is known as far as the method is named."""
    from ttd.refine.base import find_refiner

    name = find_method(method).refine if refine == "auto" and method else refine
    if name not in ("auto", "none"):
        find_refiner(name).check()


def _measure(
    row: RowChoice,
    asked: list[Asked],
    changes: ProtocolChanges,
    limit: int | None,
    folder: Path,
    skipped: list[tuple[str, str]],
) -> Compared | None:
    """Measures one row; None where an adapter belongs to another model."""
    from ttd.errors import OtherBaseError
    from ttd.evaluation.compare import Compared
    from ttd.evaluation.registry import open_benchmark
    from ttd.evaluation.runner import measure_into
    from ttd.files.safe_paths import file_part

    runs: dict[str, list[FinishedRun]] = {one.title: [] for one in asked}
    for adapter in row.adapters:
        choice = replace(row.model, adapter=adapter)
        try:
            model = choice.load()
        except OtherBaseError as error:
            click.echo(f"left out: {printable(str(error))}", err=True)
            return None
        protocol = row.protocol or model.encoder.default_protocol
        for one in asked:
            choices = _choices(protocol, one, changes)
            benchmark = open_benchmark(one.name, one.root, choices, model.encoder)
            parts = (choice.model, adapter or "none", choice.method or "own", protocol)
            cell = run_folder(folder / file_part(one.title) / file_part(",".join(parts)))
            named = {"name": choice.model, **choice.settings()}
            run = measure_into(cell, benchmark, model, named, protocol, choices=choices, limit=limit)
            assert run is not None  # one process measures all
            runs[one.title].append(run)
            skipped += [(f"{one.title} {name}", reason) for name, reason in run.skipped]
    names = dict(runs[asked[0].title][0].names)
    if len(row.adapters) > 1:
        names["model"] = f"{choice.model} + {Path(str(row.pattern)).name} (x{len(row.adapters)})"
    return Compared(names, runs)
