"""From an error to one sentence on stderr and an exit code, also where a stream is closed or knows few characters."""

from __future__ import annotations

import codecs
import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from ttd.errors import TTDError, is_out_of_memory
from ttd.files import DISK_FULL

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


INTERRUPTED, TERMINATED, PIPE_CLOSED = 130, 143, 141
# Since click 8.2 a group without a command raises its whole help as an error; before, it printed it.
_NO_ARGUMENTS: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())
_MEMORY = (
    "Not enough memory; use a smaller model or do less at once: --size, --batch, --dtype where the command has them, "
    "for training --set optimiser.micro_batch=1 and --set run.gradient_checkpointing=true."
)


class Terminated(BaseException):
    """SIGTERM arrived: unwinds like Ctrl-C, so that what is open is closed."""


class PipeClosed(BaseException):
    """Nobody reads our output any more: no error, nothing to say. Click would turn it into exit code 1."""


def exit_code(run: Callable[[], Any]) -> int:
    """Calls `run` and gives the exit code of its result or its error, after the error's
    sentence.
    """
    try:
        with _terminable():
            prepare_streams()
            code = run()
            if sys.stdout is not None:
                sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (BrokenPipeError, PipeClosed):
        silence_stdout()
        return PIPE_CLOSED
    except BaseException as error:
        if isinstance(error, _NO_ARGUMENTS):
            error.show()
            return 2
        told = sentence(error)
        if told is None:
            raise
        if isinstance(error, OSError):
            silence_stdout()
        message, code = told
        click.echo(f"ttd: {message}{'' if message.endswith(('.', ')')) else '.'}", err=True)
        return code


def sentence(error: BaseException) -> tuple[str, int] | None:
    """The sentence and the exit code of an error that a user can do something about, None for a bug of
    ours.
    """
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return "Stopped; what was written is complete.", INTERRUPTED
    if isinstance(error, Terminated):
        return "Terminated; what was written is complete.", TERMINATED
    if isinstance(error, click.UsageError):
        name = error.ctx.command_path if error.ctx else "ttd"
        return f"{_one_line(error.format_message())} ({name} --help shows the use.)", 2
    if isinstance(error, click.ClickException):
        return _one_line(error.format_message()), 2
    if isinstance(error, TTDError):
        return _one_line(str(error)), 2
    if is_out_of_memory(error):
        return _MEMORY, 2
    if isinstance(error, OSError) and error.errno is not None:
        return _file_sentence(error), 2
    if isinstance(error, UnicodeEncodeError):
        text = error.object[max(0, error.start - 40) : error.end + 20]
        shown = text.encode("ascii", "backslashreplace").decode()
        return f'"{_one_line(shown)}" holds a byte that is not UTF-8, or half a character; rename the file or id', 2
    return None


def _file_sentence(error: OSError) -> str:
    name = f" {_one_line(os.fsdecode(error.filename))}" if isinstance(error.filename, (str, bytes)) else ""
    if error.errno in DISK_FULL:
        return f"The disk is full{' at' + name if name else ''}; free some space and run the same command again."
    if error.errno == errno.EFBIG:
        place = f" at{name}" if name else ""
        return f"The disk, or a limit of the system (ulimit -f), takes no larger file{place}; use another place."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"No permission for{name or ' a file'}; choose another place or change its rights."
    return f"Cannot use{name or ' a file'}: {(error.strerror or str(error)).lower()}."


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


@contextmanager
def _terminable() -> Iterator[None]:
    """Turns SIGTERM into `Terminated` inside the block; only the main thread may set a handler."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handler(number: int, frame: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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
