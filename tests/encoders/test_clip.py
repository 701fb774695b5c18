from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import normalize
from transformers import CLIPModel

from tests.tiny_models import random_pixels, tiny_clip, tiny_clip_model
from tests.tolerance import LAYERS, TINY, TINY_IMAGE, TINY_TEXT, assert_close, largest_difference, tower
from ttd.encoders import CLIPEncoder
from ttd.encoders.identity import parameters_digest
from ttd.encoders.loading.openai_names import clip_to_hf, clip_to_openai
from ttd.errors import InputError, ModelError

WORDS = ["dog", "grass", "the quick brown fox jumps over it", "spider's web"]


@torch.no_grad()
def test_reference_features_and_text(shared: Path) -> None:
    folder = shared / "reference" / "tcl_small"
    expected = load_file(folder / "outputs.safetensors")
    encoder = CLIPEncoder.from_openai_state_dict(load_file(folder / "clip_state_dict.safetensors"))
    features = encoder.encode_image(expected["image0"])
    assert_close(features.dense, normalize(expected["maskclip_feat0"], dim=1), TINY_IMAGE)
    assert_close(features.pooled, normalize(expected["global_emb0"], dim=1), TINY_IMAGE)
    assert_close(encoder.embed_tokens(expected["tokens"]), expected["text_emb"], TINY_TEXT)


@pytest.mark.parametrize("size", [(64, 64), (32, 96)])
@torch.no_grad()
def test_pooled_and_text_are_those_of_transformers(size: tuple[int, int]) -> None:
    encoder = tiny_clip()
    pixels = random_pixels(2, *size)
    theirs = encoder.backbone.get_image_features(pixels, interpolate_pos_encoding=True).pooler_output
    assert_close(encoder.encode_image(pixels).pooled, normalize(theirs, dim=-1), TINY_IMAGE)
    ids = encoder.tokenizer(WORDS, padding=True, return_tensors="pt")
    theirs = encoder.backbone.get_text_features(**ids).pooler_output
    ours = encoder.embed_tokens(encoder.tokenize(WORDS)[0])
    assert_close(ours, theirs, TINY_TEXT)


@torch.no_grad()
def test_encode_pixels_is_the_dense_part() -> None:
    encoder, pixels = tiny_clip(), random_pixels(2, 48, 80)
    features = encoder.encode_image(pixels)
    assert features.dense.shape == (2, 48, 3, 5)
    assert_close(features.dense, encoder.encode_pixels(pixels), TINY_IMAGE)
    assert features.size == features.padded == (48, 80)
    assert_close(features.dense.norm(dim=1), torch.ones(2, 3, 5), 2 * 48)


@torch.no_grad()
def test_trimmed_text_equals_padded_text() -> None:
    encoder = tiny_clip(layers=3)
    ids, _ = encoder.tokenize(WORDS)
    padded = torch.zeros(len(WORDS), 77, dtype=torch.long)
    padded[:, : ids.shape[1]] = ids
    untrimmed = encoder.backbone.text_model(input_ids=padded).last_hidden_state
    ends = padded.argmax(-1)
    expected = encoder.backbone.text_projection(untrimmed[torch.arange(len(WORDS)), ends])
    terms = tower(blocks=3, width=64, tokens=77)
    assert_close(encoder.embed_tokens(padded), expected, terms)
    assert_close(encoder.embed_tokens(ids), expected, terms)
    alone = torch.cat([encoder.embed_tokens(encoder.tokenize([word])[0]) for word in WORDS])
    assert_close(alone, expected, terms)


@pytest.mark.parametrize(
    "templates",
    [
        ("a photo of a {}.", "itap of my {} at night", "{}", "{} and a {}", "a photo of a {}"),
        ("a very long one " * 20 + "{}", "one of {}"),  # of the first not even the text is left
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_prompts_that_begin_alike_give_what_each_gives_in_full(templates: tuple[str, ...], dtype: torch.dtype) -> None:
    encoder = tiny_clip(layers=3).to(dtype)
    texts = [*WORDS, "dog house", "Dog", "dog " * 90, "dogs", *(f"number {n}" for n in range(80))]
    with torch.inference_mode():
        shared = encoder.encode_text(texts, templates)
        few = torch.cat([encoder.encode_text([text], templates) for text in texts[:8]])  # nothing to share
    terms = tower(blocks=3, width=64, tokens=77) if dtype == torch.float32 else LAYERS + 8
    assert_close(shared[:8], few, terms, dtype=dtype)
    whole = encoder.encode_text(texts, templates)  # with gradients every prompt is run in full
    assert_close(shared, whole.detach(), terms, dtype=dtype)


@pytest.mark.parametrize(
    ("end", "ids", "position"), [(2, [5, 9, 3, 9], 1), (31, [5, 31, 3, 31], 1), (7, [20, 7, 30, 7], 1)]
)
@torch.no_grad()
def test_every_convention_of_the_end_token(end: int, ids: list[int], position: int) -> None:
    model = tiny_clip_model(vocab=32)
    model.config.text_config.eos_token_id = model.text_model.eos_token_id = end
    theirs = model.get_text_features(torch.tensor([ids])).pooler_output
    state = model.text_model(input_ids=torch.tensor([ids])).last_hidden_state[:, position]
    assert_close(theirs, model.text_projection(state), TINY_TEXT)
    assert_close(CLIPEncoder(model).embed_tokens(torch.tensor([ids])), theirs, TINY_TEXT)


def test_rows_without_their_end_token_are_refused() -> None:
    model = tiny_clip_model(vocab=32)
    model.config.text_config.eos_token_id = 7
    with pytest.raises(InputError, match="end token 7"):
        CLIPEncoder(model).embed_tokens(torch.tensor([[1, 2, 3]]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision_stays_close_and_gives_float32(dtype: torch.dtype) -> None:
    exact, rounded = tiny_clip(), tiny_clip().to(dtype)
    pixels = random_pixels(1, 48, 80)
    for a, b in (
        (exact.encode_pixels(pixels), rounded.encode_pixels(pixels)),
        (exact.encode_image(pixels).pooled, rounded.encode_image(pixels).pooled),
        (exact.encode_text(WORDS), rounded.encode_text(WORDS)),
    ):
        assert b.dtype == torch.float32
        assert torch.cosine_similarity(a, b, dim=1).min() > 0.999


def test_gradients_reach_every_layer_that_lora_adapts() -> None:
    for method in ("maskclip", "sclip", "naclip"):
        encoder = tiny_clip(method=method)
        text = encoder.encode_text(["dog", "a cat"])
        encoder.similarity(encoder.encode_image(random_pixels()), text).square().sum().backward()
        modules = dict(encoder.backbone.named_modules())
        targets = encoder.lora_targets()
        assert all(modules[name].weight.grad.abs().max() > 0 for name in targets)
        last_query = "vision_model.encoder.layers.1.self_attn.q_proj"
        assert (last_query in targets) == (method == "sclip")
        if last_query not in targets:
            assert modules[last_query].weight.grad is None


@torch.no_grad()
def test_openai_names_there_and_back() -> None:
    model = tiny_clip_model(width=128, layers=3, patch=8, image=40, vocab=99)
    openai = clip_to_openai(model.state_dict())
    back = clip_to_hf(openai)
    assert all(torch.equal(back[name], values) for name, values in model.state_dict().items())
    encoder = CLIPEncoder.from_openai_state_dict({name: t.half() for name, t in openai.items()})
    config = encoder.backbone.config
    assert (encoder.patch_size, encoder.image_size, encoder.embedding_size) == (8, 40, 48)
    assert config.vision_config.num_attention_heads == config.text_config.num_attention_heads == 2
    assert encoder.dtype == torch.float32
    assert_close(encoder.logit_scale, float(model.logit_scale.half().float().exp()), 1)
    assert encoder.tokenizer is None
    with pytest.raises(ModelError, match="tokenizer"):
        encoder.tokenize(["dog"])


@torch.no_grad()
def test_building_copies_the_parameters() -> None:
    openai = clip_to_openai(tiny_clip_model(vocab=32).state_dict())
    before = {name: t.clone() for name, t in openai.items()}
    encoder = CLIPEncoder.from_openai_state_dict(openai)
    for parameter in encoder.parameters():
        parameter.zero_()
    assert all(torch.equal(openai[name], before[name]) for name in openai)


@pytest.mark.parametrize("quick", [True, False])
@torch.no_grad()
def test_open_clip_takes_heads_and_activation_from_its_config(quick: bool) -> None:
    model = tiny_clip_model(vocab=32)
    config = {
        "model_cfg": {
            "embed_dim": 48,
            "quick_gelu": quick,
            "vision_cfg": {"width": 64, "layers": 2, "patch_size": 16, "image_size": 64, "head_width": 32},
            "text_cfg": {"width": 64, "heads": 2, "layers": 2},
        },
        "preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]},
    }
    encoder = CLIPEncoder.from_open_clip(config, clip_to_openai(model.state_dict()))
    assert (encoder.mean, encoder.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    pixels, ids = random_pixels(1), torch.tensor([[30, 3, 4, 31]])
    plain = CLIPEncoder(model)
    both = (
        (encoder.encode_pixels(pixels), plain.encode_pixels(pixels)),
        (encoder.embed_tokens(ids), plain.embed_tokens(ids)),
    )
    for ours, theirs in both:
        if quick:
            assert_close(ours, theirs, TINY)
        else:
            assert largest_difference(ours, theirs) > 1e-3


@torch.no_grad()
def test_open_clip_text_under_its_own_prefix() -> None:
    openai = clip_to_openai(tiny_clip_model(vocab=32).state_dict())
    config = {"vision_cfg": {"width": 64}, "text_cfg": {}}
    plain = CLIPEncoder.from_open_clip(config, openai)
    prefixed = {n if n.startswith(("visual.", "logit")) else f"text.{n}": t for n, t in openai.items()}
    assert CLIPEncoder.from_open_clip(config, prefixed).fingerprint() == plain.fingerprint()


def test_foreign_checkpoints_are_refused_in_a_sentence() -> None:
    openai = clip_to_openai(tiny_clip_model(vocab=32).state_dict())
    missing = {name: t for name, t in openai.items() if name != "visual.ln_post.bias"}
    with pytest.raises(ModelError, match=r"visual\.ln_post\.bias|ln_post\.bias"):
        CLIPEncoder.from_openai_state_dict(missing)
    with pytest.raises(ModelError, match="extra"):
        CLIPEncoder.from_openai_state_dict({**openai, "extra": torch.zeros(1)})
    with pytest.raises(ModelError, match="ViT CLIP"):
        CLIPEncoder.from_openai_state_dict({"visual.conv1.weight": torch.zeros(4, 3, 3, 3)})
    wrong = {**openai, "visual.ln_pre.bias": torch.zeros(3)}
    with pytest.raises(ModelError, match="shapes"):
        CLIPEncoder.from_openai_state_dict(wrong)
    for setting in ({"timm_model_name": "vit_tiny"}, {"pool_type": "avg"}, {"norm_kwargs": {"eps": 1e-6}}):
        with pytest.raises(ModelError, match=next(iter(setting))):
            CLIPEncoder.from_open_clip({"vision_cfg": setting, "text_cfg": {}}, openai)
    with pytest.raises(ModelError, match="no_causal_mask"):
        CLIPEncoder.from_open_clip({"text_cfg": {"no_causal_mask": True}}, openai)


@pytest.mark.parametrize("shape", [(1, 3, 60, 64), (3, 64, 64), (1, 1, 64, 64), (1, 3, 0, 64)])
def test_pixels_of_a_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError):
        tiny_clip().encode_image(torch.zeros(shape))


def test_too_many_tokens_are_refused() -> None:
    with pytest.raises(InputError, match="77"):
        tiny_clip().embed_tokens(torch.full((1, 78), 49407))


@torch.no_grad()
def test_folder_round_trip(tmp_path: Path) -> None:
    encoder = tiny_clip()
    encoder.backbone.half().save_pretrained(tmp_path)
    encoder.tokenizer.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 2]}')
    loaded = CLIPEncoder.from_pretrained(tmp_path, method="values")
    assert loaded.dtype == torch.float32
    assert (loaded.mean, loaded.std) == ((0.1, 0.2, 0.3), (1.0, 1.0, 2.0))
    assert parameters_digest(loaded) == parameters_digest(encoder)
    assert loaded.tokenize(["dog"])[0].equal(encoder.tokenize(["dog"])[0])
    assert not loaded.training
    pixels = random_pixels(1)
    expected = tiny_clip(method="values").encode_pixels(pixels)
    # Every layer's weights were rounded to float16 once.
    assert_close(loaded.encode_pixels(pixels), expected, LAYERS, dtype=torch.float16)


def test_a_folder_of_another_kind_or_an_incomplete_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json does not exist"):
        CLIPEncoder.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError, match="bert"):
        CLIPEncoder.from_pretrained(tmp_path)
    model = tiny_clip_model(vocab=32)
    state = {n: t for n, t in model.state_dict().items() if "visual_projection" not in n}
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(ModelError, match="visual_projection"):
        CLIPEncoder.from_pretrained(tmp_path)


def test_an_adapter_attaches_and_merges() -> None:
    from peft import LoraConfig, get_peft_model

    encoder = tiny_clip()
    pixels = random_pixels(1)
    before, fingerprint = encoder.encode_pixels(pixels), encoder.fingerprint()
    names = set(encoder.lora_targets())
    encoder.backbone = get_peft_model(encoder.backbone, LoraConfig(r=2, target_modules=sorted(names)))
    assert_close(encoder.encode_pixels(pixels), before, TINY_IMAGE)
    assert encoder.fingerprint() == fingerprint
    adapted = [n for n, p in encoder.named_parameters() if "lora_B" in n]
    assert len(adapted) == len(names)
    for parameter in encoder.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    changed = encoder.encode_pixels(pixels)
    assert (changed - before).abs().max() > 1e-3
    encoder.backbone = encoder.backbone.merge_and_unload()
    assert isinstance(encoder.backbone, CLIPModel)
    assert_close(encoder.encode_pixels(pixels), changed, TINY_IMAGE)
