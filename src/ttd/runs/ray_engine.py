"""Units of work on a Ray cluster: models live in actors, free actors take units, and lost units are repeated."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from ttd.errors import InputError, TTDError, missing_extra
from ttd.runs.engine import ALONE, Ranks

log = logging.getLogger(__name__)
S = TypeVar("S")
T = TypeVar("T")

MOST_TRIES = 4  # of a unit whose workers die
_MOST_FAILED_STARTS = 4  # one after the other
_LOOK_SECONDS = 1.0  # between two looks at which nodes there are


class RayExecutor:
    """See `ttd.runs.engine.Executor`. Connects to the cluster of RAY_ADDRESS, or of this machine, or starts one here.

    There are as many workers as the cluster has room for; those of a node that is added begin with the next unit.

    Args:
        cpus: of each worker; also the threads that its model computes with.
        gpus: of each worker; None: one where the cluster has any.
        workers: so many, for a cluster that grows when it is asked to; None: as many as there is room for.

    Attributes:
        lost: workers that died, by themselves or with their node.
        again: units that were given to another worker.

    Raises:
        MissingExtra: ray is not installed.
        InputError: there is no cluster at RAY_ADDRESS.
    """

    def __init__(self, cpus: float = 1, gpus: float | None = None, workers: int | None = None) -> None:
        try:
            import ray
        except ImportError:
            raise missing_extra("ray", "--engine ray needs Ray") from None
        if not ray.is_initialized():
            _check_answers(os.environ.get("RAY_ADDRESS", ""))
            try:
                ray.init(log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
            except (ConnectionError, RuntimeError, ValueError) as error:
                where = os.environ.get("RAY_ADDRESS", "this machine")
                raise InputError(
                    f"there is no Ray cluster at {where} ({type(error).__name__}): start one with ray start --head"
                ) from None
        self.cpus, self.workers = cpus, workers
        self.gpus = gpus if gpus is not None else float(ray.cluster_resources().get("GPU", 0) > 0)
        self.lost = self.again = 0

    @property
    def ranks(self) -> Ranks:
        """The command is alone: its workers write no records of their own."""
        return ALONE

    def mine(self, total: int) -> range:
        """All units."""
        return range(total)

    def map(self, work: Callable[[S], T], units: Sequence[S]) -> Iterator[tuple[S, T]]:
        """Each unit with what `work` gives for it, as they are done; what `work` prepares, each worker does once.

        Raises:
            TTDError: `work` raised it for a unit.
            InputError: a unit's workers died again and again, or none could be started.
        """
        import ray

        actor = ray.remote(_Worker).options(num_cpus=self.cpus, num_gpus=self.gpus, max_restarts=0)
        held = ray.put(work)
        waiting, tries, failed = deque(range(len(units))), Counter[int](), 0
        running: dict[Any, tuple[Any, int | None]] = {}  # answers that are awaited; None: that it has started
        try:
            while waiting or any(number is not None for _, number in running.values()):
                for _ in range(min(len(waiting), self._room()) - sum(n is None for _, n in running.values())):
                    if len(running) >= self._room():
                        break
                    new = actor.remote(held, os.getcwd(), sys.path)
                    running[new.node.remote()] = (new, None)
                ready, _ = ray.wait(list(running), num_returns=1, timeout=_LOOK_SECONDS)
                for answer in ready:
                    worker, number = running.pop(answer)
                    try:
                        found = ray.get(answer)
                    except (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError) as error:
                        why = str(error).strip().splitlines()[0][:200]
                        failed = failed + 1 if number is None else 0
                        if failed >= _MOST_FAILED_STARTS:
                            raise InputError(f"no worker of the Ray cluster could be started ({why})") from None
                        self.lost += 1
                        if number is not None:
                            self._give_back(number, tries, units, why)
                            waiting.appendleft(number)
                        continue
                    except ray.exceptions.RayTaskError as error:
                        raise error.cause if isinstance(error.cause, Exception) else error from None
                    if number is not None:
                        if isinstance(found, TTDError):
                            raise found
                        yield units[number], found
                    else:
                        failed = 0
                    if waiting:
                        number = waiting.popleft()
                        running[worker.do.remote(units[number])] = (worker, number)
                    else:
                        ray.kill(worker)
        finally:
            for worker, _ in running.values():
                ray.kill(worker)

    def _give_back(self, number: int, tries: Counter[int], units: Sequence[Any], why: str) -> None:
        self.again += 1
        tries[number] += 1
        if tries[number] >= MOST_TRIES:
            raise InputError(
                f"unit {number + 1} of {len(units)} ended its worker {MOST_TRIES} times ({why}): give workers more "
                "memory, or make the batch smaller"
            )
        log.warning(
            "A worker was lost (%s): unit %d of %d is given to another, try %d",
            *(why, number + 1, len(units), tries[number] + 1),
        )

    def _room(self) -> int:
        """Workers that the nodes which are alive have room for, whatever else they do; at least one is asked for."""
        import ray

        if self.workers is not None:
            return self.workers
        rooms = 0
        for node in ray.nodes():
            there = node["Resources"] if node["Alive"] else {}
            parts = [there.get(name, 0) // each for name, each in (("CPU", self.cpus), ("GPU", self.gpus)) if each]
            rooms += int(min(parts))
        return max(1, rooms)


def _check_answers(address: str) -> None:
    """Raises `InputError` where nothing listens at `HOST:PORT`, which Ray itself looks for during minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), 10).close()
        except OSError as error:
            raise InputError(
                f"there is no Ray cluster at {address} ({error.strerror or error}): check RAY_ADDRESS, or start one "
                "with ray start --head"
            ) from None


class _Worker:
    """An actor: holds what its work has prepared, and does one unit after the other."""

    def __init__(self, work: Callable[[Any], Any], folder: str, path: list[str]) -> None:
        if os.path.isdir(folder):
            os.chdir(folder)  # what was named relative to it means the same here
        sys.path += [place for place in path if place not in sys.path]
        self._work = work

    def node(self) -> int:
        """Answers when it has started."""
        return os.getpid()

    def do(self, unit: Any) -> Any:
        """What is found, or the error that ends the run."""
        try:
            return self._work(unit)
        except TTDError as error:
            return error
