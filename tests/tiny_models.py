"""Small random models for tests: seeded, built in a moment, wide enough to be told apart by their outputs."""

from __future__ import annotations

import json
import shutil
import tempfile
from functools import cache
from itertools import pairwise
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    SamConfig,
    SamHQConfig,
    SamHQModel,
    SamModel,
    SiglipConfig,
    SiglipModel,
    ViTConfig,
    ViTModel,
)

from ttd.encoders.clip import CLIPEncoder
from ttd.encoders.loading.tokenizers import CLIP_TOKENIZER
from ttd.encoders.siglip import SigLIPEncoder
from ttd.encoders.tcl import TCLEncoder

START, END = 49_406, 49_407
# What captions of tests are made of: each is one token of `few_words_tokenizer`, as it is of CLIP's.
WORDS = """a an and at bird blue boat by car cat cats couch dog dogs grass green grey grid image in is lion long man
    many near no number of on one photo red sea sky snow string table that the there this to tree two umbrella very
    water white with woman words"""


def randomised(model: nn.Module, seed: int = 0, scale: float = 1.0) -> nn.Module:
    """Give every parameter seeded random values, biases and norms included: no term is 0 or 1 by luck."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim >= 2:
                parameter.copy_(scale * noise / max(1, parameter[0].numel()) ** 0.5)
            elif "norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.1 * noise)
            elif parameter.ndim == 1:
                parameter.copy_(0.1 * noise)
    return model.eval()


def tiny_clip_model(
    *, layers: int = 2, width: int = 64, patch: int = 16, image: int = 64, vocab: int = 49_408, seed: int = 0
) -> CLIPModel:
    """A transformers CLIPModel with heads of 32 channels (two per tower at width 64)."""
    config = CLIPConfig(
        text_config={
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": max(1, width // 32),
            "vocab_size": vocab,
            "bos_token_id": vocab - 2,
            "eos_token_id": vocab - 1,
        },
        vision_config={
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": max(1, width // 32),
            "patch_size": patch,
            "image_size": image,
        },
        projection_dim=48,
    )
    model: CLIPModel = randomised(CLIPModel(config), seed)
    return model


@cache
def few_words_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer with the merges that make `WORDS` and no others: texts of these words have CLIP's own pieces.

    The shipped one takes half a second to load from a folder, and its model's table of embeddings 12 MB.
    """
    lines = (CLIP_TOKENIZER / "merges.txt").read_text("utf-8").splitlines()[1:]
    ranks = {tuple(line.split()): rank for rank, line in enumerate(lines)}
    used = set()
    for word in WORDS.split():
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while pairs := [pair for pair in pairwise(pieces) if pair in ranks]:
            best = min(pairs, key=ranks.__getitem__)
            used.add(best)
            first = list(pairwise(pieces)).index(best)
            pieces[first : first + 2] = ["".join(best)]
    merges = sorted(used, key=ranks.__getitem__)
    letters = list(json.loads((CLIP_TOKENIZER / "vocab.json").read_text("utf-8")))[:512]
    tokens = [*letters, *map("".join, merges), "<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        shutil.copy(CLIP_TOKENIZER / "tokenizer_config.json", folder)
        (folder / "vocab.json").write_text(json.dumps({token: id for id, token in enumerate(tokens)}), "utf-8")
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, merges)]) + "\n", "utf-8")
        tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder)
    return tokenizer


def tiny_clip(*, method: str = "maskclip", **sizes: int) -> CLIPEncoder:
    """A CLIP encoder whose tokenizer knows few words; 4 x 4 patches at its native 64 pixels."""
    tokenizer = few_words_tokenizer()
    return CLIPEncoder(tiny_clip_model(**{"vocab": len(tokenizer), **sizes}), tokenizer, method=method).eval()


def write_tiny_clip(folder: Path) -> Path:
    """The same model as transformers writes it."""
    model = tiny_clip()
    model.backbone.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


def tiny_siglip_model(*, width: int = 64, vocab: int = 300, seed: int = 0) -> SiglipModel:
    """A transformers SiglipModel: 64 text positions, 4 x 4 patches at 64 pixels."""
    tower = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    config = SiglipConfig(
        text_config={**tower, "vocab_size": vocab, "projection_size": width},
        vision_config={**tower, "patch_size": 16, "image_size": 64},
    )
    model: SiglipModel = randomised(SiglipModel(config), seed)
    return model


def small_tokenizer() -> PreTrainedTokenizerFast:
    """Words of a short list, an end token last, case kept: so lower-casing has to happen before."""
    words = {w: i for i, w in enumerate(["<pad>", "</s>", "<unk>", "dog", "cat", "a", "photo", "Dog"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=64,
    )


def tiny_siglip() -> SigLIPEncoder:
    """A SigLIP encoder that knows five words; 4 x 4 patches at its native 64 pixels."""
    return SigLIPEncoder(tiny_siglip_model(), small_tokenizer()).eval()


def random_pixels(batch: int = 2, height: int = 64, width: int = 64, seed: int = 0) -> Tensor:
    """Normalised pixels `[B,3,H,W]`."""
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def tiny_tcl_tensors(
    *, width: int = 128, depth: int = 3, first_trained: int = 2, levels: int = 2, convs: int = 2,
    patch: int = 16, text_width: int = 64, vocab: int = 49_408, context: int = 77, embedding: int = 48,
    seed: int = 0,
) -> dict[str, Tensor]:  # fmt: skip
    """Random parameters of a TCL of any size, in the names and shapes of the official `tcl.pth`."""
    shapes = tcl_shapes(
        width=width, depth=depth, first_trained=first_trained, levels=levels, convs=convs, patch=patch,
        text_width=text_width, vocab=vocab, context=context, embedding=embedding,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        fan = max(1, noise[0].numel()) if len(shape) > 1 else 100
        is_norm = "ln_" in name or ".ln." in name or ".norm." in name
        tensors[name] = noise / fan**0.5 + float(is_norm and name.endswith("weight"))
    calibration = {"masker.sim2mask.w": torch.tensor(9.0), "masker.sim2mask.b": torch.tensor(-2.0)}
    return tensors | calibration | {"tcli_loss.logit_scale": torch.tensor(2.5)}


def tcl_shapes(
    *, width: int, depth: int, first_trained: int, text_width: int, embedding: int, levels: int = 2, convs: int = 2,
    patch: int = 16, vocab: int = 49_408, context: int = 77,
) -> dict[str, tuple[int, ...]]:  # fmt: skip
    """Names and shapes of a TCL's parameters, without its scalars."""
    shapes: dict[str, tuple[int, ...]] = {}

    def block(prefix: str, size: int) -> None:
        for norm in ("ln_1", "ln_2"):
            shapes[f"{prefix}.{norm}.weight"] = shapes[f"{prefix}.{norm}.bias"] = (size,)
        for name, rows, columns in (
            ("attn.in_proj_", 3 * size, size), ("attn.out_proj.", size, size),
            ("mlp.c_fc.", 4 * size, size), ("mlp.c_proj.", size, 4 * size),
        ):  # fmt: skip
            shapes[f"{prefix}.{name}weight"], shapes[f"{prefix}.{name}bias"] = (rows, columns), (rows,)

    visual, text = "clip_image_encoder.clip_visual", "clip_text_encoder"
    masker = "masker.image_encoder"
    shapes[f"{visual}.class_embedding"] = (width,)
    shapes[f"{visual}.conv1.weight"] = (width, 3, patch, patch)
    shapes[f"{visual}.positional_embedding"] = (17, width)
    shapes[f"{text}.token_embedding.weight"] = (vocab, text_width)
    shapes[f"{text}.positional_embedding"] = (context, text_width)
    shapes[f"{text}.text_projection"] = (text_width, embedding)
    for norm in (f"{visual}.ln_pre", f"{masker}.decoder.image_proj.ln", "clip_image_encoder.clip_proj.ln"):
        shapes[f"{norm}.weight"] = shapes[f"{norm}.bias"] = (width,)
    shapes[f"{text}.ln_final.weight"] = shapes[f"{text}.ln_final.bias"] = (text_width,)
    shapes["clip_image_encoder.clip_proj.proj"] = (width, embedding)
    shapes[f"{masker}.decoder.image_proj.proj"] = (width, embedding)
    for i in range(depth):
        block(f"{visual}.transformer.resblocks.{i}", width)
        block(f"{text}.transformer.resblocks.{i}", text_width)
    for i in range(first_trained, depth):
        block(f"{masker}.backbone.transformer.resblocks.{i}", width)
    for level in range(levels):
        for conv in ["conv", "conv2", "conv3"][:convs]:
            name = f"{masker}.decoder.decoder.net.{level}.{conv}"
            shapes[f"{name}.norm.weight"] = shapes[f"{name}.norm.bias"] = shapes[f"{name}.conv.bias"] = (width,)
            shapes[f"{name}.conv.weight"] = (width, width, 3, 3)
            shapes[f"{name}.gate.gate"] = ()
    return shapes


def tiny_tcl(**sizes: int) -> TCLEncoder:
    """A TCL encoder with the shipped tokenizer; at 64 pixels its maps have 16 x 16 cells."""
    return TCLEncoder.from_state_dict(tiny_tcl_tensors(**sizes))


def tiny_sam_model() -> SamHQModel:
    """A SAM-HQ of 128 x 128 pixels whose answers depend on the prompt."""
    torch.manual_seed(0)
    vision = {
        "hidden_size": 32, "output_channels": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 128, "patch_size": 16, "window_size": 4, "global_attn_indexes": [1],
        "num_pos_feats": 16,
    }  # fmt: skip
    prompt = {"hidden_size": 32, "image_size": 128, "patch_size": 16, "mask_input_channels": 8}
    decoder = {
        "hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 32, "vit_dim": 32,
    }  # fmt: skip
    model = SamHQModel(SamHQConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder))
    # transformers' own initialisation is so small that every prompt would get the same answer.
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            fan_in = 1 if "embed" in name or "token" in name else parameter[0].numel()
            torch.nn.init.normal_(parameter, std=1.5 * fan_in**-0.5)
    return model.eval()


def tiny_dino(patch: int = 8) -> ViTModel:
    """A second backbone as DINO's ViTs are, 4 x 4 patches at its native size."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    return ViTModel(ViTConfig(**sizes, patch_size=patch, image_size=4 * patch), add_pooling_layer=False).eval()


def tiny_plain_sam() -> SamModel:
    """A SAM of 128 x 128 pixels, whose last block looks at the whole image."""
    torch.manual_seed(0)
    vision = {
        "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 128, "patch_size": 16,
        "window_size": 3, "global_attn_indexes": [1], "mlp_dim": 48, "output_channels": 16, "num_pos_feats": 8,
    }  # fmt: skip
    return SamModel(SamConfig(vision_config=vision)).eval()
