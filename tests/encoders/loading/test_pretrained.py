"""Reading transformers folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from huggingface_hub.utils import are_progress_bars_disabled
from transformers.utils import logging

from tests.tiny_models import few_words_tokenizer
from ttd.encoders.clip import CLIPEncoder
from ttd.encoders.loading.files import load_statistics
from ttd.encoders.loading.tokenizers import load_tokenizer
from ttd.encoders.siglip import SigLIPEncoder
from ttd.errors import ModelError


def test_loading_writes_nothing_and_leaves_the_bars_of_downloads_on(
    clip_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert logging.is_progress_bar_enabled()
    CLIPEncoder.from_pretrained(clip_folder)
    assert capfd.readouterr() == ("", "")
    assert logging.is_progress_bar_enabled()
    assert not are_progress_bars_disabled()


def test_bars_that_were_off_stay_off(clip_folder: Path) -> None:
    logging.disable_progress_bar()
    try:
        CLIPEncoder.from_pretrained(clip_folder)
        assert not logging.is_progress_bar_enabled()
    finally:
        logging.enable_progress_bar()


def test_another_kind_of_model_is_refused(clip_folder: Path) -> None:
    with pytest.raises(ModelError, match="holds a 'clip' model where 'siglip' is expected"):
        SigLIPEncoder.from_pretrained(clip_folder)


def test_statistics_and_tokenizer_where_a_folder_has_them(clip_folder: Path, tmp_path: Path) -> None:
    assert load_statistics(clip_folder) == {}
    assert load_tokenizer(clip_folder)("dog")["input_ids"] == few_words_tokenizer()("dog")["input_ids"]
    assert load_tokenizer(tmp_path) is None
    assert load_tokenizer(tmp_path, default=lambda: "the default") == "the default"
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.25, 0], "size": 224}')
    assert load_statistics(tmp_path) == {"mean": (0.5, 0.25, 0.0)}


def test_a_damaged_tokenizer_is_named(clip_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(clip_folder, tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json"):
        if (folder / name).exists():
            (folder / name).write_text("{")
    with pytest.raises(ModelError, match=r"tokenizer_config\.json is not JSON"):
        load_tokenizer(folder)
    shutil.copy(clip_folder / "tokenizer_config.json", folder)
    with pytest.raises(ModelError, match=r"the tokenizer of .*model cannot be loaded"):
        load_tokenizer(folder)
