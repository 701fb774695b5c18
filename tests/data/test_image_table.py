"""Tables that hold images: img2dataset's Parquet, and Hugging Face's Parquet and Arrow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.samples import caption, image, number_of
from ttd.data import remote
from ttd.data.bad_samples import BadSample
from ttd.data.items import open_items
from ttd.data.sources import PairSource
from ttd.errors import InputError

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
FORMS = ("img2dataset", "parquet", "stream", "file")


def write(folder: Path, form: str, count: int = 11, **columns: list[Any]) -> Path:
    """Rows 0 to count-1, four in each row group or record batch."""
    folder.mkdir(parents=True, exist_ok=True)
    if form == "img2dataset":
        names = {"key": [f"{n:09d}" for n in range(count)], "url": ["u"] * count, "status": ["success"] * count}
        table = pa.table({**names, "caption": list(map(caption, range(count))), "jpg": list(map(image, range(count)))})
    else:
        images = pa.array([{"bytes": image(n), "path": f"{n}.png"} for n in range(count)], STRUCT)
        table = pa.table({"image": images, "text": [[caption(n), f"again {n}"] for n in range(count)]})
    for name, values in columns.items():
        table = table.drop_columns([name]) if name in table.column_names else table
        table = table.append_column(name, pa.array(values, STRUCT if name == "image" else None))
    path = folder / ("data-00000-of-00001.arrow" if form in ("stream", "file") else "00000.parquet")
    if form in ("stream", "file"):
        make = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
        with path.open("wb") as sink, make(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=4)
    else:
        pq.write_table(table, path, row_group_size=4)
    return path


@pytest.mark.parametrize("form", FORMS)
def test_every_row_is_a_pair_in_any_order(tmp_path: Path, form: str) -> None:
    source = PairSource(write(tmp_path / "set", form))
    assert len(source) == 11
    for row in (10, 0, 4, 3, 7):
        pair = source[row]
        assert number_of(pair.image) == row
        assert pair.captions == ((caption(row),) if form == "img2dataset" else (caption(row), f"again {row}"))
        assert pair.key == (f"{row:09d}" if form == "img2dataset" else f"{row}.png")
    assert source.shards[0].keys().to_pylist() == [source.locate(i)[1] for i in range(11)]


def test_a_column_of_plain_bytes_may_have_any_of_the_names(tmp_path: Path) -> None:
    for name in ("image", "img", "bytes"):
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table({name: [*map(image, range(3))], "text": [*map(caption, range(3))]}), path)
        source = PairSource(path)
        assert [number_of(source[row].image) for row in range(3)] == [0, 1, 2]
        assert source.locate(2)[1] == "000000002"


@pytest.mark.parametrize("inner", ["", "data"])
def test_a_folder_of_a_data_set_is_its_tables(tmp_path: Path, inner: str) -> None:
    folder = tmp_path / "flowers"
    write(folder / inner, "parquet")
    (folder / "README.md").write_text("---\n")
    (folder / "state.json").write_text("{}")
    assert len(PairSource(folder)) == 11
    items = open_items(str(folder))
    assert items[2].caption == caption(2)
    assert number_of(items[2].read()) == 2


def test_splits_are_not_mixed(tmp_path: Path) -> None:
    write(tmp_path / "saved/train", "stream")
    (tmp_path / "saved/dataset_dict.json").write_text('{"splits": ["train"]}')
    with pytest.raises(InputError, match=r"holds several splits \(train\): name the folder of one"):
        PairSource(tmp_path / "saved")
    assert len(PairSource(tmp_path / "saved/train")) == 11


def test_bytes_or_paths_and_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/b.png").write_bytes(image(1))
    (tmp_path / "secret.png").write_bytes(image(2))
    images = [{"bytes": image(0), "path": "a.png"}, {"bytes": None, "path": "b.png"}]
    images += [{"bytes": None, "path": path} for path in ("../secret.png", "gone.png", None)]
    texts = [["a"], ["b"], ["c"], [" "], None]
    source = PairSource(write(tmp_path / "set", "parquet", 5, image=images, text=texts))
    assert [number_of(source[i].image) for i in (0, 1)] == [0, 1]
    assert [source.locate(i)[1] for i in (0, 4)] == ["000000000", "000000004"]  # one path is missing
    shard = source.shards[0]
    for row, reason in ((2, "leads out of"), (3, "missing image"), (4, "missing image")):
        with pytest.raises(BadSample, match=reason):
            shard.image_bytes(row)
    for row, reason in ((3, "empty caption"), (4, "missing caption")):
        with pytest.raises(BadSample, match=reason):
            source.captioned(row)


@pytest.mark.parametrize("form", FORMS)
def test_a_damaged_table_is_one_sentence(tmp_path: Path, form: str) -> None:
    path = write(tmp_path / "set", form)
    content = path.read_bytes()
    for broken in (content[: len(content) // 2], b"", b"no table", content[:-60] + bytes(60)):
        path.write_bytes(broken)
        with pytest.raises(InputError, match=r"^[^\n]+: make it again$"):
            [number_of(PairSource(path)[i].image) for i in range(11)]


def test_a_damaged_name_of_a_column_is_one_sentence(tmp_path: Path) -> None:
    for name in (b"text", b"path"):
        path = write(tmp_path / "flowers", "stream")
        path.write_bytes(path.read_bytes().replace(name, b"t\xf8xt", 1))
        with pytest.raises(InputError, match="cannot be read as Arrow"):
            PairSource(path)


def test_a_stream_that_is_cut_off_between_two_batches_is_not_taken_for_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "set", "stream")
    for number in (4, 8):  # a shorter stream without its end mark is where a longer one is cut off
        write(tmp_path / "short", "stream", number)
        path.write_bytes((tmp_path / "short" / path.name).read_bytes()[:-8])
        with pytest.raises(InputError, match="no end mark"):
            PairSource(path)


def test_a_table_without_captions_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "set", "parquet")
    pq.write_table(pq.read_table(path).rename_columns(["image", "label"]), path)
    with pytest.raises(InputError, match="has no captions: its columns are image, label, and one must be called"):
        PairSource(path)


def test_words_of_a_table(tmp_path: Path) -> None:
    tags = [[["red"], ["image"]]] * 2
    source = PairSource(write(tmp_path / "set", "parquet", 2, tags=tags), tags="inside")
    assert source[1].tags == (("red",), ("image",))


def test_a_table_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.encoders.hub_stand_in import serving
    from tests.extras import needs

    needs("remote", "aiohttp")
    monkeypatch.setenv("TTD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "BLOCK", 1 << 12)
    for form in FORMS:
        with serving() as server:
            path = write(tmp_path / form, form)
            server.files[f"/{form}/{path.name}"] = path.read_bytes()
            source = PairSource(f"{server.url}/{form}/{path.name}")
            assert [number_of(source[i].image) for i in range(11)] == list(range(11))
            assert source.fingerprint() == PairSource(path).fingerprint()
