"""The items that a command on images works off: an image and what is asked about it, read when it is its turn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ttd.data.bad_samples import EMPTY_CAPTION, MISSING_CAPTION, MISSING_IMAGE, BadSample
from ttd.data.captions_file import CaptionsFile, ListedLine
from ttd.data.listing import named_files
from ttd.data.remote import File
from ttd.data.shard import ImageFolder, Shard
from ttd.errors import InputError

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, eq=False)
class ImageItem:
    """An image and what is asked about it.

    Attributes:
        id: names the item in results: a list's `id`, the image's path in its folder or list, shard and key in a tar.
        image: its file; in a tar the tar's path and the key.
        shard, row: where it is read.
        default: the caption where it has none of its own; None where there is no such.
        given: words that are asked about where it has none of its own, possibly none.
        which: number of the caption among its own.
        line: of a list, where that has an id or tags.
        only_default: whether captions of its own do not count.
    """

    id: str
    image: File
    shard: Shard
    row: int
    default: str | None = None
    given: tuple[str, ...] = ()
    which: int = 0
    line: ListedLine | None = None
    only_default: bool = False

    @cached_property
    def captions(self) -> tuple[str, ...]:
        """Its own captions, possibly none; raises `BadSample` where they cannot be read."""
        if self.only_default:
            return ()
        try:
            if self.line is not None and isinstance(self.shard, CaptionsFile):
                return self.shard.checked(self.row, self.line.captions)
            return self.shard.captions(self.row)
        except BadSample as error:
            if error.reason in (MISSING_CAPTION, EMPTY_CAPTION):
                return ()
            raise

    @property
    def caption(self) -> str | None:
        """Its own caption, else the default; None where there is neither. Raises as `captions`."""
        return self.captions[self.which] if self.captions else self.default

    @property
    def tags(self) -> tuple[str, ...]:
        """Its own words, else those given, possibly none; raises `BadSample` where its own are not words."""
        if self.line is None or not self.line.tags:
            return self.given
        if isinstance(self.line.tags, tuple):
            return self.line.tags
        raise BadSample(self.line.tags.reason, self.shard.name, self.shard.key(self.row), self.line.tags.detail)

    def read(self) -> Image.Image:
        """The image, upright RGB; raises `InputError` where it cannot be read."""
        from ttd.data.sources import decode_image
        from ttd.images import read_image

        if isinstance(self.shard, CaptionsFile):
            self.shard.check_row(self.row)
        if isinstance(self.shard, (ImageFolder, CaptionsFile)):
            file = self.shard.file(self.row)
            if file is None:
                raise BadSample(MISSING_IMAGE, self.shard.name, self.shard.key(self.row), "it leads out of its folder")
            return read_image(file)
        key = self.shard.key(self.row)
        return decode_image(self.shard.image_bytes(self.row), self.shard.name, key)


def one_item(path: Path, caption: str | None, tags: tuple[str, ...]) -> ImageItem:
    """The item of one image file, there or not; `caption`, where given, counts more than NAME.txt."""
    return ImageItem(path.name, path, ImageFolder(path), 0, caption, tags, only_default=caption is not None)


def open_items(
    source: str,
    caption: str | None = None,
    tags: tuple[str, ...] = (),
    *,
    images: str | None = None,
    every_caption: bool = False,
    without: str | None = None,
) -> list[ImageItem]:
    """All items of what a user named, in a fixed order.

    Args:
        source: see `ttd.data.listing.named_files`.
        caption, tags: for items without their own.
        images: the folder that a list's image paths start from; None: the list's own.
        every_caption: an item for each caption of an image, which reads all captions at once; else for its first.
        without: results of an earlier run, which are not images to work on.

    Raises:
        InputError: nothing there, or two items have one id.
    """
    from ttd.data.sources import open_shards

    left_out = Path(without) if without is not None else None
    paths = named_files(source, left_out)
    folder = Path(images) if images is not None else None
    if folder is not None and not folder.is_dir():
        raise InputError(f"{folder} is not a folder: name the one that the list's image paths start from (--images)")
    shards = open_shards(paths, folder, own_list=True, without=left_out)
    items = [
        replace(item, default=caption, given=tags)
        for shard in shards
        for item in _of_shard(shard, alone=len(shards) == 1)
    ]
    if every_caption:
        items = [each for item in items for each in _each_caption(item)]
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise InputError(f'{source} names "{item.id}" twice: give each line its own "id", each image its own name')
        seen.add(item.id)
    return items


def known_captions(items: Iterable[ImageItem]) -> Iterator[str]:
    """The captions of those items that have one."""
    for item in items:
        with suppress(BadSample):
            if item.caption:
                yield item.caption


def _of_shard(shard: Shard, *, alone: bool) -> Iterator[ImageItem]:
    """Ids of tars begin with their names, those of several other sources too."""
    in_tar = not isinstance(shard, (ImageFolder, CaptionsFile))
    for row in range(len(shard)):
        key = shard.key(row)
        name = key if alone and not in_tar else f"{shard.name}/{key}"
        if isinstance(shard, ImageFolder) and not alone and not shard.path.is_dir():
            name = shard.name  # of a single image, which ends in its key
        image = shard.path / key if in_tar else (shard.file(row) or Path(key))
        item = ImageItem(name, image, shard, row)
        lines = shard.lines(row) if isinstance(shard, CaptionsFile) else list[ListedLine]()
        for line in lines:
            yield replace(item, id=line.id or name, line=line)
        if not lines:
            yield item


def _each_caption(item: ImageItem) -> Iterator[ImageItem]:
    count = 1
    with suppress(BadSample):  # which is said when it is the item's turn
        count = max(1, len(item.captions))
    for which in range(count):
        yield replace(item, which=which, id=f"{item.id}#{which + 1}" if which else item.id)
