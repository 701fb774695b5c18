"""`results.jsonl`: appending, repairing, refusing what does not fit."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from ttd.errors import InputError
from ttd.runs import Ranks
from ttd.runs.results_file import ResultsFile, RunRecords, json_line


def opened(path: Path, settings: dict[str, object]) -> ResultsFile:
    return RunRecords(path.parent, name=path.name).open(settings)


def written(path: Path, ids: list[str], settings: dict[str, object] | None = None) -> None:
    with opened(path, settings or {"model": "mini"}) as results:
        for name in ids:
            results.append({"id": name, "text": "é 😀 \n"})


def test_a_second_run_knows_what_is_done(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    written(path, ["a", "b"])
    written(path, ["c"])
    assert RunRecords(tmp_path, name=path.name).left(["d", "c", "b", "a", "e"]) == ([0, 4], 5)
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["settings"] == {"model": "mini"}
    assert {"python", "ttd", "torch"} <= set(run["versions"])


def test_a_kill_at_any_byte_loses_only_the_last_line(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    written(path, ["a", "b", "c"])
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        complete = sum(end <= length for end in ends)
        with opened(path, {"model": "mini"}) as results:
            assert RunRecords(tmp_path, name=path.name).left("abc") == (list(range(complete, 3)), 3)
            results.append({"id": "new"})
        lines = [json.loads(line)["id"] for line in path.read_text("utf-8").splitlines()]
        assert lines == [*"abc"[:complete], "new"]


def test_a_damaged_middle_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text('{"id": "a"}\n{"id": \n{"id": "c"}\n')
    before = path.read_bytes()
    with pytest.raises(InputError, match="damaged in the middle"):
        opened(path, {})
    assert path.read_bytes() == before


def test_other_settings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    written(path, ["a"])
    with pytest.raises(InputError, match="model was 'mini', now 'tcl'"):
        opened(path, {"model": "tcl"})
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(InputError, match=r"is not JSON .* choose another --out"):
        opened(path, {"model": "mini"})


def test_ranks_of_one_of_several_runs_in_a_folder_become_its_one_file(tmp_path: Path) -> None:
    written(tmp_path / "words.jsonl", ["c", "old"])
    written(tmp_path / "words-2.jsonl", ["a"])
    ids = list("abcd")
    parts = [RunRecords(tmp_path, Ranks(rank, 2), "words.jsonl") for rank in (0, 1)]
    with parts[0].open({"model": "mini"}) as first, parts[1].open({"model": "mini"}) as second:
        assert [records.left(ids) for records in parts] == [([0], 2), ([1, 3], 2)]
        second.append({"id": "b"})
        first.append({"id": "a", "text": "é\udcff"})
    assert parts[1].end(ids, [("d", "broken")]) is None
    assert parts[0].end(ids, []) == [("d", "broken")]
    parts[0].merge(ids)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("words-2.jsonl", "words-2.run.json", "words.jsonl", "words.run.json"),
    ]
    lines = [json.loads(line) for line in (tmp_path / "words.jsonl").read_text("utf-8").splitlines()]
    assert [line["id"] for line in lines] == ["a", "b", "c", "old"]
    assert lines[0]["text"] == "é\udcff"


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"

    class Full:
        """Takes 7 bytes, then the disk is full."""

        def __init__(self, stream: object) -> None:
            self.stream = stream

        def __getattr__(self, name: str) -> object:
            return getattr(self.stream, name)

        def write(self, data: bytes) -> int:
            if len(data) < 20:
                raise OSError(errno.ENOSPC, "No space left on device")
            return int(self.stream.write(data[:7]))  # type: ignore[attr-defined]

    with opened(path, {}) as results:
        results.append({"id": "a"})
        results._stream = Full(results._stream)  # type: ignore[assignment]
        with pytest.raises(OSError, match=r"results\.jsonl"):
            results.append({"id": "b", "text": "x" * 30})
    assert path.read_text() == '{"id": "a"}\n'


def test_lines_are_readable_and_survive_names_that_are_no_unicode() -> None:
    assert json_line({"a": "é 😀"}) == '{"a": "é 😀"}'
    line = json_line({"a": "\udcff"})
    line.encode()
    assert json.loads(line) == {"a": "\udcff"}
