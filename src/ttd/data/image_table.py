"""Tables that hold their images: the Parquet of img2dataset, and the Parquet and Arrow of Hugging Face's `datasets`.

They may be local or elsewhere, and are read a row group (Arrow: a record batch) at a time, in any order.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from itertools import accumulate
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ttd.data.bad_samples import MISSING_IMAGE, BadSample
from ttd.data.list_rows import IMAGE_NAMES, TEXT_NAMES
from ttd.data.remote import File, RemoteFile, Vanished
from ttd.data.shard import MOST_BYTES, NoCaption, from_record, shard_name
from ttd.data.tar_shard import are_tags
from ttd.errors import InputError
from ttd.files.safe_paths import file_below
from ttd.files.schema import brief
from ttd.lru_cache import LRUCache

TABLE_ENDINGS = (".parquet", ".arrow")
# Columns that may hold images: img2dataset names one by the format, publishers of data sets as they like.
_IMAGES = ("image", "img", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes")
_KEYS = ("key", "__key__", "id", "image_id", *IMAGE_NAMES)
_DAMAGE = (pa.ArrowException, OSError, ValueError, EOFError, LookupError)
_HELD = 512 << 20  # bytes of row groups that a process keeps

_STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"

_pieces: LRUCache[tuple[str, int], pa.Table] = LRUCache(_HELD, lambda table: int(table.nbytes))
_reading = threading.Lock()


def holds_images(path: File) -> bool:
    """Whether a Parquet or Arrow file has a column of encoded images.

    Raises:
        InputError: it is no such file, or damaged.
    """
    try:
        with path.open("rb") as file:
            return _image_column(_schema(path, file)) is not None
    except _DAMAGE as error:
        raise _unreadable(path, error) from None


class ImageTable:
    """See `ttd.data.shard.Shard`. A key is what a column `key`, `id` ... says, else the image's path, else the row.

    Args:
        path: a Parquet or Arrow file for which `holds_images` is true.

    Raises:
        InputError: it is damaged, or has no column of captions.
    """

    damage: BadSample | None = None

    def __init__(self, path: File) -> None:
        self.path, self.name = path, shard_name(path)
        self.size = path.state[0] if isinstance(path, RemoteFile) else path.stat().st_size
        try:
            with path.open("rb") as file:
                schema = _schema(path, file)
                self._ends, self._places = _outline(path, file)
        except _DAMAGE as error:
            raise _unreadable(path, error) from None
        self._image = str(_image_column(schema))
        names = {name.lower(): name for name in schema.names}
        self._texts = [names[name] for name in TEXT_NAMES if name in names]
        if not self._texts:
            raise InputError(
                f"{path} has no captions: its columns are {', '.join(schema.names)}, and one must be called "
                f"{', '.join(TEXT_NAMES)}"
            )
        plain = [f.name for f in schema if pa.types.is_primitive(f.type) or f.type in (pa.string(), pa.large_string())]
        self._others = [name for name in plain if name not in self._texts] + [n for n in ("tags",) if n in schema.names]
        self._wanted = list(dict.fromkeys([self._image, *self._texts, *self._others]))
        self._keys = self._find_keys([names[name] for name in _KEYS if name in names], schema)

    def __len__(self) -> int:
        """Rows."""
        return self._ends[-1] if self._ends else 0

    def keys(self) -> pa.Array:
        """All keys, in order."""
        return pa.array(self._keys, pa.string())

    def key(self, row: int) -> str:
        """One key."""
        return self._keys[row]

    def captions(self, row: int) -> tuple[str, ...]:
        """A text or a list of texts, of the first column of captions that has one."""
        record = {name.lower(): self._value(row, name) for name in self._texts}
        try:
            return from_record(record, TEXT_NAMES)
        except NoCaption as error:
            raise BadSample(error.reason, self.name, self._keys[row], error.detail) from None

    def file(self, row: int) -> None:
        """None: images are in the table."""

    def image_bytes(self, row: int) -> bytes:
        """The encoded image; of a row that has only a path, the file there, where it lies in the table's folder."""
        value = self._value(row, self._image)
        data, named = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
        detail = ""
        if not data and named and isinstance(self.path, Path):
            place = file_below(self.path.parent, named)
            detail = "its path leads out of the table's folder" if place is None else ""
            try:
                data = place.read_bytes()[:MOST_BYTES] if place is not None else None
            except (OSError, ValueError) as error:
                detail = getattr(error, "strerror", None) or str(error)
        if not data:
            raise BadSample(MISSING_IMAGE, self.name, self._keys[row], detail)
        return bytes(data)

    def record(self, row: int) -> dict[str, Any]:
        """The other columns of plain values."""
        return {name: self._value(row, name) for name in self._others}

    def tags(self, row: int) -> tuple[tuple[str, ...], ...]:
        """The column "tags": a list of words for every caption."""
        tags: Any = self.record(row).get("tags")
        if not are_tags(tags) or len(tags) != len(self.captions(row)):
            raise InputError(f"{self.path} has no words for its captions: name a file or folder with --tags")
        return tuple(tuple(words) for words in tags)

    def _find_keys(self, columns: list[str], schema: pa.Schema) -> list[str]:
        """The first column that names every row, each differently."""
        inner = schema.field(self._image).type
        has_path = pa.types.is_struct(inner) and inner.get_field_index("path") >= 0
        for column in dict.fromkeys([*columns, self._image]):
            kind = schema.field(column).type
            plain = pa.types.is_integer(kind) or kind in (pa.string(), pa.large_string())
            if not (has_path if column == self._image else plain):
                continue
            values: list[Any] = []
            for number in range(len(self._ends)):
                read = f"{column}.path" if column == self._image and self.path.suffix.lower() == ".parquet" else column
                found = self._read(number, [read]).column(column)
                values += (pc.struct_field(found, "path") if column == self._image else found).to_pylist()
            keys = [str(value).encode("utf-8", "replace").decode() for value in values]
            if None not in values and "" not in values and len(set(keys)) == len(keys):
                return keys
        return [f"{row:09d}" for row in range(len(self))]

    def _value(self, row: int, column: str) -> Any:
        number = bisect_right(self._ends, row)
        piece = _pieces.get((str(self.path), number))
        if piece is None:
            with _reading:  # threads ask for one row group at once
                piece = _pieces.get((str(self.path), number))
                if piece is None:
                    try:
                        piece = self._read(number, self._wanted)
                    except Vanished as gone:
                        raise BadSample(gone.reason, self.name, self._keys[row], gone.detail) from None
                    _pieces.put((str(self.path), number), piece)
        before = self._ends[number - 1] if number else 0
        return piece.column(column)[row - before].as_py()

    def _read(self, number: int, columns: list[str]) -> pa.Table:
        """Some columns of a row group, or of a record batch."""
        try:
            with self.path.open("rb") as file:
                piece = self._piece(file, number, columns)
            piece.validate(full=True)  # a damaged length would be believed, to the last byte of memory and beyond
            return piece
        except InputError:
            raise
        except _DAMAGE as error:
            raise _unreadable(self.path, error) from None

    def _piece(self, file: BinaryIO, number: int, columns: list[str]) -> pa.Table:
        if self.path.suffix.lower() == ".parquet":
            return pq.ParquetFile(file, page_checksum_verification=True).read_row_group(number, columns=columns)
        source = _arrow_source(file)
        if self._places[0] < 0:
            return pa.Table.from_batches([pa.ipc.open_file(source).get_batch(number)]).select(columns)
        schema = pa.ipc.read_schema(pa.ipc.read_message(source))
        source.seek(self._places[number])
        return pa.Table.from_batches([pa.ipc.read_record_batch(pa.ipc.read_message(source), schema)])


class _WithinFile:
    """A file that is never asked for more than it holds: memory would be taken for a damaged length first."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._size = file, file.seek(0, 2)
        self.seek, self.tell, self.closed = file.seek, file.tell, False
        file.seek(0)

    def read(self, size: int = -1) -> bytes:
        left = max(self._size - self._file.tell(), 0)
        return self._file.read(left if size < 0 else min(size, left))


def _arrow_source(file: BinaryIO) -> pa.PythonFile:
    return pa.PythonFile(_WithinFile(file), mode="r")


def _unreadable(path: File, error: BaseException) -> InputError:
    if isinstance(error, InputError):
        return error
    return InputError(f"{path} cannot be read as {path.suffix[1:].capitalize()} ({brief(str(error))}): make it again")


def _schema(path: File, file: BinaryIO) -> pa.Schema:
    found = _read_schema(path, file)
    for names in (found, *(field.type for field in found if pa.types.is_struct(field.type))):
        list(map(attrgetter("name"), names))  # pyarrow decodes a name when it is asked for: a damaged one raises here
    return found


def _read_schema(path: File, file: BinaryIO) -> pa.Schema:
    if path.suffix.lower() == ".parquet":
        return pq.ParquetFile(file).schema_arrow
    source = _arrow_source(file)
    if file.read(6) == b"ARROW1":
        return pa.ipc.open_file(source).schema
    file.seek(0)
    return pa.ipc.read_schema(pa.ipc.read_message(source))


def _outline(path: File, file: BinaryIO) -> tuple[list[int], list[int]]:
    """Where the rows of each piece end, and its place in a stream of record batches (-1: it is not a stream)."""
    file.seek(0)
    if path.suffix.lower() == ".parquet":
        about = pq.ParquetFile(file).metadata
        counts = [about.row_group(number).num_rows for number in range(about.num_row_groups)]
        return list(accumulate(counts)), [-1] * len(counts)
    source = _arrow_source(file)
    if file.read(6) == b"ARROW1":
        batches = pa.ipc.open_file(source)
        counts = [batches.get_batch(number).num_rows for number in range(batches.num_record_batches)]
        return list(accumulate(counts)), [-1] * len(counts)
    file.seek(0)
    schema = pa.ipc.read_schema(pa.ipc.read_message(source))
    counts, places = list[int](), list[int]()
    while True:
        place = source.tell()
        try:
            message = pa.ipc.read_message(source)
        except EOFError:
            file.seek(-len(_STREAM_END), 2)
            if file.read() != _STREAM_END:  # else one that was cut off between two batches would seem whole
                raise ValueError("it has no end mark") from None
            return list(accumulate(counts)), places
        if message.type != "record batch":
            raise ValueError(f"it holds a {message.type}: write it without dictionaries")
        counts.append(pa.ipc.read_record_batch(message, schema).num_rows)
        places.append(place)


def _image_column(schema: pa.Schema) -> str | None:
    for wanted in _IMAGES:
        for field in schema:
            kind = field.type
            if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
                kind = kind.field(kind.get_field_index("bytes")).type
            if field.name.lower() == wanted and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
                return str(field.name)
    return None
