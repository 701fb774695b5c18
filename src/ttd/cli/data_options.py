"""The options of the commands on image-text pairs, and what they share when they end."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ttd._version import __version__
from ttd.cli.options import gathered
from ttd.cli.output import printable
from ttd.errors import InputError

if TYPE_CHECKING:
    from tqdm import tqdm

    from ttd.data.bad_samples import BadSampleReport
    from ttd.data.shard_jobs import ShardJob
    from ttd.data.sources import PairSource

MOST_LISTED = 10  # damaged pairs named on the terminal; the report names them all


@dataclass(frozen=True)
class Pairs:
    """Which pairs, and how much of them may be damaged."""

    sources: tuple[str, ...]
    images: str | None
    max_bad_samples: float
    threads: int
    as_json: bool
    verbose: bool

    def named(self) -> list[str]:
        """The sources, as another command can be given them from anywhere."""
        from ttd.data.remote import is_address
        from ttd.runs import without_secrets

        return [without_secrets(one) if is_address(one) else os.path.abspath(one) for one in self.sources]

    def open(self, keep: str | None = None, limit: int | None = None) -> PairSource:
        """The pairs; raises `InputError` where what is named does not exist, or holds no pair and no damage."""
        from ttd.data.sources import PairSource

        source = PairSource(self.sources, images=self.images, keep=keep, limit=limit)
        if not len(source) and not any(shard.damage for shard in source.shards):
            named = ", ".join(str(shard.path) for shard in source.shards[:3])
            more = ", ..." if len(source.shards) > 3 else ""
            raise InputError(
                f"{named}{more}: no pairs in there. A pair is an image and a .txt or .json of the same name"
            )
        return source


_PAIRS = (
    click.argument("sources", nargs=-1, required=True),
    click.option("--images", metavar="DIR", help="Where a captions file's image paths start from."),
    click.option(
        "--max-bad-samples",
        type=click.FloatRange(0.0, 1.0),
        default=0.1,
        show_default=True,
        help="Share of damaged pairs, or shards, above which the job stops.",
    ),
    click.option("--threads", type=click.IntRange(1), default=4, show_default=True, help="That decode images."),
    click.option("--json", "as_json", is_flag=True, help="The result as JSON."),
    click.option("--verbose", "-v", is_flag=True, help="Say more on stderr."),
)


def pair_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that name pairs; the command gets them together as its argument `pairs`."""

    return gathered(Pairs, "pairs", _PAIRS, function)


@dataclass(frozen=True)
class Trial:
    """How much of a job is done: all of it, its first pairs, or a measurement alone."""

    limit: int | None
    dry_run: bool

    def settings(self) -> dict[str, Any]:
        """For a job's settings: tables of the first pairs are not those of all."""
        return {} if self.limit is None else {"limit": self.limit}

    def tell(self, job: ShardJob, source: PairSource, batch: int, world: int, *, as_json: bool) -> None:
        """Measures the job and prints what all of it would take."""
        from ttd.data.estimate import estimate
        from ttd.runs.results_file import json_line

        found = estimate(job, source, batch, processes=world)
        click.echo(json_line(found.to_dict()) if as_json else str(found))


_TRIAL = (
    click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N pairs."),
    click.option("--dry-run", is_flag=True, help="Measure some pairs, say what all would take, and write nothing."),
)


def trial_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--limit` and `--dry-run`; the command gets them together as its argument `trial`."""
    return gathered(Trial, "trial", _TRIAL, function)


def pairs_bar(total: int, rank: int = 0) -> tqdm[Any]:
    """A progress bar over pairs, on the terminal of rank 0 only."""
    from tqdm import tqdm

    return tqdm(total=total, unit="pair", disable=None if rank == 0 else True, file=sys.stderr)


def write_record(path: Path, record: dict[str, Any]) -> None:
    """A JSON file, whole or not at all, with the command and the version that made it."""
    from ttd.files import whole_file
    from ttd.runs import command

    text = json.dumps({"command": command(), "version": __version__, **record}, indent=1)
    with whole_file(path) as part:
        part.write_text(text + "\n", "utf-8", errors="backslashreplace")


def print_bad_samples(report: BadSampleReport, path: Path | None) -> int:
    """Writes the report, says on stderr what was skipped; gives the exit code: 0, or 1 with damage."""
    if path is not None:
        report.write(path)
    if not len(report):
        return 0
    record = report.to_dict()
    click.echo(f"{report.summary()}.", err=True)
    listed = [*record["shards"], *record["samples"]]
    for damage in listed[:MOST_LISTED]:
        place = "/".join(part for part in (damage["shard"], damage["key"]) if part)
        reason = f"{damage['reason']}: {damage['detail']}" if damage["detail"] else damage["reason"]
        click.echo(f"  {printable(place)}: {printable(reason)}", err=True)
    if len(report) > MOST_LISTED:
        click.echo(f"  … and {len(report) - MOST_LISTED:,} more", err=True)
    if path is not None:
        click.echo(f"All are named in {printable(str(path))}.", err=True)
    return 1
