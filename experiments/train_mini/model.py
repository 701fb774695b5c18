"""`mini`: a plain `CLIPModel` in small, and the pass through its modules that trains it fast.

Shapes: B images, n patches kept, D width of the tower, C embedding. The pass differs from the model's own
`forward` only in what training wants: patches arrive ready (so the patch embedding is a linear layer and
dropped patches cost nothing), the last block computes the one token that is pooled, and CLS dropout.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

PATCH = 16
IMAGE = 128
GRID = IMAGE // PATCH


def new_mini() -> CLIPModel:
    """A `CLIPModel` of 8.7 M parameters with random weights; both towers use exact GELU."""
    config = CLIPConfig(
        text_config={
            "vocab_size": 49_408,
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 77,
            "hidden_act": "gelu",
            "projection_dim": 192,
            "bos_token_id": 49_406,
            "eos_token_id": 49_407,
            "pad_token_id": 49_407,
        },
        vision_config={
            "hidden_size": 192,
            "intermediate_size": 768,
            "num_hidden_layers": 4,
            "num_attention_heads": 3,
            "image_size": IMAGE,
            "patch_size": PATCH,
            "hidden_act": "gelu",
            "projection_dim": 192,
        },
        projection_dim=192,
    )
    return CLIPModel(config)


def embed_patches(model: CLIPModel, patches: Tensor, places: Tensor, cls_dropped: Tensor | None = None) -> Tensor:
    """Image embeddings [B, C], not normalised.

    `patches` [B, n, 3*16*16] normalised pixels (channel, row, column), `places` int64 [B, n] their cells in the
    8x8 grid. Where `cls_dropped` [B] is True, the CLS token that enters the last block has seen no image (it is
    the class embedding sent through the earlier blocks alone): what is pooled must then come through the last
    block's values, which is what makes dense features local.
    """
    tower = model.vision_model
    embeddings = tower.embeddings
    weight = embeddings.patch_embedding.weight.flatten(1)
    # Through `embedding`: the gradient of plain indexing is added up by all threads at once, in any order.
    x = F.linear(patches, weight) + F.embedding(places + 1, embeddings.position_embedding.weight)  # [B, n, D]
    cls = embeddings.class_embedding + embeddings.position_embedding.weight[0]
    x = torch.cat([cls.expand(len(x), 1, -1), x], dim=1)  # [B, 1+n, D]
    x = tower.pre_layrnorm(x)
    blind = tower.pre_layrnorm(cls.view(1, 1, -1))
    *blocks, last = tower.encoder.layers
    for block in blocks:
        x = _block(block, x)
        if cls_dropped is not None:
            blind = _block(block, blind)
    if cls_dropped is not None:
        first = torch.where(cls_dropped[:, None, None], blind.to(x.dtype), x[:, :1])
        x = torch.cat([first, x[:, 1:]], dim=1)
    pooled = _block(last, x, queries=1)[:, 0]  # [B, D]
    return torch.as_tensor(model.visual_projection(tower.post_layernorm(pooled)))


def embed_captions(model: CLIPModel, token_ids: Tensor, lengths: Tensor) -> Tensor:
    """Text embeddings [B, C], not normalised; `token_ids` [B, L] padded behind the end token, `lengths` [B]."""
    tower = model.text_model
    length = token_ids.shape[1]
    x = tower.embeddings.token_embedding(token_ids) + tower.embeddings.position_embedding.weight[:length]
    hidden = torch.full((length, length), float("-inf"), device=x.device).triu(1)
    for block in tower.encoder.layers:
        x = _block(block, x, mask=hidden)
    x = tower.final_layer_norm(x)
    end = x[torch.arange(len(x), device=x.device), lengths - 1]
    return torch.as_tensor(model.text_projection(end))


def _block(block: Any, x: Tensor, *, queries: int | None = None, mask: Tensor | None = None) -> Tensor:
    """A pre-norm transformer block; with `queries` only the first tokens are computed."""
    normed = block.layer_norm1(x)
    x = x if queries is None else x[:, :queries]
    x = x + _attention(block.self_attn, normed, queries, mask)
    return torch.as_tensor(x + block.mlp(block.layer_norm2(x)))


def _attention(module: Any, x: Tensor, queries: int | None, mask: Tensor | None) -> Tensor:
    # Plain matrix products: on a CPU the backward pass of the fused attention takes longer at these sizes.
    heads = module.num_heads
    source = x if queries is None else x[:, :queries]
    q = module.q_proj(source).unflatten(-1, (heads, -1)).transpose(1, 2)  # [B, heads, q, d]
    k = module.k_proj(x).unflatten(-1, (heads, -1)).transpose(1, 2)
    v = module.v_proj(x).unflatten(-1, (heads, -1)).transpose(1, 2)
    scores = (q * module.scale) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores + mask
    out = scores.softmax(-1).to(v.dtype) @ v
    return torch.as_tensor(module.out_proj(out.transpose(1, 2).flatten(2)))


def contrastive_loss(image: Tensor, text: Tensor, logit_scale: Tensor) -> Tensor:
    """CLIP's loss: symmetric cross entropy over the batch's cosines; image, text [B, C] not normalised."""
    image, text = F.normalize(image.float(), dim=-1), F.normalize(text.float(), dim=-1)
    logits = logit_scale.exp().clamp(max=100.0) * image @ text.T
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def sigmoid_loss(image: Tensor, text: Tensor, logit_scale: Tensor, bias: Tensor) -> Tensor:
    """SigLIP's loss (arXiv 2303.15343, algorithm 1): each image with each caption of the batch is a pair or is none.

    image, text [B, C] not normalised.
    """
    image, text = F.normalize(image.float(), dim=-1), F.normalize(text.float(), dim=-1)
    logits = logit_scale.exp().clamp(max=100.0) * image @ text.T + bias
    sign = 2 * torch.eye(len(logits), device=logits.device) - 1
    return -F.logsigmoid(sign * logits).sum() / len(logits)
