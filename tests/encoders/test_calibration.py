from __future__ import annotations

import json
import logging
import math
import shutil
from pathlib import Path

import pytest
import torch

import ttd
from tests.tiny_models import tiny_clip, tiny_siglip, tiny_tcl
from tests.tolerance import assert_close
from ttd.encoders import Encoder, LastBlock, Method
from ttd.encoders.calibration import Calibration, read_calibration
from ttd.encoders.loading.formats import Card, read_card, write_card
from ttd.encoders.registry import find_adapter
from ttd.errors import InputError, ModelError
from ttd.training.export import merge, write_model


def test_the_curve_is_a_sigmoid_with_gradient() -> None:
    cosines = torch.linspace(-1, 1, 9, dtype=torch.float64, requires_grad=True)
    p = Calibration(20.0, 0.3)(cosines)
    expected = [1 / (1 + math.exp(-20 * (x - 0.3))) for x in cosines.tolist()]
    assert_close(p, expected, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(Calibration(20.0, 0.3), cosines)


@pytest.mark.parametrize(
    "values", [(0.0, 0.2), (-1.0, 0.2), (math.nan, 0.2), (10.0, math.inf), ("10", 0.2), (True, 0.2)]
)
def test_numbers_that_cannot_be_are_refused(values: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="two finite numbers"):
        Calibration(*values)


@torch.no_grad()
def test_families_have_their_own() -> None:
    assert tiny_clip().calibration == Calibration(10.0, 0.25)
    assert ttd.load("mini").encoder.calibration == Calibration(20.2, 0.282)
    tcl = tiny_tcl().calibration
    assert_close(tcl.w * (0.3 - tcl.c), 9.0 * 0.3 - 2.0, 3, scale=9)
    siglip = tiny_siglip()
    siglip.backbone.logit_bias.fill_(-12.9)
    siglip.backbone.logit_scale.fill_(math.log(112.0))
    assert_close(siglip.calibration.w * (0.15 - siglip.calibration.c), 112 * 0.15 - 12.9, 6, scale=112)


@torch.no_grad()
def test_siglips_patches_are_its_own_sigmoid_of_scale_and_bias() -> None:
    encoder = tiny_siglip()
    features = encoder.encode_image(torch.randn(2, 3, 64, 64))
    text = encoder.encode_text(["dog", "a photo"])
    logits = encoder.similarity(features, text) * encoder.backbone.logit_scale.exp() + encoder.backbone.logit_bias
    assert_close(encoder.maps(features, text), torch.sigmoid(logits), 64 + 64, scale=encoder.logit_scale / 4)


def test_a_method_without_cosines_brings_its_own() -> None:
    method = Method("scaled", "a test", LastBlock(), calibration=Calibration(1.0, 12.0))
    encoder = tiny_clip(method=method)
    assert encoder.calibration == Calibration(1.0, 12.0)
    encoder.calibration = Calibration(3.0, 1.0)
    assert encoder.with_method("values").calibration == Calibration(3.0, 1.0)
    assert encoder.with_method(method).calibration == Calibration(1.0, 12.0)


def test_another_calibration_replaces_tcls_learned_one() -> None:
    encoder = tiny_tcl()
    features, text = encoder.encode_image(torch.randn(1, 3, 64, 64)), torch.randn(2, encoder.embedding_size)
    encoder.calibration = Calibration(5.0, 0.1)
    own = encoder.maps(features, text, ttd.encoders.MapQuestion(clip_weight=0))
    assert_close(own, torch.sigmoid(5 * (encoder.similarity(features, text) - 0.1)), 48, scale=5 / 4)


def test_it_is_a_setting_and_no_part_of_the_identity() -> None:
    encoder = tiny_clip()
    before, settings = encoder.fingerprint(), encoder.settings()
    encoder.calibration = Calibration(30.0, 0.2)
    assert encoder.fingerprint() == before
    assert encoder.settings() == settings | {"calibration": {"w": 30.0, "c": 0.2}}


def test_cards_and_side_files_come_back(tmp_path: Path, clip_folder: Path) -> None:
    card = Card("clip", calibration=Calibration(20.0, 0.3), caption_threshold=0.25)
    write_card(tmp_path, card)
    assert read_card(tmp_path) == card
    assert read_calibration(tmp_path / "ttd.json")[0] == Calibration(20.0, 0.3)
    encoder = ttd.load(clip_folder, calibration=tmp_path / "ttd.json").encoder
    assert encoder.calibration == Calibration(20.0, 0.3)
    assert encoder.caption_threshold == encoder.background  # thresholds are the model's own
    write_model(encoder, tmp_path / "copy")
    assert ttd.load(tmp_path / "copy").encoder.calibration == Calibration(20.0, 0.3)


@pytest.mark.parametrize(
    "content", [{}, {"calibration": [10, 0.2]}, {"calibration": {"w": 10}}, {"calibration": {"w": 0, "c": 1}}]
)
def test_files_without_a_calibration_are_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"calibration\.json"):
        ttd.load("mini", calibration=path)
    (tmp_path / "ttd.json").write_text(json.dumps({"format": 1, "kind": "clip", "calibration": {"w": "steep", "c": 0}}))
    with pytest.raises(ModelError, match='"calibration"'):
        read_card(tmp_path)


def test_a_calibration_of_another_model_is_said_not_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "calibration.json"
    mini: Encoder = ttd.load("mini").encoder
    for fingerprint, method, said in (
        (mini.fingerprint(), "values", None),
        ("2:other", "values", "another base"),
        (mini.fingerprint(), "maskclip", "another method"),
    ):
        path.write_text(json.dumps({"calibration": {"w": 9, "c": 0.2}, "fingerprint": fingerprint, "method": method}))
        caplog.clear()
        assert ttd.load("mini", calibration=path).encoder.calibration == Calibration(9, 0.2)
        assert (said is None and not caplog.text) or (said is not None and said in caplog.text)


def test_thresholds_of_an_adapter_replace_the_models(tmp_path: Path) -> None:
    folder, base = shutil.copytree(find_adapter("mini+ttd"), tmp_path / "adapter"), ttd.load("mini").encoder
    card = json.loads((folder / "ttd.json").read_text())
    (folder / "ttd.json").write_text(json.dumps({**card, "background": 0.35, "caption_threshold": 0.45}))
    for scale, expected in ((1.0, (0.35, 0.45)), (0.0, (base.background, base.caption_threshold))):
        found = ttd.load("mini", adapter=folder, adapter_scale=scale).encoder
        assert (found.background, found.caption_threshold) == expected
    merge("mini", folder, tmp_path / "merged")
    assert ttd.load(tmp_path / "merged").encoder.caption_threshold == 0.45


def test_an_adapter_of_another_calibration_is_said_not_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(find_adapter("mini+ttd"), tmp_path / "adapter")
    card = json.loads((folder / "ttd.json").read_text())
    del card["caption_threshold"]
    for more, said in (
        ({"calibration": {"w": 20.2, "c": 0.282}}, False),
        ({"calibration": {"w": 10.0, "c": 0.25}}, True),
        ({"calibration": {"w": 10.0, "c": 0.25}, "caption_threshold": 0.3}, False),  # chosen for the model as it is
    ):
        (folder / "ttd.json").write_text(json.dumps({**card, **more}))
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert ttd.load("mini", adapter=folder).encoder.calibration == Calibration(20.2, 0.282)
        assert ("was trained with the calibration w 10, c 0.25" in caplog.text) == said
