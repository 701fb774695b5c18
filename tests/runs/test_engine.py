"""What runs share: reading ahead, ranks, files that are made once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttd.data.bad_samples import BROKEN_IMAGE, BadSample
from ttd.errors import InputError
from ttd.runs import FileToMake, Ranks, each_item, make_files, read_ahead


@given(n=st.integers(0, 30), size=st.integers(1, 8), threads=st.integers(1, 4), bad=st.sets(st.integers(0, 29)))
def test_reading_ahead_keeps_order_and_damage(n: int, size: int, threads: int, bad: set[int]) -> None:
    def read(i: int) -> int:
        if i in bad:
            raise BadSample(BROKEN_IMAGE, "s", str(i))
        return i

    batches = list(read_ahead(read, range(n), size, threads, BadSample))
    assert all(len(batch) == size for batch in batches[:-1])
    flat = [int(one.key) if isinstance(one, BadSample) else one for batch in batches for one in batch]
    assert flat == list(range(n))
    assert {i for batch in batches for i in batch if isinstance(i, int)} == set(range(n)) - bad


@given(
    n=st.integers(0, 20),
    size=st.integers(1, 6),
    unreadable=st.sets(st.integers(0, 19)),
    unusable=st.sets(st.integers(0, 19)),
)
def test_every_item_has_one_result_or_error(n: int, size: int, unreadable: set[int], unusable: set[int]) -> None:
    batches: list[list[int]] = []

    def read(i: int) -> int:
        if i in unreadable:
            raise InputError(f"unreadable {i}")
        return 10 * i

    def work(items: Sequence[int], inputs: Sequence[int]) -> Iterator[int | InputError]:
        assert list(inputs) == [10 * i for i in items]
        batches.append(list(items))
        for i in items:
            yield InputError(f"unusable {i}") if i in unusable else i + 1

    found = list(each_item(range(n), read, work, size, InputError))
    assert sorted(item for item, _ in found) == list(range(n))
    for item, result in found:
        wanted = f"unreadable {item}" if item in unreadable else f"unusable {item}" if item in unusable else item + 1
        assert (str(result) if isinstance(result, InputError) else result) == wanted
    assert all(0 < len(batch) <= size for batch in batches)
    assert [i for batch in batches for i in batch] == [i for i in range(n) if i not in unreadable]


def test_what_the_work_raises_ends_a_run() -> None:
    with pytest.raises(InputError, match="the server is gone"):
        list(each_item([1, 2], int, _fail, 1, InputError))


def _fail(items: Sequence[int], inputs: Sequence[int]) -> list[int]:
    raise InputError("the server is gone")


def test_an_error_that_is_no_damage_is_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError):
        list(read_ahead(lambda i: 1 // i, [1, 2, 0, 3], 2, 2, BadSample))


@pytest.mark.parametrize(("rank", "world", "wanted"), [(None, None, (0, 1)), ("1", "4", (1, 4))])
def test_ranks_come_from_torchrun(
    monkeypatch: pytest.MonkeyPatch, rank: str | None, world: str | None, wanted: tuple[int, int]
) -> None:
    for name, value in (("RANK", rank), ("WORLD_SIZE", world)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert Ranks.here() == wanted


@pytest.mark.parametrize(("rank", "world"), [("2", "2"), ("x", "2"), ("-1", "2"), ("0", "")])
def test_ranks_that_make_no_sense(monkeypatch: pytest.MonkeyPatch, rank: str, world: str) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)
    with pytest.raises(InputError, match="are not a rank and size"):
        Ranks.here()


def test_files_are_made_once_and_shared(tmp_path: Path) -> None:
    asked: list[str] = []

    def make(path: Path) -> None:
        asked.append(path.name.split(".")[1])
        path.write_text("whole")

    units = [FileToMake(f"u{n}", tmp_path / "out" / f"u{n}.txt", make, size=n) for n in range(7)]
    told: list[int] = []
    made = make_files(units, executor=Ranks(1, 3), progress=told.append)
    assert (made.made, made.existing, asked, told) == (2, 0, ["u1", "u4"], [1, 4])
    (tmp_path / "out" / "u4.txt").unlink()
    made = make_files(units, progress=told.append)
    assert (made.made, made.existing, made.skipped) == (6, 1, [])
    assert sum(told[2:]) == sum(range(7))
    assert make_files(units, again=True).made == 7
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [unit.path.name for unit in units]


def test_what_cannot_be_made_is_named_or_ends_the_run(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise InputError("no such annotation")

    units = [FileToMake("a", tmp_path / "a", fail), FileToMake("b", tmp_path / "b", lambda path: path.touch())]
    with pytest.raises(InputError, match="no such annotation"):
        make_files(units)
    assert not list(tmp_path.iterdir())
    made = make_files(units, skip=True)
    assert made.skipped == [("a", "no such annotation")]
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_finished_files_that_vanish_are_no_success(tmp_path: Path) -> None:
    def remove(path: Path) -> None:
        (tmp_path / "a").unlink()
        path.touch()

    units = [FileToMake("a", tmp_path / "a", lambda path: path.touch()), FileToMake("b", tmp_path / "b", remove)]
    with pytest.raises(InputError, match=r"a was removed during the run: run the same command again"):
        make_files(units)
