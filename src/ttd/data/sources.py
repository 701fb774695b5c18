"""Image-text pairs with random access, from tar shards or folders, behind one number per pair.

source = PairSource("cc3m/{00000..00331}.tar", keep="pruned/keep.parquet")
for i in epoch_order(len(source), seed=0, epoch=0, rank=rank, world=world):
    pair = source[i]                      # or BadSample, for BadSampleReport.add
"""

from __future__ import annotations

import hashlib
import sys
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ttd.data.bad_samples import BOMB, BROKEN_IMAGE, BadSample, BadSampleReport
from ttd.data.captions_file import CaptionsFile
from ttd.data.image_table import TABLE_ENDINGS, ImageTable, holds_images
from ttd.data.listing import CAPTION_FILES, named_files, plain_file
from ttd.data.remote import File, RemoteFile
from ttd.data.shard import ImageFolder, Shard
from ttd.data.tables import kept_rows
from ttd.data.tar_shard import TarShard
from ttd.data.word_table import ChosenWords
from ttd.errors import InputError
from ttd.images import MAX_PIXELS, opened, read_image
from ttd.runs import Ranks

_STEP = np.uint64(0x9E3779B97F4A7C15)
_AT_ONCE = 1 << 20  # items that are hashed at once


def epoch_order(n: int, seed: int, epoch: int, rank: int = 0, world: int = 1) -> NDArray[np.int64]:
    """Which items rank `rank` of `world` meets in an epoch, in order; the position in it is one number.

    All ranks together meet every item exactly once; their counts differ by at most one. Depends on the
    arguments alone: not on the machine, on NumPy's version, or on the number of shards and workers.

    Args:
        n: number of items.
        seed, epoch: choose the permutation of 0..n-1.
        rank, world: 0 <= rank < world.

    Returns:
        int64 `[ceil((n - rank) / world)]`.
    """
    if n < 0 or not 0 <= rank < world:
        raise ValueError(f"n must be at least 0 and 0 <= rank < world, not n={n}, rank={rank}, world={world}")
    # Sorting by a hash instead of Generator.permutation, whose stream NumPy may change between versions.
    key = _mix(_mix(np.array([seed % 2**64], np.uint64)) + np.array([epoch % 2**64], np.uint64))
    hashed = np.empty(n, np.uint64)
    for start in range(0, n, _AT_ONCE):
        some = np.arange(start, min(start + _AT_ONCE, n), dtype=np.uint64)
        hashed[start : start + _AT_ONCE] = _mix(some ^ key)
    # No two hashes are the same, so every way of sorting gives the same order.
    order = np.argsort(hashed).astype(np.int64, copy=False)
    return order if world == 1 else order[rank::world].copy()


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64: a bijection of 64-bit words, so different items never share a hash."""
    words = words + _STEP
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


__all__ = ["BadSample", "BadSampleReport", "Captioned", "Pair", "PairSource", "decode_image", "epoch_order"]


INSIDE = "inside"


@dataclass(frozen=True)
class Captioned:
    """A pair without its image: shard, key and captions as in `Pair`."""

    shard: str
    key: str
    captions: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Pair:
    """An image and what is said about it.

    Attributes:
        shard: name of the shard, folder and file.
        key: of the pair in it.
        image: upright RGB, decoded.
        captions: one or more, none blank.
        tags: for every caption the words that were chosen beforehand (possibly none); None where no tags
            were given.
    """

    shard: str
    key: str
    image: Image.Image
    captions: tuple[str, ...]
    tags: tuple[tuple[str, ...], ...] | None = None


class PairSource:
    """Pairs by number, 0 to len-1, in the order of the files and of what lies in them.

    It may be shared by threads, forked and pickled: it holds no open files.

    Args:
        sources: images, shards, tables of images, brace ranges, captions files, folders of these: see
            `ttd.data.listing.named_files`.
        images: the folder that a captions file's image paths start from; None: the file's own.
        keep: a keep-list (Parquet with shard, key): only these pairs, in the same order.
        limit: only the first pairs, of the files that hold them.
        tags: words chosen beforehand: a file (JSONL or Parquet) or a folder of `ttd data tag`; "inside": those that
            the shards carry themselves, see `ttd data tag --shards`.

    Attributes:
        shards: all files, in order.

    Raises:
        InputError: what is named does not exist, is no such file, or a keep-list names none of the pairs.
    """

    def __init__(
        self,
        sources: str | Path | Iterable[str | Path],
        *,
        images: str | Path | None = None,
        keep: str | Path | None = None,
        tags: str | Path | None = None,
        limit: int | None = None,
    ) -> None:
        images_folder = Path(images).absolute() if images is not None else None
        paths = [plain_file(path) for path in named_files(sources)]
        self.shards = _first_shards(paths, images_folder, None if keep else limit)
        self._starts = [0, *accumulate(len(shard) for shard in self.shards)]
        self._kept: NDArray[np.int64] | None = kept_rows(Path(keep), self.shards) if keep else None
        if limit is not None:
            self._kept = (np.arange(self._starts[-1]) if self._kept is None else self._kept)[:limit]
            used = [number for number in range(len(self.shards)) if len(self.indices(number))]
            del self.shards[(max(used, default=0) + 1) :]
            del self._starts[len(self.shards) + 1 :]
        self._inside = tags == INSIDE
        self._words = ChosenWords(Path(tags), self.shards, self._kept) if tags and not self._inside else None

    def __len__(self) -> int:
        """Pairs, the damaged ones included."""
        return self._starts[-1] if self._kept is None else len(self._kept)

    def __getitem__(self, index: int) -> Pair:
        """Read and decode one pair; raises as `pair`."""
        return self.pair(index)

    def pair(self, index: int, short: int | None = None) -> Pair:
        """Read and decode one pair.

        Args:
            index: its number.
            short: as for `decode_image`.

        Raises:
            BadSample: it cannot be used; says why.
            IndexError: there is no such number.
        """
        shard, row = self.shard_row(index)
        captions = shard.captions(row)
        key = shard.key(row)
        image = decode_image(shard.image_bytes(row), shard.name, key, short)
        tags = shard.tags(row) if self._inside else None
        if self._words:
            tags = self._words.of(index, shard.name, key, captions)
        return Pair(shard.name, key, image, captions, tags)

    def captioned(self, index: int) -> Captioned:
        """One pair without its image; raises as `[index]` does."""
        shard, row = self.shard_row(index)
        return Captioned(shard.name, shard.key(row), shard.captions(row))

    def shard_row(self, index: int) -> tuple[Shard, int]:
        """The shard of a pair and its row there."""
        if not 0 <= index < len(self):
            raise IndexError(f"there is no pair {index}: the source has {len(self)}")
        number = int(index if self._kept is None else self._kept[index])
        shard = bisect_right(self._starts, number) - 1
        return self.shards[shard], number - self._starts[shard]

    def indices(self, shard: int) -> range:
        """The numbers of the pairs that lie in `shards[shard]`."""
        first, end = self._starts[shard], self._starts[shard + 1]
        if self._kept is None:
            return range(first, end)
        return range(*(int(end) for end in np.searchsorted(self._kept, (first, end))))

    def locate(self, index: int) -> tuple[str, str]:
        """Shard name and key of a pair, without reading it."""
        shard, row = self.shard_row(index)
        return shard.name, shard.key(row)

    def report(self, limit: float = 0.1) -> BadSampleReport:
        """A report that already counts the damaged shards; raises `InputError` where they are too many."""
        report = BadSampleReport(len(self), len(self.shards), limit)
        for shard in self.shards:
            if shard.damage:
                report.add(shard.damage)
        return report

    def fingerprint(self) -> str:
        """SHA-256 over the shards' names and sizes in order, and over which pairs are kept."""
        digest = hashlib.sha256()
        for shard in self.shards:
            digest.update(f"{shard.name}\0{shard.size}\0{len(shard)}\n".encode("utf-8", "surrogateescape"))
        if self._kept is not None:
            digest.update(self._kept.astype("<i8").tobytes())
        return digest.hexdigest()


def decode_image(data: bytes, shard: str, key: str, short: int | None = None) -> Image.Image:
    """Encoded bytes -> upright RGB; `BadSample` where they are broken or above 178 megapixels.

    With `short` a JPEG is decoded at a half, a quarter or an eighth of its size, as long as its shorter side keeps so
    many pixels, which takes less time.
    """
    try:
        image = opened(BytesIO(data))
        if image.width * image.height > MAX_PIXELS:
            raise BadSample(BOMB, shard, key, f"{image.width} x {image.height} pixels")
        if short is not None:
            image.draft(None, (short, short))
        return read_image(image, f"pair {key!r} of {shard}")
    except BadSample:
        raise
    except Image.DecompressionBombError as error:
        raise BadSample(BOMB, shard, key, str(error)[:100]) from None
    except InputError as error:
        raise BadSample(BROKEN_IMAGE, shard, key, str(error.__cause__ or error)[:100]) from None
    except UnidentifiedImageError:
        raise BadSample(BROKEN_IMAGE, shard, key, "in no format that Pillow knows") from None
    # Headers of damaged files make Pillow raise anything: OSError, SyntaxError, ValueError, struct.error ...
    except Exception as error:
        if isinstance(error, MemoryError):
            raise
        raise BadSample(BROKEN_IMAGE, shard, key, str(error)[:100]) from None


def open_shards(
    paths: Sequence[File], images: Path | None = None, *, own_list: bool = False, without: Path | None = None
) -> list[Shard]:
    """What `ttd.data.listing.named_files` found, opened, in the same order.

    Where shards have no index yet, every rank begins elsewhere, so that they share the work.

    Args:
        paths: images, tar shards, tables, captions files, folders of images.
        images, own_list: see `CaptionsFile`.
        without: see `ImageFolder`.

    Raises:
        InputError: one of them is not what its ending says, or two have the same name.
    """
    from tqdm import tqdm

    rank, world = Ranks.here()
    first = len(paths) * rank // world
    opened: dict[File, Shard] = {}
    turned = [*paths[first:], *paths[:first]]
    hidden = None if rank == 0 else True
    for path in tqdm(turned, "opening", unit="shard", delay=2, disable=hidden, file=sys.stderr):
        kind = "" if path.is_dir() else path.suffix.lower()
        if kind == ".tar":
            opened[path] = TarShard(path)
        elif kind in TABLE_ENDINGS and holds_images(path):
            opened[path] = ImageTable(path)
        elif kind in CAPTION_FILES:
            local = path.copy() if isinstance(path, RemoteFile) else path
            opened[path] = CaptionsFile(local, images, own_list=own_list)
        else:
            assert isinstance(path, Path)  # there are no images of their own elsewhere, see `named_files`
            opened[path] = ImageFolder(path, without)
    shards = [opened[path] for path in paths]
    _check_names(shards)
    return shards


def _first_shards(paths: Sequence[File], images: Path | None, limit: int | None) -> list[Shard]:
    """All shards, or with a limit the first ones until they hold so many pairs: the others are not even opened."""
    if limit is None:
        return open_shards(paths, images)
    shards: list[Shard] = []
    for path in paths:
        shards += open_shards([path], images)
        if sum(map(len, shards)) >= limit:
            break
    _check_names(shards)
    return shards


def _check_names(shards: list[Shard]) -> None:
    seen: dict[str, File] = {}
    for shard in shards:
        other = seen.setdefault(shard.name, shard.path)
        if other is not shard.path:
            raise InputError(
                f"{shard.path} and {other} have the same folder and file name, by which pairs are distinguished: "
                "rename one folder"
            )
