"""OpenAI's parameter names and shapes of a ViT CLIP, and their translation to transformers' and back.

OpenCLIP uses the same names. The differences: the three attention projections lie in one tensor (`in_proj`),
the two projections into the shared space are stored transposed, and the towers' parts are called otherwise.
Every size is read from the tensors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor, cat

from ttd.errors import ModelError

Tensors = Mapping[str, Tensor]

_BLOCK_PARTS = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_VISION = {
    "class_embedding": "embeddings.class_embedding",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight",
    "ln_pre.bias": "pre_layrnorm.bias",
    "ln_post.weight": "post_layernorm.weight",
    "ln_post.bias": "post_layernorm.bias",
}
_TEXT = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_NOT_PARAMETERS = ("input_resolution", "context_length", "vocab_size")
_THIRDS = ("q_proj", "k_proj", "v_proj")
HEAD_WIDTH = 64


def block_to_hf(block: Tensors) -> dict[str, Tensor]:
    """One residual block's parameters under transformers' names (`in_proj` split into q, k, v)."""
    renamed = {}
    for kind in ("weight", "bias"):
        for third, values in zip(_THIRDS, _get(block, f"attn.in_proj_{kind}").chunk(3), strict=True):
            renamed[f"self_attn.{third}.{kind}"] = values
        for theirs, ours in _BLOCK_PARTS.items():
            renamed[f"{ours}.{kind}"] = _get(block, f"{theirs}.{kind}")
    return renamed


def block_to_openai(block: Tensors) -> dict[str, Tensor]:
    """The inverse of `block_to_hf`."""
    renamed = {}
    for kind in ("weight", "bias"):
        renamed[f"attn.in_proj_{kind}"] = cat([block[f"self_attn.{third}.{kind}"] for third in _THIRDS])
        for theirs, ours in _BLOCK_PARTS.items():
            renamed[f"{theirs}.{kind}"] = block[f"{ours}.{kind}"]
    return renamed


def clip_to_hf(tensors: Tensors) -> dict[str, Tensor]:
    """A whole CLIP's parameters under the names of transformers' `CLIPModel`.

    Raises:
        ModelError: a parameter is missing or unknown.
    """
    known = {name: values for name, values in tensors.items() if name not in _NOT_PARAMETERS}
    renamed = with_prefix("vision_model.", _tower_to_hf(under(known, "visual."), _VISION))
    renamed |= with_prefix("text_model.", _tower_to_hf(known, _TEXT))
    renamed["visual_projection.weight"] = _get(known, "visual.proj").T
    renamed["text_projection.weight"] = _get(known, "text_projection").T
    if "logit_scale" in known:
        renamed["logit_scale"] = known["logit_scale"].reshape(())
    unknown = sorted(set(known) - set(clip_to_openai(renamed)))
    if unknown:
        raise ModelError(f"the checkpoint has parameters that no ViT CLIP has: {', '.join(unknown[:3])}")
    return renamed


def clip_to_openai(state: Tensors) -> dict[str, Tensor]:
    """The inverse of `clip_to_hf`."""
    renamed = with_prefix("visual.", _tower_to_openai(under(state, "vision_model."), _VISION))
    renamed |= _tower_to_openai(under(state, "text_model."), _TEXT)
    renamed["visual.proj"] = state["visual_projection.weight"].T
    renamed["text_projection"] = state["text_projection.weight"].T
    if "logit_scale" in state:
        renamed["logit_scale"] = state["logit_scale"]
    return renamed


def block_numbers(names: Iterable[str], prefix: str) -> list[int]:
    """The numbers N of all names that start with `prefix` + "N.", sorted."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    return sorted({int(match[1]) for match in map(pattern.match, names) if match})


def under(tensors: Tensors, prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with `prefix`, which is cut off."""
    return {name[len(prefix) :]: values for name, values in tensors.items() if name.startswith(prefix)}


def with_prefix(prefix: str, tensors: Tensors) -> dict[str, Tensor]:
    """The inverse of `under`."""
    return {prefix + name: values for name, values in tensors.items()}


def vision_sizes(visual: Tensors) -> dict[str, int]:
    """A vision tower's sizes as transformers' `vision_config` names them."""
    kernel = _get(visual, "conv1.weight")
    side = round((_get(visual, "positional_embedding").shape[0] - 1) ** 0.5)
    return {
        **_tower_sizes(visual, kernel.shape[0]),
        "patch_size": kernel.shape[-1],
        "image_size": kernel.shape[-1] * side,
    }


def text_sizes(text: Tensors) -> dict[str, int]:
    """A text tower's sizes as transformers' `text_config` names them; the end token is the last."""
    vocabulary, width = _get(text, "token_embedding.weight").shape
    return {
        **_tower_sizes(text, width),
        "vocab_size": vocabulary,
        "max_position_embeddings": _get(text, "positional_embedding").shape[0],
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
    }


def _tower_sizes(tower: Tensors, width: int) -> dict[str, int]:
    blocks = block_numbers(tower, "transformer.resblocks.")
    if not blocks or blocks != list(range(len(blocks))):
        raise ModelError("the checkpoint has no unbroken row of transformer blocks: this is not a ViT CLIP")
    return {
        "hidden_size": width,
        "intermediate_size": _get(tower, "transformer.resblocks.0.mlp.c_fc.weight").shape[0],
        "num_hidden_layers": len(blocks),
        "num_attention_heads": max(1, width // HEAD_WIDTH),
    }


def _tower_to_hf(tower: Tensors, names: Mapping[str, str]) -> dict[str, Tensor]:
    renamed = {ours: _get(tower, theirs) for theirs, ours in names.items()}
    for number in block_numbers(tower, "transformer.resblocks."):
        block = block_to_hf(under(tower, f"transformer.resblocks.{number}."))
        renamed |= with_prefix(f"encoder.layers.{number}.", block)
    return renamed


def _tower_to_openai(tower: Tensors, names: Mapping[str, str]) -> dict[str, Tensor]:
    renamed = {theirs: tower[ours] for theirs, ours in names.items()}
    for number in block_numbers(tower, "encoder.layers."):
        block = block_to_openai(under(tower, f"encoder.layers.{number}."))
        renamed |= with_prefix(f"transformer.resblocks.{number}.", block)
    return renamed


def _get(tensors: Tensors, name: str) -> Tensor:
    if name not in tensors:
        raise ModelError(f"the checkpoint lacks the parameter {name!r}: this is not a complete ViT CLIP")
    return tensors[name]
