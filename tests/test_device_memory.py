"""What `inference` puts around a method."""

from __future__ import annotations

import pytest
import torch

from ttd.errors import InputError, OutOfMemory
from ttd.inference.device import inference


@inference
def double(x: torch.Tensor, *, times: int = 2) -> torch.Tensor:
    """Twice as much."""
    return x * times


def test_it_runs_without_gradients_and_keeps_name_and_arguments() -> None:
    found = double(torch.ones(2, requires_grad=True), times=3)
    assert found.tolist() == [3.0, 3.0]
    assert found.is_inference()
    assert (double.__name__, double.__doc__) == ("double", "Twice as much.")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"),
        RuntimeError("DefaultCPUAllocator: not enough memory"),
        RuntimeError("MPS backend out of memory"),
    ],
)
def test_every_kind_of_memory_error_becomes_one_sentence(error: BaseException) -> None:
    @inference
    def fail() -> None:
        raise error

    with pytest.raises(OutOfMemory, match=r"lower size, .* dtype='bfloat16'") as told:
        fail()
    assert told.value.__cause__ is error


@pytest.mark.parametrize("error", [RuntimeError("shapes do not fit"), InputError("no words"), KeyError("x")])
def test_other_errors_pass(error: Exception) -> None:
    @inference
    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as told:
        fail()
    assert told.value is error
