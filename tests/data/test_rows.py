"""CSV, TSV and JSONL against Python's own writers, and files that are something else."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from ttd.data.list_rows import list_rows
from ttd.data.rows import csv_rows, jsonl_rows
from ttd.errors import InputError

ROWS = [{"image": "a.png", "caption": 'a "dog",\ta cat'}, {"image": "b.png", "caption": "ein Kätzchen"}]


@pytest.mark.parametrize("name", ["p.csv", "p.TSV", "p.jsonl"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_what_was_written_is_read(tmp_path: Path, name: str, mark: str) -> None:
    path = tmp_path / name
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(mark)
        if name == "p.jsonl":
            file.write("\r\n\n".join(json.dumps(row) for row in ROWS))
        else:
            writer = csv.DictWriter(file, ["image", "caption"], delimiter="\t" if name == "p.TSV" else ",")
            writer.writeheader()
            writer.writerows(ROWS)
    assert [row for _, row in list_rows(path)] == ROWS
    assert [number for number, _ in list_rows(path)] == ([1, 3] if name == "p.jsonl" else [2, 3])


def read(path: Path) -> object:
    return csv_rows(path) if path.suffix == ".csv" else jsonl_rows(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"a": 1}\n[2]\n', "line 2 is not an object"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xe4"}\n', "not UTF-8 after line 0"),
        ("a.jsonl", b'{\0"\0a\0"\0:\0001\0}\0', "no byte order mark"),
        ("a.jsonl", b"[" * 100_000, "line 1 is nested deeper"),
        ("a.csv", b"image\n" + b"x" * 200_000 + b"\n", "longer than 131,072 characters"),
        ("a.csv", b"image\n\xe4\n", "not UTF-8"),
    ],
)
def test_what_is_something_else_is_said_with_its_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        list(read(tmp_path / name))


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_what_is_not_there_is_said(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="does not exist"):
        list(read(tmp_path / name))
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="is a folder"):
        list(read(tmp_path / name))
