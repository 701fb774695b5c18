"""Hooks get what the contract says, in the order that it says; the package's own entries stay their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from tests.encoders.numpy_clip import cubic_weights
from tests.tiny_models import random_pixels, tiny_clip, tiny_siglip
from tests.tolerance import COSINES, TINY_IMAGE, assert_close
from ttd.encoders.base import Encoder
from ttd.encoders.clip import CLIPEncoder
from ttd.encoders.methods import (
    Context,
    LastBlock,
    Method,
    Patches,
    enlarged_positions,
    find_method,
    known_methods,
    method_names,
    register_method,
)
from ttd.errors import InputError, ModelError
from ttd.inference.feature_cache import encoder_key
from ttd.inference.options import Options
from ttd.model import TTD


def clip_with(**hooks: Any) -> CLIPEncoder:
    return tiny_clip().with_method(Method("mine", "a test", **hooks))


def differ(one: Encoder, other: Encoder) -> float:
    pixels = random_pixels(2, 64, 96)
    return float((one.encode_pixels(pixels) - other.encode_pixels(pixels)).abs().max())


def test_the_packages_own_methods_are_listed_without_others() -> None:
    assert method_names()[:5] == ("maskclip", "sclip", "clearclip", "naclip", "values")
    assert all(method.source and method.protocol for method in known_methods()[:5])


@pytest.mark.parametrize("name", ["maskclip", "Mine", "", "a b"])
def test_a_name_that_is_taken_or_none_is_refused(name: str) -> None:
    before = find_method("maskclip")
    with pytest.raises(InputError):
        register_method(Method(name, "a test"))
    assert find_method("maskclip") is before


@torch.no_grad()
def test_no_hook_is_maskclip_and_each_state_is_what_enters_its_block() -> None:
    assert differ(clip_with(), tiny_clip()) < 1e-5

    def check(blocks: Any, states: Any, grid: tuple[int, int], context: Context) -> torch.Tensor:
        assert len(states) == len(blocks) == 2
        assert grid == (4, 6)
        # Kernels may differ in the last bits with the shape of what they get.
        torch.testing.assert_close(blocks[0](states[0], None), states[1], atol=1e-5, rtol=0)
        return LastBlock()(blocks, states, grid, context)

    assert differ(clip_with(patches=check, every_state=True), tiny_clip()) < 1e-5


@torch.no_grad()
def test_similarity_then_finish_make_the_logits() -> None:
    seen: list[Context] = []

    def finish(logits: torch.Tensor, context: Context) -> torch.Tensor:
        seen.append(context)
        return 2 * logits + 1

    def similarity(dense: torch.Tensor, pooled: torch.Tensor, text: torch.Tensor, context: Context) -> torch.Tensor:
        assert context.class_token is None
        return (pooled @ text.T)[..., None, None]

    plain, encoder = tiny_clip(), clip_with(similarity=similarity, finish=finish)
    pixels, text = random_pixels(2), torch.randn(3, 48)
    found = encoder.similarity(encoder.encode_image(pixels), text)
    whole = plain.encode_pooled(pixels) @ torch.nn.functional.normalize(text, dim=-1).T
    torch.testing.assert_close(found[..., 0, 0], 2 * whole + 1, atol=1e-5, rtol=0)
    assert torch.equal(seen[0].pixels, pixels)
    assert seen[0].places is None
    trained = encoder.encode_for_similarity(pixels)  # as in training, where plain cosines need `dense` alone
    torch.testing.assert_close(encoder.similarity(trained, text), found, atol=1e-5, rtol=0)
    assert plain.encode_for_similarity(pixels).pooled.shape == (2, 0)


def test_windows_say_where_they_lie() -> None:
    """The pixels at a window's place in the image, mirrored where it says so, are the window's."""
    seen: list[Context] = []
    encoder = clip_with(finish=lambda logits, context: seen.append(context) or logits)
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    TTD(encoder).similarity(image, ["dog"], Options(size=64, window=32, stride=16, flip=True))
    pixels, places = (torch.cat([getattr(one, name) for one in seen]) for name in ("pixels", "places"))
    assert len(places) == 2 * 3 * 5
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (encoder.mean, encoder.std))
    whole = (torch.from_numpy(image).permute(2, 0, 1) / 255 - mean) / std
    for window, (top, left, height, width, mirrored) in zip(pixels, places.tolist(), strict=True):
        assert (height, width) == (64, 96)
        expected = whole[:, top : top + 32, left : left + 32]
        torch.testing.assert_close(window.flip(-1) if mirrored else window, expected, atol=1e-5, rtol=0)
    assert sorted({place[1] for place in places.tolist()}) == [0, 16, 32, 48, 64]


@torch.no_grad()
def test_position_embeddings_are_resized_as_the_method_says() -> None:
    def by_size(native: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        assert native.shape == (1, 64, 4, 4)
        return interpolate(native, size=grid, mode="bicubic", align_corners=False)

    assert differ(clip_with(positions=by_size), tiny_clip()) < 1e-5
    nearest = clip_with(positions=lambda native, grid: interpolate(native, size=grid, mode="nearest"))
    assert differ(nearest, tiny_clip()) > 1e-3


@torch.no_grad()
def test_a_second_backbone_is_made_once_and_is_no_part_of_the_model() -> None:
    made: list[torch.device] = []

    def make(device: torch.device) -> Any:
        made.append(device)
        return torch.nn.Conv2d(3, 5, 16, 16, device=device)

    seen: list[torch.Tensor] = []

    def patches(blocks: Any, states: Any, grid: tuple[int, int], context: Context) -> torch.Tensor:
        assert not any(parameter.requires_grad for parameter in context.second.parameters())
        seen.append(context.second(context.colours()))
        return LastBlock()(blocks, states, grid, context)

    encoder = clip_with(patches=patches, second_backbone=make)
    for _ in range(2):
        encoder.encode_image(random_pixels(2, 64, 96))
    assert len(made) == 1
    assert seen[0].shape == (2, 5, 4, 6)
    assert set(encoder.state_dict()) == set(tiny_clip().state_dict())
    with pytest.raises(InputError, match="second backbone"):
        encoder_key(encoder)


@torch.no_grad()
def test_another_method_on_the_same_towers_leaves_the_first_alone() -> None:
    encoder = tiny_clip()
    before = encoder.encode_pixels(random_pixels())
    other = encoder.with_method("naclip")
    assert other.backbone is encoder.backbone
    assert (encoder.method_name, other.method_name) == ("maskclip", "naclip")
    torch.testing.assert_close(encoder.encode_pixels(random_pixels()), before, atol=1e-5, rtol=0)
    assert differ(other, tiny_clip(method="naclip")) < 1e-5
    with pytest.raises(ModelError, match="leave the method out"):
        tiny_siglip().with_method("naclip")


def test_patches_may_lie_on_another_grid_and_hand_things_to_the_other_hooks() -> None:
    """Each patch twice as wide and high, a class token of the method's own, and something else by name."""

    def patches(blocks: Any, states: Any, grid: tuple[int, int], context: Context) -> Patches:
        tokens = LastBlock()(blocks, states, grid, context)
        finer = tokens.view(len(tokens), *grid, -1).repeat_interleave(2, 1).repeat_interleave(2, 2)
        return Patches(finer.flatten(1, 2), (2 * grid[0], 2 * grid[1]), tokens.mean(1), {"norms": tokens.norm(dim=-1)})

    seen: list[Context] = []

    def finish(logits: torch.Tensor, context: Context) -> torch.Tensor:
        seen.append(context)
        return logits

    encoder, pixels, text = clip_with(patches=patches, finish=finish), random_pixels(2, 64, 96), torch.randn(3, 48)
    with torch.no_grad():
        sim = encoder.similarity(encoder.encode_image(pixels), text, torch.tensor([0, 0, 1]))
        plain = tiny_clip().similarity(tiny_clip().encode_image(pixels), text)
        assert_close(encoder.encode_pixels(pixels)[..., ::2, ::2], tiny_clip().encode_pixels(pixels), TINY_IMAGE)
    assert_close(sim, plain.repeat_interleave(2, -2).repeat_interleave(2, -1), COSINES)
    context = seen[0]
    assert context.class_token is not None
    assert context.classes is not None
    assert context.encode_text is not None
    assert_close(context.class_token.norm(dim=-1), torch.ones(2), 48)
    assert context.extras["norms"].shape == (2, 24)
    assert context.classes.tolist() == [0, 0, 1]
    assert context.encode_text([""], ["{}"]).shape == (1, 48)


def test_all_windows_of_an_image_together_make_one_map_of_it() -> None:
    """Windows laid side by side by their places give what each of them gives alone, for each mirroring and image."""

    def patches(blocks: Any, states: Any, grid: tuple[int, int], context: Context) -> Patches:
        assert context.places is not None
        assert context.image is not None
        assert context.image.shape == (1, 3, 64, 96)
        tokens = LastBlock()(blocks, states, grid, context).view(-1, *grid, 64)
        whole = tokens.new_zeros(1, 4, 6, 64)
        for window, (top, left, _, width, mirrored) in zip(tokens, context.places.tolist(), strict=True):
            start = width - 32 - left if mirrored else left
            whole[0, top // 16 : top // 16 + 2, start // 16 : start // 16 + 2] = window
        return Patches(whole.flatten(1, 2), (4, 6))

    options = Options(size=64, window=32, stride=32, flip=True)
    images = [np.random.default_rng(seed).integers(0, 256, (64, 96, 3), dtype=np.uint8) for seed in range(2)]
    for encoder in (clip_with(patches=patches, together=True), tiny_clip()):
        model = TTD(encoder)
        found = [model.similarity(image, ["dog", "cat"], options) for image in images]
        if encoder.together:
            together = found
    for one, other in zip(together, found, strict=True):
        assert_close(one, other, COSINES)


@torch.no_grad()
@pytest.mark.parametrize("grid", [(4, 4), (2, 8), (5, 7), (3, 4)])
def test_peers_enlarge_positions_by_factors_that_also_say_where_samples_lie(grid: tuple[int, int]) -> None:
    native = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    found = enlarged_positions(native, grid)
    if grid[0] * grid[1] == 16:
        assert torch.equal(found, native.reshape(1, 3, *grid))
        return

    down, across = (torch.from_numpy(cubic_weights(cells, 4, 0.1)) for cells in grid)
    expected = torch.einsum("ik,bckl,jl->bcij", down, native, across)
    assert_close(found, expected, 16, dtype=torch.float32)


def test_lora_leaves_out_a_query_that_gets_no_gradient() -> None:
    last = "vision_model.encoder.layers.1.self_attn.q_proj"
    with_query = {name for name in method_names() if last in tiny_clip(method=name).lora_targets()}
    assert with_query >= {"sclip", "clearclip"}
    assert not with_query & {"maskclip", "naclip", "values"}
    assert last not in clip_with().lora_targets()  # no hook is MaskCLIP
    assert last in clip_with(patches=LastBlock("qq")).lora_targets()
