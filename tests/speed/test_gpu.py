"""The measurements of a GPU run from end to end on small models, and torch counts the operations that a tower has."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from speed import gpu
from tests.tiny_models import tiny_clip


@pytest.mark.slow
def test_all_of_it_runs_on_a_processor(capsys: pytest.CaptureFixture[str]) -> None:
    bench = gpu.main(["--tiny", "--device", "cpu"])
    printed = capsys.readouterr().out
    assert not bench.left_out, bench.left_out
    names = [name.split(",")[0] for name, _, _ in bench.rows]
    for name in ("CLIP ViT-B/16", "TCL"):
        assert [names.count(f"{what} {name}") for what in ("training", "pruning", "tagging", "segmenting")] == [
            2,
            1,
            1,
            2,
        ]
    assert all(rate > 0 for _, rate, _ in bench.rows)
    assert all(flops > 0 for name, _, flops in bench.rows if not name.startswith("loader"))
    assert "TFLOP/s in bfloat16" in printed
    assert "keep the fastest training above busy" in printed


def test_no_time_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    bench = gpu.main(["--tiny", "--device", "cpu", "--minutes", "0"])
    assert bench.rows == []
    assert "left out: pruning TCL: no time left" in capsys.readouterr().out


@torch.inference_mode()
def test_torch_counts_the_operations_of_a_vision_tower() -> None:
    """Matrix products: 2 each for every multiplication with its addition."""
    images, tokens, width, layers, patch = 3, 17, 64, 2, 16
    encoder = tiny_clip(layers=layers, width=width)
    pixels = torch.zeros(images, 3, 64, 64)
    with FlopCounterMode(display=False) as counter:
        encoder.encode_pooled(pixels)
    hidden = encoder.backbone.config.vision_config.intermediate_size
    embedding = 16 * 3 * patch * patch * width
    block = tokens * (4 * width * width + 2 * width * hidden)  # q, k, v and the way out; the MLP
    # The last block answers the class token alone: keys and values of all tokens, the rest of one.
    last = 2 * tokens * width * width + 2 * width * width + 2 * width * hidden
    products = embedding + (layers - 1) * block + last + width * encoder.embedding_size
    # Scores and averages of attention, which torch counts on a GPU and not on a processor.
    attention = 2 * width * tokens * ((layers - 1) * tokens + 1)
    assert 2 * images * products <= counter.get_total_flops() <= 2 * images * (products + attention)
