"""The steps of a CLIP's two towers, shared by every encoder that stands on a `CLIPModel`.

Shapes: B images, h x w patches, L tokens, D width, C embedding channels, N texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from ttd.encoders.openai_names import clip_to_hf, text_sizes, under, vision_sizes
from ttd.errors import InputError, ModelError

LEGACY_END = 2  # transformers' mark for configs that pool text at the highest token id, as OpenAI does


def build_clip(
    tensors: Mapping[str, Tensor],
    activation: str = "quick_gelu",
    vision: Mapping[str, int] | None = None,
    text: Mapping[str, int] | None = None,
) -> CLIPModel:
    """A `CLIPModel` in float32 from parameters in OpenAI's names, which are copied.

    Args:
        tensors: the parameters; sizes are read from them, heads have 64 channels.
        activation: "quick_gelu" (OpenAI) or "gelu".
        vision, text: what else is known of the towers, in the words of transformers' configs.
    """
    state = {
        name: t.detach().to(torch.float32, copy=True).contiguous() for name, t in clip_to_hf(tensors).items()
    }
    config = CLIPConfig(
        vision_config={**vision_sizes(under(tensors, "visual.")), "hidden_act": activation, **(vision or {})},
        text_config={**text_sizes(tensors), "hidden_act": activation, **(text or {})},
        projection_dim=state["visual_projection.weight"].shape[0],
    )
    with torch.device("meta"):  # no time spent on random values that are replaced at once
        model = CLIPModel(config)
    state.setdefault("logit_scale", torch.tensor(config.logit_scale_init_value))
    try:
        model.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ModelError(
            f"the checkpoint's shapes do not fit a ViT CLIP: {str(error).splitlines()[-1].strip()}"
        ) from error
    for embeddings in (model.vision_model.embeddings, model.text_model.embeddings):
        embeddings.position_ids = torch.arange(embeddings.position_embedding.num_embeddings).expand(1, -1)
    return model


def embed_patches(clip: Any, pixels: Tensor) -> Tensor:
    """Pixels `[B,3,H,W]` -> tokens `[B,1+h*w,D]` that enter block 0; positions resized bicubically."""
    vision = clip.vision_model
    pixels = pixels.to(vision.embeddings.patch_embedding.weight.dtype)
    tokens: Tensor = vision.pre_layrnorm(vision.embeddings(pixels, interpolate_pos_encoding=True))
    return tokens


def run_blocks(blocks: Any, tokens: Tensor) -> Tensor:
    """Ordinary blocks one after the other, `[B,L,D]` -> `[B,L,D]`."""
    for block in blocks:
        tokens = block(tokens, None)
    return tokens


def project_vision(clip: Any, x: Tensor) -> Tensor:
    """LayerNorm and projection into the shared space, `[...,D]` -> `[...,C]`, float32, not normalised."""
    projected: Tensor = clip.visual_projection(clip.vision_model.post_layernorm(x))
    return projected.float()


def as_map(patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """`[B,h*w,C]` -> `[B,C,h,w]`."""
    return patches.transpose(1, 2).unflatten(2, grid)


def embed_clip_tokens(clip: Any, token_ids: Tensor) -> Tensor:
    """Run a CLIP text tower over ids `[N,L]`: embeddings `[N,C]`, float32, not normalised."""
    config = clip.config.text_config
    if token_ids.shape[0] == 0:
        return torch.zeros(0, clip.config.projection_dim, device=token_ids.device)
    if token_ids.shape[1] > config.max_position_embeddings:
        raise InputError(
            f"{token_ids.shape[1]} tokens are more than the {config.max_position_embeddings} "
            "that the text tower takes: cut them, keeping the end token"
        )
    ends = _end_positions(token_ids, config)
    trimmed = token_ids[:, : int(ends.max()) + 1]
    states = clip.text_model(input_ids=trimmed).last_hidden_state  # (N, L, D)
    pooled: Tensor = clip.text_projection(states[torch.arange(len(ends), device=ends.device), ends])
    return pooled.float()


def _end_positions(token_ids: Tensor, config: Any) -> Tensor:
    """Where each row is pooled, `[N]`: the highest id, or the first end token if the config names another."""
    if config.eos_token_id in (LEGACY_END, config.vocab_size - 1):
        return token_ids.argmax(-1)
    is_end = token_ids == config.eos_token_id
    if not bool(is_end.any(-1).all()):
        raise InputError(f"every row of token ids needs the end token {config.eos_token_id}")
    return is_end.int().argmax(-1)
