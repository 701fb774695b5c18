"""From an error to one sentence on stderr and an exit code."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from ttd.cli.streams import prepare_streams, silence_stdout
from ttd.errors import TTDError, is_out_of_memory
from ttd.files import DISK_FULL

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
    """Calls `run` and gives the exit code that its result or its error stands for, after the error's
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
