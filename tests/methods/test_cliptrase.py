"""CLIPtrase against its public code (reference/peers/cliptrase)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from tests.methods.peer import Peer
from tests.tiny_models import random_pixels, tiny_clip
from tests.tolerance import assert_close
from ttd.encoders.clip_towers import as_map
from ttd.inference.options import Options
from ttd.inference.stitching import Stitched
from ttd.inference.views import encode_views
from ttd.methods.cliptrase import Vote, correlation, medians, voted

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def peer(peers_root: Path) -> Peer:
    return Peer(peers_root, "cliptrase", "cliptrase")


def vote(peer: Peer, size: int) -> Vote:
    return Vote(float(peer.inputs[f"eps_{size}"]), peer.settings["runs"][f"s{size}"]["min_samples"])


@torch.no_grad()
@pytest.mark.parametrize("size", [224, 288])
def test_features_and_correlation(peer: Peer, size: int) -> None:
    pixels = peer.outputs[f"s{size}_voc21.pixels"].permute(1, 2, 0)
    features = peer.encode(pixels)
    side = size // 16
    expected = as_map(normalize(peer.outputs[f"s{size}.dense"], dim=-1), (side, side))
    torch.testing.assert_close(features.dense, expected, atol=TOLERANCE, rtol=0)
    token = normalize(peer.outputs[f"s{size}.class_token"][:, 0], dim=-1)
    torch.testing.assert_close(features.extras["class_token"], token, atol=TOLERANCE, rtol=0)
    units = features.extras["units"][0]
    if size == 224:
        torch.testing.assert_close(units @ units.T, peer.outputs["s224.self_correlation"], atol=TOLERANCE, rtol=0)
    affinity = correlation(units)
    labels = vote(peer, size).dbscan(affinity)
    assert (labels == peer.outputs[f"s{size}.dbscan_labels"].numpy()).all()
    if size == 224:
        maps = torch.stack([affinity[torch.from_numpy(labels == one)].mean(0) for one in range(labels.max() + 1)])
        found = medians(maps.unflatten(1, (side, side)))
        expected = peer.outputs["s224.cluster_maps_after_median"]
        torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("size", [224, 288])
@pytest.mark.parametrize("way", ["voc21", "voc20"])
def test_labels(peer: Peer, size: int, way: str) -> None:
    method = peer.encoder.with_method("cliptrase" if way == "voc21" else "cliptrase-voc20").method
    encoder = peer.encoder.with_method(replace(method, finish=vote(peer, size)))
    names = int(peer.inputs["n_labels"])
    text = peer.text if way == "voc21" else peer.text[:names]
    classes = torch.arange(len(text)).clamp_max(names)
    pixels = peer.outputs[f"s{size}_voc21.pixels"].permute(1, 2, 0)
    logits = encoder.similarity(encoder.encode_image(peer.normalised(pixels)), text, classes)
    expected = peer.outputs[f"s{size}_{way}.label_map"]
    assert len(expected.unique()) > 1
    assert (classes[logits[0].argmax(0)] != expected).float().mean() <= 1e-3


def test_votes_are_counted_in_each_cluster() -> None:
    found = torch.tensor([[2, 2, 0], [1, 0, 0], [1, 1, 0]])
    cluster = torch.tensor([[0, 0, 0], [1, 1, 1], [2, 2, 2]])
    assert voted(found, cluster).tolist() == [[2, 2, 2], [0, 0, 0], [1, 1, 1]]
    assert voted(torch.tensor([[3, 1]]), torch.zeros(1, 2, dtype=torch.int64)).tolist() == [[1, 1]]  # a tie: the lower
    assert torch.equal(voted(found, None), found)


@torch.no_grad()
@pytest.mark.parametrize("window", [None, 48])
def test_labels_are_read_without_a_value_for_every_text_and_pixel(window: int | None) -> None:
    encoder = tiny_clip().with_method("cliptrase")
    options = Options(size=64, window=window, stride=None if window is None else 32, flip=True)
    text, classes = normalize(torch.randn(5, 48), dim=-1), torch.tensor([0, 1, 1, 2, 2])
    views = list(encode_views(encoder, [random_pixels(2, 64, 112)], options))
    dense = Stitched.ask(views, lambda features: encoder.similarity(features, text, classes), window is not None)
    found = Stitched.ask(views, lambda features: encoder.logits(features, text, classes), window is not None)
    size = (50, 90)
    for image in (0, 1):
        assert_close(found.read(image, size), dense.read(image, size), 100)
        part = found.read(image, size, slice(1, 4), slice(7, 31))
        assert_close(part, dense.read(image, size, slice(1, 4), slice(7, 31)), 100)
    some = found.only(1, [4, 0])
    assert_close(some.read(0, size), dense.only(1, [4, 0]).read(0, size), 100)


@torch.no_grad()
def test_any_grid_in_batches() -> None:
    encoder = tiny_clip().with_method("cliptrase")
    pixels, text = random_pixels(2, 64, 112), torch.randn(3, 48)
    both = encoder.similarity(encoder.encode_image(pixels), text)
    assert both.shape == (2, 3, 64, 112)
    for one, found in zip(pixels, both, strict=True):
        alone = encoder.similarity(encoder.encode_image(one[None]), text)[0]
        torch.testing.assert_close(alone.amax(0), found.amax(0), atol=1e-3, rtol=0)
