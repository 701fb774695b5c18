"""A file appears whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from ttd.errors import InputError
from ttd.files import whole_file, whole_folder, write_file


def test_the_new_file_replaces_the_old_one_and_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    for text in ("old", "new"):
        with whole_file(path) as part:
            part.write_text(text)
            assert not path.exists() or path.read_text() == "old"
        assert path.read_text() == text
    assert [p.name for p in path.parent.iterdir()] == ["b.txt"]


def test_text_or_bytes_are_written_or_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    write_file(path, b"\xff")
    assert path.read_bytes() == b"\xff"
    write_file(path, "dög\n")
    with pytest.raises(UnicodeEncodeError):
        write_file(path, "half a pair: \udc00")
    assert path.read_bytes() == "dög\n".encode()
    write_file(path, "\udc00", errors="backslashreplace")
    assert path.read_text() == "\\udc00"
    assert [p.name for p in path.parent.iterdir()] == ["b.txt"]


def test_a_failure_leaves_the_old_file_and_no_part(tmp_path: Path) -> None:
    path = tmp_path / "b.txt"
    path.write_text("old")

    def fail() -> None:
        with whole_file(path) as part:
            part.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="space"):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["b.txt"]


def test_two_writers_do_not_share_a_part(tmp_path: Path) -> None:
    with whole_file(tmp_path / "x") as one, whole_file(tmp_path / "x") as two:
        assert one != two
        one.write_text("1")
        two.write_text("2")
    assert (tmp_path / "x").read_text() == "1"  # the outer block ended last


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_appears_with_all_its_files(tmp_path: Path, there: bool) -> None:
    path = tmp_path / "a" / "model"
    if there:
        path.mkdir(parents=True)
    with whole_folder(path) as part:
        (part / "inner").mkdir()
        (part / "inner" / "x.txt").write_text("x")
        (part / "y.txt").write_text("y")
        assert not any(path.glob("[!.]*"))
    assert sorted(str(p.relative_to(path)) for p in path.rglob("*")) == ["inner", "inner/x.txt", "y.txt"]
    assert [p.name for p in path.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_that_fails_leaves_nothing(tmp_path: Path, there: bool) -> None:
    path = tmp_path / "model"
    if there:
        path.mkdir()

    def fail() -> None:
        with whole_folder(path) as part:
            (part / "y.txt").write_text("y")
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        fail()
    assert list(tmp_path.rglob("*")) == [path] * there


class _RustError(Exception):
    """As safetensors and tokenizers raise them."""


@pytest.mark.parametrize("whole", [whole_file, whole_folder])
def test_a_full_disk_names_what_was_to_be_written(tmp_path: Path, whole: Any) -> None:
    full: list[Exception] = [
        OSError(errno.ENOSPC, "No space left on device"),
        _RustError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ]
    for error in full:
        with pytest.raises(OSError, match="No space left") as told, whole(tmp_path / "model"):
            raise error
        assert (told.value.errno, told.value.filename) == (errno.ENOSPC, str(tmp_path / "model"))
    for other in (_RustError("no os error"), InputError("it said (os error 28)")):
        with pytest.raises(type(other)), whole(tmp_path / "model"):
            raise other
    assert list(tmp_path.iterdir()) == []
