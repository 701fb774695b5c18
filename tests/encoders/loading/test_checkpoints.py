from __future__ import annotations

import argparse
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ttd.encoders.loading import checkpoints
from ttd.encoders.loading.checkpoints import OPENAI_SHA256, read_tensors, sha256
from ttd.errors import ModelError

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.tensor(3, dtype=torch.int64)}


def same(read: dict[str, torch.Tensor]) -> bool:
    return read.keys() == TENSORS.keys() and all(torch.equal(read[n], TENSORS[n]) for n in TENSORS)


class Config(argparse.Namespace):
    """A class that a reader elsewhere would not have."""


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda t: t,
        lambda t: OrderedDict(t),
        lambda t: {"state_dict": t, "epoch": 3, "optimizer": {"lr": torch.tensor(1.0)}},
        lambda t: {"model": {"state_dict": t}},
        lambda t: {"module." + name: values for name, values in t.items()},
        lambda t: {name: nn.Parameter(v, requires_grad=v.is_floating_point()) for name, v in t.items()},
        lambda t: {"model": t, "config": Config(lr=1), "score": np.float64(3), "list": [Config(), {Config}]},
    ],
)
def test_pickles_give_their_tensors(tmp_path: Path, wrap: Any, zipped: bool) -> None:
    path = tmp_path / "model.pth"
    torch.save(wrap(TENSORS), path, _use_new_zipfile_serialization=zipped)
    read = read_tensors(path)
    assert same(read)
    assert not any(values.requires_grad for values in read.values())


def test_safetensors(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "m.safetensors")
    assert same(read_tensors(tmp_path / "m.safetensors"))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["top", "inside", "instead"])
def test_nothing_in_a_pickle_is_run(tmp_path: Path, zipped: bool, place: str) -> None:
    marker, path = tmp_path / "exploded", tmp_path / "model.pth"
    bomb = Bomb(marker)
    checkpoint = {
        "top": {**TENSORS, "bomb": bomb},
        "inside": {"model": TENSORS, "x": [bomb]},
        "instead": bomb,
    }
    torch.save(checkpoint[place], path, _use_new_zipfile_serialization=zipped)
    if place == "instead":
        with pytest.raises(ModelError, match="no tensors"):
            read_tensors(path)
    else:
        assert same(read_tensors(path))
    assert not marker.exists()
    torch.load(path, weights_only=False)  # the bomb is a real one
    assert marker.exists()


def test_a_bare_pickle_is_not_run_either(tmp_path: Path) -> None:
    marker, path = tmp_path / "exploded", tmp_path / "model.pt"
    path.write_bytes(pickle.dumps(Bomb(marker), protocol=2))
    with pytest.raises(ModelError):
        read_tensors(path)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["m.safetensors", "zip.pth", "old.pth", "config.pth"])
def test_truncated_and_damaged_files_are_refused_in_a_sentence(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "m.safetensors":
        save_file(TENSORS, path)
    else:
        extra = {"x": Config()} if name == "config.pth" else {}
        torch.save({"model": TENSORS, **extra}, path, _use_new_zipfile_serialization=name != "old.pth")
    whole = path.read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 40)):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError, match=r"damaged|no tensors"):
            read_tensors(path)


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        read_tensors(tmp_path / "nothing.pth")
    (tmp_path / "text.pth").write_text("this is not a model")
    with pytest.raises(ModelError, match="damaged"):
        read_tensors(tmp_path / "text.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(ModelError, match="no tensors"):
        read_tensors(tmp_path / "empty.pth")


def test_torchscript_only_where_the_hash_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "script.pt"
    module = nn.Linear(3, 2)
    torch.jit.save(torch.jit.trace(module, torch.zeros(1, 3)), str(path))
    with pytest.raises(ModelError, match="TorchScript"):
        read_tensors(path)
    monkeypatch.setitem(checkpoints.OPENAI_SHA256, sha256(path), "stand-in")
    read = read_tensors(path)
    assert torch.equal(read["weight"], module.weight)
    assert set(read) == {"weight", "bias"}


def test_published_hashes_are_of_full_length() -> None:
    assert len(OPENAI_SHA256) == 4
    assert all(len(digest) == 64 and int(digest, 16) for digest in OPENAI_SHA256)
