"""One set that is being annotated: hands out items, takes decisions, knows how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from PIL import Image

from ttd.annotate.export import Exporter, image_file, write_image
from ttd.annotate.item import Work, checked_caption, typed_before
from ttd.annotate.proposals import Proposer
from ttd.annotate.queue import Claims, Queue, QueueItem
from ttd.annotate.records import ACCEPTED, KEPT, REJECTED, SKIPPED, Record
from ttd.annotate.store import Changed, Store, Unpublished
from ttd.data.bad_samples import BadSample
from ttd.errors import InputError
from ttd.images import read_image
from ttd.safe_paths import inside

if TYPE_CHECKING:
    from ttd.model import TTD


@dataclass(frozen=True)
class Progress:
    """How many items of the queue stand where.

    Attributes:
        total: items of the queue.
        accepted: of them accepted, whatever the second pass says.
        skipped: set aside.
        kept, rejected: accepted ones that were looked at a second time.
    """

    total: int
    accepted: int
    skipped: int
    kept: int
    rejected: int

    @property
    def left(self) -> int:
        """Items that nobody has decided about."""
        return self.total - self.accepted - self.skipped


class AnnotationSet:
    """Shared by all tabs of a server; a tab is named by any string of its own.

    Args:
        queue: what is to be annotated.
        out: the set's folder.
        proposer: suggests words and masks.

    Raises:
        InputError: `out` holds something else, or an annotation in it is damaged.
    """

    def __init__(self, queue: Queue, out: str | Path, proposer: Proposer) -> None:
        self.queue, self.proposer = queue, proposer
        self._exporter = Exporter(Path(out).absolute())
        self.store = Store(out, self._exporter.publish)
        self.claims = Claims(self.store.claims)
        with self.store.locked():
            self._exporter.repair(self.store.records())
        self.store.stands()

    @classmethod
    def open_set(
        cls,
        model: TTD,
        data: str,
        out: str,
        *,
        images: str | None = None,
        every_caption: bool = False,
        sam: str | None = None,
        model_lock: Lock | None = None,
    ) -> AnnotationSet:
        """The annotations for what a user named.

        Args:
            model: scores the words and maps them.
            data: a folder of images, with `NAME.txt` or without captions; shards; a captions file: see `PairSource`.
            out: folder of the set.
            images: the folder that a captions file's image paths start from.
            every_caption: an item for each caption of an image, not only for the first.
            sam: SAM-HQ's short name, hub id or folder; None: our own maps are the masks.
            model_lock: held by whoever asks the model.

        Raises:
            InputError: the data or the folder cannot be used.
            ModelError: there is no such SAM-HQ.
        """
        queue = Queue.open(data, images, every_caption=every_caption)
        for shard in queue.source.shards:
            if shard.path.is_dir() and Path(out).absolute().is_relative_to(shard.path):
                raise InputError(
                    f"{out} lies in {shard.path}, whose images are annotated: choose another folder for the set"
                )
        refiner = None
        if sam is not None:
            from ttd.encoders.registry import find_sam
            from ttd.refine.sam import SAMRefiner

            refiner = SAMRefiner.from_pretrained(find_sam(sam), model.encoder.device)
        return cls(queue, out, Proposer(model, refiner, model_lock=model_lock))

    def progress(self) -> Progress:
        """Counted from the disk, so other processes' work is in it."""
        stands = self.store.stands()
        mine = [stands[item.id] for item in self.queue.items if item.id in stands]
        return Progress(
            total=len(self.queue),
            accepted=sum(stand.status == ACCEPTED for stand in mine),
            skipped=sum(stand.status == SKIPPED for stand in mine),
            kept=sum(stand.verdict == KEPT for stand in mine),
            rejected=sum(stand.verdict == REJECTED for stand in mine),
        )

    def open(self, number: int, tab: str) -> Work:
        """Opens an item, decided or not, as it was left.

        Raises:
            BadSample: it cannot be read.
            InputError: there is no such item, or its annotation is damaged.
        """
        if not 0 <= number < len(self.queue):
            raise InputError(f"there is no item {number + 1}: the queue has {len(self.queue)}")
        item = self.queue.items[number]
        record, draft = self.store.get(item.id), self.store.draft(item.id)
        content = self.queue.read(item)
        if content.typed:
            content = replace(content, caption=typed_before(record, draft))
        work = Work.start(item, content, self.proposer, record, draft)
        free = self.claims.take(item.id, tab)
        self.claims.give_back(tab, but=item.id)
        if not free:
            also = "This item is also open in another tab: who accepts last is told before anything is replaced."
            work.note = f"{work.note} {also}".strip()
        return work

    def open_next(self, after: int, tab: str) -> tuple[Work | None, list[str]]:
        """The first item after number `after` (-1: from the start) that nobody has decided about.

        Items that another tab shows come last; the search goes round the end of the queue once.

        Returns:
            the item, or None where nothing is left; and a sentence for every damaged one that was passed over.
        """
        notes: list[str] = []
        for item in self._undecided(after, tab):
            try:
                return self.open(item.number, tab), notes
            except BadSample as error:
                notes.append(str(error))
        self.claims.give_back(tab)
        return None, notes

    def keep_draft(self, work: Work, tab: str) -> None:
        """Keeps what was clicked, in case the tab is closed or the server killed."""
        self.store.save_draft(work.item.id, work.draft())
        self.claims.touch(work.item.id, tab)

    def type_caption(self, work: Work, caption: str) -> Work:
        """The item anew with a caption that somebody typed, for an image that has none.

        Raises:
            InputError: the image has a caption of its own, or this is none.
        """
        if not work.content.typed:
            raise InputError("this image has a caption of its own: change it in the data")
        content = replace(work.content, caption=checked_caption(caption))
        return Work.start(work.item, content, self.proposer, self.store.get(work.item.id))

    def accept(self, work: Work) -> Record:
        """Writes the item into the set; on disk when it returns.

        Raises:
            InputError: it has no caption yet.
            Changed: another tab decided about it meanwhile; accepting once more replaces that.
            Unpublished: the decision is safe, the set's other files are not written yet.
            OSError: it could not be written; nothing has changed.
        """
        if not work.content.caption:
            raise InputError("this image has no caption yet: type what it shows, or skip it")
        name, encoded = image_file(work.item.id, work.content.encoded, work.image)
        record = work.record(ACCEPTED, name)
        return self._put(work, record, lambda: write_image(self.store.root, name, encoded))

    def skip(self, work: Work) -> None:
        """Sets an item aside, forgetting what was clicked; what was accepted before stays as it is."""
        if work.status != ACCEPTED:
            # Where another tab has decided about it, there is nothing to set aside.
            with suppress(Changed):
                self._put(work, work.record(SKIPPED, ""), None)
        self.store.drop_draft(work.item.id)

    def leave(self, tab: str) -> None:
        """The tab is closed: its item is free for others."""
        self.claims.give_back(tab)

    def to_review(self, after: str | None = None, *, again: bool = False) -> Record | None:
        """The first accepted item after id `after` (in the order of the ids) that has no verdict; None at the end.

        With `again` also those that have one.
        """
        for identifier, stand in sorted(self.store.stands().items()):
            waiting = stand.status == ACCEPTED and (again or stand.verdict is None)
            if waiting and (after is None or identifier > after):
                return self.store.get(identifier)
        return None

    def judge(self, record: Record, verdict: str | None) -> Record:
        """The second pass's word on an accepted item: "kept", "rejected", or None to take it back.

        Raises:
            Changed: it was changed in another tab since `record` was read.
        """
        if record.status != ACCEPTED:
            raise InputError("only accepted items can be kept or rejected")
        return self.store.put(replace(record, verdict=verdict), record.version)

    def image_of(self, record: Record) -> Image.Image:
        """The image of an accepted item, from the set itself."""
        return read_image(inside(self.store.root, "images", record.image))

    def _put(self, work: Work, record: Record, first: Callable[[], None] | None) -> Record:
        try:
            written = self.store.put(record, work.seen, first)
        except Changed as error:
            newest = error.newest
            work.seen, work.status, work.verdict = newest.version, newest.status, newest.verdict
            raise
        except Unpublished as error:
            work.seen, work.status = error.record.version, error.record.status
            raise
        work.seen, work.status, work.verdict = written.version, written.status, written.verdict
        self.store.drop_draft(work.item.id)
        return written

    def _undecided(self, after: int, tab: str) -> Iterator[QueueItem]:
        stands = self.store.stands()
        items = self.queue.items
        order = [*items[after + 1 :], *items[: after + 1]]
        taken = []
        for item in order:
            if item.id in stands:
                continue
            if self.claims.take(item.id, tab):
                yield item
            else:
                taken.append(item)
        yield from taken
