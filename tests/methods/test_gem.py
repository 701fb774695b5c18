"""GEM against its public code (reference/peers/gem)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import interpolate

from tests.methods.peer import Peer
from ttd.encoders.clip_towers import as_map

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def peer(peers_root: Path) -> Peer:
    return Peer(peers_root, "gem", "gem")


@torch.no_grad()
@pytest.mark.parametrize("name", ["g", "h"])
def test_features_maps_and_labels(peer: Peer, name: str) -> None:
    pixels = peer.inputs[f"pixels_{name}"]
    features = peer.encode(pixels)
    grid = (pixels.shape[0] // 16, pixels.shape[1] // 16)
    expected = torch.nn.functional.normalize(peer.outputs[f"{name}.features_gem"], dim=-1)
    torch.testing.assert_close(features.dense, as_map(expected[:, 1:], grid), atol=TOLERANCE, rtol=0)
    ordinary = torch.nn.functional.normalize(peer.outputs[f"{name}.features_ordinary"], dim=-1)
    torch.testing.assert_close(features.pooled, ordinary[:, 0], atol=TOLERANCE, rtol=0)

    sim = peer.encoder.similarity(features, peer.text)
    maps = interpolate(sim, tuple(pixels.shape[:2]), mode="bilinear", align_corners=False)
    torch.testing.assert_close(maps[..., ::6, ::6], peer.outputs[f"{name}.maps_s6"], atol=TOLERANCE, rtol=0)
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    for name_of, found in (("label_map", maps), ("label_map_minmax", (maps - low) / (high - low))):
        labels = found[0].argmax(0)
        assert len(labels.unique()) > 2
        assert (labels != peer.outputs[f"{name}.{name_of}"]).float().mean() <= 1e-3
