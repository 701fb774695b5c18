"""Runs a job over one image or many: batches, progress, skipping, continuing."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ttd.cli.options import clean_text
from ttd.cli.options.data import DEFAULT, EngineChoice, ImageSelection
from ttd.cli.options.model import Settings
from ttd.cli.output import Place, say, write_files
from ttd.errors import InputError, TTDError
from ttd.runs import Executor, Prepared, Ranks, Skipped, each_item
from ttd.runs.results_file import ResultsFile, RunRecords, json_line
from ttd.text.words import printable

if TYPE_CHECKING:
    from PIL import Image

    from ttd.data.items import ImageItem
    from ttd.inference.protocols import Task
    from ttd.model import TTD


@dataclass(frozen=True)
class Answer:
    """The result for one image.

    Attributes:
        record: for JSON.
        table: for people, several lines.
        brief: for people who look at many images, one line.
        notes: one line each for stderr: what was cut or is unknown.
        images: a name's ending ("" for the main image) and what draws it; drawn only when asked for.
        data: the content of other files by their suffix.
        notice: where the image is not what the model learned from, see `TTD.notice`.
    """

    record: dict[str, Any]
    table: str
    brief: str
    notes: tuple[str, ...] = ()
    images: dict[str, Callable[[], Image.Image]] = field(default_factory=dict)
    data: dict[str, Callable[[], bytes]] = field(default_factory=dict)
    notice: str | None = None


class Job(ABC):
    """One command's work.

    Attributes:
        name: of the command.
        task: the kind of question that it asks.
        of_captions: whether it asks about captions, where no words are named.
    """

    name: str
    task: Task = "masks"
    of_captions = False

    def over(self, items: Sequence[ImageItem]) -> Job:
        """The job for these items, told once before the first of them; itself, where it need not know them."""
        return self

    @abstractmethod
    def check(self, item: ImageItem) -> None:
        """Raises `InputError` where the item lacks what the command needs."""

    @abstractmethod
    def question(self) -> dict[str, Any]:
        """The command's own options, for `run.json`."""

    @abstractmethod
    def answers(
        self, model: TTD, images: Sequence[Image.Image], items: Sequence[ImageItem], *, draw: bool
    ) -> Sequence[Answer | TTDError]:
        """One answer per item, or why there is none; with `draw` they can be drawn."""


def noticed(model: TTD, images: Sequence[Image.Image], answers: Sequence[Answer | TTDError]) -> list[Answer | TTDError]:
    """Answers with the notice about each one's image."""
    return [
        answer if isinstance(answer, TTDError) else replace(answer, notice=model.notice(image))
        for image, answer in zip(images, answers, strict=True)
    ]


def text_notes(truncated: Sequence[str], unknown: Sequence[str]) -> tuple[str, ...]:
    """The lines about texts that were truncated (where the model has not logged it) and words outside its world."""
    notes = []
    if truncated:
        notes.append(f"truncated, because longer than the text encoder takes: {shortened(truncated)}")
    if unknown:
        notes.append(f"outside this model's world (scores mean little): {shortened(unknown)}")
    return tuple(notes)


def shortened(texts: Sequence[str], most: int = 8, length: int = 40) -> str:
    """A few of `texts`, each at most `length` characters, and how many more there are."""
    shown = [text if len(text) <= length else text[: length - 1] + "…" for text in texts[:most]]
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(shown) + more


MOST_LISTED = 50  # unreadable images named at the end


def run_job(
    job: Job,
    settings: Settings,
    source: ImageSelection,
    caption: str | None = None,
    tags: Sequence[str] = (),
    engine: EngineChoice = DEFAULT,
) -> int:
    """Answers for `source`; gives the exit code: 0, or 1 where some of many images were skipped."""
    caption = clean_text(caption) if caption is not None else None
    if not source.is_one:
        return _run_many(job, settings, source, caption, tuple(tags), engine.open())
    _run_one(job, settings, source.one(caption, tuple(tags)))
    return 0


def _run_one(job: Job, settings: Settings, item: ImageItem) -> None:
    job.check(item)
    job = job.over([item])
    place = Place.for_one(settings.out, Path(item.image.name))

    image = item.read()
    model = settings.load()
    _say_time(job, settings, model, image, 1)
    (answer,) = noticed(model, [image], job.answers(model, [image], [item], draw=place is not None))
    if isinstance(answer, TTDError):
        raise answer
    for note in (*filter(None, (answer.notice,)), *answer.notes):
        click.echo(printable(note), err=True)
    written = write_files(answer.images, answer.data, place) if place else []
    if settings.as_json:
        record = {
            "image": str(item.image),
            "model": settings.model,
            **answer.record,
            "notice": answer.notice,
            "files": written,
        }
        click.echo(json_line(record))
        return
    click.echo(answer.table)
    for path in written:
        click.echo(f"wrote {printable(path)}")


def _say_time(job: Job, settings: Settings, model: TTD, image: Image.Image, images: int) -> None:
    from ttd.data.estimate import encoding_line

    shape = (image.height, image.width)
    if line := encoding_line(model.encoder, shape, settings.options(job.task), images):
        say(line, err=True)


def _run_many(
    job: Job,
    settings: Settings,
    source: ImageSelection,
    caption: str | None,
    tags: tuple[str, ...],
    executor: Executor,
) -> int:
    items = source.many(caption, tags, settings.out)
    _check_any(job, items)
    job = job.over(items)
    ranks = executor.ranks
    if not settings.out:
        items = [items[number] for number in ranks.mine(len(items))]
        return _exit_code(_Many(job, settings, source, None, None, executor).run(items, len(items)), ranks)
    place = Place.for_many(settings.out, ranks)
    question = {
        "command": job.name,
        **source.question(),
        "caption": caption,
        "tags": list(tags),
    }
    ids = [item.id for item in items]
    records = RunRecords(place.results.parent, ranks, place.results.name)
    with records.open({**question, **job.question(), **settings.resolved()}) as results:
        left, mine = records.left(ids)
        if len(left) < mine:
            click.echo(f"{mine - len(left)} of {mine} images were done before.", err=True)
        many = _Many(job, settings, source, place, results, executor)
        skipped = many.run([items[n] for n in left], mine) if left else []
    if records.end(ids, skipped) is None:
        click.echo(
            f"Process {ranks.rank} of {ranks.world} is done; the one that ends last merges the results.", err=True
        )
    else:
        records.merge(ids, mixed=not isinstance(executor, Ranks))
    return _exit_code(skipped, ranks)


def _exit_code(skipped: Sequence[Skipped], ranks: Ranks) -> int:
    return 1 if skipped and ranks.world == 1 else 0  # torchrun takes any other code for a crash


def _check_any(job: Job, items: Sequence[ImageItem]) -> None:
    """Refuses a run in which every item lacks what the command needs, with the first one's reason."""
    reason = ""
    for item in items:
        try:
            return job.check(item)
        except InputError as error:
            reason = reason or str(error)
    raise InputError(reason if len(items) == 1 else f"None of the {len(items)} images can be used. {reason}")


@dataclass(frozen=True)
class _Done:
    """What is left of an `Answer` when its files are written."""

    record: dict[str, Any]
    brief: str
    notes: tuple[str, ...]
    notice: str | None


_BLOCK = 32  # images of a unit that another process does, at least


class _Answering:
    """Answers for the items of a run, in this process.

    Args:
        job, settings: of the command.
        place: where each item's images are drawn; None: none are.
        items: those that it answers, by number.
        at_once: images of a batch.
        block: images of a unit, the same in every process; no text is remembered from one to the next.
    """

    def __init__(
        self,
        job: Job,
        settings: Settings,
        place: Place | None,
        items: Sequence[ImageItem],
        at_once: int,
        block: int,
    ) -> None:
        self.items = items
        self._job, self._settings, self._place = job, settings, place
        self._at_once, self._block = at_once, block
        self._model = settings.load()
        self._begun: int | None = None

    def __call__(self, numbers: Sequence[int]) -> list[tuple[int, _Done | TTDError]]:
        """What becomes of a block of items."""
        return list(self.stream(numbers))

    def stream(self, numbers: Sequence[int]) -> Iterator[tuple[int, _Done | TTDError]]:
        """What becomes of items, in order; the next ones are read during this time."""
        for number, answer in each_item(numbers, self._read, self._answers, self._at_once, TTDError, ahead=1):
            yield number, answer if isinstance(answer, TTDError) else self._finished(self.items[number], answer)

    def _read(self, number: int) -> Image.Image:
        self._job.check(self.items[number])  # what lacks a caption is not even decoded
        return self.items[number].read()

    def _answers(self, numbers: Sequence[int], images: Sequence[Image.Image]) -> Sequence[Answer | TTDError]:
        """Of a batch; where it fails, one by one, so that only the item at fault is skipped."""
        model, block = self._model, numbers[0] // self._block
        if self._begun is None:
            _say_time(self._job, self._settings, model, images[0], len(self.items))
        if self._begun != block:  # so that no last digit depends on who did the blocks before
            self._begun = block
            model.forget_texts()
        batch = [self.items[number] for number in numbers]
        try:
            return noticed(model, images, self._job.answers(model, images, batch, draw=self._place is not None))
        except InputError as error:
            if len(batch) == 1:
                return [error]
            return [self._answers([number], [image])[0] for number, image in zip(numbers, images, strict=True)]

    def _finished(self, item: ImageItem, answer: Answer) -> _Done:
        record: dict[str, Any] = {"id": item.id, "image": str(item.image), "model": self._settings.model}
        record |= {**answer.record, "notice": answer.notice}
        if self._place is not None:
            record["files"] = write_files(answer.images, answer.data, self._place.for_item(item.id))
        return _Done(record, answer.brief, answer.notes, answer.notice)


class _Many:
    """One run over many images."""

    def __init__(
        self,
        job: Job,
        settings: Settings,
        source: ImageSelection,
        place: Place | None,
        results: ResultsFile | None,
        executor: Executor,
    ) -> None:
        self.job = job
        self.settings = settings
        self.place = place
        self.results = results
        self.executor = executor
        self.draw = place is not None and place.folder is not None
        self.skipped: list[Skipped] = []
        self.finished = 0
        self.foreign: list[str] = []  # notices about images unlike those that the model learned from
        self.more_captions = 0 if job.of_captions and not source.every_caption else None

    def run(self, items: Sequence[ImageItem], total: int) -> list[Skipped]:
        """Goes through the items; says at the end what was skipped, also when it is interrupted."""
        from tqdm import tqdm

        bar = tqdm(total=total, initial=total - len(items), unit="image", disable=None, file=sys.stderr)
        try:
            with bar:
                for number, done in self._done(items):
                    if isinstance(done, TTDError):
                        self.skipped.append((items[number].id, str(done)))
                    else:
                        self._keep(items[number], done)
                    bar.update()
        finally:
            self._report(len(items))
        return self.skipped

    def _done(self, items: Sequence[ImageItem]) -> Iterator[tuple[int, _Done | TTDError]]:
        place, at_once = (self.place, 1) if self.draw else (None, self.settings.batch)  # one where drawn, for memory
        block = -(-_BLOCK // at_once) * at_once  # whole batches
        prepare = partial(_Answering, self.job, self.settings, place, items, at_once, block)
        if isinstance(self.executor, Ranks):
            yield from prepare().stream(range(len(items)))
            return
        units = [range(start, min(start + block, len(items))) for start in range(0, len(items), block)]
        for _, done in self.executor.map(Prepared(prepare), units):
            yield from done

    def _keep(self, item: ImageItem, done: _Done) -> None:
        self.foreign += [] if done.notice is None else [done.notice]
        if self.results:
            self.results.append(done.record)
        if self.settings.as_json:
            say(json_line(done.record))
        elif not self.results:
            say(printable(f"{item.id}: {done.brief}"))
        for note in done.notes:
            say(printable(f"{item.id}: {note}"), err=True)
        if self.more_captions is not None and not item.tags and len(item.captions) > 1:
            self.more_captions += 1
        self.finished += 1

    def _report(self, asked: int) -> None:
        """What was done and what was skipped, on stderr."""
        if self.place:
            click.echo(f"{self.finished} of {asked} images written to {self.place.results}.", err=True)
        if self.more_captions:
            what = "image has" if self.more_captions == 1 else "images have"
            said = f"{self.more_captions} {what} several captions, of which the first was taken"
            click.echo(f"{said}: --every-caption takes each.", err=True)
        if self.foreign:
            click.echo(f"{len(self.foreign)} of {self.finished} images: {self.foreign[0]}", err=True)
        if not self.skipped:
            return
        click.echo(f"Skipped {len(self.skipped)}:", err=True)
        for name, reason in self.skipped[:MOST_LISTED]:
            click.echo(f"  {printable(name)}: {printable(reason)}", err=True)
        if len(self.skipped) > MOST_LISTED:
            click.echo(f"  … and {len(self.skipped) - MOST_LISTED} more", err=True)
