"""Names, paths and hub ids become encoders; mistakes are answered in a sentence."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from tests.encoders.hub_stand_in import StandIn
from tests.encoders.loading.test_adapters import assert_same_outputs, differences, make_adapter, outputs
from tests.encoders.loading.test_formats import openai_tensors
from tests.encoders.loading.test_hub import publish
from tests.tiny_models import random_pixels, tiny_clip, tiny_siglip_model
from tests.tolerance import LAYERS, TINY_IMAGE, TINY_TCL, assert_close, largest_difference
from ttd.encoders import registry
from ttd.encoders.base import Encoder
from ttd.encoders.loading.formats import Card, write_card
from ttd.encoders.registry import known_models, load_encoder
from ttd.encoders.siglip import SigLIPEncoder
from ttd.errors import InputError, ModelError


@pytest.fixture
def mini_folder(clip_folder: Path, tmp_path: Path) -> Path:
    """A tiny model in the layout of the package's own: float16 weights, a card, a vocabulary."""
    folder = tmp_path / "mini"
    tiny_clip().backbone.half().save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(clip_folder / name, folder / name)
    (folder / "words.txt").write_text("dog\ngrass\n")
    write_card(folder, Card("clip", "values", image_size=48, background=0.3, vocabulary="words.txt"))
    return folder


class Harm:
    """What a hostile checkpoint does: runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch harm",)


def same_weights(one: Encoder, other: Encoder) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


class TestNames:
    def test_catalogue_is_consistent(self) -> None:
        entries = known_models()
        assert len({entry.name for entry in entries}) == len(entries)
        bases = {entry.name for entry in entries if entry.what == "model"}
        for entry in entries:
            assert entry.kind in ("clip", "siglip", "tcl", "sam_hq", "vit", "sam")
            assert (entry.what == "second backbone") == (entry.kind in ("vit", "sam"))
            assert (entry.what == "refiner") == (entry.kind == "sam_hq")
            assert entry.what != "adapter" or entry.base in bases
            assert entry.licence
            assert entry.sha256 is None or re.fullmatch("[0-9a-f]{64}", entry.sha256)
            assert (entry.sha256 is None) == (entry.revision is None)
        assert entries[0].name == "mini"
        assert {"clip-vit-b16", "tcl", "tcl+ttd"} <= {entry.name for entry in entries}

    def test_unknown_names_get_close_ones_and_the_list(self) -> None:
        with pytest.raises(ModelError, match=r'unknown model "clip-vit-b61".*did you mean clip-vit-b16') as error:
            load_encoder("clip-vit-b61")
        assert all(entry.name in str(error.value) for entry in known_models() if entry.what == "model")
        with pytest.raises(ModelError, match='unknown adapter "ttd"'):
            load_encoder("mini", adapter="ttd")

    def test_adapter_and_model_are_not_confused(self) -> None:
        with pytest.raises(ModelError, match="pass it as the adapter"):
            load_encoder("tcl+ttd")
        with pytest.raises(ModelError, match="pass it as the model"):
            load_encoder("mini", adapter="tcl")

    def test_authors_adapter_must_be_fetched_by_hand(self, ttd_cache: Path) -> None:
        with pytest.raises(ModelError, match=r"by hand from https://drive\.google\.com") as error:
            load_encoder("tcl", adapter="tcl+ttd")
        assert str(ttd_cache / "TCL+TTD.pt") in str(error.value)

    def test_missing_mini(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(registry, "MINI", tmp_path / "nowhere")
        with pytest.raises(ModelError, match="install the package again"):
            load_encoder()

    def test_mini_is_a_folder_of_the_package(self, monkeypatch: pytest.MonkeyPatch, mini_folder: Path) -> None:
        monkeypatch.setattr(registry, "MINI", mini_folder)
        assert load_encoder().vocabulary == {"dog", "grass"}

    def test_listing_needs_no_torch(self) -> None:
        code = "import sys; from ttd.encoders.loading.catalogue import known_models; print('torch' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "False"


class TestFolders:
    def test_hugging_face_clip(self, clip_folder: Path) -> None:
        encoder = load_encoder(clip_folder)
        assert_same_outputs(encoder, tiny_clip())
        assert not encoder.training
        assert not any(parameter.requires_grad for parameter in encoder.parameters())
        assert encoder.device.type == ("cuda" if torch.cuda.is_available() else "cpu")

    def test_mini_layout(self, mini_folder: Path) -> None:
        encoder = load_encoder(str(mini_folder))
        assert encoder.dtype == torch.float32
        assert (encoder.image_size, encoder.background) == (48, 0.3)
        assert encoder.vocabulary == {"dog", "grass"}
        dense = encoder.encode_pixels(random_pixels())
        half = tiny_clip(method="values")
        half.backbone.half().float()
        assert_close(dense, half.encode_pixels(random_pixels()), TINY_IMAGE)
        overruled = load_encoder(mini_folder, method="maskclip").encode_pixels(random_pixels())
        assert largest_difference(dense, overruled) > 1e-3

    def test_openai_and_open_clip(self, tmp_path: Path) -> None:
        save_file(openai_tensors(), tmp_path / "ViT.safetensors")
        openai = load_encoder(tmp_path / "ViT.safetensors")
        folder = tmp_path / "open_clip"
        folder.mkdir()
        save_file(openai_tensors(), folder / "open_clip_model.safetensors")
        shape = {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16}
        text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
        for quick in (True, False):
            config = {"model_cfg": {"embed_dim": 48, "quick_gelu": quick, "vision_cfg": shape, "text_cfg": text}}
            (folder / "open_clip_config.json").write_text(json.dumps(config))
            if quick:
                assert_same_outputs(load_encoder(folder), openai)
            else:
                assert min(differences(outputs(load_encoder(folder)), outputs(openai))) > 1e-3

    def test_precision(self, clip_folder: Path) -> None:
        full = load_encoder(clip_folder).encode_pixels(random_pixels())
        for dtype in ("bfloat16", torch.bfloat16):
            encoder = load_encoder(clip_folder, dtype=dtype)
            assert encoder.dtype == torch.bfloat16
            assert_close(encoder.encode_pixels(random_pixels()), full, LAYERS, dtype=torch.bfloat16)

    def test_siglip(self, tmp_path: Path) -> None:
        tiny_siglip_model().save_pretrained(tmp_path)
        encoder = load_encoder(tmp_path)
        assert encoder.kind == "siglip"
        dense = SigLIPEncoder(tiny_siglip_model()).encode_pixels(random_pixels())
        assert_close(encoder.encode_pixels(random_pixels()), dense, TINY_IMAGE)

    def test_weights_that_do_not_fit_the_config(self, clip_folder: Path, tmp_path: Path) -> None:
        folder = Path(shutil.copytree(clip_folder, tmp_path / "m"))
        tensors = load_file(folder / "model.safetensors")
        del tensors["visual_projection.weight"]
        save_file(tensors, folder / "model.safetensors")
        with pytest.raises(ModelError, match=r"visual_projection\.weight"):
            load_encoder(folder)

    @pytest.mark.parametrize("content", [b"cos\nsystem\n(S'touch harm'\ntR.", b"PK\x03\x04", b"", None])
    def test_pickles_that_run_code_or_are_damaged(
        self, clip_folder: Path, tmp_path: Path, content: bytes | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        folder = Path(shutil.copytree(clip_folder, tmp_path / "m"))
        (folder / "model.safetensors").unlink()
        if content is None:
            torch.save({"weights": torch.zeros(1), "harm": Harm()}, folder / "pytorch_model.bin")
        else:
            (folder / "pytorch_model.bin").write_bytes(content)
        with pytest.raises(ModelError, match=re.escape(str(folder))):
            load_encoder(folder)
        assert not (tmp_path / "harm").exists()


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "error", "said"),
        [
            ({"method": "maskclap"}, ModelError, "unknown method 'maskclap': choose from maskclip, sclip"),
            ({"device": "gpu0"}, InputError, 'unknown device "gpu0"'),
            ({"device": "cuda:99"}, InputError, "no device cuda:99"),
            ({"dtype": "float8"}, InputError, "unknown dtype float8: use float32"),
            ({"dtype": torch.int8}, InputError, "unknown dtype torch.int8"),
            ({"adapter_scale": 1.5}, InputError, "between 0 and 1"),
            ({"adapter_scale": float("nan")}, InputError, "between 0 and 1"),
        ],
    )
    def test_mistakes(self, clip_folder: Path, options: dict[str, object], error: type, said: str) -> None:
        with pytest.raises(error, match=said):
            load_encoder(clip_folder, **options)


class TestHub:
    def test_a_hub_id_loads(self, hub: StandIn, clip_folder: Path) -> None:
        publish(hub, clip_folder, "someone/tiny")
        assert_same_outputs(load_encoder("someone/tiny"), tiny_clip())

    def test_a_pickle_from_a_hub_loads_through_the_safe_reader(
        self, hub: StandIn, clip_folder: Path, tmp_path: Path
    ) -> None:
        publish(hub, clip_folder, "someone/tiny")
        del hub.files["someone/tiny/model.safetensors"]
        torch.save(tiny_clip().backbone.state_dict(), tmp_path / "m.bin")
        hub.files["someone/tiny/pytorch_model.bin"] = (tmp_path / "m.bin").read_bytes()
        assert_same_outputs(load_encoder("someone/tiny"), tiny_clip())

    def test_a_short_name_asks_its_repository(self, hub: StandIn) -> None:
        with pytest.raises(ModelError, match='no model "openai/clip-vit-base-patch16"'):
            load_encoder("clip-vit-b16")
        assert hub.requests[0][1].startswith("/openai/clip-vit-base-patch16/resolve/")


class TestAdapters:
    def test_folder_on_folder(self, clip_folder: Path, tmp_path: Path) -> None:
        lora = make_adapter(tmp_path / "lora")
        base, adapted = load_encoder(clip_folder), load_encoder(clip_folder, adapter=lora)
        assert min(differences(outputs(base), outputs(adapted))) > 1e-3
        assert same_weights(load_encoder(clip_folder, adapter=lora, adapter_scale=0), load_encoder(clip_folder))
        assert_same_outputs(load_encoder(clip_folder, adapter=str(lora), merge=False), adapted)

    def test_the_adapters_card_brings_its_method(self, clip_folder: Path, tmp_path: Path) -> None:
        lora = make_adapter(tmp_path / "lora")
        write_card(lora, Card("clip", method="values", fingerprint=tiny_clip().fingerprint()))
        values = load_encoder(clip_folder, adapter=lora, adapter_scale=0)
        assert_same_outputs(values, load_encoder(clip_folder, method="values"))
        maskclip = load_encoder(clip_folder, adapter=lora, adapter_scale=0, method="maskclip")
        assert_same_outputs(maskclip, load_encoder(clip_folder))

    def test_a_single_file_is_for_tcl_only(self, clip_folder: Path, tmp_path: Path) -> None:
        torch.save({"x": torch.zeros(1)}, tmp_path / "TCL+TTD.pt")
        with pytest.raises(ModelError, match="as only TCL's adapters are"):
            load_encoder(clip_folder, adapter=tmp_path / "TCL+TTD.pt")


class TestTCL:
    @pytest.fixture
    def checkpoint(self, tcl_tensors: dict[str, torch.Tensor], tmp_path: Path) -> Path:
        torch.save({"model": tcl_tensors}, tmp_path / "tcl.pth")
        return tmp_path / "tcl.pth"

    def test_has_one_last_block_only(self, checkpoint: Path) -> None:
        with pytest.raises(ModelError, match="leave the method out"):
            load_encoder(checkpoint, method="sclip")

    def test_single_file_adapter(self, checkpoint: Path, tmp_path: Path) -> None:
        gate = "masker.image_encoder.decoder.decoder.net.0.conv.gate.gate"
        torch.save({"module." + gate: torch.tensor(0.7)}, tmp_path / "a.pt")
        base = load_encoder(checkpoint)
        whole = load_encoder(checkpoint, adapter=tmp_path / "a.pt")
        assert same_weights(base, load_encoder(checkpoint, adapter=tmp_path / "a.pt", adapter_scale=0))
        pixels = random_pixels(1)
        assert largest_difference(base.encode_pixels(pixels), whole.encode_pixels(pixels)) > 1e-4

    def test_unknown_adapter_format_is_named(self, checkpoint: Path, tmp_path: Path) -> None:
        torch.save({"strange.lora": torch.zeros(4, 2)}, tmp_path / "a.pt")
        with pytest.raises(ModelError, match=r"a\.pt: 1 of its 1 parameters fit nothing.*strange\.lora \[4, 2\]"):
            load_encoder(checkpoint, adapter=tmp_path / "a.pt")

    def test_peft_adapter(self, checkpoint: Path, tmp_path: Path) -> None:
        encoder = load_encoder(checkpoint)
        peft_model = get_peft_model(encoder.backbone, LoraConfig(r=2, target_modules=encoder.lora_targets()))
        with torch.no_grad():
            for name, parameter in peft_model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_()
        peft_model.save_pretrained(tmp_path / "lora")
        expected = encoder.encode_pixels(random_pixels(1))
        found = load_encoder(checkpoint, adapter=tmp_path / "lora").encode_pixels(random_pixels(1))
        assert_close(found, expected, TINY_TCL)
        assert largest_difference(found, load_encoder(checkpoint).encode_pixels(random_pixels(1))) > 1e-3
