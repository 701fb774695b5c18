"""Errors for the user: each message is one sentence that says what is wrong and what to do."""

from __future__ import annotations

import errno

# What torch says: on the CPU by a bare RuntimeError, where memory cannot be mapped, and where workers share it.
_NO_MEMORY = ("can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory")


class TTDError(Exception):
    """Root of every error that this package raises on purpose; the command line prints it and exits with 2."""


class InputError(TTDError):
    """An image, caption, word, option or file that cannot be used as given."""


class ModelError(TTDError):
    """A model, checkpoint or adapter that is unknown, missing, damaged or does not fit."""


class OtherBaseError(ModelError):
    """An adapter that belongs to another model."""


class OutOfMemory(TTDError):
    """The device's memory was not enough; the message says what to lower."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was not enough, however a library says so: such an error is not about a file's content."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    said = isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _NO_MEMORY)
    return said or isinstance(error, (MemoryError, OutOfMemory))


def memory_for(name: object) -> OutOfMemory:
    """The error for a file that was to be read when there was no memory left, for whatever reason."""
    return OutOfMemory(
        f"not enough memory to read {name}: close what else uses memory, use a smaller model, or make the image "
        "smaller where it is a large one"
    )


class MissingExtra(TTDError):
    """An optional dependency, or its data, that is not installed; the message names the command that does."""


def missing_extra(extra: str, need: str) -> MissingExtra:
    """The error for an optional dependency, with the command that installs it from a clone.

    Args:
        extra: its name in `pyproject.toml`.
        need: what needs what, as the beginning of the sentence.
    """
    return MissingExtra(f"{need}: run `pip install -e '.[{extra}]' -c constraints.txt` in the clone of ttd")
