"""Where results go: files, records, the log, and text that a terminal can show."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ttd import __version__
from ttd.errors import InputError
from ttd.files.safe_paths import file_part
from ttd.text.words import printable

if TYPE_CHECKING:
    from PIL import Image
    from tqdm import tqdm

    from ttd.data.bad_samples import BadSampleReport

MOST_LISTED = 20  # skipped items named on the terminal
MOST_BAD = 10  # and damaged pairs; the report names them all
_OTHER_FORMATS = frozenset({".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".pdf", ".svg", ".json", ".csv"})


@dataclass(frozen=True)
class Place:
    """Where results go.

    Attributes:
        folder: for images; None where only results are wanted.
        stem: beginning of the images' names.
        results: the JSON lines of a run over many images.
    """

    folder: Path | None
    stem: str = ""
    results: Path = Path("results.jsonl")

    @classmethod
    def for_one(cls, out: str | None, image: Path) -> Place | None:
        """`out` as a PNG file or a folder, tried out before a model is loaded."""
        if out is None:
            return None
        path = Path(out)
        if path.suffix.lower() == ".png" and not path.is_dir():
            return cls(writable_folder(path.parent), path.stem)
        if not path.is_dir() and path.suffix.lower() in _OTHER_FORMATS | {".jsonl"}:
            raise InputError(f"--out {path}: images are written as PNG; name it {path.stem}.png or give a folder.")
        return cls(writable_folder(path), image.stem)

    @classmethod
    def for_many(cls, out: str, ranks: tuple[int, int] = (0, 1)) -> Place:
        """`out` as a folder, or as FILE.jsonl for results without images; this rank's until the command ends."""
        path = Path(out)
        if path.suffix.lower() == ".jsonl":
            run_folder(path.parent, *ranks, name=path.name)
            return cls(None, results=path)
        if path.suffix.lower() in _OTHER_FORMATS | {".png"} and not path.is_dir():
            raise InputError(f"--out {path}: for many images give a folder, or FILE.jsonl for results alone.")
        return cls(run_folder(path, *ranks), results=path / "results.jsonl")

    def for_item(self, name: str) -> Place:
        """The place of one item's images: its id `name`, made safe as a relative path."""
        assert self.folder is not None
        parts = [part for part in name.replace(os.sep, "/").split("/") if part not in ("", ".", "..")]
        *folders, name = [file_part(part) for part in parts] or ["image"]
        return Place(self.folder.joinpath("images", *folders), name, self.results)


def writable_folder(folder: Path) -> Path:
    """Makes the folder and tries to write in it."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; choose a folder for --out.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".ttd-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except NotADirectoryError:
        raise InputError(f"{folder} is inside a file, not a folder; choose another --out.") from None
    return folder


def run_folder(folder: Path, rank: int = 0, world: int = 1, *, name: str = "") -> Path:
    """As `writable_folder`; it is this process's until the command ends, see `ttd.runs.lock`."""
    from ttd.runs.lock import RunLock

    writable_folder(folder)
    click.get_current_context().with_resource(RunLock(folder, rank, world, name=name))
    return folder


def write_files(
    images: Mapping[str, Callable[[], Image.Image]], data: Mapping[str, Callable[[], bytes]], place: Place
) -> list[str]:
    """Draws and saves; gives the paths. The main image has the plain name, the others an ending.

    Args:
        images: by ending, "" for the main one.
        data: the content of other files, by suffix.
        place: where they go.
    """
    from ttd.files import write_file
    from ttd.viz.overlays import save_png

    assert place.folder is not None
    written = []
    for ending, draw in images.items():
        path = place.folder / (f"{place.stem}-{ending}.png" if ending else f"{place.stem}.png")
        save_png(draw(), path)
        written.append(str(path))
    for suffix, content in data.items():
        path = place.folder / f"{place.stem}{suffix}"
        write_file(path, content())
        written.append(str(path))
    return written


def say(text: str, *, err: bool = False) -> None:
    """A line that does not tear a progress bar apart."""
    if "tqdm" not in sys.modules:  # then there is no bar
        click.echo(text, err=err)
        return
    from tqdm import tqdm

    with tqdm.external_write_mode(file=sys.stderr if err else sys.stdout):
        click.echo(text, err=err)


def print_skipped(skipped: Sequence[tuple[str, str]], more: str = "", *, most: int = MOST_LISTED) -> None:
    """Names what was skipped, an id and a reason each, on stderr; `more` says where the rest of a long list is."""
    for name, reason in skipped[:most]:
        click.echo(f"  skipped {printable(name)}: {printable(reason)}", err=True)
    if len(skipped) > most:
        click.echo(f"  … and {len(skipped) - most:,} more{more}", err=True)


def width(text: str) -> int:
    """Columns that `text` takes in a terminal."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    flat = sum(unicodedata.combining(c) > 0 or c in "\u200d\ufe0e\ufe0f" for c in text)
    return len(text) + wide - flat


def padded(text: str, columns: int) -> str:
    """`text` filled up with spaces, or cut, to exactly `columns` in a terminal."""
    text = printable(text)
    if width(text) > columns:
        while text and width(text) > columns - 1:
            text = text[:-1]
        text += "…"
    return text + " " * (columns - width(text))


def bar(share: float, columns: int) -> str:
    """A bar of `share` 0..1 of `columns`, in eighths of a character."""
    eighths = round(min(max(share, 0.0), 1.0) * columns * 8)
    return "█" * (eighths // 8) + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[eighths % 8]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns under a head, at most 60 wide each."""
    columns = [min(60, max(width(printable(row[i])) for row in [head, *rows])) for i in range(len(head))]
    lines = [head, tuple("-" * n for n in columns), *rows]
    return "\n".join(
        "  ".join(padded(cell, n) for cell, n in zip(line, columns, strict=True)).rstrip() for line in lines
    )


def terminal_width() -> int:
    """Columns of the terminal, 80 where there is none."""
    return shutil.get_terminal_size((80, 24)).columns


def pairs_bar(total: int, rank: int = 0) -> tqdm[Any]:
    """A progress bar over pairs, on the terminal of rank 0 only."""
    from tqdm import tqdm

    return tqdm(total=total, unit="pair", disable=None if rank == 0 else True, file=sys.stderr)


def write_record(path: Path, record: dict[str, Any]) -> None:
    """A JSON file, whole or not at all, with the command and the version that made it."""
    from ttd.files import write_file
    from ttd.runs import command

    text = json.dumps({"command": command(), "version": __version__, **record}, indent=1)
    write_file(path, text + "\n", errors="backslashreplace")


def print_bad_samples(report: BadSampleReport, path: Path | None) -> int:
    """Writes the report, says on stderr what was skipped; gives the exit code: 0, or 1 with damage."""
    if path is not None:
        report.write(path)
    if not len(report):
        return 0
    record = report.to_dict()
    click.echo(f"{report.summary()}.", err=True)
    listed = [*record["shards"], *record["samples"]]
    for damage in listed[:MOST_BAD]:
        place = "/".join(part for part in (damage["shard"], damage["key"]) if part)
        reason = f"{damage['reason']}: {damage['detail']}" if damage["detail"] else damage["reason"]
        click.echo(f"  {printable(place)}: {printable(reason)}", err=True)
    if len(report) > MOST_BAD:
        click.echo(f"  … and {len(report) - MOST_BAD:,} more", err=True)
    if path is not None:
        click.echo(f"All are named in {printable(str(path))}.", err=True)
    return 1


def start_logging(verbose: bool) -> None:
    """The package's log goes to stderr: warnings, with `verbose` also what it is doing."""
    logger = logging.getLogger("ttd")
    handler = _Stderr()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if verbose else logging.WARNING)
    click.get_current_context().call_on_close(lambda: logger.removeHandler(handler))


class _Stderr(logging.Handler):
    """The package's log on stderr, above any progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; what goes wrong is logging's to tell."""
        try:
            say(self.format(record), err=True)
        except Exception:
            self.handleError(record)
