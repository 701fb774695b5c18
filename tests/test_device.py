"""A device by name."""

from __future__ import annotations

import pytest
import torch

from ttd.device import find_device
from ttd.errors import InputError


@pytest.mark.parametrize("count", [0, 2])
def test_without_a_name_it_is_cuda_where_there_is_one(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert find_device(None).type == find_device("").type == ("cuda" if count else "cpu")
    assert find_device("cpu") == find_device(torch.device("cpu")) == torch.device("cpu")
    for name in ("cuda", "cuda:1", "cuda:2"):
        if torch.device(name).index in (None, *range(count)) and count:
            assert find_device(name) == torch.device(name)
        else:
            with pytest.raises(InputError, match=f"there is no device {name} here"):
                find_device(name)


def test_no_such_name() -> None:
    with pytest.raises(InputError, match='unknown device "gpu0": use cpu'):
        find_device("gpu0")
