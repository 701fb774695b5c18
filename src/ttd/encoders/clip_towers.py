"""The steps of a CLIP's two towers, shared by every encoder that stands on a `CLIPModel`.

Shapes: B images, h x w patches, L tokens, D width, C embedding channels, N texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize, scaled_dot_product_attention
from transformers import CLIPConfig, CLIPModel

from ttd.encoders.base import TEXTS_PER_CHUNK, Encoder
from ttd.encoders.identity import tower_identity
from ttd.encoders.loading.openai_names import clip_to_hf, text_sizes, under, vision_sizes
from ttd.encoders.loading.tokenizers import tokenize
from ttd.errors import InputError, ModelError
from ttd.text.words import clean

_TEXTS_TO_SHARE = 4  # with fewer, shared beginnings of prompts save nothing
LEGACY_END = 2  # transformers' mark for configs that pool text at the highest token id, as OpenAI does


class CLIPTowers(Encoder):
    """The part of an encoder that is a `CLIPModel`: its text side and the projection of its vision side."""

    tokenizer: Any

    def _describe_towers(
        self, tokenizer: Any, mean: tuple[float, float, float], std: tuple[float, float, float]
    ) -> None:
        """Set what the contract asks of every encoder, once `backbone` is there."""
        config = self._clip.config
        self.tokenizer = tokenizer
        self.mean, self.std = mean, std
        self.patch_size = int(config.vision_config.patch_size)
        self.max_tokens = int(config.text_config.max_position_embeddings)

    @property
    def logit_scale(self) -> float:
        """The multiplier of cosines before a softmax: 1 / temperature."""
        return float(self._clip.logit_scale.detach().exp())

    @property
    def embedding_size(self) -> int:
        """C, the width of the space that image and text share."""
        return int(self._clip.config.projection_dim)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, list[bool]]:
        """Token ids `[N,L]` padded with 0 to the longest text, and which texts were cut at `max_tokens`.

        The texts are cleaned first as OpenAI's tokenizer does (`ttd.text.words.clean`).
        """
        if self.tokenizer is None:
            raise ModelError(
                f"this model's {self._clip.config.text_config.vocab_size} tokens come without a tokenizer: "
                "give it one, or pass token ids to embed_tokens"
            )
        return tokenize(self.tokenizer, [clean(text) for text in texts], self.max_tokens)

    def embed_tokens(self, token_ids: Tensor) -> Tensor:
        """Text embeddings `[N,C]`, float32, not normalised, pooled at each row's end token.

        What lies behind the last end token is cut off first; the mask is causal, so only the time changes.
        """
        return embed_clip_tokens(self._clip, token_ids.to(self.device))

    def _embed_prompts(
        self, texts: Sequence[str], templates: Sequence[str], done: Callable[[int], object] = lambda prompts: None
    ) -> Tensor:
        """See `Encoder`. The prompts of one template begin alike, and attention is causal: what a template's beginning
        gives later tokens is computed once for all texts, which changes no more than the last digits.
        """
        if len(texts) < _TEXTS_TO_SHARE or torch.is_grad_enabled() or all(one.startswith("{}") for one in templates):
            return super()._embed_prompts(texts, templates, done)
        token_ids, _ = self.tokenize([one.replace("{}", text) for one in templates for text in texts])
        rows = embed_with_prefixes(self._clip, token_ids.to(self.device).view(len(templates), len(texts), -1), done)
        return rows.transpose(0, 1)

    def identity(self) -> dict[str, Any]:
        """Besides what every model has: activation, heads and norms of both towers, and where text is pooled."""
        config = self._clip.config
        # transformers' old configs and OpenAI's code pool at the highest id, whatever end token they name.
        text = config.text_config
        pooled = "highest" if pools_at_highest(text) else text.eos_token_id
        return {
            **super().identity(),
            "vision": tower_identity(config.vision_config),
            "text": {**tower_identity(text), "pooled": pooled},
        }

    @property
    def _clip(self) -> Any:
        return self.backbone

    def _project(self, x: Tensor) -> Tensor:
        """Into the shared space, normalised: `[...,D]` -> `[...,C]`, float32."""
        return normalize(project_vision(self._clip, x), dim=-1)


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
    state = {name: t.detach().to(torch.float32, copy=True).contiguous() for name, t in clip_to_hf(tensors).items()}
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


def embed_patches(
    clip: Any, pixels: Tensor, positions: Callable[[Tensor, tuple[int, int]], Tensor] | None = None
) -> Tensor:
    """Pixels `[B,3,H,W]` -> tokens `[B,1+h*w,D]` that enter block 0.

    Position embeddings are resized bicubically by size, or by `positions`, see `ttd.encoders.methods.Method`.
    """
    vision = clip.vision_model
    pixels = pixels.to(vision.embeddings.patch_embedding.weight.dtype)
    if positions is None:
        embedded = vision.embeddings(pixels, interpolate_pos_encoding=True)
    else:
        embedded = _with_positions(vision.embeddings, pixels, positions)
    tokens: Tensor = vision.pre_layrnorm(embedded)
    return tokens


def _with_positions(embeddings: Any, pixels: Tensor, positions: Callable[[Tensor, tuple[int, int]], Tensor]) -> Tensor:
    """`[B,1+h*w,D]` as transformers embeds patches, with position embeddings that `positions` resizes."""
    patches = embeddings.patch_embedding(pixels)  # (B, D, h, w)
    table = embeddings.position_embedding.weight  # (1 + s*s, D)
    side = round((len(table) - 1) ** 0.5)
    native = table[1:].T.reshape(1, -1, side, side)
    grid = (patches.shape[-2], patches.shape[-1])
    resized = positions(native, grid).to(patches.dtype).flatten(2).transpose(1, 2)  # (1, h*w, D)
    start = (embeddings.class_embedding + table[0]).expand(len(patches), 1, -1)
    return torch.cat([start, patches.flatten(2).transpose(1, 2) + resized], 1)


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
    return patches.transpose(1, 2).reshape(patches.shape[0], -1, *grid)


def embed_clip_tokens(clip: Any, token_ids: Tensor) -> Tensor:
    """Run a CLIP text tower over ids `[N,L]`: embeddings `[N,C]`, float32, not normalised."""
    if token_ids.shape[0] == 0:
        return torch.zeros(0, clip.config.projection_dim, device=token_ids.device)
    ends = _check_ids(token_ids, clip.config.text_config)
    trimmed = token_ids[:, : int(ends.max()) + 1]
    states = clip.text_model(input_ids=trimmed).last_hidden_state  # (N, L, D)
    pooled: Tensor = clip.text_projection(states[torch.arange(len(ends), device=ends.device), ends])
    return pooled.float()


def embed_with_prefixes(clip: Any, token_ids: Tensor, done: Callable[[int], object] = lambda prompts: None) -> Tensor:
    """`embed_clip_tokens` of T groups of N texts, `[T,N,L]` -> `[T,N,C]`; what a group's texts begin with is run once.

    Keys and values of the shared beginning are kept for every block, and the rest of each text attends to them.

    Args:
        clip: the model.
        token_ids: with the end token in each.
        done: takes numbers of texts that are done.
    """
    groups, number, _ = token_ids.shape
    ends = _check_ids(token_ids.flatten(0, 1), clip.config.text_config).view(groups, number)
    same = (token_ids == token_ids[:, :1]).all(1)  # (T, L)
    shared = same.int().cumprod(-1).sum(-1).minimum(ends.amin(-1))  # (T,) tokens; the pooled one never is
    found = torch.empty(groups, number, clip.config.projection_dim, device=token_ids.device)
    for length in sorted(set(shared.tolist())):
        mine = (shared == length).nonzero()[:, 0]  # groups (M,)
        _, past = _text_blocks(clip.text_model, token_ids[mine, 0, :length])
        group, text = mine.repeat_interleave(number), torch.arange(number, device=mine.device).repeat(len(mine))
        # Similar lengths share a chunk, so that little is padding.
        order = ends[group, text].argsort(stable=True)
        row = torch.arange(len(mine), device=mine.device).repeat_interleave(number)
        for part in torch.split(order, TEXTS_PER_CHUNK):
            g, n = group[part], text[part]
            last = ends[g, n] - length
            own = token_ids[g, n, length : length + int(last.max()) + 1]
            before = [(keys[row[part]], values[row[part]]) for keys, values in past]
            states, _ = _text_blocks(clip.text_model, own, before)
            pooled = clip.text_model.final_layer_norm(states[torch.arange(len(part), device=part.device), last])
            found[g, n] = clip.text_projection(pooled).float()
            done(len(part))
    return found


KeysValues = list[tuple[Tensor, Tensor]]


def _text_blocks(text_model: Any, token_ids: Tensor, past: KeysValues | None = None) -> tuple[Tensor, KeysValues]:
    """All blocks of a text tower over ids `[N,L]` that follow P tokens: states `[N,L,D]` before the final norm.

    Args:
        text_model: of a `CLIPModel`.
        token_ids: of the tokens at P and behind.
        past: by block, keys and values `[N,heads,P,d]` of the tokens before.

    Returns:
        the states, and by block the keys and values of these tokens.
    """
    first = 0 if past is None else past[0][0].shape[2]
    number, length = token_ids.shape
    embeddings = text_model.embeddings
    x = embeddings.token_embedding(token_ids) + embeddings.position_embedding.weight[first : first + length]
    mask = torch.ones(length, first + length, dtype=torch.bool, device=x.device).tril(first)
    every: KeysValues = []
    for number_of_block, block in enumerate(text_model.encoder.layers):
        attention, h = block.self_attn, block.layer_norm1(x)
        q, k, v = (
            project(h).view(number, length, -1, attention.head_dim).transpose(1, 2)  # (N, heads, L, d)
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        every.append((k, v))
        if past is not None:
            k, v = (torch.cat(pair, 2) for pair in zip(past[number_of_block], (k, v), strict=True))
        mixed = scaled_dot_product_attention(q, k, v, mask, scale=attention.scale)
        x = x + attention.out_proj(mixed.transpose(1, 2).flatten(2))
        x = x + block.mlp(block.layer_norm2(x))
    return x, every


def _check_ids(token_ids: Tensor, config: Any) -> Tensor:
    """Refuses ids `[N,L]` that a text tower cannot take; gives where each row is pooled, `[N]`."""
    if token_ids.shape[1] > config.max_position_embeddings:
        raise InputError(
            f"{token_ids.shape[1]} tokens are more than the {config.max_position_embeddings} "
            "that the text tower takes: cut them, keeping the end token"
        )
    lowest, highest = int(token_ids.min()), int(token_ids.max())
    if lowest < 0 or highest >= config.vocab_size:
        raise InputError(
            f"the token {lowest if lowest < 0 else highest} is not among this model's {config.vocab_size}: its "
            "tokenizer is another model's"
        )
    return _end_positions(token_ids, config)


def pools_at_highest(config: Any) -> bool:
    """Whether a text config pools each text at its highest token id, not at the first end token."""
    return config.eos_token_id in (LEGACY_END, config.vocab_size - 1)


def end_token(config: Any, tokenizer: Any, where: object) -> int:
    """The one end token of a text config, which some write as a list or leave out.

    Raises:
        ModelError: there is none, or several of which none is the tokenizer's.
    """
    named = config.eos_token_id
    ends = [named] if isinstance(named, int) else list(named or [])
    if len(ends) == 1:
        return int(ends[0])
    own = None if tokenizer is None else tokenizer.eos_token_id
    if own is None or (ends and own not in ends):
        raise ModelError(
            f"{where}: config.json names {ends or 'no'} end tokens and the tokenizer {own}: write the one that ends a "
            "text as eos_token_id"
        )
    return int(own)


def _end_positions(token_ids: Tensor, config: Any) -> Tensor:
    """Where each row is pooled, `[N]`: the highest id, or the first end token if the config names another."""
    if pools_at_highest(config):
        return token_ids.argmax(-1)
    is_end: Tensor = token_ids == config.eos_token_id
    if not bool(is_end.any(-1).all()):
        raise InputError(f"every row of token ids needs the end token {config.eos_token_id}")
    return is_end.int().argmax(-1)
