"""CLIP Surgery against its public code (reference/peers/clip_surgery)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from tests.methods.peer import Peer
from ttd.encoders.clip_towers import as_map
from ttd.methods.clip_surgery import points, without_empty

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def peer(peers_root: Path) -> Peer:
    return Peer(peers_root, "clip_surgery", "clip-surgery")


def similarities(peer: Peer, name: str) -> dict[str, Tensor]:
    """`[1,N,h,w]` by each of the three ways."""
    features = peer.encode(peer.inputs[f"pixels_{name}"])
    text = peer.text[None]
    return {
        "plain": torch.einsum("bchw,nc->bnhw", features.dense, peer.text),
        "surgery": peer.encoder.similarity(features, peer.text),
        "surgery_empty": without_empty(features.dense, text, peer.inputs["empty_emb"][0]),
    }


@torch.no_grad()
@pytest.mark.parametrize("name", ["s", "t"])
def test_features(peer: Peer, name: str) -> None:
    pixels = peer.inputs[f"pixels_{name}"]
    features = peer.encode(pixels)
    expected = normalize(peer.outputs[f"{name}.features"], dim=-1)
    side = pixels.shape[0] // 16
    torch.testing.assert_close(features.dense, as_map(expected[:, 1:], (side, side)), atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(features.pooled, expected[:, 0], atol=TOLERANCE, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("name", ["s", "t"])
@pytest.mark.parametrize("way", ["plain", "surgery", "surgery_empty"])
def test_similarity_maps_and_labels(peer: Peer, name: str, way: str) -> None:
    sim = similarities(peer, name)[way]
    expected = peer.outputs[f"{name}.{way}_similarity"]
    side = sim.shape[-1]
    torch.testing.assert_close(sim, as_map(expected[:, 1:], (side, side)), atol=TOLERANCE, rtol=0)
    height, width = peer.settings["images"][name]["original"]
    low, high = sim.amin((-2, -1), keepdim=True), sim.amax((-2, -1), keepdim=True)
    maps = interpolate((sim - low) / (high - low), (height, width), mode="bilinear", align_corners=False)
    shown = peer.outputs[f"{name}.{way}_map_s6"].permute(0, 3, 1, 2)
    torch.testing.assert_close(maps[..., ::6, ::6], shown, atol=1e-3, rtol=0)
    labels = maps[0].argmax(0)
    assert (labels != peer.outputs[f"{name}.{way}_label_map"]).float().mean() <= 1e-3


@torch.no_grad()
@pytest.mark.parametrize("name", ["s", "t"])
def test_points(peer: Peer, name: str) -> None:
    height, width = peer.settings["images"][name]["original"]
    found, labels = points(similarities(peer, name)["surgery_empty"][0, 0], (height, width))
    assert torch.equal(found, peer.outputs[f"{name}.points_of_first_word"])
    assert torch.equal(labels, peer.outputs[f"{name}.points_labels"].long())


@torch.no_grad()
def test_a_text_alone_is_compared_with_the_empty_sentence(peer: Peer) -> None:
    features = peer.encode(peer.inputs["pixels_s"])
    alone = peer.encoder
    alone.encode_text = lambda texts, templates: normalize(peer.inputs["empty_emb"], dim=-1)  # type: ignore[method-assign]
    found = alone.similarity(features, peer.text[:1])
    expected = without_empty(features.dense, peer.text[None, :1], normalize(peer.inputs["empty_emb"], dim=-1)[0])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
