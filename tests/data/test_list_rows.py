"""Lists of images as people have them: quotes, commas, delimiters, headers, encodings."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttd.data.list_rows import Fault, list_rows
from ttd.data.rows import records
from ttd.errors import InputError


def read(path: Path, text: str, encoding: str = "utf-8") -> list[tuple[Any, ...] | str]:
    """Image and caption of each row, the detail of each fault."""
    path.write_bytes(text.encode(encoding))
    return [
        row.detail if isinstance(row, Fault) else (row.get("image", row.get("image_name")), _caption(row))
        for _, row in list_rows(path)
    ]


def _caption(row: dict[str, Any]) -> Any:
    return next((row[name] for name in ("caption", "text", "comment") if name in row), None)


QUOTES = [
    ("0.png", "a dog on grass"),
    ("1.png", '"the best beach bar in town'),
    ("2.png", "a cat on sand"),
    ("3.png", 'an apple "on the table"'),
    ("4.png", 'a 12" tv on a desk'),
    ("5.png", 'a bird" on snow'),
    ("6.png", '"yes" she said'),
    ("7.png", '"hello"'),
]


@pytest.mark.parametrize("caption_first", [False, True])
def test_quotes_of_an_unquoted_tsv_are_text(tmp_path: Path, caption_first: bool) -> None:
    order = -1 if caption_first else 1
    lines = ["\t".join(("image", "caption")[::order]), *("\t".join(pair[::order]) for pair in QUOTES)]
    assert read(tmp_path / "p.tsv", "\n".join(lines) + "\n") == QUOTES


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
@pytest.mark.parametrize("columns", [("image", "caption"), ("caption", "image"), ("image", "caption", "split")])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_what_a_writer_quotes_is_unquoted(
    tmp_path: Path, delimiter: str, columns: tuple[str, ...], quoting: int
) -> None:
    captions = ['a "big" dog', f"one{delimiter} two", 'two\nlines, "of" text', "plain", '"', 'ends in "it"', "a\r\nb"]
    path = tmp_path / ("p.tsv" if delimiter == "\t" else "p.csv")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, delimiter=delimiter, quoting=quoting, extrasaction="ignore")
        writer.writeheader()
        rows = [{"image": f"{i}.png", "caption": text, "split": "val"} for i, text in enumerate(captions)]
        writer.writerows(rows)
    found = [(row["image"], row["caption"].replace("\r\n", "\n")) for _, row in list_rows(path)]  # type: ignore[index]
    assert found == [(row["image"], row["caption"].replace("\r\n", "\n")) for row in rows]


@given(st.lists(st.lists(st.text('ab",\n ', max_size=8), min_size=3, max_size=3), max_size=5))
def test_rows_of_python_s_writer_come_back(rows: list[list[str]]) -> None:
    rows = [[f"x{number}", *row] for number, row in enumerate(rows)]
    lines: list[str] = []

    class Sink:
        def write(self, text: str) -> None:
            lines.append(text)

    csv.writer(Sink(), quoting=csv.QUOTE_ALL).writerows(rows)
    found = records(iter("".join(lines).splitlines(keepends=True)), ",")
    assert [fields for _, fields, _ in found] == rows


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        # Commas of a caption that stands last are its own.
        ("image,caption\n0.png,a dog on grass, a cat, and a boat\n", [("0.png", "a dog on grass, a cat, and a boat")]),
        ('image,caption\n0.png,"a dog", a cat\n', [("0.png", '"a dog", a cat')]),
        ("id,image,text\n7,0.png,a dog, a cat\n", [("0.png", "a dog, a cat")]),
        ("image,caption\n0.png,a dog,,\n", [("0.png", "a dog")]),
        # Elsewhere the line is named.
        (
            "caption,image\na dog, a cat,0.png\na car,1.png\n",
            ["has 3 fields and the header 2: put the caption into quotes", ("1.png", "a car")],
        ),
        # An opening quote takes no other row.
        ('image,caption\n0.png,"a bar\n1.png,a bird"\n', [("0.png", '"a bar'), ("1.png", 'a bird"')]),
        ('caption,image\n"a bar,0.png\na bird",1.png\n', [('"a bar', "0.png")[::-1], ('a bird"', "1.png")[::-1]]),
        ('image,caption\n0.png,"a bar\n', [("0.png", '"a bar')]),
        # Excel's delimiters, Flickr30k's results.csv with its one broken line.
        ("image;caption\n0.png;a dog, a cat\n", [("0.png", "a dog, a cat")]),
        ("sep=,\nimage,caption\n0.png,a dog\n", [("0.png", "a dog")]),
        ('"sep=;"\nimage;caption\n0.png;a dog\n', [("0.png", "a dog")]),
        (
            "image_name| comment_number| comment\n1.jpg| 0| A man, a dog .\n1.jpg| 4   A dog .\n",
            [("1.jpg", "A man, a dog ."), ("1.jpg", None)],
        ),
        # No header.
        ("0.png,a dog, a cat\n1.png,a car\n", [("0.png", "a dog, a cat"), ("1.png", "a car")]),
        ("a dog,0.png\na car,1.png\n", [("0.png", "a dog"), ("1.png", "a car")]),
    ],
)
def test_csv_of_the_field(tmp_path: Path, text: str, wanted: list[Any]) -> None:
    assert read(tmp_path / "p.csv", text) == wanted
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        assert read(tmp_path / "p.csv", text.replace("\n", "\r\n"), encoding) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a bus station\thttp://example.org/1.jpg\n", ("http://example.org/1.jpg", "a bus station")),  # CC3M
        ('https://example.org/1\ta "bus", red\n', ("https://example.org/1", 'a "bus", red')),  # CC12M
        ("7\thttp://example.org/1.jpg\ta bus station\tok\n", ("http://example.org/1.jpg", "a bus station")),
        ("photos/1.JPG\ta bus\n", ("photos/1.JPG", "a bus")),
    ],
)
def test_tsv_without_header(tmp_path: Path, text: str, wanted: tuple[str, str]) -> None:
    assert read(tmp_path / "p.tsv", text * 2) == [wanted, wanted]


@pytest.mark.parametrize("name", ["p.csv", "p.tsv"])
@pytest.mark.parametrize("text", ["name,comment\n0,a dog\n", "", "\n", "picture\tcaption\nx\ty\n"])
def test_a_header_that_names_no_image_is_shown(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(InputError, match="its header is '" + text.split("\n")[0].replace("\t", r"\\t")):
        read(tmp_path / name, text)


def test_parquet(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    laion = {
        "SAMPLE_ID": [1, 2],
        "URL": ["http://example.org/1.jpg", "http://example.org/2.jpg"],
        "TEXT": ["a dog", None],
    }
    pq.write_table(pa.table(laion), tmp_path / "laion.parquet")
    assert [row for _, row in list_rows(tmp_path / "laion.parquet")] == [
        {"url": "http://example.org/1.jpg", "text": "a dog"},
        {"url": "http://example.org/2.jpg", "text": None},
    ]
    fetched = {
        "url": ["u", "v"], "key": ["000000000", "000000001"], "caption": ["a dog", "a cat"],
        "status": ["success", "failed_to_download"],
    }  # fmt: skip
    pq.write_table(pa.table(fetched), tmp_path / "00000.parquet")
    with caplog.at_level(logging.WARNING):
        rows = [row for _, row in list_rows(tmp_path / "00000.parquet")]
    assert [(row["image"], row["caption"]) for row in rows] == [("00000/000000000.jpg", "a dog")]  # type: ignore[index]
    assert "left out 1 of 2 images" in caplog.text
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(InputError, match="its columns are a"):
        list(list_rows(tmp_path / "other.parquet"))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        list(list_rows(tmp_path / "broken.parquet"))


def test_json_lines_of_windows(tmp_path: Path) -> None:
    lines = [json.dumps({"image": f"{i}.png", "caption": "a dog — a cat"}, ensure_ascii=False) for i in range(2)]
    wanted = [(f"{i}.png", "a dog — a cat") for i in range(2)]
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert read(tmp_path / "p.jsonl", "\r\n".join(lines), encoding) == wanted
