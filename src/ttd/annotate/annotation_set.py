"""One TagMask set that is being annotated: which item comes next, what was decided, how much is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from PIL import Image

from ttd.annotate.export import Exporter, image_file, write_image
from ttd.annotate.item import OpenItem, checked_caption, typed_before
from ttd.annotate.proposals import Proposer
from ttd.annotate.queue import Claims, Queue, QueueItem
from ttd.annotate.records import ACCEPTED, KEPT, REJECTED, SKIPPED, Record
from ttd.annotate.store import AnnotationStore, ExportFailed, RecordChanged
from ttd.data.bad_samples import BadSample
from ttd.data.shard import ImageFolder
from ttd.errors import InputError
from ttd.files.safe_paths import inside
from ttd.images import read_image

if TYPE_CHECKING:
    from ttd.model import TTD


@dataclass(frozen=True)
class Progress:
    """How many items of the queue are decided, and how.

    Attributes:
        total: items of the queue.
        accepted: of them accepted, whatever their verdict.
        skipped: not accepted and skipped.
        kept, rejected: accepted ones by the verdict of the second pass.
    """

    total: int
    accepted: int
    skipped: int
    kept: int
    rejected: int

    @property
    def left(self) -> int:
        """Items that are neither accepted nor skipped."""
        return self.total - self.accepted - self.skipped


class AnnotationSet:
    """A queue, its folder and its proposals. All tabs of a server use one; each tab has a name of its own.

    Args:
        queue: what is to be annotated.
        out: the set's folder.
        proposer: suggests words and masks.

    Raises:
        InputError: `out` holds something else than annotations, or an annotation in it is damaged.
    """

    def __init__(self, queue: Queue, out: str | Path, proposer: Proposer) -> None:
        self.queue, self.proposer = queue, proposer
        self._exporter = Exporter(Path(out).absolute())
        self.store = AnnotationStore(out, self._exporter.export)
        self.claims = Claims(self.store.claims)
        with self.store.locked():
            self._exporter.repair(self.store.records())
        self.store.summaries()

    @classmethod
    def from_data(
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
        """Opens the data and the set's folder by their names on the command line.

        Args:
            model: scores the words and maps them.
            data: a folder of images, with `NAME.txt` or without captions; shards; a captions file: see `PairSource`.
            out: folder of the set.
            images: the folder that a captions file's image paths start from.
            every_caption: an item for each caption of an image, not only for the first.
            sam: SAM-HQ's short name, hub id or folder; None: masks come from the model's own maps.
            model_lock: held while the model computes.

        Raises:
            InputError: the data or the folder cannot be used.
            ModelError: SAM-HQ is not found.
        """
        queue = Queue.open(data, images, every_caption=every_caption)
        for shard in queue.source.shards:
            if isinstance(shard, ImageFolder) and Path(out).absolute().is_relative_to(shard.path):
                raise InputError(
                    f"{out} is in {shard.path}, whose images are annotated: choose another folder for the set"
                )
        refiner = None
        if sam is not None:
            from ttd.refine.sam import SAMRefiner

            refiner = SAMRefiner.from_pretrained(sam, model.encoder.device)
        return cls(queue, out, Proposer(model, refiner, model_lock=model_lock))

    def progress(self) -> Progress:
        """Counted from the files, so decisions of other processes are included."""
        summaries = self.store.summaries()
        mine = [summaries[item.id] for item in self.queue.items if item.id in summaries]
        return Progress(
            total=len(self.queue),
            accepted=sum(summary.status == ACCEPTED for summary in mine),
            skipped=sum(summary.status == SKIPPED for summary in mine),
            kept=sum(summary.verdict == KEPT for summary in mine),
            rejected=sum(summary.verdict == REJECTED for summary in mine),
        )

    def open(self, number: int, tab: str) -> OpenItem:
        """Opens an item, decided or not, as it was left.

        Raises:
            BadSample: it cannot be read.
            InputError: the item does not exist, or its annotation is damaged.
        """
        if not 0 <= number < len(self.queue):
            raise InputError(f"item {number + 1} does not exist: the queue has {len(self.queue)}")
        item = self.queue.items[number]
        record, draft = self.store.get(item.id), self.store.draft(item.id)
        content = self.queue.read(item)
        if content.typed:
            content = replace(content, caption=typed_before(record, draft))
        opened = OpenItem.start(item, content, self.proposer, record, draft)
        free = self.claims.take(item.id, tab)
        self.claims.release(tab, but=item.id)
        if not free:
            also = "This item is also open in another tab: you will be asked before anything of the other is replaced."
            opened.note = f"{opened.note} {also}".strip()
        return opened

    def open_next(self, after: int, tab: str) -> tuple[OpenItem | None, list[str]]:
        """The first undecided item after number `after` (-1: from the start).

        Items that another tab shows come last; after the end of the queue the search goes on from its start, once.

        Returns:
            the item, or None where nothing is left; and a sentence for every bad sample that was left out.
        """
        notes: list[str] = []
        for item in self._undecided(after, tab):
            try:
                return self.open(item.number, tab), notes
            except BadSample as error:
                notes.append(str(error))
        self.claims.release(tab)
        return None, notes

    def save_draft(self, opened: OpenItem, tab: str) -> None:
        """Saves what was clicked, in case the tab is closed or the server killed."""
        self.store.save_draft(opened.item.id, opened.draft())
        self.claims.touch(opened.item.id, tab)

    def type_caption(self, opened: OpenItem, caption: str) -> OpenItem:
        """Opens the item again with a typed caption, for an image that has none.

        Raises:
            InputError: the image has a caption of its own, or the typed one is empty or too long.
        """
        if not opened.content.typed:
            raise InputError("this image has a caption of its own: change it in the data")
        caption = checked_caption(caption)
        content = replace(self.queue.read(opened.item), caption=caption)
        return OpenItem.start(opened.item, content, self.proposer, self.store.get(opened.item.id))

    def accept(self, opened: OpenItem) -> Record:
        """Writes the item into the set; on disk when it returns.

        Raises:
            InputError: it has no caption yet.
            RecordChanged: another tab decided about it in between; accepting once more replaces that.
            ExportFailed: the decision is safe, the set's other files are not written yet.
            OSError: it could not be written; nothing has changed.
        """
        if not opened.content.caption:
            raise InputError("this image has no caption yet: type what it shows, or skip it")
        name, encoded = image_file(opened.item.id, opened.content.file_bytes)
        record = opened.record(ACCEPTED, name)
        return self._put(opened, record, lambda: write_image(self.store.root, name, encoded))

    def skip(self, opened: OpenItem) -> None:
        """Marks an item as skipped and deletes its draft; an item that was accepted before stays accepted."""
        if opened.status != ACCEPTED:
            # Where another tab has decided about it, that decision stays.
            with suppress(RecordChanged):
                self._put(opened, opened.record(SKIPPED, ""), None)
        self.store.delete_draft(opened.item.id)

    def take_back(self, opened: OpenItem, before: Record | None) -> None:
        """Undoes the last `accept` or `skip` of an item: `before` is its record again, its clicks are a draft.

        Raises:
            RecordChanged: another tab decided about it in between.
        """
        if before is None:
            self.store.remove(opened.item.id, opened.base_version)
            version = 0
        else:
            version = self.store.put(before, opened.base_version).version
        self.store.save_draft(opened.item.id, {**opened.draft(), "base_version": version})

    def release(self, tab: str) -> None:
        """Frees the item of a tab that was closed."""
        self.claims.release(tab)

    def next_to_review(self, after: str | None = None) -> Record | None:
        """The first accepted item after id `after` (in the order of the ids) that has no verdict; None at the end."""
        for identifier, summary in sorted(self.store.summaries().items()):
            if summary.status == ACCEPTED and summary.verdict is None and (after is None or identifier > after):
                return self.store.get(identifier)
        return None

    def judge(self, record: Record, verdict: str | None) -> Record:
        """Sets the verdict of the second pass on an accepted item: "kept", "rejected", or None for none.

        Raises:
            RecordChanged: it was changed in another tab since `record` was read.
        """
        if record.status != ACCEPTED:
            raise InputError("only accepted items can be kept or rejected")
        return self.store.put(replace(record, verdict=verdict), record.version)

    def image_of(self, record: Record, side: int | None = None) -> Image.Image:
        """The image of an accepted item, read from the set; with `side` its longer side is at most so many pixels."""
        return read_image(inside(self.store.root, "images", record.image), side=side)

    def _put(self, opened: OpenItem, record: Record, before: Callable[[], None] | None) -> Record:
        try:
            written = self.store.put(record, opened.base_version, before)
        except RecordChanged as error:
            newest = error.newest
            opened.base_version, opened.status, opened.verdict = newest.version, newest.status, newest.verdict
            raise
        except ExportFailed as error:
            opened.base_version, opened.status = error.record.version, error.record.status
            raise
        opened.base_version, opened.status, opened.verdict = written.version, written.status, written.verdict
        self.store.delete_draft(opened.item.id)
        return written

    def _undecided(self, after: int, tab: str) -> Iterator[QueueItem]:
        summaries = self.store.summaries()
        items = self.queue.items
        order = [*items[after + 1 :], *items[: after + 1]]
        taken = []
        for item in order:
            if item.id in summaries:
                continue
            if self.claims.take(item.id, tab):
                yield item
            else:
                taken.append(item)
        yield from taken
