"""stdout and stderr that take every text, and a reader of stdout that goes away.

A terminal, pipe or file in another encoding (a pipe on Windows) gets something readable in the place of what it cannot
show, and JSON stays JSON. A command whose results lie in a folder is not stopped, and has not failed, because nobody
reads its last words.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_HANDLER = "ttd.readable"
_PLAIN = {
    **dict.fromkeys("█▉▊▋▌", "#"),
    **dict.fromkeys("▍▎▏", " "),
    "…": "...",
    "✓": "+",
    "✗": "x",
    "○": "o",
    "—": "-",
}


def prepare_streams() -> None:
    """Makes the process's own streams as described above; those that a caller has put in their place stay."""
    _fill_closed()
    codecs.register_error(_HANDLER, _readable)
    if _is_own(sys.stdout, 1):
        raw = _Output(1, "wb", closefd=False)
        size = io.DEFAULT_BUFFER_SIZE
        given, lines = sys.stdout, sys.stdout.isatty()
        given.flush()
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(raw, size), given.encoding, _HANDLER, line_buffering=lines, write_through=False
        )
    if _is_own(sys.stderr, 2) and isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors=_HANDLER)


def silence_stdout() -> None:
    """Points stdout to nowhere, so that Python's own flush at exit cannot fail a second time."""
    try:
        _to_nowhere(sys.stdout.fileno())
    except (AttributeError, OSError, ValueError):
        return  # no real file is behind it


class _Output(io.FileIO):
    """The file of stdout, that takes what nobody reads where the command's results lie elsewhere."""

    def write(self, data: ReadableBuffer) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            if not _results_lie_elsewhere():
                raise
            _to_nowhere(self.fileno())
            return super().write(data)


def _results_lie_elsewhere() -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and context.params.get("out") is not None


def _is_own(stream: object, number: int) -> bool:
    """Whether a stream is the one with which Python began."""
    return stream is not None and stream is (sys.__stdout__, sys.__stderr__)[number - 1] and _number(stream) == number


def _number(stream: object) -> int:
    try:
        return int(stream.fileno())  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return -1


def _fill_closed() -> None:
    """Opens what was closed at the start (`>&-`): else the next file that is opened would get what is printed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free


def _to_nowhere(number: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


def _readable(error: UnicodeError) -> tuple[str, int]:
    """For characters that an encoding does not have: plain ones, else as JSON writes them."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(char) or _escaped(char) for char in error.object[error.start : error.end]), error.end


def _escaped(char: str) -> str:
    code = ord(char)
    if code < 0x10000:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
