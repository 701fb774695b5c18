"""The fingerprint follows what a model is, not its settings; nothing made with another model is taken up again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from tests.data.samples import write_shards
from tests.encoders.loading.test_adapters import make_adapter
from tests.evaluation.layouts import write
from tests.tiny_models import (
    few_words_tokenizer,
    small_tokenizer,
    tiny_clip,
    tiny_clip_model,
    tiny_siglip,
    tiny_siglip_model,
    tiny_tcl,
)
from ttd.cli import cli
from ttd.encoders.clip import CLIPEncoder
from ttd.encoders.identity import parameters_digest
from ttd.encoders.loading.adapters import attach_adapter
from ttd.encoders.loading.formats import Card, read_card, write_card
from ttd.encoders.loading.tokenizers import clip_tokenizer
from ttd.encoders.registry import load_encoder
from ttd.encoders.siglip import SigLIPEncoder
from ttd.errors import ModelError

TOOL = Path(__file__).resolve().parents[2] / "tools" / "restamp.py"


def clip_of(change: Any = None, **options: Any) -> CLIPEncoder:
    tokenizer = few_words_tokenizer()
    model = tiny_clip_model(vocab=len(tokenizer))
    if change is not None:
        change(model.config)
    return CLIPEncoder(model, options.pop("tokenizer", tokenizer), **options)


def set_end(tokenizer: Any, token: str) -> Any:
    tokenizer.eos_token = token
    return tokenizer


def test_a_clip_with_another_computation_tokenizer_or_statistics_is_another_model() -> None:
    models = [
        clip_of(),
        clip_of(lambda config: setattr(config.vision_config, "hidden_act", "gelu_new")),
        clip_of(lambda config: setattr(config.text_config, "hidden_act", "gelu_new")),
        clip_of(lambda config: setattr(config.vision_config, "num_attention_heads", 1)),
        clip_of(lambda config: setattr(config.text_config, "num_attention_heads", 4)),
        clip_of(lambda config: setattr(config.text_config, "eos_token_id", 7)),
        clip_of(tokenizer=small_tokenizer()),
        clip_of(tokenizer=None),
        clip_of(tokenizer=set_end(small_tokenizer(), "cat")),
        clip_of(mean=(0.5, 0.5, 0.5)),
        clip_of(std=(0.5, 0.5, 0.5)),
    ]
    prints = [model.fingerprint() for model in models]
    assert len(set(prints)) == len(prints)
    assert all(parameters_digest(model) == parameters_digest(models[0]) for model in models)


def test_siglip_and_tcl_have_theirs() -> None:
    left = small_tokenizer()
    left.padding_side = "left"
    siglips = [tiny_siglip(), SigLIPEncoder(tiny_siglip_model(), left), SigLIPEncoder(tiny_siglip_model())]
    assert len({model.fingerprint() for model in siglips}) == 3
    tcl = tiny_tcl()
    before = tcl.fingerprint()
    tcl.backbone.clip.config.vision_config.num_attention_heads = 1
    assert tcl.fingerprint() != before


def test_settings_do_not_change_what_the_model_is() -> None:
    plain = clip_of()
    others = [
        clip_of(method="naclip"),
        clip_of(background=0.3),
        clip_of(vocabulary=frozenset({"dog"})),
        clip_of().configured(96, None, None),
    ]
    assert {model.fingerprint() for model in others} == {plain.fingerprint()}
    settings = [json.dumps(model.settings(), sort_keys=True) for model in [plain, *others]]
    assert len(set(settings)) == len(settings)  # but results record them


def test_what_is_loaded_from_files_is_the_same_model(clip_folder: Path, tmp_path: Path) -> None:
    expected = tiny_clip().fingerprint()
    assert load_encoder(clip_folder).fingerprint() == expected
    encoder = load_encoder(clip_folder)
    encoder.save(tmp_path)
    assert load_encoder(tmp_path).fingerprint() == expected
    tiny_clip_model().save_pretrained(tmp_path / "bare")  # the package's own tokenizer is taken
    whole = CLIPEncoder(tiny_clip_model(), clip_tokenizer())
    assert load_encoder(tmp_path / "bare").fingerprint() == whole.fingerprint()


# ------------------------------------------------------------------ results of another model


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], prog_name="ttd")


@pytest.fixture
def damaged(clip_folder: Path, tmp_path: Path) -> Path:
    """A model folder whose tokenizer gives words the numbers of others."""
    folder = Path(shutil.copytree(clip_folder, tmp_path / "model"))
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text("utf-8"))
    vocabulary = content["model"]["vocab"]
    vocabulary["dog</w>"], vocabulary["cat</w>"] = vocabulary["cat</w>"], vocabulary["dog</w>"]
    path.write_text(json.dumps(content), "utf-8")
    return folder


def test_nothing_is_continued_after_a_tokenizer_was_repaired(damaged: Path, clip_folder: Path, tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", [6])
    _, _, _ = write(tmp_path / "data", "voc", count=1)
    calls = {
        "eval": ("eval", "voc", "--data", tmp_path / "data", "--protocol", "default", "--images", "0"),
        "prune": ("prune", tmp_path / "shards"),
    }
    for name, call in calls.items():
        done = run(*call, "--model", damaged, "--out", tmp_path / name)
        assert done.exit_code == 0, done.output
        again = run(*call, "--model", damaged, "--out", tmp_path / name)
        assert again.exit_code == 0, again.output
    shutil.copy(clip_folder / "tokenizer.json", damaged / "tokenizer.json")
    for name, call in calls.items():
        before = {path: path.read_bytes() for path in (tmp_path / name).rglob("*") if path.is_file()}
        refused = run(*call, "--model", damaged, "--out", tmp_path / name)
        assert refused.exit_code == 2, refused.output
        assert ("model.fingerprint was" if name == "eval" else "base was") in refused.output
        assert {path: path.read_bytes() for path in (tmp_path / name).rglob("*") if path.is_file()} == before


def test_results_with_another_method_in_the_card_are_not_continued(clip_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(clip_folder, tmp_path / "model"))
    write(tmp_path / "data", "voc", count=1)
    call = ("eval", "voc", "--data", tmp_path / "data", "--protocol", "default", "--images", "0", "--model", folder)
    assert run(*call, "--out", tmp_path / "out").exit_code == 0
    write_card(folder, Card("clip", method="values"))
    refused = run(*call, "--out", tmp_path / "out")
    assert refused.exit_code == 2, refused.output
    assert "model.encoder.method was 'maskclip', now 'values'" in refused.output


# ------------------------------------------------------------------ fingerprints of the rule before


@torch.no_grad()
@pytest.mark.slow
def test_an_adapter_with_an_old_fingerprint_is_refused_until_it_is_stamped_anew(
    clip_folder: Path, tmp_path: Path
) -> None:
    lora = make_adapter(tmp_path / "lora")
    old = parameters_digest(tiny_clip()).hex()
    write_card(lora, Card("clip", method="values", fingerprint=old, base="tiny"))
    with pytest.raises(ModelError, match=r"earlier version of ttd.*restamp"):
        load_encoder(clip_folder, adapter=lora)
    tiny_clip_model(seed=3).save_pretrained(tmp_path / "other")
    wrong = subprocess.run(
        [sys.executable, str(TOOL), str(lora), "--base", str(tmp_path / "other")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert wrong.returncode == 1
    assert "belongs to another base" in wrong.stderr
    assert read_card(lora) == Card("clip", method="values", fingerprint=old, base="tiny")
    subprocess.run([sys.executable, str(TOOL), str(lora), "--base", str(clip_folder)], check=True, capture_output=True)
    assert read_card(lora) == Card("clip", method="values", fingerprint=tiny_clip().fingerprint(), base="tiny")
    attach_adapter(tiny_clip(), lora)
    with pytest.raises(ModelError, match="another base"):
        attach_adapter(clip_of(mean=(0.5, 0.5, 0.5)), lora)
