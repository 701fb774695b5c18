"""TCL's dense cosines written out on the official parameters with torch's own multi-head attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Tensors = dict[str, Tensor]


def norm(x: Tensor, p: Tensors, name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], p[f"{name}.weight"], p[f"{name}.bias"])


def block(x: Tensor, p: Tensors, name: str, identity: bool = False) -> Tensor:
    y, width = norm(x, p, f"{name}.ln_1"), x.shape[-1]
    weight, bias = p[f"{name}.attn.in_proj_weight"], p[f"{name}.attn.in_proj_bias"]
    out_weight, out_bias = p[f"{name}.attn.out_proj.weight"], p[f"{name}.attn.out_proj.bias"]
    if identity:
        y = F.linear(F.linear(y, weight[2 * width :], bias[2 * width :]), out_weight, out_bias)
    else:
        y = y.transpose(0, 1)
        y = F.multi_head_attention_forward(
            y, y, y, width, width // 64, weight, bias, None, None, False, 0.0, out_weight, out_bias,
            training=False, need_weights=False,
        )[0].transpose(0, 1)  # fmt: skip
    x = x + y
    y = F.linear(norm(x, p, f"{name}.ln_2"), p[f"{name}.mlp.c_fc.weight"], p[f"{name}.mlp.c_fc.bias"])
    return x + F.linear(
        y * torch.sigmoid(1.702 * y), p[f"{name}.mlp.c_proj.weight"], p[f"{name}.mlp.c_proj.bias"]
    )


def dense(pixels: Tensor, p: Tensors, depth: int, first_trained: int, levels: int, convs: int) -> Tensor:
    """Features of pixels whose size fits the patches and the position embedding, not normalised."""
    visual, masker = "clip_image_encoder.clip_visual", "masker.image_encoder"
    kernel = p[f"{visual}.conv1.weight"]
    x = F.conv2d(pixels, kernel, stride=kernel.shape[-1])
    h, w = x.shape[-2:]
    cls = p[f"{visual}.class_embedding"].expand(len(x), 1, -1)
    x = torch.cat([cls, x.flatten(2).transpose(1, 2)], 1) + p[f"{visual}.positional_embedding"]
    x = norm(x, p, f"{visual}.ln_pre")
    for i in range(first_trained):
        x = block(x, p, f"{visual}.transformer.resblocks.{i}")
    for i in range(first_trained, depth):
        x = block(x, p, f"{masker}.backbone.transformer.resblocks.{i}", identity=i == depth - 1)
    x = x[:, 1:].transpose(1, 2).unflatten(2, (h, w))
    for level in range(levels):
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        for conv in ["conv", "conv2", "conv3"][:convs]:
            name = f"{masker}.decoder.decoder.net.{level}.{conv}"
            y = F.gelu(norm(x.movedim(1, -1), p, f"{name}.norm")).movedim(-1, 1)
            y = F.conv2d(y, p[f"{name}.conv.weight"], p[f"{name}.conv.bias"], padding=1)
            x = x + p[f"{name}.gate.gate"].tanh() * y
    x = norm(x.movedim(1, -1), p, f"{masker}.decoder.image_proj.ln") @ p[f"{masker}.decoder.image_proj.proj"]
    return x.movedim(-1, 1)
