"""TCL written out on the official parameters with torch's own multi-head attention: text, features, masks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ttd.refine import pamr  # has an independent test of its own

Tensors = dict[str, Tensor]


def norm(x: Tensor, p: Tensors, name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], p[f"{name}.weight"], p[f"{name}.bias"])


def block(x: Tensor, p: Tensors, name: str, identity: bool = False, mask: Tensor | None = None) -> Tensor:
    y, width = norm(x, p, f"{name}.ln_1"), x.shape[-1]
    weight, bias = p[f"{name}.attn.in_proj_weight"], p[f"{name}.attn.in_proj_bias"]
    out_weight, out_bias = p[f"{name}.attn.out_proj.weight"], p[f"{name}.attn.out_proj.bias"]
    if identity:
        y = F.linear(F.linear(y, weight[2 * width :], bias[2 * width :]), out_weight, out_bias)
    else:
        y = y.transpose(0, 1)
        y = F.multi_head_attention_forward(
            y, y, y, width, width // 64, weight, bias, None, None, False, 0.0, out_weight, out_bias,
            training=False, need_weights=False, attn_mask=mask,
        )[0].transpose(0, 1)  # fmt: skip
    x = x + y
    y = F.linear(norm(x, p, f"{name}.ln_2"), p[f"{name}.mlp.c_fc.weight"], p[f"{name}.mlp.c_fc.bias"])
    return x + F.linear(y * torch.sigmoid(1.702 * y), p[f"{name}.mlp.c_proj.weight"], p[f"{name}.mlp.c_proj.bias"])


def text(ids: Tensor, p: Tensors) -> Tensor:
    """Embeddings of token ids, pooled at the highest id, not normalised; no token is left out."""
    tower = "clip_text_encoder"
    x = p[f"{tower}.token_embedding.weight"][ids] + p[f"{tower}.positional_embedding"][: ids.shape[1]]
    causal = torch.full((ids.shape[1], ids.shape[1]), -torch.inf).triu(1)
    for i in range(depth_of(p, f"{tower}.transformer.resblocks.")):
        x = block(x, p, f"{tower}.transformer.resblocks.{i}", mask=causal)
    x = norm(x, p, f"{tower}.ln_final")
    return x[torch.arange(len(ids)), ids.argmax(1)] @ p[f"{tower}.text_projection"]


def depth_of(p: Tensors, prefix: str) -> int:
    return 1 + max(int(name[len(prefix) :].split(".")[0]) for name in p if name.startswith(prefix))


def tokens(pixels: Tensor, p: Tensors) -> tuple[Tensor, tuple[int, int]]:
    """What enters the first block, of pixels that fill the patches, and the grid."""
    visual = "clip_image_encoder.clip_visual"
    kernel = p[f"{visual}.conv1.weight"]
    x = F.conv2d(pixels, kernel, stride=kernel.shape[-1])
    h, w = x.shape[-2:]
    first, rest = p[f"{visual}.positional_embedding"].split([1, len(p[f"{visual}.positional_embedding"]) - 1])
    side = round(len(rest) ** 0.5)
    if (h, w) != (side, side):
        square = rest.T.reshape(1, -1, side, side)
        rest = F.interpolate(square, (h, w), mode="bicubic", align_corners=False)[0].flatten(1).T
    cls = p[f"{visual}.class_embedding"].expand(len(x), 1, -1)
    x = torch.cat([cls, x.flatten(2).transpose(1, 2)], 1) + torch.cat([first, rest])
    return norm(x, p, f"{visual}.ln_pre"), (h, w)


def clip_dense(pixels: Tensor, p: Tensors, depth: int) -> Tensor:
    """The frozen branch's features, not normalised."""
    x, grid = tokens(pixels, p)
    for i in range(depth):
        x = block(x, p, f"clip_image_encoder.clip_visual.transformer.resblocks.{i}", identity=i == depth - 1)
    x = norm(x[:, 1:], p, "clip_image_encoder.clip_proj.ln") @ p["clip_image_encoder.clip_proj.proj"]
    return x.transpose(1, 2).unflatten(2, grid)


def masks(pixels: Tensor, t: Tensor, p: Tensors, depth: int, *structure: int) -> Tensor:
    """Final masks with PAMR and k = 0.3, of pixels of any size and texts `[N,C]`."""
    patch = p["clip_image_encoder.clip_visual.conv1.weight"].shape[-1]
    height, width = pixels.shape[-2:]
    down, across = -height % patch, -width % patch
    padded = F.pad(pixels, (across // 2, across - across // 2, down // 2, down - down // 2))
    t = F.normalize(t, dim=1)
    cosines = [
        torch.einsum("bchw,nc->bnhw", F.normalize(features, dim=1), t)
        for features in (dense(padded, p, depth, *structure), clip_dense(padded, p, depth))
    ]
    own = torch.sigmoid(p["masker.sim2mask.w"] * cosines[0] + p["masker.sim2mask.b"])
    small = F.interpolate(padded, own.shape[-2:], mode="bilinear", align_corners=True)
    prior = F.interpolate(torch.sigmoid(10 * (cosines[1] - 0.25)), own.shape[-2:], mode="bilinear")
    mixed = F.interpolate(0.7 * pamr(small, own) + 0.3 * prior, padded.shape[-2:], mode="bilinear")
    return mixed[..., down // 2 : down // 2 + height, across // 2 : across // 2 + width]


def dense(pixels: Tensor, p: Tensors, depth: int, first_trained: int, levels: int, convs: int) -> Tensor:
    """The trained branch's features of pixels that fill the patches, not normalised."""
    visual, masker = "clip_image_encoder.clip_visual", "masker.image_encoder"
    x, (h, w) = tokens(pixels, p)
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
