"""Seeded damage to a file: to its bytes, or to one value in a container that stays valid."""

from __future__ import annotations

import csv
import io
import json
import pickle
import random
import zlib
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load, save

Damage = Callable[[bytes, random.Random], bytes]

# ---------------------------------------------------------------- bytes


def flip(content: bytes, draws: random.Random) -> bytes:
    """One bit."""
    damaged = bytearray(content)
    damaged[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
    return bytes(damaged)


def cut(content: bytes, draws: random.Random) -> bytes:
    """Its end is missing."""
    return content[: draws.randrange(len(content))]


def patch(content: bytes, draws: random.Random) -> bytes:
    """A piece of it is copied over another place."""
    size = draws.randrange(1, 200)
    start, place = draws.randrange(len(content)), draws.randrange(len(content))
    return content[:place] + content[start : start + size] + content[place + size :]


def nest(content: bytes, draws: random.Random) -> bytes:
    """Brackets, thousands deep, somewhere in it or instead of it."""
    deep = draws.choice([b"[", b'{"a":', b"[[{"]) * draws.choice([100, 3_000, 100_000])
    place = draws.randrange(len(content))
    return deep if draws.random() < 0.3 else content[:place] + deep + content[place:]


OTHERS = (
    b"",
    b"\0" * 512,
    b"\x89PNG\r\n\x1a\n" + b"\0" * 64,
    b"PAR1PAR1",
    b"PK\x03\x04",
    b"\xff\xfea\0b\0",
    b"null",
    b"1e999",
)


def swap(content: bytes, draws: random.Random) -> bytes:
    """Another kind of file under its name."""
    return draws.choice(OTHERS)


BYTES: tuple[Damage, ...] = (flip, flip, flip, cut, patch, nest, swap)

# ---------------------------------------------------------------- leaves

HOSTILE: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 2, 3.5, 2**40, 2**70, -(2**70), 10**400, 1e308, float("nan"), float("inf")),
    *("", "x", "x" * 3000, "\0", "\ud800", "NaN", "../secret.txt", "/etc/passwd", "C:\\secret.txt", "..", "con"),
    *([], {}, [None], [[]], [[None]], {"a": None}, ["x", None], [1e999]),
)


def leaf(value: Any, draws: random.Random) -> Any:
    """The value with one of its parts replaced, removed, renamed or nested."""
    value = json.loads(json.dumps(value))
    places = list(_places(value))
    if not places:
        return draws.choice(HOSTILE)
    holder, key = draws.choice(places)
    kind = draws.random()
    if kind < 0.7:
        holder[key] = draws.choice(HOSTILE)
    elif kind < 0.85:
        del holder[key]
    elif kind < 0.93 and isinstance(holder, dict):
        holder[f"{key}x"] = holder.pop(key)
    else:
        for _ in range(draws.choice([30, 200])):
            holder[key] = [holder[key]]
    return value


def _places(value: Any) -> Any:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in list(inner):
        yield value, key
        yield from _places(part)


def json_leaf(content: bytes, draws: random.Random) -> bytes:
    """One value of a JSON file."""
    return json.dumps(leaf(json.loads(content), draws)).encode()


def json_lines_leaf(content: bytes, draws: random.Random) -> bytes:
    """One value of one line."""
    lines = content.splitlines()
    place = draws.randrange(len(lines))
    lines[place] = json.dumps(leaf(json.loads(lines[place]), draws)).encode()
    return b"\n".join(lines) + b"\n"


def sealed_json_leaf(content: bytes, draws: random.Random) -> bytes:
    """One value of JSON whose checksum is in the line before it; the checksum is right again."""
    text = json_leaf(content.partition(b"\n")[2], draws)
    return b"%d\n%s\n" % (zlib.crc32(text), text)


def pickle_leaf(content: bytes, draws: random.Random) -> bytes:
    """One value of pickled dictionaries and lists."""
    return pickle.dumps(leaf(pickle.loads(content), draws), draws.choice([0, 2, 4]))


def tensor(content: bytes, draws: random.Random) -> bytes:
    """One tensor of a safetensors file: missing, under another name, of another type or shape, or not finite."""
    tensors = load(content)
    name = draws.choice(sorted(tensors))
    values = tensors.pop(name)
    others = (
        values.half(),
        values.bfloat16(),
        values.double(),
        values.to(torch.int8),
        values.to(torch.int64),
        values > 0,
        values.flatten(),
        values[None],
        values[:-1] if values.ndim else values[None],
        values.new_empty(0),
        values.sum(),
        torch.full_like(values, float("nan")),
        torch.full_like(values, float("inf")),
        torch.full_like(values, 1e38),
        values.mT if values.ndim >= 2 else -values,
    )
    kind = draws.random()
    if kind < 0.8:
        tensors[name] = draws.choice(others).contiguous()
    elif kind < 0.9:
        tensors[draws.choice([f"{name}x", f"module.{name}", "", "../secret.txt", "x" * 3000, name[1:]])] = values
    return save(tensors, {"format": "pt"})


def csv_cell(content: bytes, draws: random.Random) -> bytes:
    """One cell."""
    rows = list(csv.reader(io.StringIO(content.decode())))
    row = draws.choice(rows)
    value = draws.choice(HOSTILE)
    if draws.random() < 0.2:
        row.pop(draws.randrange(len(row)))
    else:
        row[draws.randrange(len(row))] = str(value).encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    stream = io.StringIO()
    csv.writer(stream).writerows(rows)
    return stream.getvalue().encode()


def toml_leaf(content: bytes, draws: random.Random) -> bytes:
    """One value of a TOML file with sections and one value a line."""
    lines = content.decode().splitlines()
    place = draws.choice([number for number, line in enumerate(lines) if "=" in line])
    name = lines[place].partition("=")[0]
    values = (
        "nan",
        "-inf",
        "1e400",
        "-1",
        "0",
        "true",
        '""',
        '"\\u0000"',
        "[]",
        "{}",
        "[[[1]]]",
        "99999999999999999999",
        '"../x"',
    )
    lines[place] = f"{name}= {draws.choice(values)}"
    return "\n".join(lines).encode()


def parquet_column(content: bytes, draws: random.Random) -> bytes:
    """One column with other values or of another type, missing, or twice; all else as it was."""
    table = pq.read_table(pa.BufferReader(content))
    place = draws.randrange(table.num_columns)
    name, rows = table.column_names[place], table.num_rows
    columns: tuple[Any, ...] = (
        pa.nulls(rows),
        [None, *["x"] * (rows - 1)],
        [["x"]] * rows,
        [[["x", None]]] * rows,
        [[None]] * rows,
        list(range(rows)),
        [float("nan")] * rows,
        [float("inf"), *[0.5] * (rows - 1)],
        [b"\xff"] * rows,
        ["../secret.txt"] * rows,
        [{"a": 1}] * rows,
        [True] * rows,
    )
    if draws.random() < 0.1:
        table = table.drop_columns([name])
    else:
        table = table.set_column(place, name, pa.array(draws.choice(columns)))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())
