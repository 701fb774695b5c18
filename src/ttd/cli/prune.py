"""`ttd prune`: keep the pairs whose image and caption agree most."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ttd.cli.options.data import EngineChoice, Pairs, Trial, engine_options, pair_options, trial_options
from ttd.cli.options.model import ModelChoice, model_options
from ttd.cli.output import pairs_bar, print_bad_samples, run_folder, table, write_record
from ttd.text.words import printable

if TYPE_CHECKING:
    from ttd.data.pruning import Pruned
    from ttd.data.score_jobs import ScoreJob


@click.command()
@pair_options
@model_options
@click.option("--out", required=True, metavar="DIR", help="For scores, keep-list and histogram.")
@click.option("--k", type=float, default=1.0, show_default=True, help="Keep above mean + K standard deviations.")
@click.option("--per-set", is_flag=True, help="A cut for every data set (folder of shards), not one for all.")
@click.option("--size", type=click.IntRange(1), metavar="PIXELS", help="By default the encoder's own; TCL: 224.")
@click.option("--flip/--no-flip", default=True, show_default=True, help="Average with the mirror image.")
@click.option("--batch", type=click.IntRange(1), default=64, show_default=True, help="Images at once.")
@trial_options
@engine_options
def prune(
    engine: EngineChoice,
    trial: Trial,
    pairs: Pairs,
    model: ModelChoice,
    out: str,
    k: float,
    per_set: bool,
    size: int | None,
    flip: bool,
    batch: int,
) -> int:
    """Score image-text pairs and keep those above mean + K standard deviations.

    \b
    ttd prune 'cc3m/{00000..00331}.tar' --model tcl --per-set --out pruned
    ttd prune cc3m/ cc12m/ --model tcl --per-set --out pruned --dry-run     (how long will it take?)
    ttd prune cc3m/ cc12m/ --model tcl --per-set --out pruned
    torchrun --nproc-per-node 4 -m ttd prune cc3m/ --model tcl --per-set --out pruned
    ttd prune cc3m/ --model tcl --per-set --out pruned --engine ray

    SOURCES are tar shards, brace ranges, folders of them, or a captions file. Run the same command again
    after an interruption: finished shards are not scored twice, and another --k only cuts again.
    Writes OUT/keep.parquet for training, OUT/histogram.png, OUT/prune.json, OUT/damage.json, OUT/scores/.
    """
    from ttd.data.shard_jobs import LateJob, run_shards, table_path, whole_report

    executor = engine.open()
    rank, world = executor.ranks
    place = Path(out) if trial.dry_run else run_folder(Path(out), rank, world)
    source = pairs.open(limit=trial.limit)

    def make() -> ScoreJob:
        from ttd.data.score_jobs import ScoreJob

        return ScoreJob(
            model.load().encoder,
            size=size,
            flip=flip,
            batch=batch,
            threads=pairs.threads,
            settings={**model.settings(), **trial.settings()},
        )

    job: ScoreJob | LateJob = LateJob(make) if engine.is_ray and not trial.dry_run else make()
    if trial.dry_run:
        trial.tell(job, source, batch, world, as_json=pairs.as_json)
        return 0
    scores = place / "scores"
    with pairs_bar(-(-len(source) // world), rank) as bar:
        report = run_shards(
            job,
            source,
            scores,
            limit=pairs.max_bad_samples,
            executor=executor,
            progress=bar.update,
        )
    whole = whole_report(job, source, scores, pairs.max_bad_samples)
    if whole is None:
        click.echo(f"Rank {rank} is done; the rank that ends last writes the keep-list.", err=True)
        print_bad_samples(report, None)
        return 0
    from ttd.data.pruning import prune as keep_best
    from ttd.data.pruning import score_histogram
    from ttd.viz.overlays import save_png

    files = [table_path(scores, shard) for shard in source.shards]
    pruned = keep_best(files, place / "keep.parquet", k, per_set=per_set)
    save_png(score_histogram(pruned), place / "histogram.png")
    result = pruned.to_dict()
    write_record(place / "prune.json", {"model": model.model, "settings": job.settings, **result})
    _tell(pruned, place, pairs.as_json)
    if said := whole.cut_sentence(None if isinstance(job, LateJob) else job.encoder.max_tokens):
        click.echo(f"{said}.", err=True)
    code = print_bad_samples(whole, place / "damage.json")
    return code if world == 1 else 0  # torchrun takes any other code for a crash


def _tell(pruned: Pruned, place: Path, as_json: bool) -> None:
    from ttd.runs.results_file import json_line

    result = pruned.to_dict()
    if as_json:
        click.echo(json_line({**result, "keep": str(place / "keep.parquet")}))
        return
    rows = [
        (
            name,
            f"{one['pairs']:,}",
            f"{one['mean']:.4f}",
            f"{one['deviation']:.4f}",
            f"{one['cut']:.4f}",
            f"{one['kept']:,}",
            f"{one['kept'] / one['pairs']:.1%}",
        )
        for name, one in result["sets"].items()
    ]
    click.echo(table(("set", "pairs", "mean", "deviation", "cut", "kept", "share"), rows))
    for name in ("keep.parquet", "histogram.png"):
        click.echo(f"wrote {printable(str(place / name))}")
