"""What a user names as data -> the files that are meant."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import product
from pathlib import Path

from ttd.errors import InputError

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_PACKED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
CAPTION_FILES = (".csv", ".tsv", ".jsonl", ".json")
IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".avif", ".jp2")
)


def expand_braces(text: str) -> list[str]:
    """`a-{00..02}.tar` and `{a,b}.tar` as a shell expands them; a number keeps its width."""
    parts = _BRACES.split(text)
    choices = [_choices(part) if i % 2 else [part] for i, part in enumerate(parts)]
    return ["".join(chosen) for chosen in product(*choices)]


def images_in(folder: Path) -> list[Path]:
    """The images in a folder and its subfolders, by their endings, sorted; hidden files are left out."""
    found = folder.rglob("*")
    return sorted(path for path in found if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."))


def caption_file(image: Path) -> Path:
    """Where an image of a plain folder has its caption: NAME.txt beside it."""
    return image.with_suffix(".txt")


def data_files(sources: str | Path | Iterable[str | Path]) -> list[Path]:
    """The tar shards, captions files and folders of images that `sources` name, in order, absolute and without "..".

    Args:
        sources: one or several of: a shard or captions file, a brace range, a wildcard, a folder with
            shards (its `*.tar`), with exactly one captions file, or of images with `NAME.txt` beside them.

    Raises:
        InputError: nothing there, something else than local shards or captions files, a file named twice.
    """
    given = [sources] if isinstance(sources, (str, Path)) else list(sources)
    files = [_plain(file) for source in given for file in _files(str(source))]
    if not files:
        raise InputError("no data was named: give tar shards, a folder or a captions file")
    seen: set[Path] = set()
    for file in files:
        if file in seen:
            raise InputError(f"{file} is named twice: name each file once")
        seen.add(file)
    return files


def _plain(path: Path) -> Path:
    """An absolute path without "..", for a shard is called by its folder's name; links that follow keep their names."""
    parts = path.absolute().parts
    last = max((number for number, part in enumerate(parts) if part == ".."), default=-1) + 1
    return Path(*parts[:last]).resolve().joinpath(*parts[last:]) if last else Path(*parts)


def _choices(inside: str) -> list[str]:
    found = _RANGE.fullmatch(inside)
    if not found:
        return inside.split(",")
    first, last = found.groups()
    step = 1 if int(first) <= int(last) else -1
    width = len(first) if first.startswith("0") or last.startswith("0") else 0
    return [str(number).zfill(width) for number in range(int(first), int(last) + step, step)]


def _files(source: str) -> list[Path]:
    if "://" in source or source.startswith("pipe:"):
        raise InputError(f"{source} is no local path: download the shards first")
    if Path(source).exists():
        return _one(Path(source))
    if "{" in source:
        paths = [Path(text) for text in expand_braces(source)]
        missing = [path for path in paths if not path.exists()]
        if missing:
            raise InputError(
                f"{len(missing)} of the {len(paths)} files of {source} do not exist, first {missing[0]}: "
                "check the range"
            )
        return [file for path in paths for file in _one(path)]
    if any(mark in source for mark in "*?["):
        path = Path(source)
        anchor = Path(path.anchor) if path.is_absolute() else Path()
        found = sorted(anchor.glob(str(path.relative_to(anchor))))
        if found:
            return [file for match in found for file in _one(match)]
    raise InputError(f"{source} does not exist: check the path")


def _one(path: Path) -> list[Path]:
    if path.is_dir():
        return _in_folder(path)
    if path.name.lower().endswith(_PACKED):
        raise InputError(f"{path} is compressed, which allows no random access: unpack it to .tar first")
    if path.suffix.lower() == ".tar" or path.suffix.lower() in CAPTION_FILES:
        return [path]
    raise InputError(f"{path} is neither a .tar shard nor a captions file (.csv, .tsv, .jsonl, .json)")


def _in_folder(folder: Path) -> list[Path]:
    shards = sorted(path for path in folder.glob("*.tar") if not path.name.startswith("."))
    if shards:
        return list(shards)
    lists = sorted(path for path in folder.iterdir() if path.suffix.lower() in CAPTION_FILES)
    if len(lists) == 1:
        return lists
    if not lists and images_in(folder):
        return [folder]
    if lists:
        raise InputError(
            f"{folder} has no .tar shards and {len(lists)} captions files where one is needed: name the file itself"
        )
    raise InputError(f"{folder} has no .tar shards, no captions file and no images: name the folder that holds them")
