"""`ttd calibrate`: fit how a model's cosines become values in 0..1."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ttd.cli.options.data import Pairs, pair_options
from ttd.cli.options.model import ModelChoice, model_options
from ttd.cli.output import pairs_bar, print_bad_samples, run_folder, write_record
from ttd.text.words import printable


@click.command()
@pair_options
@model_options
@click.option("--out", required=True, metavar="DIR", help="For the calibration, its picture and the counts.")
@click.option("--words", metavar="FILE", help="The words that count, one per line; by default visible things.")
@click.option(
    "--batch", type=click.IntRange(2), default=32, show_default=True, help="Images that lend each other words."
)
@click.option(
    "--write-model",
    metavar="FOLDER",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also write the model, an adapter merged into it, with its new calibration.",
)
def calibrate(
    pairs: Pairs, model: ModelChoice, out: str, words: str | None, batch: int, write_model: Path | None
) -> int:
    """Fit p = sigmoid(w (cos - c)) to image-text pairs: own words against words of other captions.

    \b
    ttd calibrate 'cc3m/{00000..00009}.tar' --model clip-vit-b16 --out calibrated
    ttd segment photo.jpg --tags dog grass --model clip-vit-b16 --calibration calibrated/calibration.json

    SOURCES are tar shards, brace ranges, folders of them, or a captions file. Run the same command again
    after an interruption: finished shards are not counted twice; torchrun shares the shards among processes.
    Writes OUT/calibration.json for --calibration, OUT/calibration.png, OUT/damage.json, OUT/counts/. Pairs that
    nothing can be fitted to are refused; the picture shows why.
    """
    from ttd.data.shard_jobs import run_shards, table_path, whole_report
    from ttd.errors import InputError
    from ttd.negatives import listed_words, read_words
    from ttd.runs import Ranks
    from ttd.training.export import check_new
    from ttd.training.export import write_model as write_merged

    if write_model is not None:
        check_new(write_model)
    rank, world = ranks = Ranks.here()
    place = run_folder(Path(out), rank, world)
    source = pairs.open()
    listed = None if words is None else read_words(Path(words))
    from ttd.data.calibration_fit import draw, fit, read_counts, saturated_share
    from ttd.data.score_jobs import WordScoreJob

    encoder = model.load().encoder
    job = WordScoreJob(
        encoder,
        listed_words(encoder.vocabulary) if listed is None else list(dict.fromkeys(word.lower() for word in listed)),
        batch=batch,
        threads=pairs.threads,
        settings=model.settings(),
    )
    counts = place / "counts"
    with pairs_bar(-(-len(source) // world), rank) as bar:
        report = run_shards(job, source, counts, limit=pairs.max_bad_samples, executor=ranks, progress=bar.update)
    whole = whole_report(job, source, counts, pairs.max_bad_samples)
    if whole is None:
        click.echo(f"Rank {rank} is done; the rank that ends last writes the calibration.", err=True)
        print_bad_samples(report, None)
        return 0
    words_scored, picture = read_counts(table_path(counts, shard) for shard in source.shards), place / "calibration.png"
    try:
        fitted = fit(words_scored)
    except InputError as error:
        if not len(words_scored.scores):
            raise
        draw(words_scored, None, picture)
        raise InputError(f"{error}; {picture} shows how both score") from None
    before = encoder.calibration
    record = {
        "calibration": fitted.calibration.to_dict(),
        "fingerprint": encoder.fingerprint() if model.adapter is None else None,
        "method": encoder.method_name,
        "model": model.model,
        "own words": int(fitted.counts.own.sum()),
        "words of other captions": int(fitted.counts.others.sum()),
        "unseen": fitted.unseen,
        "saturated": fitted.saturated,
        "before": {**before.to_dict(), "saturated": saturated_share(before, fitted.counts)},
        "settings": job.settings,
    }
    write_record(place / "calibration.json", record)
    draw(words_scored, fitted.calibration, picture)
    if write_model is not None:
        encoder.calibration = fitted.calibration
        write_merged(encoder, write_model)
    _tell(record, str(fitted.calibration), place, pairs.as_json)
    code = print_bad_samples(whole, place / "damage.json")
    return code if world == 1 else 0  # torchrun takes any other code for a crash


def _tell(record: Mapping[str, Any], calibration: str, place: Path, as_json: bool) -> None:
    from ttd.runs.results_file import json_line

    if as_json:
        click.echo(json_line(dict(record)))
        return
    click.echo(
        f"{calibration}: fitted to {record['own words']:,} words of own captions, of which {record['unseen']:.0%} "
        f"score as words of other captions do, and {record['words of other captions']:,} of these."
    )
    for name in ("calibration.json", "calibration.png"):
        click.echo(f"wrote {printable(str(place / name))}")
