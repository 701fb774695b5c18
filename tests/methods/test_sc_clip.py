"""SC-CLIP against its public code (reference/peers/scclip)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from tests.methods.peer import Peer
from tests.tiny_models import random_pixels, tiny_clip
from ttd.encoders.clip_towers import as_map
from ttd.encoders.methods import Context, Method
from ttd.methods.sc_clip import anomalous, outlier_scores, repaired

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def peer(peers_root: Path) -> Peer:
    return Peer(peers_root, "scclip", "sc-clip")


def windows(height: int, width: int, crop: int, stride: int) -> list[tuple[int, int]]:
    tops, lefts = (
        [min(i * stride, n - crop) for i in range(max(n - crop + stride - 1, 0) // stride + 1)] for n in (height, width)
    )
    return [(top, left) for top in tops for left in lefts]


@torch.no_grad()
@pytest.mark.parametrize("name", ["a", "c"])
def test_windows(peer: Peer, name: str) -> None:
    """The first and the last window: scores, outliers, features, logits."""
    pixels = peer.common[f"pixels_{name}"]
    crop, stride = peer.settings["slide_crop"], peer.settings["slide_stride"]
    places = windows(*pixels.shape[:2], crop, stride)
    out = {key.partition(".")[2]: value for key, value in peer.outputs.items() if key.startswith(f"{name}_slide.")}
    assert len(places) == len(out["lof_scores"])
    for number in (0, -1):
        top, left = places[number]
        features = peer.encode(pixels[top : top + crop, left : left + crop])
        expected = as_map(normalize(out["dense"][[number]], dim=-1), (14, 14))
        torch.testing.assert_close(features.dense, expected, atol=TOLERANCE, rtol=0)
        logits = interpolate(
            peer.encoder.similarity(features, peer.text), (crop, crop), mode="bilinear", align_corners=False
        )
        torch.testing.assert_close(logits[0, :, ::8, ::8], out["window_logits_s8"][number], atol=TOLERANCE, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("name", ["a", "c"])
def test_outliers(peer: Peer, name: str) -> None:
    seen: list[Tensor] = []

    def patches(blocks: Any, states: Any, grid: tuple[int, int], context: Context) -> Tensor:
        seen.append(states[-1][:, 1:])
        return seen[0]

    positions = peer.encoder.method.positions
    probe = peer.encoder.with_method(Method("probe", "a test", patches=patches, positions=positions))
    crop = peer.settings["slide_crop"]
    probe.encode_image(peer.normalised(peer.common[f"pixels_{name}"][:crop, :crop]))
    expected = peer.outputs[f"{name}_slide.lof_scores"][0]
    torch.testing.assert_close(outlier_scores(seen[0])[0], expected, atol=TOLERANCE, rtol=TOLERANCE)
    found = anomalous(seen[0])[0].nonzero().flatten()
    assert set(found.tolist()) == set(peer.outputs[f"{name}_slide.outliers"][0].tolist())


def test_an_outlier_becomes_the_mean_of_its_good_neighbours() -> None:
    tokens = torch.arange(12, dtype=torch.float32).view(1, 12, 1)  # 3 x 4
    outliers = torch.zeros(1, 12, dtype=torch.bool)
    outliers[0, [0, 1, 11]] = True
    found = repaired(tokens, outliers, (3, 4))[0, :, 0]
    assert found[0] == (4 + 5) / 2
    assert found[1] == (2 + 4 + 5 + 6) / 4
    assert found[11] == (6 + 7 + 10) / 3
    assert torch.equal(found[2:11], tokens[0, 2:11, 0])
    assert torch.equal(repaired(tokens, torch.ones_like(outliers), (3, 4)), tokens)


@torch.no_grad()
def test_a_batch_of_any_shape_is_each_image_alone() -> None:
    encoder = tiny_clip().with_method("sc-clip")
    pixels = random_pixels(2, 64, 112)
    both = encoder.encode_image(pixels).dense
    for one, found in zip(pixels, both, strict=True):
        torch.testing.assert_close(encoder.encode_image(one[None]).dense[0], found, atol=1e-4, rtol=0)
