"""Models as people have them, after public bug reports: read as what they are, or refused with cause and remedy.

What is read must be the model that was written: `fingerprint` covers parameters, activation, heads, tokenizer, end
token and image statistics.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from tests.encoders.hub_stand_in import StandIn
from tests.tiny_models import randomised, tiny_clip_model, tiny_siglip
from tests.tolerance import TINY, assert_close
from ttd.encoders.clip import OPENAI_MEAN, OPENAI_STD, CLIPEncoder
from ttd.encoders.loading.openai_names import clip_to_openai
from ttd.encoders.loading.tokenizers import clip_tokenizer
from ttd.encoders.registry import load_encoder
from ttd.errors import InputError, ModelError, TTDError

pytestmark = pytest.mark.slow  # about 140 models are written and read

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 599000000\n"
WRAPPERS = ["_orig_mod.", "module.", "model.", "module._orig_mod.", "_fsdp_wrapped_module.", "student.clip."]


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP with the whole vocabulary, whose tokenizer may be left out of the folder."""
    folder = tmp_path_factory.mktemp("models") / "tiny-clip"
    tiny_clip_model().save_pretrained(folder)
    clip_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(clip_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny CLIP folder that a test may change."""
    return Path(shutil.copytree(clip_folder, tmp_path / "model"))


@pytest.fixture(scope="module")
def plain(clip_folder: Path) -> str:
    """What the tiny CLIP is."""
    return load_encoder(clip_folder).fingerprint()


@pytest.fixture
def siglip(tmp_path: Path) -> Path:
    path = tmp_path / "siglip"
    path.mkdir()
    tiny_siglip().save(path)
    return path


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def openai_tensors(**sizes: int) -> dict[str, Tensor]:
    return {n: t.clone().contiguous() for n, t in clip_to_openai(tiny_clip_model(**sizes).state_dict()).items()}


def open_clip_config(folder: Path, **preprocess: object) -> None:
    """The config of the tiny CLIP as OpenCLIP writes it: heads of 32 channels, GELU."""
    shape = {"embed_dim": 48, "vision_cfg": {"head_width": 32}, "text_cfg": {"heads": 2}}
    folder.mkdir(exist_ok=True)
    content = {"model_cfg": shape, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(content))


def as_open_clip() -> CLIPEncoder:
    """The tiny CLIP's parameters with GELU, as transformers computes them."""
    model = tiny_clip_model()
    config = model.config.to_dict()
    for tower in ("text_config", "vision_config"):
        config[tower]["hidden_act"] = "gelu"
    other = CLIPModel(CLIPConfig.from_dict(config))
    other.load_state_dict(model.state_dict())
    return CLIPEncoder(other, clip_tokenizer()).eval()


# ---------------------------------------------------------------- the configuration


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(attn_implementation="flash_attention_2"),
        lambda c: c.update(_attn_implementation="flash_attention_3"),
        lambda c: c["vision_config"].update(attn_implementation="flex_attention"),
        lambda c: c["vision_config"].update(image_size=[64, 64]),
        lambda c: c["vision_config"].update(patch_size=[16, 16]),
        lambda c: c["text_config"].update(eos_token_id=[49407]),
        lambda c: c["text_config"].update(eos_token_id=[5, 49407]),
        lambda c: c["text_config"].update(eos_token_id=None),
        lambda c: c["text_config"].update(eos_token_id=2),
        lambda c: c.update(auto_map={"AutoModel": "code.Model"}, torch_dtype="float16"),
    ],
)
def test_what_a_configuration_says_otherwise_is_the_same_model(
    folder: Path, plain: str, change: Callable[[dict[str, Any]], object]
) -> None:
    edit(folder / "config.json", change)
    assert load_encoder(folder).fingerprint() == plain


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(quantization_config={"quant_method": "gptq"}), r"quantised model \(gptq\).*float32"),
        (lambda c: c.update(quantization_config={"load_in_8bit": True}), "quantised model .*fetch the model"),
        (lambda c: c["vision_config"].update(image_size=[64, 32]), "square"),
        (lambda c: c["vision_config"].update(image_size="big"), "square"),
        (lambda c: c["vision_config"].update(patch_size={"height": 16, "width": 16}), "square"),
        (lambda c: c["vision_config"].update(hidden_act="swishy"), "the activation 'swishy'"),
        (lambda c: c["vision_config"].update(num_attention_heads=3), "not a multiple of the number of attention heads"),
        (lambda c: c.update(vision_config="big"), r"config\.json cannot be used .*vision_config"),
        (lambda c: c["vision_config"].update(hidden_size=96), r"does not fit .*is \[64\] and not \[96\]"),
        (lambda c: c["text_config"].update(vocab_size=50_000), r"does not fit .*\[49408, 64\] and not \[50000, 64\]"),
        (lambda c: c["vision_config"].update(num_hidden_layers=0), "num_hidden_layers is 0, not 1 to 1000"),
        (lambda c: c["text_config"].update(num_hidden_layers=10**12), "num_hidden_layers is 1000000000000, not"),
        (lambda c: c["text_config"].update(num_attention_heads=-1), "num_attention_heads is -1, not 1 to"),
        (lambda c: c["vision_config"].update(num_hidden_layers=3), r"incomplete: it lacks .*layers\.2"),
        (lambda c: c["text_config"].update(eos_token_id=7), "end token 7, but its tokenizer ends them with 49407"),
        (lambda c: c["text_config"].update(eos_token_id=[7, 8]), r"names \[7, 8\] end tokens and the tokenizer 49407"),
    ],
)
def test_a_configuration_that_cannot_be_right(
    folder: Path, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    edit(folder / "config.json", change)
    with pytest.raises(ModelError, match=said) as error:
        load_encoder(folder)
    assert "\n" not in str(error.value)


def test_parameters_that_a_clip_does_not_have_are_said_once(
    folder: Path, plain: str, caplog: pytest.LogCaptureFixture
) -> None:
    tensors = load_file(folder / "model.safetensors")
    buffer = {"vision_model.embeddings.position_ids": torch.arange(17)}
    save_file(tensors | buffer, folder / "model.safetensors", metadata={"format": "pt"})
    assert load_encoder(folder).fingerprint() == plain
    assert not caplog.records
    more = {"vision_model.encoder.layers.0.ls_1.gamma": torch.ones(64), "head.weight": torch.ones(2, 2)}
    save_file(tensors | more, folder / "model.safetensors", metadata={"format": "pt"})
    assert load_encoder(folder).fingerprint() == plain
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "2 parameters that a clip model of config.json does not have, such as head.weight" in caplog.text


# ---------------------------------------------------------------- tokenizers


@pytest.mark.parametrize("left", [["tokenizer_config.json"], ["tokenizer_config.json", "merges.txt"]])
def test_a_tokenizer_without_vocabulary(folder: Path, left: list[str]) -> None:
    (folder / "tokenizer.json").unlink()
    for name in left:
        (folder / name).touch()
    with pytest.raises(ModelError, match=r"holds tokenizer_config\.json but no vocabulary: put tokenizer\.json"):
        load_encoder(folder)


def test_a_tokenizer_without_vocabulary_in_the_folder_that_is_filled_by_hand(
    folder: Path, plain: str, ttd_cache: Path
) -> None:
    place = ttd_cache / "openai--clip-vit-base-patch16"
    shutil.copytree(folder, place)
    (place / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="no vocabulary"):
        load_encoder("clip-vit-b16")
    (place / "tokenizer_config.json").unlink()  # no tokenizer at all: CLIP's own
    assert load_encoder("clip-vit-b16").encode_text(["dog"]).shape == (1, 48)


def test_a_vocabulary_without_merges(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(clip_tokenizer().get_vocab()))
    with pytest.raises(ModelError, match=r"vocab\.json without merges\.txt"):
        load_encoder(folder)


def test_a_tokenizer_whose_merges_were_lost(folder: Path) -> None:
    edit(folder / "tokenizer.json", lambda c: c["model"].update(merges=[]))
    with pytest.raises(ModelError, match=r"splits words that it knows into pieces .*merges"):
        load_encoder(folder)


@pytest.mark.parametrize(("words", "said"), [(0, "knows no words"), (500, "has 502 tokens, but the model has 49408")])
def test_a_smaller_tokenizer(folder: Path, words: int, said: str) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {f"word{i}": i for i in range(words)} | {"</s>": words, "<unk>": words + 1}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", unk_token="<unk>").save_pretrained(folder)
    with pytest.raises(ModelError, match=said):
        load_encoder(folder)


def test_a_larger_tokenizer(folder: Path) -> None:
    tokenizer = type(clip_tokenizer()).from_pretrained(folder)
    tokenizer.add_tokens(["<cat-toy>"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match=r"tokens up to 49408, such as the added <cat-toy>, but the model has 49408"):
        load_encoder(folder)


def test_the_tokenizer_of_another_family(folder: Path, siglip: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, siglip / name)
    with pytest.raises(ModelError, match=r"tokens up to 49407.*but the model has 300"):
        load_encoder(siglip)


def save_with(folder: Path, vocabulary: int, **text: int) -> None:
    """The tiny CLIP with a larger table of embeddings, beside the tokenizer that is there."""
    model = tiny_clip_model(vocab=vocabulary)
    for name, value in text.items():
        setattr(model.config.text_config, name, value)
    model.save_pretrained(folder)


def test_added_tokens_where_texts_are_pooled_at_the_highest(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = type(clip_tokenizer()).from_pretrained(folder)
    tokenizer.add_tokens(["<cat-toy>", "<dog-toy>"])
    tokenizer.save_pretrained(folder)
    save_with(folder, 49_410, eos_token_id=2)
    load_encoder(folder)
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "has 2 above the end token, such as <cat-toy>" in caplog.text
    caplog.clear()
    save_with(folder, 49_410, eos_token_id=49_407)  # pooled at the end token: nothing to warn about
    encoder = load_encoder(folder)
    assert not caplog.records
    ids = tokenizer(["a <cat-toy>"])["input_ids"]
    assert ids[0][-2:] == [49_408, 49_407]
    expected = encoder.backbone.get_text_features(input_ids=torch.tensor(ids)).pooler_output
    assert_close(encoder.embed_tokens(torch.tensor(ids)), expected, TINY)


def test_a_padded_table_of_embeddings_is_no_fault(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_with(folder, 49_472, eos_token_id=49_407)
    assert load_encoder(folder).encode_text(["dog"]).shape == (1, 48)
    assert not caplog.records


@pytest.mark.parametrize("ids", [[[49_406, 49_408, 49_407]], [[-1, 49_407]]])
def test_ids_that_the_model_does_not_have(clip_folder: Path, ids: list[list[int]]) -> None:
    with pytest.raises(InputError, match=r"the token (49408|-1) is not among this model's 49408"):
        load_encoder(clip_folder).embed_tokens(torch.tensor(ids))


def test_siglip_with_tokenizer_json_alone(siglip: Path) -> None:
    (siglip / "tokenizer_config.json").unlink()
    with pytest.raises(
        ModelError, match=r"tokenizer\.json without tokenizer_config\.json, which says how texts are padded"
    ):
        load_encoder(siglip)


def test_siglip_without_sentencepiece(siglip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "sentencepiece" else found(name))
    edit(siglip / "tokenizer_config.json", lambda c: c.update(tokenizer_class="SiglipTokenizer"))
    with pytest.raises(ModelError, match=r"put spiece\.model beside it"):
        load_encoder(siglip)
    (siglip / "spiece.model").write_bytes(b"pieces")
    with pytest.raises(TTDError, match=r"needs sentencepiece and protobuf: run `pip install -e '\.\[siglip\]'"):
        load_encoder(siglip)


# ---------------------------------------------------------------- image statistics


@pytest.mark.parametrize(
    ("files", "mean", "std"),
    [
        ({"processor_config.json": {"image_processor": {"image_mean": [0.5, 0.4, 0.3]}}}, (0.5, 0.4, 0.3), OPENAI_STD),
        ({"processor_config.json": {"processor_class": "CLIPProcessor"}}, OPENAI_MEAN, OPENAI_STD),
        ({"preprocessor_config.json": {"image_mean": 0.5, "image_std": 0.25}}, (0.5,) * 3, (0.25,) * 3),
        ({"preprocessor_config.json": {"do_normalize": False, "image_mean": [0.5] * 3}}, (0.0,) * 3, (1.0,) * 3),
        ({"preprocessor_config.json": {"image_mean": None, "rescale_factor": 0.00392156862}}, OPENAI_MEAN, OPENAI_STD),
        (
            {
                "processor_config.json": {"image_processor": {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}},
                "preprocessor_config.json": {"image_mean": [0.1] * 3, "image_std": [0.1] * 3},
            },
            (0.5,) * 3,
            (0.5,) * 3,
        ),
    ],
)
def test_image_statistics_wherever_they_stand(
    folder: Path, files: dict[str, Any], mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    encoder = load_encoder(folder)
    assert (encoder.mean, encoder.std) == (mean, std)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"image_mean": [0.5, 0.5]}, "the mean of images must be three numbers"),
        ({"image_std": [0.5, 0.5, 0]}, "the std of images must be above 0"),
        ({"image_mean": [10**400, 0, 0]}, "the mean of images must be three numbers"),
        ({"image_mean": "0.5"}, "the mean of images must be three numbers"),
        ({"rescale_factor": 1 / 127.5}, "scales pixels by 0.0078"),
        ({"do_rescale": False}, "scales pixels by 1 "),
        ({"rescale_factor": "1/255"}, "rescale_factor"),
        ([], "is not an object"),
    ],
)
def test_image_statistics_that_cannot_be_right(folder: Path, content: object, said: str) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match=said):
        load_encoder(folder)


# ---------------------------------------------------------------- files of weights


def test_pickled_shards(folder: Path, plain: str) -> None:
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    place = {name: f"pytorch_model-0000{1 + i % 2}-of-00002.bin" for i, name in enumerate(names)}
    for shard in set(place.values()):
        torch.save({name: state[name] for name in names if place[name] == shard}, folder / shard)
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": place}))
    assert load_encoder(folder).fingerprint() == plain
    edit(index, lambda c: c["weight_map"].update({"more.weight": place[names[0]]}))
    with pytest.raises(ModelError, match=r"lists more\.weight, which none of its shards holds"):
        load_encoder(folder)


@pytest.mark.parametrize(
    "name", ["model.fp16.safetensors", "model-ema.safetensors", "clip.pt", "pytorch_model.fp16.bin", "last.ckpt"]
)
def test_weights_under_another_name(folder: Path, plain: str, name: str) -> None:
    state = {n: t.half() for n, t in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    save_file(state, folder / name) if name.endswith("s") else torch.save({"state_dict": state}, folder / name)
    torch.save({"step": 3}, folder / "training_args.bin")
    assert load_encoder(folder).fingerprint() == plain
    assert load_encoder(folder / name).fingerprint() == plain


def test_which_weights_are_meant_must_be_plain(folder: Path, plain: str) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        shutil.copy(folder / "model.safetensors", folder / name)
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        ModelError, match=r"2 files that could be its weights \(a.safetensors, b.safetensors\): name the one"
    ):
        load_encoder(folder)
    assert load_encoder(folder / "b.safetensors").fingerprint() == plain


@pytest.mark.parametrize(("name", "whose"), [("tf_model.h5", "TensorFlow"), ("flax_model.msgpack", "Flax")])
def test_weights_of_other_libraries_are_called_so(folder: Path, name: str, whose: str) -> None:
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(ModelError, match=f"{name} is {whose}'s format; put model.safetensors beside it"):
        load_encoder(folder)


@pytest.mark.parametrize("prefix", WRAPPERS)
def test_prefixes_of_training_are_cut_off(folder: Path, plain: str, prefix: str) -> None:
    state = {prefix + name: values for name, values in load_file(folder / "model.safetensors").items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    assert load_encoder(folder).fingerprint() == plain


@pytest.mark.parametrize("prefix", WRAPPERS)
def test_prefixes_in_a_single_file(tmp_path: Path, tcl_tensors: dict[str, Tensor], prefix: str) -> None:
    for name, tensors in (("clip", openai_tensors()), ("tcl", tcl_tensors)):
        save_file(tensors, tmp_path / f"{name}.safetensors")
        wrapped = {prefix + key: values for key, values in tensors.items()}
        torch.save({"state_dict": wrapped, "epoch": 3}, tmp_path / f"{name}.pt")
        expected = load_encoder(tmp_path / f"{name}.safetensors").fingerprint()
        assert load_encoder(tmp_path / f"{name}.pt").fingerprint() == expected


def test_parts_that_were_wrapped_and_parameters_outside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tensors = openai_tensors()
    expected = CLIPEncoder.from_openai_state_dict(tensors).fingerprint()
    parts = {name.replace("visual.", "visual._orig_mod.", 1): values for name, values in tensors.items()}
    parts = {n.replace("transformer.", "transformer._fsdp_wrapped_module.", 1): t for n, t in parts.items()}
    save_file(parts, tmp_path / "parts.safetensors")
    assert load_encoder(tmp_path / "parts.safetensors").fingerprint() == expected
    caplog.clear()
    lightning = {f"model.{name}": values for name, values in tensors.items()} | {"criterion.bias": torch.zeros(3)}
    save_file(lightning, tmp_path / "more.safetensors")
    assert load_encoder(tmp_path / "more.safetensors").fingerprint() == expected
    assert "1 of its parameters lie outside the model (criterion.bias)" in caplog.text


def test_two_models_in_one_file(tmp_path: Path) -> None:
    both = {f"{who}.{name}": t.clone() for who in ("student", "teacher") for name, t in openai_tensors().items()}
    save_file(both, tmp_path / "both.safetensors")
    with pytest.raises(ModelError, match=r"holds 2 models, under student\. and teacher\."):
        load_encoder(tmp_path / "both.safetensors")


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_quantised_weights_are_not_taken_for_numbers(folder: Path, kind: torch.dtype) -> None:
    state = load_file(folder / "model.safetensors")
    name = "vision_model.encoder.layers.0.mlp.fc1.weight"
    state[name] = state[name].to(kind)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"is quantised: vision_model.*fc1\.weight is (u?int8|float8)"):
        load_encoder(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(
    folder: Path, tmp_path: Path, tcl_tensors: dict[str, Tensor], value: float
) -> None:
    state = load_file(folder / "model.safetensors")
    state["visual_projection.weight"][3, 5] = value
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    for name, tensors, damaged in (
        ("clip.pt", openai_tensors(), "visual.proj"),
        ("tcl.pt", {n: t.clone() for n, t in tcl_tensors.items()}, "masker.sim2mask.w"),
    ):
        tensors[damaged].fill_(value)
        torch.save(tensors, tmp_path / name)
    for path, damaged in (
        (folder, "visual_projection.weight"),
        (tmp_path / "clip.pt", "visual.proj"),
        (tmp_path / "tcl.pt", "masker.sim2mask.w"),
    ):
        with pytest.raises(ModelError, match=f"{damaged} holds values that are not finite"):
            load_encoder(path)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("visual.class_embedding", ()),
        ("visual.conv1.weight", ()),
        ("visual.conv1.weight", (64, 3)),
        ("visual.proj", (3,)),
        ("token_embedding.weight", (7,)),
        ("positional_embedding", ()),
        ("transformer.resblocks.0.attn.in_proj_weight", (4,)),
        ("visual.transformer.resblocks.0.mlp.c_fc.weight", ()),
        ("logit_scale", (3,)),
    ],
)
def test_parameters_of_other_shapes(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    tensors = openai_tensors() | {name: torch.ones(shape)}
    open_clip_config(tmp_path / "o")
    for path in (tmp_path / "m.safetensors", tmp_path / "o/m.safetensors"):
        save_file(tensors, path)
        with pytest.raises(ModelError) as error:
            load_encoder(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "preprocessor_config.json"])
def test_pointers_of_git_lfs(folder: Path, name: str) -> None:
    (folder / name).write_text(POINTER)
    with pytest.raises(ModelError, match=rf"{name} is only a pointer of Git LFS.*git lfs pull"):
        load_encoder(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "ViT-B-16.pt", "tcl.pth", "m.safetensors"])
def test_pointers_of_git_lfs_alone(folder: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(ModelError, match="git lfs pull"):
        load_encoder(tmp_path / name)
    (folder / "model.safetensors").unlink()
    (folder / name).write_text(POINTER)
    with pytest.raises(ModelError, match="git lfs pull"):
        load_encoder(folder)


def test_a_pointer_that_is_not_needed_is_no_fault(folder: Path, plain: str) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").write_text(POINTER)
    (folder / "flax_model.msgpack").write_text(POINTER)
    assert load_encoder(folder).fingerprint() == plain


# ---------------------------------------------------------------- OpenAI's and OpenCLIP's files


@pytest.mark.parametrize("name", ["epoch_10.pt", "ViT-B-16.safetensors", "open_clip_pytorch_model.bin", "last.ckpt"])
def test_an_open_clip_file_has_what_the_configuration_beside_it_says(tmp_path: Path, name: str) -> None:
    open_clip_config(tmp_path / "m")
    tensors = openai_tensors()
    if name.endswith("s"):
        save_file(tensors, tmp_path / "m" / name)
    else:
        wrapped = {f"module.{key}": values for key, values in tensors.items()}
        torch.save({"epoch": 10, "name": "run", "state_dict": wrapped}, tmp_path / "m" / name)
    expected = as_open_clip().fingerprint()
    assert load_encoder(tmp_path / "m" / name).fingerprint() == expected
    assert load_encoder(tmp_path / "m").fingerprint() == expected


def test_an_open_clip_text_tower_has_eight_heads_where_nothing_else_is_said(tmp_path: Path) -> None:
    open_clip_config(tmp_path)
    edit(tmp_path / "open_clip_config.json", lambda c: c["model_cfg"].update(text_cfg={}))
    save_file(openai_tensors(), tmp_path / "open_clip_model.safetensors")
    config = load_encoder(tmp_path).backbone.config
    assert (config.vision_config.num_attention_heads, config.text_config.num_attention_heads) == (2, 8)


@pytest.mark.parametrize(
    ("preprocess", "beside", "mean"),
    [
        ({"mean": None}, None, OPENAI_MEAN),
        ({"mean": None, "std": None}, {"image_mean": [0.5] * 3}, (0.5,) * 3),
        ({}, {"image_mean": [0.5] * 3}, (0.5,) * 3),
        ({"mean": [0.4, 0.5, 0.6]}, {"image_mean": [0.5] * 3}, (0.4, 0.5, 0.6)),
    ],
)
def test_open_clip_image_statistics(
    tmp_path: Path, preprocess: dict[str, object], beside: object, mean: tuple[float, ...]
) -> None:
    open_clip_config(tmp_path, **preprocess)
    save_file(openai_tensors(), tmp_path / "open_clip_model.safetensors")
    if beside is not None:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(beside))
    encoder = load_encoder(tmp_path)
    assert (encoder.mean, encoder.std) == (mean, OPENAI_STD)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["model_cfg"].update(vision_cfg="ViT-B-16"), "vision_cfg is 'ViT-B-16', and no object"),
        (lambda c: c["model_cfg"]["text_cfg"].update(heads=0), "heads is 0"),
        (lambda c: c["model_cfg"]["text_cfg"].update(heads=7), "heads 7 does not fit a tower of 64 channels"),
        (lambda c: c["model_cfg"]["vision_cfg"].update(head_width="64"), "head_width is '64'"),
        (lambda c: c["preprocess_cfg"].update(std=[1, 1]), "the std of images must be three numbers"),
    ],
)
def test_an_open_clip_configuration_that_cannot_be_right(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    open_clip_config(tmp_path)
    edit(tmp_path / "open_clip_config.json", change)
    save_file(openai_tensors(), tmp_path / "open_clip_model.safetensors")
    with pytest.raises(ModelError, match=said):
        load_encoder(tmp_path)


@pytest.mark.parametrize("width", [1280, 1408, 1664])
def test_a_single_file_wider_than_openais_is_not_guessed(tmp_path: Path, width: int) -> None:
    tensors = openai_tensors(layers=1)
    tensors["visual.class_embedding"] = torch.zeros(width)
    save_file(tensors, tmp_path / "huge.safetensors")
    with pytest.raises(ModelError, match=rf"{width} channels wide, .*put open_clip_config\.json"):
        load_encoder(tmp_path / "huge.safetensors")


def test_the_heads_of_a_wide_open_clip_are_its_configurations(tmp_path: Path) -> None:
    """H/14's tower: 16 heads of 80 channels."""
    model = randomised(CLIPModel(CLIPConfig(
        vision_config={"hidden_size": 1280, "intermediate_size": 64, "num_hidden_layers": 1, "patch_size": 14,
                       "num_attention_heads": 16, "image_size": 28, "hidden_act": "gelu"},
        text_config={"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 8,
                     "hidden_act": "gelu"},
        projection_dim=32,
    )))  # fmt: skip
    shape = {"vision_cfg": {"width": 1280, "head_width": 80, "patch_size": 14}, "text_cfg": {}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": shape}))
    save_file(
        {n: t.contiguous() for n, t in clip_to_openai(model.state_dict()).items()}, tmp_path / "epoch_1.safetensors"
    )
    encoder = load_encoder(tmp_path / "epoch_1.safetensors")
    pixels = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.get_image_features(pixel_values=pixels).pooler_output
    assert_close(encoder.encode_pooled(pixels), torch.nn.functional.normalize(expected, dim=-1), TINY)


def test_open_clip_weights_beside_a_configuration_of_transformers(folder: Path, plain: str) -> None:
    (folder / "model.safetensors").unlink()
    save_file(openai_tensors(), folder / "open_clip_model.safetensors")
    assert load_encoder(folder).fingerprint() == plain  # whose word for heads and activation counts
    open_clip_config(folder)
    assert load_encoder(folder).fingerprint() == as_open_clip().fingerprint()


def test_a_single_file_whose_activation_is_assumed_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tensors = openai_tensors()
    save_file(tensors, tmp_path / "m.safetensors")
    load_encoder(tmp_path / "m.safetensors")
    assert "does not say its activation and heads" in caplog.text
    caplog.clear()
    own = {name: torch.tensor(1) for name in ("input_resolution", "context_length", "vocab_size")}
    torch.save(tensors | own, tmp_path / "ViT.pt")  # as OpenAI's own files
    load_encoder(tmp_path / "ViT.pt")
    assert not caplog.records


# ---------------------------------------------------------------- adapters


@pytest.fixture
def adapter(clip_folder: Path, tmp_path: Path) -> Path:
    """A PEFT adapter of the tiny CLIP that says nothing about its base."""
    encoder = load_encoder(clip_folder)
    model = get_peft_model(encoder.backbone, LoraConfig(r=2, target_modules=encoder.lora_targets()))
    randomised(model.base_model.model.vision_model.encoder.layers[0].self_attn.v_proj.lora_B, seed=3)
    model.save_pretrained(tmp_path / "lora")
    edit(tmp_path / "lora/adapter_config.json", lambda c: c.update(base_model_name_or_path=None))
    return tmp_path / "lora"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(modules_to_save=["classifier"]), r"replaces the module classifier \(modules_to_save\)"),
        (lambda c: c.update(modules_to_save="score"), "replaces the module score"),
        (lambda c: c.update(modules_to_save=True), "replaces the module True"),
        (lambda c: c.update(alora_invocation_tokens=[7]), r"kind of LoRA \(alora_invocation_tokens\)"),
        (lambda c: c.update(layer_replication=[[0, 1], [0, 2]]), r"kind of LoRA \(layer_replication\)"),
        (lambda c: c.update(r="two"), "cannot be attached to this model"),
        (lambda c: c.update(r=0), "cannot be attached to this model"),
        (lambda c: c.update(target_modules=["nothing"]), "cannot be attached to this model"),
        (lambda c: c.update(lora_dropout="much"), "cannot be attached to this model"),
        (lambda c: c.update(init_lora_weights="magic"), "cannot be attached to this model"),
    ],
)
def test_an_adapter_that_does_not_fit(
    clip_folder: Path, adapter: Path, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    edit(adapter / "adapter_config.json", change)
    with pytest.raises(ModelError, match=said) as error:
        load_encoder(clip_folder, adapter=adapter)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter_that_git_lfs_did_not_fetch(clip_folder: Path, adapter: Path, name: str) -> None:
    (adapter / name).write_text(POINTER)
    with pytest.raises(ModelError, match=f"{name} is only a pointer of Git LFS"):
        load_encoder(clip_folder, adapter=adapter)


def test_an_adapter_of_a_compiled_model(clip_folder: Path, adapter: Path) -> None:
    expected = load_encoder(clip_folder, adapter=adapter).fingerprint()
    assert expected != load_encoder(clip_folder).fingerprint()
    file = adapter / "adapter_model.safetensors"
    state = {n.replace("base_model.model.", "base_model.model._orig_mod."): t for n, t in load_file(file).items()}
    save_file(state, file)
    assert load_encoder(clip_folder, adapter=adapter).fingerprint() == expected


@pytest.mark.parametrize(
    ("model", "base", "warned"),
    [
        ("clip-vit-b16", "openai/clip-vit-base-patch32", True),
        ("openai/clip-vit-base-patch16", "laion/CLIP-ViT-B-16-laion2B-s34B-b88K", True),
        ("openai/clip-vit-base-patch16", "OpenAI/clip-vit-base-patch16", False),
        ("clip-vit-b16", "openai/clip-vit-base-patch16", False),
        ("clip-vit-b16", "/data/models/clip", False),
        ("clip-vit-b16", None, False),
    ],
)
def test_an_adapter_of_another_hub_id(
    folder: Path,
    adapter: Path,
    ttd_cache: Path,
    caplog: pytest.LogCaptureFixture,
    model: str,
    base: str | None,
    warned: bool,
) -> None:
    shutil.copytree(folder, ttd_cache / "openai--clip-vit-base-patch16")
    edit(adapter / "adapter_config.json", lambda c: c.update(base_model_name_or_path=base))
    for name in (model, ttd_cache / "openai--clip-vit-base-patch16"):
        caplog.clear()
        load_encoder(name, adapter=adapter)
        assert [r.levelname for r in caplog.records] == ["WARNING"] * warned
        if warned:
            assert f"was trained on {base}, not on openai/clip-vit-base-patch16" in caplog.text


# ---------------------------------------------------------------- the hub

REPO = "someone/tiny-clip"


def publish(hub: StandIn, folder: Path, repo: str = REPO) -> None:
    for path in folder.iterdir():
        hub.files[f"{repo}/{path.name}"] = path.read_bytes()


def asked_for(hub: StandIn, ending: str) -> list[str]:
    return [path for _, path, _ in hub.requests if path.endswith(ending)]


def test_what_a_processor_says_comes_with_a_hub_s_model(hub: StandIn, folder: Path) -> None:
    processor = {"image_processor": {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}}
    (folder / "processor_config.json").write_text(json.dumps(processor))
    publish(hub, folder)
    encoder = load_encoder(REPO)
    assert (encoder.mean, encoder.std) == ((0.5,) * 3, (0.25,) * 3)


def test_pickled_shards_of_a_hub(hub: StandIn, folder: Path, plain: str) -> None:
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model-00001-of-00001.bin")
    index = {"weight_map": dict.fromkeys(state, "pytorch_model-00001-of-00001.bin")}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    publish(hub, folder)
    assert load_encoder(REPO).fingerprint() == plain


@pytest.mark.parametrize("fault", ["sentencepiece", "no vocabulary", "quantised"])
def test_what_is_wrong_is_said_before_the_weights_are_fetched(
    hub: StandIn, siglip: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    if fault == "sentencepiece":
        import importlib.util

        found = importlib.util.find_spec
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "sentencepiece" else found(name))
        (siglip / "tokenizer.json").rename(siglip / "spiece.model")
        edit(siglip / "tokenizer_config.json", lambda c: c.update(tokenizer_class="SiglipTokenizer"))
    elif fault == "no vocabulary":
        (siglip / "tokenizer.json").unlink()
    else:
        edit(siglip / "config.json", lambda c: c.update(quantization_config={"quant_method": "awq"}))
    publish(hub, siglip)
    with pytest.raises(TTDError, match=fault):
        load_encoder(REPO)
    assert not asked_for(hub, "model.safetensors")


def test_a_full_disk_is_said_before_the_weights_are_fetched(
    hub: StandIn, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(hub, folder)
    monkeypatch.setattr("ttd.encoders.loading.downloads.free_space", lambda place: 3_000_000)
    with pytest.raises(ModelError, match=r"model\.safetensors is about 1\d MB and only about 3 MB is free"):
        load_encoder(REPO)
    assert [method for method, path, _ in hub.requests if path.endswith("model.safetensors")] == ["HEAD"]


def test_a_pinned_file_is_taken_whatever_else_the_repository_holds(
    hub: StandIn, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As laion's repositories: one model twice, under transformers' and under OpenCLIP's names."""
    import dataclasses
    import hashlib

    from ttd.encoders.loading import catalogue

    open_clip_config(folder)
    save_file(openai_tensors(seed=1), folder / "open_clip_model.safetensors")
    row = catalogue.find_entry("openclip-vit-b16")
    assert row is not None
    assert row.weights == "open_clip_model.safetensors"
    publish(hub, folder, row.source)
    content = (folder / "open_clip_model.safetensors").read_bytes()
    pinned = dataclasses.replace(row, revision=None, sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(catalogue, "CATALOGUE", (pinned,))
    for _ in range(2):  # downloaded, then from the cache
        encoder = load_encoder("openclip-vit-b16")
        assert_close(encoder.backbone.visual_projection.weight, openai_tensors(seed=1)["visual.proj"].T, TINY)
        assert encoder.backbone.config.vision_config.hidden_act == "gelu"
    assert not asked_for(hub, "/model.safetensors")
    wrong = dataclasses.replace(pinned, sha256="0" * 64, source="someone/other")
    publish(hub, folder, "someone/other")
    monkeypatch.setattr(catalogue, "CATALOGUE", (wrong,))
    with pytest.raises(ModelError, match=r"open_clip_model\.safetensors has the hash"):
        load_encoder("openclip-vit-b16")
    del hub.files["someone/other/open_clip_model.safetensors"]
    with pytest.raises(ModelError, match="holds nothing that can be read here"):
        load_encoder("openclip-vit-b16")
