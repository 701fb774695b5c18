"""The annotator's queue: pairs in a fixed order, each with an id; and which tab has which item open (claims)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from PIL import Image

from ttd.data.bad_samples import EMPTY_CAPTION, MISSING_CAPTION, BadSample
from ttd.data.sources import PairSource, decode_image
from ttd.errors import InputError
from ttd.files.safe_paths import inside, item_id

IDLE_SECONDS = 600.0


@dataclass
class _Claim:
    tab: str
    lock: FileLock
    touched: float


class Claims:
    """The claims of this process: an item is open in one tab at a time, across the processes of a set.

    Args:
        folder: shared by all processes on one set.
        idle: seconds after which a tab that did nothing loses its item to another tab of the same process.
    """

    def __init__(self, folder: Path, idle: float = IDLE_SECONDS) -> None:
        self._folder, self._idle = folder, idle
        self._held: dict[str, _Claim] = {}
        self._guard = threading.Lock()

    def take(self, identifier: str, tab: str) -> bool:
        """Claims an item for a tab; False where another tab has it."""
        with self._guard:
            held = self._held.get(identifier)
            if held is not None:
                if held.tab != tab and time.monotonic() - held.touched < self._idle:
                    return False
                held.tab, held.touched = tab, time.monotonic()
                return True
            # A claim is taken and released by different threads.
            lock = FileLock(inside(self._folder, f"{identifier}.lock"), thread_local=False)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                return False
            self._held[identifier] = _Claim(tab, lock, time.monotonic())
            return True

    def touch(self, identifier: str, tab: str) -> None:
        """Renews a tab's claim on an item, so that it does not become idle."""
        with self._guard:
            held = self._held.get(identifier)
            if held is not None and held.tab == tab:
                held.touched = time.monotonic()

    def release(self, tab: str, but: str | None = None) -> None:
        """Ends all claims of a tab, or all but one."""
        with self._guard:
            for identifier in [name for name, held in self._held.items() if held.tab == tab and name != but]:
                self._held.pop(identifier).lock.release()


@dataclass(frozen=True)
class QueueItem:
    """An image and one of its captions, not read yet.

    Attributes:
        number: position in the queue, from 0.
        id: stable, and a safe file name; see `ttd.files.safe_paths.item_id`.
        pair: number of the pair in the source.
        caption_index: of the caption among the image's captions.
        shard, key: of the pair.
    """

    number: int
    id: str
    pair: int
    caption_index: int
    shard: str
    key: str


@dataclass(frozen=True, eq=False)
class QueueImage:
    """What was read of an item.

    Attributes:
        caption: as written; "" where the image has none, and the annotator types one.
        image: upright RGB.
        file_bytes: of the image file, unchanged.
        typed: whether the caption is typed by the annotator because the data have none.
    """

    caption: str
    image: Image.Image
    file_bytes: bytes
    typed: bool = False


class Queue:
    """All items, by number and by id.

    Args:
        source: images with or without captions: see `PairSource`.
        every_caption: an item for each caption of an image; else for its first.

    Raises:
        InputError: the source holds no pair.
    """

    def __init__(self, source: PairSource, *, every_caption: bool = False) -> None:
        self.source = source
        self.items = [
            QueueItem(number, item_id(shard, key, caption if every_caption else None), pair, caption, shard, key)
            for number, (pair, caption, shard, key) in enumerate(_captions_of(source, every_caption))
        ]
        if not self.items:
            raise InputError("there is no pair to annotate: check the data and the keep-list")
        self._numbers = {item.id: item.number for item in self.items}
        if len(self._numbers) < len(self.items):
            raise InputError("two pairs of the data have the same file and key: rename one of them")

    @classmethod
    def open(cls, data: str | Path, images: str | Path | None = None, *, every_caption: bool = False) -> Queue:
        """The queue of what a user named; see `PairSource`."""
        return cls(PairSource(data, images=images), every_caption=every_caption)

    def __len__(self) -> int:
        return len(self.items)

    def number(self, identifier: str) -> int | None:
        """The number of an id's item; None where the id belongs to other data."""
        return self._numbers.get(identifier)

    def read(self, item: QueueItem) -> QueueImage:
        """Reads and decodes one item, without a caption where it has none; raises `BadSample` where it is damaged."""
        shard, row = self.source.shard_row(item.pair)
        try:
            caption = shard.captions(row)[item.caption_index]
        except BadSample as error:
            if error.reason not in (MISSING_CAPTION, EMPTY_CAPTION):
                raise
            caption = ""
        encoded = shard.image_bytes(row)
        return QueueImage(caption, decode_image(encoded, shard.name, item.key), encoded, typed=not caption)


def _captions_of(source: PairSource, every_caption: bool) -> Iterator[tuple[int, int, str, str]]:
    """Pair, caption index, shard and key of every item; a bad pair is one item, and reading it raises its error."""
    for pair in range(len(source)):
        shard, row = source.shard_row(pair)
        count = 1
        if every_caption:
            try:
                count = len(shard.captions(row))
            except BadSample:
                count = 1
        for caption in range(count):
            yield pair, caption, shard.name, shard.key(row)
