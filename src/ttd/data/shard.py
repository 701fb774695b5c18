"""What tars, captions files and folders of images have in common: a numbered set of pairs on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ttd.data.listing import plain_path
from ttd.data.remote import File, RemoteFile

if TYPE_CHECKING:
    import pyarrow as pa

    from ttd.data.bad_samples import BadSample

MOST_BYTES = 1 << 28  # of one image, so that a broken size cannot exhaust the memory


class Shard(Protocol):
    """A numbered set of pairs on disk.

    Attributes:
        name: folder and file name, the same wherever the folder lies.
        size: bytes of the file.
        damage: what is wrong with the shard itself, None where nothing is.
    """

    name: str
    size: int
    damage: BadSample | None

    @property
    def path(self) -> File:
        """The file, here or elsewhere."""
        ...

    def __len__(self) -> int:
        """Pairs, the damaged ones included."""
        ...

    def keys(self) -> pa.Array:
        """All keys, in order."""
        ...

    def key(self, row: int) -> str:
        """One key."""
        ...

    def captions(self, row: int) -> tuple[str, ...]:
        """At least one caption, or `BadSample`."""
        ...

    def file(self, row: int) -> Path | None:
        """The image's own file; None where it has none that may be read."""
        ...

    def image_bytes(self, row: int) -> bytes:
        """The encoded image, or `BadSample`."""
        ...

    def record(self, row: int) -> dict[str, Any]:
        """What else is known of the pair, by name; empty where that is nothing."""
        ...

    def tags(self, row: int) -> tuple[tuple[str, ...], ...]:
        """The words that the pair carries for each of its captions; `InputError` where it carries none."""
        ...


class PathKeys:
    """Keys that are the images' paths, held in memory."""

    _keys: list[str]

    def __len__(self) -> int:
        """Images."""
        return len(self._keys)

    def keys(self) -> pa.Array:
        """All images' paths, in order."""
        import pyarrow as pa

        return pa.array(self._keys, pa.string())

    def key(self, row: int) -> str:
        """An image's path."""
        return self._keys[row]


def shard_name(path: File) -> str:
    """The folder's name and the file's: what score files, keep-lists and reports call a shard."""
    if isinstance(path, RemoteFile):
        return path.shard_name
    path = plain_path(path)
    return f"{path.parent.name}/{path.name}" if path.parent.name else path.name
