"""What a command works on, how much of that, and where: images, image-text pairs, a trial, `--engine`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ttd.cli.options import VERBOSE_OPTION, Decorator, gathered
from ttd.errors import InputError

if TYPE_CHECKING:
    from ttd.data.items import ImageItem
    from ttd.data.shard_jobs import ShardJob
    from ttd.data.sources import PairSource
    from ttd.runs import Executor

ENGINES = ("local", "torchrun", "ray")


@dataclass(frozen=True)
class ImageSelection:
    """What was named.

    Attributes:
        named: an image, a folder, a list, shards.
        images: the folder that a list's image paths start from; None: the list's own.
        every_caption: whether each caption of an image counts, not only its first.
    """

    named: str
    images: str | None = None
    every_caption: bool = False

    @property
    def is_one(self) -> bool:
        """Whether it is one image file."""
        from ttd.data.listing import names_one_image

        return names_one_image(self.named)

    def one(self, caption: str | None, tags: tuple[str, ...]) -> ImageItem:
        """The item of one image file."""
        from ttd.data.items import one_item

        if self.images is not None:
            raise InputError("--images is the folder of a list's images, and this is one image: leave it out.")
        return one_item(Path(self.named), caption, tags)

    def many(self, caption: str | None, tags: tuple[str, ...], out: str | None) -> list[ImageItem]:
        """All items, without those of an earlier run in `out`; see `ttd.data.items.open_items`."""
        from ttd.data.items import open_items

        return open_items(self.named, caption, tags, images=self.images, every_caption=self.every_caption, without=out)

    def question(self) -> dict[str, Any]:
        """For `run.json`: what decides which items there are."""
        from ttd.data.remote import is_address
        from ttd.runs import without_secrets

        images = None if self.images is None else str(Path(self.images).resolve())
        named = without_secrets(self.named) if is_address(self.named) else str(Path(self.named).resolve())
        return {"source": named, "images": images, "every_caption": self.every_caption}


def source_options(*, captions: bool) -> Decorator:
    """The argument IMAGE and its options; the command gets them together as its argument `source`.

    Args:
        captions: whether the command is about captions.
    """
    options = [
        click.argument("named", metavar="IMAGE"),
        click.option("--images", metavar="DIR", help="Where a list's image paths start from; by default its folder."),
    ]
    if captions:
        help_text = "Take each caption of an image, not only its first."
        options.append(click.option("--every-caption", is_flag=True, help=help_text))
    return gathered(ImageSelection, "source", options)


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
    VERBOSE_OPTION,
)
pair_options = gathered(Pairs, "pairs", _PAIRS)
"""The options that name pairs; the command gets them together as its argument `pairs`."""


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
trial_options = gathered(Trial, "trial", _TRIAL)
"""`--limit` and `--dry-run`; the command gets them together as its argument `trial`."""


@dataclass(frozen=True)
class EngineChoice:
    """What was asked for; None leaves it to how the command was started."""

    engine: str | None
    ray_cpus: float | None
    ray_gpus: float | None
    ray_workers: int | None

    @property
    def is_ray(self) -> bool:
        """Whether models live elsewhere."""
        return self.engine == "ray"

    def open(self) -> Executor:
        """Where units of work are done.

        Raises:
            InputError: the command was started otherwise than the engine needs, or there is no cluster.
            MissingExtra: Ray is not installed.
        """
        from ttd.runs import Ranks

        ranks = Ranks.here()
        more = {"cpus": self.ray_cpus, "gpus": self.ray_gpus, "workers": self.ray_workers}
        given = [f"--ray-{name}" for name, value in more.items() if value is not None]
        if given and not self.is_ray:
            raise InputError(f"{given[0]} belongs to --engine ray: leave it out, or add that")
        if self.engine in ("local", "ray") and ranks.world > 1:
            raise InputError(f"torchrun has started this, so it is not --engine {self.engine}: leave one out")
        if self.engine == "torchrun" and "RANK" not in os.environ:
            raise InputError("--engine torchrun needs torchrun: start with torchrun --nproc-per-node N -m ttd ...")
        if not self.is_ray:
            return ranks
        from ttd.runs.ray_engine import RayExecutor

        return RayExecutor(self.ray_cpus or 1, self.ray_gpus, self.ray_workers)


DEFAULT = EngineChoice(None, None, None, None)
_ENGINE = (
    click.option("--engine", type=click.Choice(ENGINES), help="By default torchrun where that started it, else local."),
    click.option("--ray-cpus", type=click.FloatRange(0, min_open=True), metavar="N", help="Of each worker; 1."),
    click.option("--ray-gpus", type=click.FloatRange(0), metavar="N", help="Of each worker; 1 where there are GPUs."),
    click.option("--ray-workers", type=click.IntRange(1), metavar="N", help="By default as many as there is room for."),
)
engine_options = gathered(EngineChoice, "engine", _ENGINE)
"""`--engine` and Ray's options; the command gets them together as its argument `engine`."""
