"""Reading pickle files that hold plain data and nothing else."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from ttd.errors import InputError


class _Refused(Exception):
    """The file asks for something that is no plain data."""


# The slower unpickler written in Python: the one in C can be made to claim any amount of memory by one instruction.
class _PlainUnpickler(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise _Refused(f"it asks for {module}.{name}"[:200])

    def get_extension(self, code: int) -> None:
        raise _Refused("it asks for an object that this program registered")

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("it asks for an object that is stored elsewhere")


def read_plain_pickle(path: Path) -> Any:
    """The dictionaries, lists, tuples, sets, texts, bytes, numbers, True, False and None of a pickle file.

    No class or function is ever looked up, so nothing in the file can run. Texts that Python 2 wrote as bytes are read
    as UTF-8.

    Raises:
        InputError: missing, damaged, or it holds anything else.
    """
    try:
        with path.open("rb") as stream:
            return _PlainUnpickler(stream, encoding="utf-8", errors="surrogateescape").load()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: get the data set's annotations and give their folder") from None
    except _Refused as error:
        raise InputError(
            f"{path} is refused, because it could run code: {error}; get the file from the data set's own site"
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check the file and its folder") from None
    # A damaged stack of instructions fails in any way: EOFError, IndexError, KeyError, struct.error, MemoryError ...
    except Exception as error:
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise InputError(f"{path} is no readable pickle file ({reason}): get it again") from None
