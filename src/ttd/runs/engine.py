"""Shared by every run over many items: distribution of items, files that are made once, settings and versions,
reading ahead.

A run can be killed at any moment and is started again by the same command. That needs three things: results appear
whole or not at all (`ttd.files`), one process at a time works on a part (`ttd.runs.lock`), and a unit of work needs
nothing but itself, so any process may do it, now or after a kill.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, cast

from ttd import __version__
from ttd.errors import InputError
from ttd.files import check_there, whole_file
from ttd.files.documents import as_read_back

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")
E = TypeVar("E", bound=Exception)

Skipped = tuple[str, str]  # id and reason

_BATCHES_AHEAD = 2
_MOST_SHOWN = 60  # characters of a setting in a message


class Executor(Protocol):
    """Where units of work are done."""

    @property
    def ranks(self) -> Ranks:
        """This process among those that write results beside each other."""

    def mine(self, total: int) -> range:
        """The numbers of the units, among `total`, that this process answers for."""

    def map(self, work: Callable[[S], T], units: Sequence[S]) -> Iterator[tuple[S, T]]:
        """Each unit that this process answers for with what `work` gives for it, as they are done.

        `work` and the units hold all that is needed: they may be pickled and done elsewhere.
        """


class Ranks(NamedTuple):
    """This process among those that torchrun has started: it does every `world`-th unit, and never talks to the others.

    So ranks may run on many machines over one folder, or one after the other.
    """

    rank: int = 0
    world: int = 1

    @classmethod
    def here(cls) -> Ranks:
        """As torchrun sets them in RANK and WORLD_SIZE; alone without it.

        Raises:
            InputError: they are set to something else.
        """
        given = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
        if all(text.isdecimal() for text in given) and int(given[0]) < int(given[1]):
            return cls(int(given[0]), int(given[1]))
        raise InputError(
            f"RANK={given[0]} and WORLD_SIZE={given[1]} are not a rank and size: start with torchrun, or unset both"
        )

    @property
    def ranks(self) -> Ranks:
        """Itself."""
        return self

    def mine(self, total: int) -> range:
        """The numbers of this process's units among `total`."""
        return range(self.rank, total, self.world)

    def map(self, work: Callable[[S], T], units: Sequence[S]) -> Iterator[tuple[S, T]]:
        """See `Executor`; all is done in this process, one after the other."""
        for number in self.mine(len(units)):
            yield units[number], work(units[number])


ALONE = Ranks()


class Prepared(Generic[S, T]):
    """Work that each process prepares once, such as by loading a model; it travels without what was prepared.

    Args:
        prepare: gives what does a unit; what it needs must be found on every machine.
    """

    def __init__(self, prepare: Callable[[], Callable[[S], T]]) -> None:
        self._prepare = prepare
        self._do: Callable[[S], T] | None = None

    def __call__(self, unit: S) -> T:
        """What is found for a unit."""
        if self._do is None:
            self._do = self._prepare()
        return self._do(unit)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_do": None}


@dataclass(frozen=True)
class FileToMake:
    """A unit of work: one file of a run.

    Attributes:
        name: for messages.
        path: where it will be.
        make: writes it at the path that it is given; raises `InputError` where it cannot be made from what there is.
        size: what it counts for in the progress.
    """

    name: str
    path: Path
    make: Callable[[Path], None]
    size: int = 1


@dataclass(frozen=True)
class MadeFiles:
    """What became of units: files made now, files that were there, and name and reason of those that cannot be made."""

    made: int
    existing: int
    skipped: list[Skipped]


def make_files(
    units: Sequence[FileToMake],
    *,
    executor: Executor = ALONE,
    skip: bool = False,
    again: bool = False,
    progress: Callable[[int], object] = lambda size: None,
) -> MadeFiles:
    """Make every file that is not there yet; each appears whole, so a run can be killed and repeated.

    Args:
        units: what to make.
        executor: who does which of them.
        skip: go on where a file cannot be made; else that ends the run.
        again: also the files that are there.
        progress: receives the size of what is done.

    Raises:
        InputError: a file cannot be made, without `skip`; or files that were finished are gone.
    """
    made: list[Path] = []
    existing: list[Path] = []
    skipped: list[Skipped] = []
    for unit, outcome in executor.map(partial(_make, skip=skip, again=again), units):
        if isinstance(outcome, str):
            skipped.append((unit.name, outcome))
        else:
            (made if outcome else existing).append(unit.path)
        progress(unit.size)
    check_there((*existing, *made))
    return MadeFiles(len(made), len(existing), skipped)


def _make(unit: FileToMake, *, skip: bool, again: bool) -> bool | str:
    """Whether the file had to be made; or why it cannot be."""
    if not again and unit.path.is_file():
        return False
    try:
        with whole_file(unit.path) as part:
            unit.make(part)
    except InputError as error:
        if not skip:
            raise
        return str(error)
    return True


def differences(before: dict[str, Any], now: dict[str, Any], most: int = 3) -> str:
    """The first `most` settings that are not the same, as "model.name was 'mini', now 'tcl'"; "" where all are.

    Args:
        before: as they were read from a file.
        now: this process's, not written yet.
        most: how many are listed.
    """
    then, today = dict(_leaves(before)), dict(_leaves(as_read_back(now)))
    names = [name for name in {**then, **today} if then.get(name) != today.get(name)]
    return ", ".join(f"{name} was {_brief(then.get(name))}, now {_brief(today.get(name))}" for name in names[:most])


def _leaves(content: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The single settings of nested ones, named as in "model.adapter"."""
    if not isinstance(content, dict) or not content:
        yield name, content
        return
    for key, value in content.items():
        yield from _leaves(value, ".".join(part for part in (name, str(key)) if part))


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def command() -> list[str]:
    """How this process was started, as it may be written beside a result and shown."""
    return [without_secrets(argument) for argument in sys.argv]


def command_line() -> str:
    """`command` as one line, for people."""
    program, *arguments = command()
    return shlex.join([Path(program).name, *arguments])


def without_secrets(text: str) -> str:
    """A command's argument as it may be shown and written: addresses without password and query."""
    return re.sub(r"(\w+://)(?:[^/\s@]*@)?([^?\s]*)(?:\?\S*)?", r"\1\2", text)


def versions() -> dict[str, str]:
    """Of everything that takes part in a result, to be written beside it."""
    from importlib.metadata import PackageNotFoundError, version  # which takes time at the start of a command

    found = {"ttd": __version__, "python": platform.python_version()}
    if of_checkout := commit():
        found["commit"] = of_checkout
    for name in ("torch", "transformers", "peft", "numpy", "pillow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def commit() -> str:
    """The commit of the checkout that this package is in, with a mark where files were changed; "" where it is none."""
    folder = Path(__file__).resolve().parents[3]
    if not (folder / ".git").exists():
        return ""
    git = ["git", "-C", str(folder)]
    try:
        found = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=5)
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return "unknown (git does not answer)"
    return found.stdout.strip() + (" with changes" if changed.stdout.strip() else "")


def read_ahead(
    read: Callable[[S], T], items: Sequence[S], size: int, threads: int, passed: type[E], *, ahead: int = _BATCHES_AHEAD
) -> Iterator[list[T | E]]:
    """Batches of `read(item)`, in order; the next ones are read on threads while the caller works.

    Args:
        read: what to do with an item; an error of the kind `passed` takes the place of its result.
        items: in order.
        size: of a batch.
        threads: that read.
        passed: the kind of errors that an item may have.
        ahead: batches that are read at once with the caller's work.
    """

    def careful(item: S) -> T | E:
        try:
            return read(item)
        except passed as error:
            return error

    starts = iter(range(0, len(items), size))
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[list[Future[T | E]]] = deque()

        def submit(count: int) -> None:
            for start in islice(starts, count):
                waiting.append([pool.submit(careful, item) for item in items[start : start + size]])

        submit(ahead)
        try:
            while waiting:
                batch = [future.result() for future in waiting.popleft()]
                submit(1)
                yield batch
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def each_item(
    items: Sequence[S],
    read: Callable[[S], T],
    work: Callable[[Sequence[S], Sequence[T]], Iterable[R | E]],
    size: int,
    passed: type[E],
    *,
    ahead: int = _BATCHES_AHEAD,
) -> Iterator[tuple[S, R | E]]:
    """What becomes of every item: a result, or the error for which it has none.

    Args:
        items: in order.
        read: reads an item, on a thread while earlier ones are worked on; raises `passed` where that cannot be done.
        work: gives for a batch of items, and what was read of them, one result or error each, in order. What it raises
            ends the run.
        size: of a batch, at most.
        passed: the kind of errors that an item may have.
        ahead: see `read_ahead`.

    Yields:
        batch by batch the items that could not be read, then the others as `work` gives them.
    """
    start = 0
    for batch in read_ahead(read, items, size, 1, passed, ahead=ahead):
        usable: list[S] = []
        inputs: list[T] = []
        for item, found in zip(items[start : start + size], batch, strict=True):
            if isinstance(found, passed):
                yield item, found
            else:
                usable.append(item)
                inputs.append(cast(T, found))
        start += size
        if usable:
            yield from zip(usable, work(usable, inputs), strict=True)
