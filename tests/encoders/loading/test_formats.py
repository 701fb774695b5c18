"""Formats on disk are told apart, damage is named, cards come back as they were written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.tiny_models import tiny_clip_model, tiny_siglip_model
from ttd.encoders.loading.formats import Card, read_card, read_vocabulary, recognise, write_card
from ttd.encoders.loading.openai_names import clip_to_openai
from ttd.errors import ModelError


@pytest.fixture
def folder(clip_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny CLIP folder that a test may damage."""
    return Path(shutil.copytree(clip_folder, tmp_path / "model"))


def openai_tensors() -> dict[str, torch.Tensor]:
    tensors = clip_to_openai(tiny_clip_model().state_dict())
    return {name: tensor.clone().contiguous() for name, tensor in tensors.items()}


class TestCard:
    def test_comes_back_as_written(self, tmp_path: Path) -> None:
        card = Card("clip", "values", image_size=128, background=0.45, fingerprint="ab", vocabulary="w.txt")
        write_card(tmp_path, card)
        assert read_card(tmp_path) == card
        assert json.loads((tmp_path / "ttd.json").read_text())["format"] == 1
        assert [f.name for f in tmp_path.iterdir()] == ["ttd.json"]

    def test_is_none_where_there_is_none(self, tmp_path: Path) -> None:
        assert read_card(tmp_path) is None

    @pytest.mark.parametrize(
        ("content", "named"),
        [
            ({"format": 2, "kind": "clip"}, "format 2"),
            ({"kind": "clip"}, "format None"),
            ({"format": 1}, '"kind"'),
            ({"format": 1, "kind": "resnet"}, '"kind"'),
            ({"format": 1, "kind": "clip", "treshold": 0.4}, "treshold"),
            ({"format": 1, "kind": "clip", "background": 1.5}, '"background"'),
            ({"format": 1, "kind": "clip", "background": True}, '"background"'),
            ({"format": 1, "kind": "clip", "image_size": 0}, '"image_size"'),
            ({"format": 1, "kind": "clip", "image_size": 22.4}, '"image_size"'),
            ({"format": 1, "kind": "clip", "method": 3}, '"method"'),
            ({"format": 1, "kind": "clip", "vocabulary": "../words.txt"}, '"vocabulary"'),
            ([1], "is not an object"),
        ],
    )
    def test_mistakes_are_named(self, tmp_path: Path, content: object, named: str) -> None:
        (tmp_path / "ttd.json").write_text(json.dumps(content))
        with pytest.raises(ModelError, match=named) as error:
            read_card(tmp_path)
        assert "ttd.json" in str(error.value)

    def test_vocabulary_is_one_word_per_line(self, tmp_path: Path) -> None:
        (tmp_path / "words.txt").write_text("dog\n\n  grass \n", encoding="utf-8")
        assert read_vocabulary(tmp_path, Card("clip", vocabulary="words.txt")) == {"dog", "grass"}
        assert read_vocabulary(tmp_path, Card("clip")) is None
        with pytest.raises(ModelError, match=r"lost\.txt"):
            read_vocabulary(tmp_path, Card("clip", vocabulary="lost.txt"))


class TestRecognise:
    def test_hugging_face_clip(self, folder: Path) -> None:
        write_card(folder, Card("clip", method="values"))
        source = recognise(folder)
        assert (source.kind, source.layout, source.path) == ("clip", "hf", folder)
        assert source.card is not None
        assert source.card.method == "values"
        assert recognise(folder / "model.safetensors") == source

    def test_hugging_face_siglip(self, tmp_path: Path) -> None:
        tiny_siglip_model().save_pretrained(tmp_path)
        source = recognise(tmp_path)
        assert (source.kind, source.layout) == ("siglip", "hf")

    def test_sharded_weights(self, tmp_path: Path) -> None:
        tiny_clip_model().save_pretrained(tmp_path, max_shard_size="1MB")
        shards = sorted(tmp_path.glob("model-*.safetensors"))
        assert len(shards) > 1
        assert recognise(tmp_path).layout == "hf"
        shards[1].unlink()
        with pytest.raises(ModelError, match=shards[1].name):
            recognise(tmp_path)

    def test_index_cannot_lead_out_of_the_folder(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text('{"model_type": "clip"}')
        index = {"weight_map": {"a": "../elsewhere.safetensors"}}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(ModelError, match="weight_map"):
            recognise(tmp_path)

    @pytest.mark.parametrize("beside", [None, '{"architecture": "vit_base_patch16_clip_224"}'])
    def test_open_clip(self, tmp_path: Path, beside: str | None) -> None:
        if beside:
            (tmp_path / "config.json").write_text(beside)
        (tmp_path / "open_clip_config.json").write_text('{"model_cfg": {}}')
        with pytest.raises(ModelError, match="no weights"):
            recognise(tmp_path)
        save_file(openai_tensors(), tmp_path / "open_clip_model.safetensors")
        source = recognise(tmp_path)
        assert (source.kind, source.layout, source.path) == ("clip", "open_clip", tmp_path)

    @pytest.mark.parametrize("name", ["ViT.safetensors", "ViT.pt"])
    def test_openai_file_or_folder_with_one(self, tmp_path: Path, name: str) -> None:
        tensors = openai_tensors()
        save_file(tensors, tmp_path / name) if name.endswith("s") else torch.save(tensors, tmp_path / name)
        write_card(tmp_path, Card("clip", image_size=64))
        for path in (tmp_path / name, tmp_path):
            source = recognise(path)
            assert (source.kind, source.layout, source.path) == ("clip", "openai", tmp_path / name)
            assert source.tensors is not None
            assert torch.equal(source.tensors["visual.proj"], tensors["visual.proj"])
            assert source.card == Card("clip", image_size=64)

    def test_tcl_file(self, tmp_path: Path, tcl_tensors: dict[str, torch.Tensor]) -> None:
        torch.save({"model": tcl_tensors, "epoch": 3}, tmp_path / "tcl.pth")
        source = recognise(tmp_path / "tcl.pth")
        assert (source.kind, source.layout) == ("tcl", "tcl")
        assert source.tensors is not None
        assert set(source.tensors) >= set(tcl_tensors)


class TestDamage:
    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="no model at"):
            recognise(tmp_path / "nowhere")
        with pytest.raises(ModelError, match=r"config\.json"):
            recognise(tmp_path)

    def test_no_weights(self, folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        with pytest.raises(ModelError, match=r"no weights: put model\.safetensors"):
            recognise(folder)

    @pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[]"])
    def test_broken_config(self, folder: Path, content: bytes) -> None:
        (folder / "config.json").write_bytes(content)
        with pytest.raises(ModelError, match=r"config\.json"):
            recognise(folder)

    @pytest.mark.parametrize("size", [0, 5, 1000, -1])
    def test_truncated_weights(self, folder: Path, size: int) -> None:
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:size])
        with pytest.raises(ModelError, match=r"model\.safetensors is damaged or cut off"):
            recognise(folder)

    def test_another_kind_of_model(self, folder: Path) -> None:
        (folder / "config.json").write_text('{"model_type": "bert"}')
        with pytest.raises(ModelError, match="'bert' model"):
            recognise(folder)

    def test_card_of_another_kind(self, folder: Path) -> None:
        write_card(folder, Card("siglip"))
        with pytest.raises(ModelError, match=r'ttd\.json says "siglip"'):
            recognise(folder)

    def test_adapters_are_no_models(self, tmp_path: Path) -> None:
        (tmp_path / "adapter_config.json").write_text("{}")
        save_file({"x": torch.zeros(1)}, tmp_path / "adapter_model.safetensors")
        for path in (tmp_path, tmp_path / "adapter_model.safetensors"):
            with pytest.raises(ModelError, match="is an adapter"):
                recognise(path)

    def test_file_of_no_known_format(self, tmp_path: Path) -> None:
        save_file({"vision_model.x": torch.zeros(1)}, tmp_path / "m.safetensors")
        with pytest.raises(ModelError, match=r"vision_model\.x.*config\.json beside it"):
            recognise(tmp_path / "m.safetensors")
        (tmp_path / "photo.jpg").write_bytes(b"x")
        with pytest.raises(ModelError, match="not a checkpoint"):
            recognise(tmp_path / "photo.jpg")
