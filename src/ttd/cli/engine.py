"""`--engine`: where the shards and images of a command are done."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ttd.cli.options import gathered
from ttd.errors import InputError

if TYPE_CHECKING:
    from ttd.runs import Executor

ENGINES = ("local", "torchrun", "ray")


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
_OPTIONS = (
    click.option("--engine", type=click.Choice(ENGINES), help="By default torchrun where that started it, else local."),
    click.option("--ray-cpus", type=click.FloatRange(0, min_open=True), metavar="N", help="Of each worker; 1."),
    click.option("--ray-gpus", type=click.FloatRange(0), metavar="N", help="Of each worker; 1 where there are GPUs."),
    click.option("--ray-workers", type=click.IntRange(1), metavar="N", help="By default as many as there is room for."),
)


def engine_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--engine` and Ray's options; the command gets them together as its argument `engine`."""
    return gathered(EngineChoice, "engine", _OPTIONS, function)
