from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import CLIPModel

import ttd
from tests.tiny_models import random_pixels, tiny_clip, tiny_clip_model, tiny_tcl, tiny_tcl_tensors
from tests.tolerance import TINY, TINY_IMAGE, TINY_TCL, assert_close, largest_difference
from tests.training.conftest import tiny_config
from ttd.encoders.base import Encoder
from ttd.encoders.calibration import Calibration
from ttd.encoders.loading.adapters import attach_adapter
from ttd.encoders.registry import load_encoder
from ttd.encoders.tcl import TCLEncoder
from ttd.errors import InputError, ModelError
from ttd.training.config import Model
from ttd.training.export import merge
from ttd.training.lora import Adapter, LearnedCalibration
from ttd.training.trainer import train


@pytest.fixture(scope="module")
def run(base: Path, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three steps."""
    out = tmp_path_factory.mktemp("run") / "adapter"
    return train(tiny_config(base, shards, "optimiser.steps=3", "model.method=values"), out, quiet=True).folder


def trained(encoder: Encoder, options: Model, seed: int = 0) -> Adapter:
    """An adapter whose update is not zero."""
    adapter = Adapter(encoder, options, seed)
    with torch.no_grad():
        for _, parameter in adapter.named_parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return adapter


def test_a_run_loads_as_an_adapter(run: Path, base: Path) -> None:
    model, plain = ttd.load(str(base), adapter=run), ttd.load(str(base), method="values")
    pixels = random_pixels()
    assert model.encoder.method == plain.encoder.method  # type: ignore[attr-defined]
    after, before = model.encoder.encode_pixels(pixels), plain.encoder.encode_pixels(pixels)
    assert largest_difference(after, before) > 1e-4
    assert largest_difference(model.encode_text(["a dog"]), plain.encode_text(["a dog"])) > 1e-4
    none = ttd.load(str(base), adapter=run, adapter_scale=0.0)
    assert_close(none.encoder.encode_pixels(pixels), before, TINY_IMAGE)


def test_an_adapter_keeps_a_share_of_its_update(tmp_path: Path) -> None:
    pixels, options = random_pixels(), Model(kept=0.25)
    part = trained(tiny_clip(), options)
    whole = trained(tiny_clip(), replace(options, kept=1.0))
    # As trained.
    assert_close(part.encoder.encode_pixels(pixels), whole.encoder.encode_pixels(pixels), TINY_IMAGE)
    part.save(tmp_path / "part")
    whole.save(tmp_path / "whole")
    kept = load_with(tmp_path / "part", 1.0).encode_pixels(pixels)
    assert_close(kept, load_with(tmp_path / "whole", 0.25).encode_pixels(pixels), TINY_IMAGE)
    assert largest_difference(kept, part.encoder.encode_pixels(pixels)) > 1e-4


def load_with(adapter: Path, scale: float) -> Encoder:
    encoder = tiny_clip()
    attach_adapter(encoder, adapter, scale=scale)
    return encoder


def test_peft_loads_it_by_itself(run: Path, base: Path) -> None:
    peft = PeftModel.from_pretrained(CLIPModel.from_pretrained(base), run).eval()
    ours: Any = load_encoder(base, adapter=run, merge=False)
    pixels = random_pixels()
    with torch.no_grad():
        theirs = peft.base_model.model.get_image_features(pixels).pooler_output
        assert_close(ours.backbone.get_image_features(pixels).pooler_output, theirs, TINY_IMAGE)
    config = json.loads((run / "adapter_config.json").read_text("utf-8"))
    assert config["base_model_name_or_path"] == str(base)
    assert (config["r"], config["lora_alpha"], config["inference_mode"]) == (10, 10, True)


def test_another_base_is_refused(run: Path, tmp_path: Path) -> None:
    tiny_clip_model(seed=5).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="another base"):
        load_encoder(tmp_path, adapter=run)


def test_the_last_query_is_left_out_and_the_numbers_are_the_papers() -> None:
    names = {name for name, _ in Adapter(tiny_clip(), Model(), 0).named_parameters()}
    assert len(names) == 2 * (2 * 2 * 2 - 1)  # A and B of q and v in two blocks of two towers, without one q
    assert not any("vision_model.encoder.layers.1.self_attn.q_proj" in name for name in names)
    sized = sum(p.numel() for _, p in Adapter(tiny_clip(), Model(rank=3), 0).named_parameters())
    assert sized == 7 * 3 * (64 + 64)


@pytest.mark.parametrize(("towers", "expected"), [("image", {"vision_model"}), ("text", {"text_model"})])
def test_one_tower_alone(towers: Any, expected: set[str]) -> None:
    names = [name for name, _ in Adapter(tiny_clip(), Model(towers=towers), 0).named_parameters()]
    assert {name.split(".")[0] for name in names} == expected


def test_a_learned_calibration_is_the_constant_one_with_gradients() -> None:
    start, sim = Calibration(12.0, 0.2), torch.linspace(-0.1, 0.6, 8)
    learned = LearnedCalibration(start)
    p = learned(sim)
    assert_close(p, start(sim), 1, scale=start.w)
    assert_close(learned.now.w, start.w, 2, scale=start.w)
    p.sum().backward()
    slope = (p * (1 - p)).detach()
    assert_close(learned.c.grad, -(12 * slope).sum(), 8, scale=12)
    assert_close(learned.log_w.grad, (12 * (sim - 0.2) * slope).sum(), 8, scale=12)


def test_the_start_depends_on_the_seed_alone() -> None:
    one, same, other = (Adapter(tiny_clip(), Model(), seed).state() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert all(not values.any() for name, values in one.items() if "lora_B" in name)  # starts as the base


def test_left_out_is_the_base() -> None:
    encoder, pixels = tiny_clip(), random_pixels()
    before = encoder.encode_pixels(pixels)
    fingerprint = encoder.fingerprint()
    adapter = trained(encoder, Model())
    assert adapter.fingerprint == encoder.fingerprint() == fingerprint
    assert largest_difference(encoder.encode_pixels(pixels), before) > 1e-3
    with torch.no_grad(), adapter.left_out():
        assert_close(encoder.encode_pixels(pixels), before, TINY_IMAGE)
    assert all(p.requires_grad for _, p in adapter.named_parameters())


def test_a_state_of_other_layers_is_refused() -> None:
    adapter = Adapter(tiny_clip(), Model(towers="image"), 0)
    with pytest.raises(InputError, match="other layers"):
        adapter.load_state(Adapter(tiny_clip(), Model(), 0).state())


def test_tcl_adapters_reach_the_decoder_and_come_back(tmp_path: Path) -> None:
    encoder, pixels = tiny_tcl(), random_pixels()
    adapter = trained(encoder, Model(name="tcl"))
    names = {name for name, _ in adapter.named_parameters()}
    assert any("decoder.levels.0.0.conv.lora_A" in name for name in names)
    assert any("trained_blocks.0.self_attn.v_proj.lora_A" in name for name in names)
    adapter.save(tmp_path / "adapter")
    weights = tmp_path / "tcl.safetensors"
    save_file(tiny_tcl_tensors(), weights)
    loaded = load_encoder(weights, adapter=tmp_path / "adapter")
    assert_close(loaded.encode_pixels(pixels), encoder.encode_pixels(pixels), TINY_TCL)


# ------------------------------------------------------------------ merging


def test_a_merged_model_is_plain(run: Path, base: Path, tmp_path: Path) -> None:
    out = merge(base, run, tmp_path / "merged")
    pixels, texts = random_pixels(), ["a dog", "grass"]
    adapted, merged = load_encoder(base, adapter=run), load_encoder(out)
    assert_close(merged.encode_pixels(pixels), adapted.encode_pixels(pixels), TINY)
    assert_close(merged.encode_text(texts), adapted.encode_text(texts), TINY)
    assert merged.method == adapted.method  # type: ignore[attr-defined]
    plain: Any = CLIPModel.from_pretrained(out)  # nothing of this package or PEFT is needed
    assert not any("lora" in name for name in plain.state_dict())
    card = json.loads((out / "ttd.json").read_text("utf-8"))
    assert card["fingerprint"] == merged.fingerprint() != load_encoder(base).fingerprint()


def test_a_merged_tcl_has_its_official_names(tmp_path: Path) -> None:
    weights = tmp_path / "tcl.safetensors"
    save_file(tiny_tcl_tensors(), weights)
    encoder = tiny_tcl()
    trained(encoder, Model(name="tcl")).save(tmp_path / "adapter")
    out = merge(weights, tmp_path / "adapter", tmp_path / "merged")
    tensors, pixels = load_file(out / "tcl.safetensors"), random_pixels()
    assert {n: t.shape for n, t in tensors.items()} == {n: t.shape for n, t in tiny_tcl_tensors().items()}
    again = TCLEncoder.from_state_dict(tensors)
    assert_close(again.encode_pixels(pixels), encoder.encode_pixels(pixels), TINY_TCL)
    assert_close(load_encoder(out).encode_pixels(pixels), again.encode_pixels(pixels), TINY_TCL)


def test_merging_into_a_full_folder_is_refused(run: Path, base: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x", "utf-8")
    with pytest.raises(InputError, match="not empty"):
        merge(base, run, tmp_path)
