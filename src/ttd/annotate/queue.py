"""What is to be annotated: pairs in a fixed order, each with an id of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ttd.data.damage import EMPTY_CAPTION, MISSING_CAPTION, DamagedPair
from ttd.data.pairs import PairSource, decode_image
from ttd.errors import InputError
from ttd.safe_paths import item_id


@dataclass(frozen=True)
class QueueItem:
    """A picture and one of its captions, not read yet.

    Attributes:
        number: place in the queue, from 0.
        id: stable, and a safe file name; see `ttd.safe_paths.item_id`.
        pair: number of the pair in the source.
        which: number of the caption among the picture's captions.
        shard, key: where the pair lies.
    """

    number: int
    id: str
    pair: int
    which: int
    shard: str
    key: str


@dataclass(frozen=True, eq=False)
class QueuePicture:
    """What was read of an item.

    Attributes:
        caption: as written; "" where the picture has none, and somebody is to type one.
        picture: upright RGB.
        encoded: the file's own bytes, to be handed on as they are.
        typed: whether the caption is not the data's but typed here.
    """

    caption: str
    picture: Image.Image
    encoded: bytes
    typed: bool = False


class Queue:
    """All items, by number and by id.

    Args:
        source: pictures with or without captions: see `PairSource`.
        every_caption: an item for each caption of a picture; else for its first.

    Raises:
        InputError: the source holds no pair.
    """

    def __init__(self, source: PairSource, *, every_caption: bool = False) -> None:
        self.source = source
        self.items = [
            QueueItem(number, item_id(shard, key, which if every_caption else None), pair, which, shard, key)
            for number, (pair, which, shard, key) in enumerate(_places(source, every_caption))
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
        """The place of an id; None where it belongs to other data."""
        return self._numbers.get(identifier)

    def read(self, item: QueueItem) -> QueuePicture:
        """Reads and decodes one item, without a caption where it has none; raises `DamagedPair` where it is damaged."""
        shard, row = self.source.place(item.pair)
        try:
            caption = shard.captions(row)[item.which]
        except DamagedPair as error:
            if error.reason not in (MISSING_CAPTION, EMPTY_CAPTION):
                raise
            caption = ""
        encoded = shard.image_bytes(row)
        return QueuePicture(caption, decode_image(encoded, shard.name, item.key), encoded, typed=not caption)


def _places(source: PairSource, every_caption: bool) -> Iterator[tuple[int, int, str, str]]:
    """Pair, caption, shard and key of every item; a damaged pair stands there once and says so when it is read."""
    for pair in range(len(source)):
        shard, row = source.place(pair)
        count = 1
        if every_caption:
            try:
                count = len(shard.captions(row))
            except DamagedPair:
                count = 1
        for which in range(count):
            yield pair, which, shard.name, shard.key(row)
