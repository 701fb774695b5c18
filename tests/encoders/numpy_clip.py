"""CLIP's vision tower in NumPy, from the formulas, one image at a time, to test the encoders against."""

from __future__ import annotations

import numpy as np

Array = np.ndarray
Parameters = dict[str, Array]


def layer_norm(x: Array, p: Parameters, name: str, eps: float = 1e-5) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * p[f"{name}.weight"] + p[f"{name}.bias"]


def linear(x: Array, p: Parameters, name: str) -> Array:
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def quick_gelu(x: Array) -> Array:
    return x / (1 + np.exp(-1.702 * x))


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def mlp(x: Array, p: Parameters, block: str) -> Array:
    hidden = quick_gelu(linear(layer_norm(x, p, f"{block}.layer_norm2"), p, f"{block}.mlp.fc1"))
    return linear(hidden, p, f"{block}.mlp.fc2")


def attention(x: Array, p: Parameters, block: str, heads: int, weights: str, bias: Array | float = 0) -> Array:
    """`weights`: which products make the attention, such as "qk" (ordinary), "qq+kk", or "identity"."""
    y = layer_norm(x, p, f"{block}.layer_norm1")
    q, k, v = (linear(y, p, f"{block}.self_attn.{n}_proj") for n in "qkv")
    if weights == "identity":
        return linear(v, p, f"{block}.self_attn.out_proj")
    size = x.shape[-1] // heads
    out = np.zeros_like(v)
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        parts = {"q": q[:, part], "k": k[:, part]}
        for a, b in weights.split("+"):
            out[:, part] += softmax(parts[a] @ parts[b].T * size**-0.5 + bias) @ v[:, part]
    return linear(out, p, f"{block}.self_attn.out_proj")


def ordinary_block(x: Array, p: Parameters, block: str, heads: int, bias: Array | float = 0) -> Array:
    x = x + attention(x, p, block, heads, "qk", bias)
    return x + mlp(x, p, block)


def cubic_weights(new: int, old: int, extra: float = 0.0) -> Array:
    """[new, old] weights of bicubic resizing with a = -0.75, by the factor (new + extra) / old, borders repeated."""
    a = -0.75
    weights = np.zeros((new, old))
    for i in range(new):
        centre = (i + 0.5) * old / (new + extra) - 0.5
        first = int(np.floor(centre)) - 1
        for j in range(first, first + 4):
            d = abs(centre - j)
            near = (a + 2) * d**3 - (a + 3) * d**2 + 1
            far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
            weights[i, min(max(j, 0), old - 1)] += near if d <= 1 else far
    return weights


def embed(pixels: Array, p: Parameters, patch: int, extra: float = 0.0) -> Array:
    """One image [3,H,W] -> the tokens that enter block 0."""
    kernel = p["vision_model.embeddings.patch_embedding.weight"]
    h, w = pixels.shape[1] // patch, pixels.shape[2] // patch
    cells = pixels.reshape(3, h, patch, w, patch).transpose(1, 3, 0, 2, 4).reshape(h * w, -1)
    positions = p["vision_model.embeddings.position_embedding.weight"]
    side = round((len(positions) - 1) ** 0.5)
    grid = positions[1:].reshape(side, side, -1)
    resized = np.einsum("hi,wj,ijd->hwd", cubic_weights(h, side, extra), cubic_weights(w, side, extra), grid)
    patches = cells @ kernel.reshape(len(kernel), -1).T + resized.reshape(h * w, -1)
    cls = p["vision_model.embeddings.class_embedding"] + positions[0]
    return layer_norm(np.concatenate([cls[None], patches]), p, "vision_model.pre_layrnorm")


def project(x: Array, p: Parameters) -> Array:
    y = layer_norm(x, p, "vision_model.post_layernorm") @ p["visual_projection.weight"].T
    return y / np.linalg.norm(y, axis=-1, keepdims=True)


def encode(
    pixels: Array,
    p: Parameters,
    patch: int,
    heads: int,
    weights: str,
    keep: bool,
    bias: Array | float = 0,
    extra: float = 0.0,
) -> tuple[Array, Array]:
    """Dense features [h*w,C] with the given last block, and the ordinary image embedding [C]; `extra` of positions."""
    depth = 1 + max(int(n.split(".")[3]) for n in p if n.startswith("vision_model.encoder.layers."))
    x = embed(pixels, p, patch, extra)
    for i in range(depth - 1):
        x = ordinary_block(x, p, f"vision_model.encoder.layers.{i}", heads)
    last = f"vision_model.encoder.layers.{depth - 1}"
    y = attention(x, p, last, heads, weights, bias)
    if keep:
        y = x + y
        y = y + mlp(y, p, last)
    return project(y[1:], p), project(ordinary_block(x, p, last, heads)[0], p)
