from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import interpolate, normalize

from tests.encoders import plain_tcl
from tests.tiny_models import random_pixels, tiny_tcl, tiny_tcl_tensors
from tests.tolerance import (
    COSINES_TCL,
    LAYERS,
    PAMR,
    TINY_TCL,
    TINY_TEXT,
    assert_close,
    assert_same_decisions,
    float_tolerance,
    label_margin,
    largest_difference,
    tower,
)
from ttd.encoders import MapQuestion, TCLEncoder, tcl
from ttd.errors import InputError, ModelError

SIZES = [
    {"depth": 4, "first_trained": 2, "levels": 3, "convs": 1, "width": 64, "text_width": 128},
    {
        "depth": 3,
        "first_trained": 0,
        "levels": 1,
        "convs": 3,
        "width": 192,
        "patch": 8,
        "context": 20,
        "vocab": 90,
    },
    {"depth": 2, "first_trained": 1, "patch": 32, "embedding": 32},
]


def largest_tower(
    *, depth: int, width: int = 128, text_width: int = 64, patch: int = 16, convs: int = 2, levels: int = 2, **_: int
) -> int:
    """Additions up to the dense features or the text's embedding, whichever are more."""
    wide = max(width, text_width)
    blocks = tower(blocks=depth, width=wide, tokens=77, first=3 * patch**2, hidden=4 * wide)
    return blocks + levels * convs * (9 * width + width)


@pytest.mark.parametrize("image", ["0", "1"])
@torch.no_grad()
def test_reference_outputs(shared: Path, image: str) -> None:
    folder = shared / "reference" / "tcl_small"
    expected = load_file(folder / "outputs.safetensors")
    encoder = TCLEncoder.from_state_dict(load_file(folder / "tcl_state_dict.safetensors"))
    text = encoder.embed_tokens(expected["tokens"])
    assert_close(text, expected["text_emb"], TINY_TEXT)
    pixels = expected[f"image{image}"]
    features = encoder.encode_image(pixels)
    assert_close(encoder.similarity(features, text), expected[f"simmap{image}"], COSINES_TCL, scale=1)
    slope = float(encoder.backbone.mask_scale) / 4  # the steepest of the sigmoid that makes masks of cosines
    assert_masks = partial(assert_close, scale=slope)
    assert_masks(encoder.masks(pixels, text, clip_weight=0), expected[f"mask_plain{image}"], COSINES_TCL)
    refined = encoder.masks(pixels, text, pamr=True, clip_weight=0)
    assert_masks(refined, expected[f"mask_pamr{image}"], COSINES_TCL + PAMR)
    assert_masks(encoder.masks(pixels, text, pamr=True), expected[f"mask_pamr_kp{image}"], COSINES_TCL + PAMR)
    if image == "0":
        assert_close(features.pooled, normalize(expected["global_emb0"], dim=-1), TINY_TCL)
        assert_close(features.extras["clip_dense"], normalize(expected["maskclip_feat0"], dim=1), TINY_TCL)


@pytest.mark.parametrize("sizes", SIZES)
@torch.no_grad()
def test_other_sizes_are_read_from_the_parameters(sizes: dict[str, int]) -> None:
    tensors = tiny_tcl_tensors(**sizes)
    encoder = TCLEncoder.from_state_dict(tensors)
    structure = [sizes["depth"], sizes["first_trained"], sizes.get("levels", 2), sizes.get("convs", 2)]
    side, vocabulary, context = 4 * sizes.get("patch", 16), sizes.get("vocab", 49_408), sizes.get("context", 77)
    assert encoder.max_tokens == context

    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, vocabulary - 2, (3, context), generator=generator)
    for row, end in enumerate((2, 9, context - 1)):
        ids[row, end] = vocabulary - 1
    text = plain_tcl.text(ids, tensors)
    terms = largest_tower(**sizes)
    assert_close(encoder.embed_tokens(ids.int()), text, terms)
    for height, width in ((side, side), (50, 33), (1, 70)):
        pixels = random_pixels(2, height, width)
        if height == width:
            plain = plain_tcl.dense(pixels, tensors, *structure)
            assert_close(encoder.encode_pixels(pixels), normalize(plain, dim=1), terms)
        found = encoder.masks(pixels, text, pamr=True, clip_weight=0.3)
        wanted = plain_tcl.masks(pixels, text, tensors, *structure)
        assert_close(found, wanted, 2 * terms + PAMR, scale=9 / 4)  # of sigmoid(9 x)


@pytest.mark.parametrize("sizes", SIZES)
def test_official_names_there_and_back(sizes: dict[str, int]) -> None:
    tensors = tiny_tcl_tensors(**sizes)
    back = TCLEncoder.from_state_dict(tensors).to_official_state_dict()
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)


def test_half_precision_checkpoints_compute_in_float32() -> None:
    encoder = TCLEncoder.from_state_dict({name: t.half() for name, t in tiny_tcl_tensors().items()})
    assert encoder.dtype == torch.float32
    assert encoder.fingerprint() == tiny_tcl().fingerprint()


@torch.no_grad()
def test_padding_is_centred_and_reported() -> None:
    encoder = tiny_tcl()
    pixels = random_pixels(1, 57, 34)
    features = encoder.encode_image(pixels)
    assert (features.size, features.padded, features.offset) == ((57, 34), (64, 48), (3, 7))
    padded = torch.zeros(1, 3, 64, 48)
    padded[..., 3:60, 7:41] = pixels
    assert_close(features.dense, encoder.encode_image(padded).dense, TINY_TCL)
    assert_close(features.dense, encoder.encode_pixels(pixels), TINY_TCL)
    assert torch.equal(features.extras["pixels"], padded)


@torch.no_grad()
def test_templates_are_averaged_before_they_are_normalised() -> None:
    encoder = tiny_tcl()
    texts = ["a photo of a dog.", "dog"]
    each = encoder.embed_tokens(encoder.tokenize(texts)[0])
    expected = normalize(each.mean(0, keepdim=True), dim=-1)
    assert_close(encoder.encode_text(["dog"], ["a photo of a {}.", "{}"]), expected, TINY_TEXT)
    assert largest_difference(expected, normalize(normalize(each, dim=-1).mean(0, keepdim=True), dim=-1)) > 1e-4


@torch.no_grad()
def test_maps_mix_the_branches() -> None:
    encoder = tiny_tcl()
    features, text = encoder.encode_image(random_pixels()), encoder.encode_text(["dog", "cat"])
    own = encoder.maps(features, text, MapQuestion(clip_weight=0))
    cos_clip = torch.einsum("bchw,nc->bnhw", features.extras["clip_dense"], text)
    prior = interpolate(torch.sigmoid(10 * (cos_clip - 0.25)), scale_factor=4, mode="bilinear")
    assert_close(own, torch.sigmoid(9 * encoder.similarity(features, text) - 2), 48, scale=9 / 4)
    # The steepest slopes of both sigmoids, each with its share.
    mixed = encoder.maps(features, text, MapQuestion(clip_weight=0.6))
    assert_close(mixed, 0.4 * own + 0.6 * prior, 48, scale=0.4 * 9 / 4 + 0.6 * 10 / 4)
    with pytest.raises(InputError, match="clip_weight"):
        encoder.maps(features, text, MapQuestion(clip_weight=1.5))


@torch.no_grad()
def test_pamr_leaves_out_only_what_cannot_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = tiny_tcl()
    features, text = encoder.encode_image(random_pixels()), torch.randn(12, 48)
    full = encoder.maps(features, text, MapQuestion(refine="pamr"))
    threshold = float(full.amax((0, 2, 3)).median())
    refined = []
    pamr = tcl.refine_with_pamr
    monkeypatch.setattr(tcl, "refine_with_pamr", lambda image, m: refined.append(m.shape[1]) or pamr(image, m))
    sparse = encoder.maps(features, text, MapQuestion(refine="pamr", threshold=threshold))
    labels = [torch.where(m.amax(1) < threshold, -1, m.argmax(1)) for m in (full, sparse)]
    margin = label_margin(full.movedim(1, 0), threshold)
    assert_same_decisions(labels[1], labels[0], margin, float_tolerance(torch.float32, PAMR))
    assert (labels[0] >= 0).any()
    assert 0 < refined[0] < 12
    encoder.maps(features, text, MapQuestion(refine="pamr", threshold=1.1))
    assert len(refined) == 1


def test_gradients_reach_every_layer_that_lora_adapts_and_not_the_frozen_branch() -> None:
    encoder = tiny_tcl()
    text = encoder.encode_text(["dog", "a cat"])
    encoder.similarity(encoder.encode_image(random_pixels()), text).square().sum().backward()
    modules = dict(encoder.backbone.named_modules())
    assert all(modules[name].weight.grad.abs().max() > 0 for name in encoder.lora_targets())
    assert modules["clip.vision_model.encoder.layers.2.self_attn.v_proj"].weight.grad is None
    assert modules["trained_blocks.0.self_attn.q_proj"].weight.grad is None


@torch.no_grad()
def test_an_adapter_attaches_everywhere_and_merges_into_the_official_format() -> None:
    from peft import LoraConfig, get_peft_model

    encoder = tiny_tcl()
    fingerprint, pixels = encoder.fingerprint(), random_pixels(1)
    targets = encoder.lora_targets()
    encoder.backbone = get_peft_model(encoder.backbone, LoraConfig(r=2, target_modules=targets))
    assert encoder.fingerprint() == fingerprint
    assert encoder.lora_targets() == targets
    with pytest.raises(ModelError, match="merge"):
        encoder.to_official_state_dict()
    for name, parameter in encoder.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    adapted = encoder.encode_pixels(pixels)
    assert largest_difference(adapted, tiny_tcl().encode_pixels(pixels)) > 1e-3
    encoder.backbone = encoder.backbone.merge_and_unload()
    merged = TCLEncoder.from_state_dict(encoder.to_official_state_dict())
    assert_close(merged.encode_pixels(pixels), adapted, TINY_TCL)


def test_the_papers_count_of_adapter_parameters() -> None:
    """Rank 10 on ViT-B/16's shapes gives about the paper's 1.0 M, 906,240 by the layers named here."""
    vision, text, width, text_width = 11 * 2 + 1, 12 * 2, 768, 512
    attention = 10 * (vision * 2 * width + text * 2 * text_width)
    convolutions = 4 * 10 * (width * 9 + width)
    assert attention + convolutions == 906_240
    names = tiny_tcl(depth=12, first_trained=11, width=64).lora_targets()
    assert sum("vision_model" in n or "trained_blocks" in n for n in names) == vision
    assert sum("text_model" in n for n in names) == text
    assert sum(n.startswith("decoder.") for n in names) == 4


@torch.no_grad()
def test_bfloat16_stays_close() -> None:
    encoder, pixels, text = tiny_tcl(), random_pixels(1), torch.randn(3, 48)
    exact = encoder.masks(pixels, text)
    rounded = encoder.to(torch.bfloat16).masks(pixels, text)
    assert rounded.dtype == torch.float32
    # Rounded once per layer, to which the decoder adds eight; sigmoid(9 x) is as steep as 9 / 4.
    assert_close(rounded, exact, LAYERS + 8 + 8, scale=0.45 * 9 / 4, dtype=torch.bfloat16)


def test_damaged_checkpoints_are_refused_in_a_sentence() -> None:
    tensors = tiny_tcl_tensors()
    without = lambda part: {name: t for name, t in tensors.items() if part not in name}  # noqa: E731
    for part, message in (
        ("sim2mask.w", "calibration"),
        ("backbone", "trained vision blocks"),
        ("decoder.decoder", "decoder"),
        ("net.0.conv2.gate", "fit TCL"),
        ("image_proj.proj", "fit TCL"),
        ("clip_proj.proj", "visual.proj"),
    ):
        with pytest.raises(ModelError, match=message):
            TCLEncoder.from_state_dict(without(part))
    with pytest.raises(ModelError, match="stranger"):
        TCLEncoder.from_state_dict({**tensors, "stranger": torch.zeros(1)})
    with pytest.raises(ModelError, match="does not have"):
        TCLEncoder.from_state_dict({**tensors, "masker.image_encoder.decoder.decoder.net.0.x": torch.zeros(1)})


def test_features_of_another_encoder_are_refused() -> None:
    encoder = tiny_tcl()
    features = encoder.encode_image(random_pixels())
    bare = type(features)(features.dense, features.pooled, features.size, features.offset, features.padded)
    with pytest.raises(InputError, match="CLIP branch"):
        encoder.maps(bare, torch.randn(1, 48))
    with pytest.raises(InputError, match="pixels"):
        encoder.maps(bare, torch.randn(1, 48), MapQuestion(refine="pamr", clip_weight=0))
