"""What a user names as data -> the files that are meant; and the images in a folder."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

from ttd.data.remote import File, RemoteFile, is_address, remote_files
from ttd.errors import InputError

log = logging.getLogger(__name__)

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_PACKED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
HEIF_ENDINGS = (".heic", ".heif", ".hif")
CAPTION_FILES = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".arrow")
# Formats of which Pillow reads the head alone, or for which it runs another program.
_NOT_DECODED = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
# Where network drives and archives keep copies and metadata.
_OF_OTHERS = frozenset({"@eaDir", "__MACOSX"})


@cache
def image_endings() -> frozenset[str]:
    """The endings of the files that Pillow can decode, in lower case: .jpg, .jpeg, .png ..."""
    from PIL import Image

    from ttd.images import register_formats

    register_formats()
    known = Image.registered_extensions()
    return frozenset(
        ending for ending, kind in known.items() if (kind in Image.OPEN and kind not in _NOT_DECODED) or kind == "MPO"
    )


def is_image_file(path: Path) -> bool:
    """Whether a file's ending, in any case, is that of an image."""
    return path.suffix.lower() in image_endings()


def caption_file(image: Path) -> Path:
    """Where an image of a plain folder has its caption: NAME.txt beside it."""
    return image.with_suffix(".txt")


@dataclass(frozen=True)
class ImageListing:
    """The images in a folder and its subfolders.

    Attributes:
        files: sorted.
        other: how many files have an ending that is not an image's, by ending; captions (NAME.txt) do not count.
        hidden: images and folders whose names begin with a dot, and folders of copies (`@eaDir`).
        again: links to folders that are listed already.
        unreadable: folders that may not be read.
    """

    files: tuple[Path, ...]
    other: tuple[tuple[str, int], ...] = ()
    hidden: int = 0
    again: int = 0
    unreadable: int = 0

    @property
    def left_out(self) -> str:
        """What was left out, in words; "" where nothing was."""
        parts = []
        if self.other:
            count = sum(count for _, count in self.other)
            endings = ", ".join(ending or "no ending" for ending, _ in self.other[:5])
            more = ", ..." if len(self.other) > 5 else ""
            heif = next((ending for ending, _ in self.other if ending in HEIF_ENDINGS), None)
            remedy = f"; for {heif} install pillow-heif" if heif else ""
            parts.append(f"{_counted(count, 'file')} without an image's ending ({endings}{more}{remedy})")
        if self.hidden:
            parts.append(f"{self.hidden} hidden")
        if self.again:
            parts.append(f"{_counted(self.again, 'link')} to folders that are listed already")
        if self.unreadable:
            parts.append(f"{_counted(self.unreadable, 'folder')} that cannot be read")
        return ", ".join(parts)


@dataclass(frozen=True)
class WalkedFolder:
    """The files below a folder; for what is left out see `ImageListing`."""

    files: tuple[Path, ...]
    hidden: int
    again: int
    unreadable: int


def walk(folder: Path, without: Path | None = None) -> WalkedFolder:
    """All files in a folder and its subfolders, sorted, also those behind links, each folder once.

    Hidden ones are left out, and the folders in which other programs keep copies (`@eaDir`, `__MACOSX`).

    Args:
        folder: to be searched.
        without: a file or folder in it that is passed over without being counted, such as the results of an earlier
            run; ignored where it is `folder` itself.
    """
    passed = without.resolve() if without is not None and without.resolve() != folder.resolve() else None
    files: list[Path] = []
    hidden = again = unreadable = 0
    seen: set[tuple[int, int]] = set()
    waiting, links = [folder], list[Path]()
    while waiting or links:
        # Links come last, so that a folder is listed by its own path where it has one in here.
        here = waiting.pop() if waiting else links.pop(0)
        try:
            stat = here.stat()
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError:
            unreadable += 1
            continue
        if (stat.st_dev, stat.st_ino) in seen:
            again += 1
            continue
        seen.add((stat.st_dev, stat.st_ino))
        for entry in entries:
            path = here / entry.name
            is_folder = _is_folder(entry)
            if passed is not None and path.resolve() == passed:
                continue
            if entry.name.startswith("."):
                hidden += is_folder or is_image_file(path)
            elif is_folder and entry.name in _OF_OTHERS:
                hidden += 1
            elif is_folder:
                (links if entry.is_symlink() else waiting).append(path)
            else:
                files.append(path)
    return WalkedFolder(tuple(sorted(files)), hidden, again, unreadable)


def list_images(folder: Path, without: Path | None = None) -> ImageListing:
    """The images in a folder and its subfolders; for arguments see `walk`."""
    found = walk(folder, without)
    files = tuple(path for path in found.files if is_image_file(path))
    captions = {caption_file(file) for file in files}
    others = (path for path in found.files if not is_image_file(path) and path not in captions)
    endings = Counter(path.suffix.lower() for path in others)
    other = tuple(sorted(endings.items(), key=lambda pair: (-pair[1], pair[0])))
    return ImageListing(files, other, found.hidden, found.again, found.unreadable)


def expand_braces(text: str) -> list[str]:
    """`a-{00..02}.tar` and `{a,b}.tar` as a shell expands them; a number keeps its width."""
    parts = _BRACES.split(text)
    choices = [_choices(part) if i % 2 else [part] for i, part in enumerate(parts)]
    return ["".join(chosen) for chosen in product(*choices)]


def named_files(sources: str | Path | Iterable[str | Path], without: Path | None = None) -> list[File]:
    """The images, tar shards, captions files and folders of images that `sources` name, in order, as they are named.

    Args:
        sources: one or several of: an image, a shard or a captions file, a brace range, a wildcard, or a folder: its
            shards (`*.tar`), else its only captions file, else its images; the same at an address, but no images.
        without: a file or folder that is not a captions file, such as the results of an earlier run.

    Raises:
        InputError: nothing there, something else than files of these kinds, a file named twice.
    """
    given = [sources] if isinstance(sources, (str, Path)) else list(sources)
    files = [file for source in given for file in _files(str(source), without)]
    if not files:
        raise InputError("no data was named: give images, tar shards, a folder or a captions file")
    seen: set[File] = set()
    for file in map(plain_file, files):
        if file in seen:
            raise InputError(f"{file} is named twice: name each file once")
        seen.add(file)
    return files


def names_one_image(source: str) -> bool:
    """Whether `source` can only mean one image file, there or not; not a folder, list, range or wildcard."""
    path = Path(source)
    name = path.name.lower()
    if is_address(source) or name.endswith((".tar", *_PACKED, *CAPTION_FILES)):
        return False
    try:
        if path.exists():
            return not path.is_dir()
    except (OSError, ValueError):  # a name that is too long: reading it raises the error
        return True
    return not any(mark in source for mark in "{*?[")


def plain_path(path: Path) -> Path:
    """An absolute path without "..", for a shard is called by its folder's name; links that follow keep their names."""
    parts = path.absolute().parts
    last = max((number for number, part in enumerate(parts) if part == ".."), default=-1) + 1
    return Path(*parts[:last]).resolve().joinpath(*parts[last:]) if last else Path(*parts)


def plain_file(file: File) -> File:
    """`plain_path` of what is here; an address as it is."""
    return file if isinstance(file, RemoteFile) else plain_path(file)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _choices(inside: str) -> list[str]:
    found = _RANGE.fullmatch(inside)
    if not found:
        return inside.split(",")
    first, last = found.groups()
    step = 1 if int(first) <= int(last) else -1
    width = len(first) if first.startswith("0") or last.startswith("0") else 0
    return [str(number).zfill(width) for number in range(int(first), int(last) + step, step)]


def _files(source: str, without: Path | None) -> list[File]:
    if is_address(source):
        return list(remote_files(source, (".tar", *CAPTION_FILES)))
    if source.startswith("pipe:"):
        raise InputError(f"{source} is a program's output, which allows no random access: save it first")
    if Path(source).exists():
        return _one(Path(source), without)
    if "{" in source:
        paths = [Path(text) for text in expand_braces(source)]
        missing = [path for path in paths if not path.exists()]
        if missing:
            raise InputError(
                f"{len(missing)} of the {len(paths)} files of {source} do not exist, first {missing[0]}: "
                "check the range"
            )
        return [file for path in paths for file in _one(path, without)]
    if any(mark in source for mark in "*?["):
        path = Path(source)
        anchor = Path(path.anchor) if path.is_absolute() else Path()
        found = sorted(anchor.glob(str(path.relative_to(anchor))))
        if not path.name.startswith("."):  # as in a shell
            found = [match for match in found if not match.name.startswith(".")]
        if found:
            return [file for match in found for file in _one(match, without)]
    raise InputError(f"{source} does not exist: check the path")


def _one(path: Path, without: Path | None) -> list[File]:
    if path.is_dir():
        return _in_folder(path, without)
    if path.name.lower().endswith(_PACKED):
        raise InputError(f"{path} is compressed, which allows no random access: unpack it to .tar first")
    if path.suffix.lower() in (".tar", *CAPTION_FILES) or is_image_file(path):
        return [path]
    raise InputError(
        f"{path} is neither an image, a .tar shard nor a captions file ({', '.join(CAPTION_FILES)}), by its ending"
    )


def _in_folder(folder: Path, without: Path | None) -> list[File]:
    from ttd.data.captions_file import looks_like_captions

    visible = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    shards = [path for path in visible if path.suffix.lower() == ".tar"]
    if shards:
        if images := sum(map(is_image_file, visible)):
            log.warning("%s: left out %s, because the folder holds .tar shards.", folder, _counted(images, "image"))
        return list[File](shards)
    ours = without.resolve() if without is not None else None
    # Parquet beside images is img2dataset's record of them: read only where it is named.
    lists = [path for path in visible if path.suffix.lower() in CAPTION_FILES[:-2] and path.resolve() != ours]
    lists = [path for path in lists if looks_like_captions(path)]
    if len(lists) > 1:
        raise InputError(f"{folder} has {len(lists)} captions files and no .tar shards: name the one to use")
    if lists or any(map(is_image_file, visible)):
        return list[File](lists or [folder])
    return _tables(folder, visible) or [folder]


def _tables(folder: Path, visible: list[Path]) -> list[File]:
    """The tables of a data set of Hugging Face, in the folder or in its `data`, those with images."""
    from ttd.data.image_table import TABLE_ENDINGS, holds_images

    inner = folder / "data"
    if (folder / "dataset_dict.json").is_file():
        splits = ", ".join(path.name for path in visible if path.is_dir())
        raise InputError(f"{folder} holds several splits ({splits}): name the folder of one")
    files = visible + (sorted(inner.iterdir()) if inner.is_dir() else [])
    return [path for path in files if path.suffix.lower() in TABLE_ENDINGS and holds_images(path)]
