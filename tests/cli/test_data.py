from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import ttd
from tests.cli.conftest import invoke, one_sentence
from tests.data.colour_model import ColourModelEncoder
from tests.data.samples import image, write_shards, write_tar
from ttd.cli import cli
from ttd.data.sources import PairSource
from ttd.model import TTD

run = partial(invoke, "data")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    place = tmp_path / "photos"
    place.mkdir()
    for i in range(5):
        (place / f"{i}.png").write_bytes(image(i))
    lines = ["image,caption", *(f"{i}.png,a red thing {i}" for i in range(5)), "0.png,another caption"]
    (place / "pairs.csv").write_text("\n".join(lines))
    return place


def test_pack_then_check(photos: Path, tmp_path: Path) -> None:
    packed = run("pack", photos / "pairs.csv", "--out", tmp_path / "shards", "--per-shard", 2)
    assert packed.exit_code == 0, packed.output
    assert "packed 5 pairs into 3 shards" in packed.stdout
    checked = run("check", tmp_path / "shards")
    assert checked.exit_code == 0
    assert checked.stdout == "5 of 5 pairs are good, 6 captions, 3 files\n"


def test_check_names_what_is_damaged(tmp_path: Path) -> None:
    _, second = write_shards(tmp_path / "cc", [6, 6])
    second.write_bytes(second.read_bytes()[:5000])
    report = tmp_path / "damage.json"
    result = run("check", tmp_path / "cc", "--max-bad-samples", 0.5, "--out", report, "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["reasons"]["truncated shard"] >= 1
    assert "cc/00001.tar: truncated shard" in result.stderr
    assert json.loads(report.read_text())["shards"][0]["shard"] == "cc/00001.tar"
    assert "of the 2 shards are damaged" in one_sentence(run("check", tmp_path / "cc"))


@pytest.mark.parametrize("extra", [(), ("--drop-stop-words", "--score", "s_seg", "--threshold", "0.9")])
def test_tag_writes_what_training_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: tuple[str, ...]
) -> None:
    monkeypatch.setitem(ttd.__dict__, "load", lambda *args, **options: TTD(ColourModelEncoder()))
    write_shards(tmp_path / "cc", [2, 3])
    out = tmp_path / "tags"
    result = run("tag", tmp_path / "cc", "--model", "x", "--out", out, *extra)
    assert result.exit_code == 0, result.output
    source = PairSource(tmp_path / "cc", tags=out / "tags")
    assert [source[i].tags for i in range(3)] == [(("red",),), (("green",),), (("blue",),)]
    assert json.loads((out / "tags.json").read_text())["settings"]["stop_words"] is bool(extra)


def test_tag_only_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ttd.__dict__, "load", lambda *args, **options: TTD(ColourModelEncoder()))
    write_shards(tmp_path / "cc", [2, 3])
    for name in ("000000001", "000000002"):
        table = pa.table({"shard": [f"cc/0000{int(name) - 1}.tar"], "key": [name], "score": [0.5]})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    result = run(
        "tag", tmp_path / "cc", "--model", "x", "--out", tmp_path / "t", "--keep", tmp_path / "000000001.parquet"
    )
    assert result.exit_code == 0, result.output
    rows = [row for path in (tmp_path / "t").rglob("*.tar.parquet") for row in pq.read_table(path).to_pylist()]
    assert {(row["shard"], row["key"]) for row in rows} == {("cc/00000.tar", "000000001")}
    assert [row["word"] for row in rows if row["selected"]] == ["green"]
    other = run(
        "tag", tmp_path / "cc", "--model", "x", "--out", tmp_path / "t", "--keep", tmp_path / "000000002.parquet"
    )
    assert "keep was" in one_sentence(other)


def test_mistakes_are_answered_in_a_sentence(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for arguments, message in (
        (("pack", tmp_path / "none.csv", "--out", out), "does not exist"),
        (("pack", photos, "--out", out, "--prefix", "a/b"), "prefix"),
        (("check", "ftp://bucket/x.tar"), "no way to read ftp://"),
        (
            ("tag", photos, "--model", "mini", "--out", out, "--protocol", "none"),
            "'none' is not one of 'default', 'paper'",
        ),
        (("tag", photos, "--model", "mini", "--out", out, "--keep", tmp_path / "k"), "does not exist"),
    ):
        assert message in one_sentence(run(*arguments)), message


NOTHING = {"empty": {}, "others": {"a": {"cls": b"3"}, "b": {"npy": b"x"}}, "hidden": {".x": {"png": b"x"}}}


@pytest.mark.parametrize("name", NOTHING)
@pytest.mark.parametrize("command", ["check", "pack"])
def test_nothing_to_work_on_is_an_error(tmp_path: Path, name: str, command: str) -> None:
    write_tar(tmp_path / "set" / "0.tar", NOTHING[name])
    more = ["--out", str(tmp_path / "out")] if command == "pack" else []
    done = CliRunner().invoke(cli, ["data", command, str(tmp_path / "set"), *more], prog_name="ttd")
    assert done.exit_code == 2, done.output
    assert "no pairs in there" in done.stderr
    assert not list((tmp_path / "out").glob("*.tar"))
