from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from ttd.errors import InputError
from ttd.training import checkpoint


def state(step: int) -> dict[str, Any]:
    return {"adapter": {"a": torch.full((3,), float(step))}, "damaged": [{"key": "x"}]}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_last_k_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    assert checkpoint.load_last(tmp_path) is None
    for step in (1, 2, 10, 11):
        checkpoint.save(tmp_path, step, state(step), keep=2)
    assert names(tmp_path) == ["step-00000010.ckpt", "step-00000011.ckpt"]
    last = checkpoint.load_last(tmp_path)
    assert last is not None
    assert last["step"] == 11
    assert last["adapter"]["a"].tolist() == [11.0] * 3


@pytest.mark.parametrize("damage", ["truncate", "empty", "text", "flip"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, damage: str) -> None:
    checkpoint.save(tmp_path, 1, state(1), keep=3)
    path = checkpoint.save(tmp_path, 2, state(2), keep=3)
    content = path.read_bytes()
    path.write_bytes(
        {
            "truncate": content[: len(content) // 2],
            "empty": b"",
            "text": b"hello",
            "flip": content[:-900] + bytes([content[-900] ^ 1]) + content[-899:],
        }[damage]
    )
    last = checkpoint.load_last(tmp_path)
    assert last is not None
    assert last["step"] == 1
    (tmp_path / "step-00000001.ckpt").write_bytes(b"")
    with pytest.raises(InputError, match="every checkpoint"):
        checkpoint.load_last(tmp_path)


def test_a_full_disk_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, 1, state(1), keep=1)

    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(bytes(content)[:100])
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(checkpoint.DiskFull, match=r"step-00000001.ckpt is whole"):
        checkpoint.save(tmp_path, 2, state(2), keep=1)
    assert names(tmp_path) == ["step-00000001.ckpt"]
    last = checkpoint.load_last(tmp_path)
    assert last is not None
    assert last["step"] == 1


def test_other_errors_are_not_called_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(OSError, match="file"):
        checkpoint.save(tmp_path / "file", 1, state(1), keep=1)
