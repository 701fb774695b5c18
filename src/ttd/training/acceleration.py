"""Switches that change time and memory but not what is computed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


def recompute_blocks(backbone: nn.Module) -> int:
    """Let every transformer block compute its inner activations again in the backward pass.

    Returns:
        how many blocks do.
    """
    blocks = [module for module in backbone.modules() if isinstance(module, GradientCheckpointingLayer)]
    for block in blocks:
        block.gradient_checkpointing = True
        block._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
    return len(blocks)


def compile_blocks(backbone: nn.Module) -> int:
    """Compile every transformer block with `torch.compile`, in place; the first steps take minutes longer.

    Returns:
        how many blocks are.
    """
    blocks = [module for module in backbone.modules() if isinstance(module, GradientCheckpointingLayer)]
    for block in blocks:
        block.compile()
    return len(blocks)


@contextmanager
def determinism(wanted: bool) -> Iterator[None]:
    """Inside the block torch refuses algorithms whose result may differ from run to run on the same machine."""
    if not wanted:
        yield
        return
    # cuBLAS reads this when it starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
