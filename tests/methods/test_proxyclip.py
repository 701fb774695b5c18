"""ProxyCLIP against its public code (reference/peers/proxyclip), with a small DINOv2 on disk as its second backbone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize, pad
from transformers import Dinov2Config, Dinov2Model, DINOv3ViTConfig, DINOv3ViTModel, ViTConfig, ViTModel

from tests.methods.peer import Peer
from tests.tiny_models import random_pixels, tiny_clip
from ttd.encoders.clip_towers import as_map
from ttd.encoders.methods import find_method
from ttd.errors import InputError, ModelError
from ttd.methods.patch_weights import above, mean_cosine
from ttd.methods.second_backbone import load_second_backbone

TOLERANCE = 1e-4
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


@pytest.fixture(scope="module")
def peer(peers_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Peer:
    """With the reference's own second backbone, saved to a folder and loaded from it."""
    found = Peer(peers_root, "proxyclip", "maskclip")
    folder = tmp_path_factory.mktemp("dinov2")
    found.second_backbone().save_pretrained(folder)
    found.encoder = found.encoder.with_method(find_method("proxyclip").with_second_backbone(folder))
    return found


def padded(pixels: Tensor) -> Tensor:
    """To multiples of 56, the smaller half on the left and top."""
    missing = [-side % 56 for side in pixels.shape[-2:]]
    top, left = (side // 2 for side in missing)
    return pad(pixels, (left, missing[1] - left, top, missing[0] - top))


@torch.no_grad()
@pytest.mark.parametrize("name", ["d", "b"])
def test_windows(peer: Peer, name: str) -> None:
    run = peer.settings["runs"][f"{name}_slide"]
    crop, stride = run["slide_crop"], run["slide_stride"]
    pixels = peer.normalised(peer.common[f"pixels_{name}"])
    out = {key.partition(".")[2]: value for key, value in peer.outputs.items() if key.startswith(f"{name}_slide.")}
    lefts = [min(i * stride, pixels.shape[-1] - crop) for i in range(-(-(pixels.shape[-1] - crop) // stride) + 1)]
    for number, left in ((0, 0), (-1, lefts[-1])):
        window = padded(pixels[..., :crop, left : left + crop])
        features = peer.encoder.encode_image(window)
        side = round(out["dense"].shape[1] ** 0.5)
        expected = as_map(normalize(out["dense"][[number]], dim=-1), (side, side))
        torch.testing.assert_close(features.dense, expected, atol=TOLERANCE, rtol=0)
        sim = peer.encoder.similarity(features, peer.text)
        logits = interpolate(sim, tuple(window.shape[-2:]), mode="bilinear", align_corners=False)
        found = logits[0, :, ::8, ::8]
        torch.testing.assert_close(found, out["window_logits_s8"][number], atol=TOLERANCE, rtol=0)
        if number == 0:
            guide = peer.encoder._second(torch.device("cpu"))(peer.encoder._context(window, None).colours())
            torch.testing.assert_close(guide, out["proxy_features_w0"], atol=TOLERANCE * 10, rtol=0)
            cosine = mean_cosine(normalize(guide.flatten(2).transpose(1, 2), dim=-1)).flatten()
            torch.testing.assert_close(cosine, out["proxy_mean_cos"][:1], atol=TOLERANCE, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["dinov2", "dinov3_vit", "vit"])
def test_backbones_of_transformers(kind: str, tmp_path: Path) -> None:
    """Any window, in batches; patches are those of the library's own model."""
    if kind == "dinov2":
        model = Dinov2Model(Dinov2Config(**SMALL, patch_size=14, image_size=56))
    elif kind == "dinov3_vit":
        model = DINOv3ViTModel(DINOv3ViTConfig(**SMALL, patch_size=16, image_size=64, num_register_tokens=4))
    else:
        model = ViTModel(ViTConfig(**SMALL, patch_size=8, image_size=32))
    model.eval().save_pretrained(tmp_path)
    second = load_second_backbone(tmp_path)
    colours = torch.rand(2, 3, 112, 224)
    patch = model.config.patch_size
    grid = (112 // patch, 224 // patch)
    found = second(colours)
    assert found.shape == (2, 32, *grid)
    pixels = (colours - second.mean) / second.std
    more = {"interpolate_pos_encoding": True} if kind == "vit" else {}
    tokens = model(pixels, **more).last_hidden_state[:, -grid[0] * grid[1] :]
    torch.testing.assert_close(found, as_map(tokens, grid), atol=1e-5, rtol=0)
    encoder = tiny_clip().with_method(find_method("proxyclip").with_second_backbone(tmp_path))
    dense = encoder.encode_pixels(random_pixels(2, 64, 96))
    assert dense.shape == (2, 48, round(64 / patch), round(96 / patch))
    assert dense.isfinite().all()


def test_what_is_no_backbone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"unknown second backbone .*known names are dino-vitb8"):
        load_second_backbone("nowhere")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError, match=r"holds a 'bert' model.*choose one of dinov2"):
        load_second_backbone(tmp_path)
    with pytest.raises(InputError, match="maskclip has no second backbone"):
        find_method("maskclip").with_second_backbone(tmp_path)


def test_a_row_without_any_similar_patch_keeps_its_highest() -> None:
    cosines = torch.tensor([[[1.0, 0.2, 0.9], [0.2, 0.5, 0.1]]])
    weights = above(cosines, 0.8, 3.0)
    expected = torch.tensor([0.6, 0.3]).softmax(0)
    torch.testing.assert_close(weights[0, 0, [0, 2]], expected)
    assert weights[0, 0, 1] == 0
    assert weights[0, 1].tolist() == [0, 1, 0]
