"""PEFT adapters give what PEFT computes; scaling is exact at its ends; foreign adapters are refused."""

from __future__ import annotations

import copy
import json
import logging
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.tiny_models import random_pixels, tiny_clip, tiny_tcl_tensors
from tests.tolerance import TINY, assert_close, largest_difference
from ttd.encoders.base import Encoder
from ttd.encoders.loading.adapters import add_to_tensors, attach_adapter, read_adapter_file
from ttd.encoders.loading.formats import Card, write_card
from ttd.encoders.registry import load_encoder
from ttd.errors import ModelError, OtherBaseError

TEXTS = ["a dog", "green grass", "dog"]


def make_adapter(folder: Path, *, seed: int = 0, **options: object) -> Path:
    """A rank-3 adapter with random factors for `tiny_clip()`, saved by PEFT."""
    encoder = tiny_clip()
    config = LoraConfig(r=3, lora_alpha=6, target_modules=encoder.lora_targets(), **options)
    model = get_peft_model(encoder.backbone, config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(tmp_path_factory.mktemp("adapters") / "lora")


@torch.no_grad()
def outputs(encoder: Encoder) -> tuple[Tensor, Tensor, Tensor]:
    features = encoder.encode_image(random_pixels())
    return features.dense, features.pooled, encoder.encode_text(TEXTS)


def assert_same_outputs(found: Encoder, expected: Encoder) -> None:
    for one, other in zip(outputs(found), outputs(expected), strict=True):
        assert_close(one, other, TINY)


def differences(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> list[float]:
    """By how much the dense features, the pooled ones and the texts differ at most."""
    return [largest_difference(x, y) for x, y in zip(a, b, strict=True)]


@pytest.mark.parametrize("merge", [True, False])
def test_gives_what_peft_computes(adapter: Path, merge: bool) -> None:
    expected = tiny_clip()
    PeftModel.from_pretrained(expected.backbone, adapter)  # injects its layers in place
    encoder = tiny_clip()
    before = outputs(encoder)
    attach_adapter(encoder, adapter, merge=merge)
    assert_same_outputs(encoder, expected)
    assert min(differences(outputs(encoder), before)) > 1e-3


def test_merging_leaves_a_plain_model(adapter: Path) -> None:
    plain, encoder = tiny_clip(), tiny_clip()
    attach_adapter(encoder, adapter)
    assert [name for name, _ in encoder.named_parameters()] == [name for name, _ in plain.named_parameters()]
    attach_adapter(encoder, adapter)  # nothing of the first is in the way of a second
    changed = dict(encoder.backbone.named_parameters())
    for target in encoder.lora_targets():
        assert not torch.equal(changed[f"{target}.weight"], plain.backbone.get_parameter(f"{target}.weight"))
    untouched = [name for name in changed if not any(t in name for t in encoder.lora_targets())]
    assert all(torch.equal(changed[name], plain.backbone.get_parameter(name)) for name in untouched)


@pytest.mark.parametrize("scale", [0.5, 1.0])
@pytest.mark.parametrize("merge", [True, False])
def test_scale_multiplies_the_update(adapter: Path, scale: float, merge: bool) -> None:
    encoder, expected = tiny_clip(), tiny_clip()
    attach_adapter(encoder, adapter, scale=scale, merge=merge)
    factors = load_file(adapter / "adapter_model.safetensors")
    with torch.no_grad():
        for target in expected.lora_targets():
            a, b = (factors[f"base_model.model.{target}.lora_{x}.weight"] for x in "AB")
            expected.backbone.get_parameter(f"{target}.weight").add_(scale * (6 / 3) * (b @ a))
    assert_same_outputs(encoder, expected)


def test_scale_zero_is_the_base_exactly(adapter: Path) -> None:
    encoder, base = tiny_clip(), tiny_clip().state_dict()
    attach_adapter(encoder, adapter, scale=0)
    found = encoder.state_dict()
    assert found.keys() == base.keys()
    assert all(torch.equal(found[name], base[name]) for name in base)


def test_fingerprint_is_the_bases_while_not_merged(adapter: Path) -> None:
    encoder = tiny_clip()
    before = encoder.fingerprint()
    attach_adapter(encoder, adapter, merge=False)
    assert encoder.fingerprint() == before


class TestRefused:
    def test_other_sizes(self, adapter: Path) -> None:
        encoder = tiny_clip(width=32)
        before = encoder.fingerprint()
        with pytest.raises(ModelError, match=r"q_proj is \[32, 32\] here, but its lora_A is \[3, 64\]"):
            attach_adapter(encoder, adapter)
        assert encoder.fingerprint() == before

    def test_more_layers(self, adapter: Path) -> None:
        with pytest.raises(ModelError, match=r"layers\.1\S+, which this model does not have"):
            attach_adapter(tiny_clip(layers=1), adapter)

    def test_other_weights_by_fingerprint(self, tmp_path: Path) -> None:
        folder = make_adapter(tmp_path / "a")
        write_card(folder, Card("clip", fingerprint=tiny_clip().fingerprint(), base="tiny"))
        attach_adapter(tiny_clip(), folder)
        with pytest.raises(ModelError, match=r'another base \("tiny"\), as the fingerprint'):
            attach_adapter(tiny_clip(seed=1), folder)
        with pytest.raises(ModelError, match="another base"):
            attach_adapter(tiny_clip(seed=1), folder, scale=0)

    def test_other_kind(self, tmp_path: Path) -> None:
        folder = make_adapter(tmp_path / "a")
        write_card(folder, Card("siglip"))
        with pytest.raises(ModelError, match="belongs to a siglip model"):
            attach_adapter(tiny_clip(), folder)

    def test_a_method_of_another_kind(self, tmp_path: Path) -> None:
        """Where the base takes no method, the adapter's is not what is wrong."""
        folder = make_adapter(tmp_path / "a")
        write_card(folder, Card("clip", method="maskclip"))
        save_file(tiny_tcl_tensors(), tmp_path / "tcl.safetensors")
        with pytest.raises(OtherBaseError, match="belongs to a clip model, not to this tcl model"):
            load_encoder(str(tmp_path / "tcl.safetensors"), adapter=str(folder))

    def test_scaling_what_is_not_low_rank(self, tmp_path: Path) -> None:
        folder = make_adapter(tmp_path / "a", use_dora=True)
        attach_adapter(tiny_clip(), folder)
        with pytest.raises(ModelError, match="scale must be 0 or 1"):
            attach_adapter(tiny_clip(), folder, scale=0.5)

    def test_damage(self, tmp_path: Path) -> None:
        folder = make_adapter(tmp_path / "a")
        weights = folder / "adapter_model.safetensors"
        whole = weights.read_bytes()
        weights.write_bytes(whole[:-7])
        with pytest.raises(ModelError, match=r"adapter_model\.safetensors is damaged"):
            attach_adapter(tiny_clip(), folder)
        weights.unlink()
        with pytest.raises(ModelError, match=r"no adapter_model\.safetensors"):
            attach_adapter(tiny_clip(), folder)
        save_file({"x": torch.zeros(2)}, weights)
        with pytest.raises(ModelError, match="no LoRA parameters"):
            attach_adapter(tiny_clip(), folder)
        weights.write_bytes(whole)
        some = load_file(weights)
        save_file(dict(list(some.items())[1:]), weights)
        with pytest.raises(ModelError, match="incomplete"):
            attach_adapter(tiny_clip(), folder)
        config = folder / "adapter_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"peft_type": "IA3"}))
        with pytest.raises(ModelError, match="'IA3'"):
            attach_adapter(tiny_clip(), folder)
        config.unlink()
        with pytest.raises(ModelError, match="is not an adapter"):
            attach_adapter(tiny_clip(), folder)


BASE = {"a.weight": torch.eye(3), "conv.weight": torch.ones(2, 2, 3, 3), "gate": torch.tensor(2.0)}


class TestAuthorsFile:
    def factors(self, module: str, rows: int, columns: int) -> dict[str, Tensor]:
        return {f"{module}.lora_A": torch.randn(2, columns), f"{module}.lora_B": torch.randn(rows, 2)}

    def test_pairs_and_replacements_are_added(self, caplog: pytest.LogCaptureFixture) -> None:
        adapter = {**self.factors("a", 3, 3), **self.factors("conv", 2, 18), "gate": torch.tensor(4.0)}
        before = copy.deepcopy(BASE)
        with caplog.at_level(logging.WARNING):
            changed = add_to_tensors(BASE, adapter, scale=0.5)
        assert "alpha / r = 1 is assumed" in caplog.text
        expected = torch.eye(3) + 0.5 * adapter["a.lora_B"] @ adapter["a.lora_A"]
        assert_close(changed["a.weight"], expected, 3)
        update = (adapter["conv.lora_B"] @ adapter["conv.lora_A"]).view(2, 2, 3, 3)
        assert_close(changed["conv.weight"], 1 + 0.5 * update, 3)
        assert float(changed["gate"]) == 3.0
        assert all(torch.equal(BASE[name], before[name]) for name in before)

    def test_scale_zero_and_alpha(self, caplog: pytest.LogCaptureFixture) -> None:
        adapter = {**self.factors("a.weight", 3, 3), "a.weight.alpha": torch.tensor(8.0)}
        assert torch.equal(add_to_tensors(BASE, adapter, scale=0)["a.weight"], torch.eye(3))
        product = adapter["a.weight.lora_B"] @ adapter["a.weight.lora_A"]
        assert_close(add_to_tensors(BASE, adapter)["a.weight"], torch.eye(3) + 4 * product, 3)
        assert not caplog.text

    def test_wrappers_before_names_are_taken_off(self, tmp_path: Path) -> None:
        torch.save({"module.model.gate": torch.tensor(4.0)}, tmp_path / "x.pt")
        assert list(read_adapter_file(tmp_path / "x.pt")) == ["gate"]

    @pytest.mark.parametrize(
        ("extra", "named"),
        [
            ({"unknown.x": torch.zeros(2)}, r"unknown\.x \[2\]"),
            ({"gate": torch.zeros(7)}, r"gate \[7\]"),
            ({"a.lora_A": torch.zeros(2, 5), "a.lora_B": torch.zeros(3, 2)}, r"a\.lora_A \[2, 5\]"),
            ({"a.lora_A": torch.zeros(2, 3)}, r"a\.lora_A \[2, 3\]"),
        ],
    )
    def test_what_does_not_fit_is_named(self, extra: dict[str, Tensor], named: str) -> None:
        with pytest.raises(ModelError, match=named) as error:
            add_to_tensors(BASE, {"conv.weight": torch.ones(2, 2, 3, 3), **extra}, label="TCL+TTD.pt")
        assert str(error.value).startswith(f"TCL+TTD.pt: {len(extra)} of its {1 + len(extra)} parameters")

    def test_nothing_in_it(self) -> None:
        with pytest.raises(ModelError, match="no tensors"):
            add_to_tensors(BASE, {})
