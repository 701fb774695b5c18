"""A device by name."""

from __future__ import annotations

import pytest
import torch

from ttd.errors import InputError
from ttd.inference.device import find_device
from ttd.training.distributed import placed


@pytest.mark.parametrize("count", [0, 2])
def test_without_a_name_it_is_cuda_where_there_is_one(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert find_device(None).type == find_device("").type == ("cuda" if count else "cpu")
    assert find_device("cpu") == find_device(torch.device("cpu")) == torch.device("cpu")
    for name in ("cuda", "cuda:1", "cuda:2"):
        if torch.device(name).index in (None, *range(count)) and count:
            assert find_device(name) == torch.device(name)
        else:
            with pytest.raises(InputError, match=f"there is no device {name} here"):
                find_device(name)


def test_mps_comes_before_the_cpu_and_after_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    for cuda, expected in ((True, "cuda"), (False, "mps")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=cuda: there)
        assert find_device().type == expected
    assert find_device("mps") == torch.device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match="there is no device mps here: use cpu"):
        find_device("mps")


@pytest.mark.parametrize("name", ["gpu0", "meta"])
def test_no_such_name(name: str) -> None:
    with pytest.raises(InputError, match=f'unknown device "{name}": use cpu'):
        find_device(name)


@pytest.mark.parametrize("asked", ["mps", ""])
def test_processes_cannot_share_mps(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="several processes cannot train on mps"), placed(asked):
        pass
