"""What a model is: the fingerprint by which an adapter, a run or results know the model that they belong to.

It covers the parameters, the shape of the computation that no parameter shows (activation, attention heads, the
epsilon of norms), the tokenizer with its end token, and the image statistics. Method, thresholds, image size and
calibration are settings: results record them, an adapter stays valid with others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from ttd.encoders.loading.tokenizers import token_ids

if TYPE_CHECKING:
    from ttd.encoders.base import Encoder

VERSION = "2:"
OUTDATED = (
    "the fingerprint is of an earlier version of ttd and covers the parameters alone, not activation, heads, tokenizer "
    "and image statistics"
)

# Token ids of these show what no vocabulary does: lower case, marks, how words are split.
_PROBES = ["A photo of a Dog, 2 cats and traffic lights.", "unbelievable skateboarders"]
_SHAPE = ("hidden_act", "num_attention_heads", "layer_norm_eps")


def fingerprint(encoder: Encoder) -> str:
    """`VERSION` and the SHA-256 over the kind, `Encoder.identity()`, and the names and float16 values of the
    parameters of the base; attached adapters are left out.
    """
    digest = hashlib.sha256(json.dumps([encoder.kind, encoder.identity()], sort_keys=True).encode())
    digest.update(parameters_digest(encoder))
    return VERSION + digest.hexdigest()


def parameters_digest(encoder: Encoder) -> bytes:
    """SHA-256 over names and float16 values of the base's parameters, attached adapters left out."""
    digest = hashlib.sha256()
    parameters = {_base_name(name): p for name, p in encoder.named_parameters() if "lora_" not in name}
    for name in sorted(parameters):
        digest.update(name.encode())
        digest.update(parameters[name].detach().to("cpu", torch.float16).contiguous().numpy().tobytes())
    return digest.digest()


def encoder_key(encoder: Encoder, *, method: bool = True) -> str:
    """SHA-256 over all that decides an encoder's features: parameters to the last bit, structure, surroundings.

    Args:
        encoder: whose features.
        method: False for features of texts, which no method changes.

    Raises:
        InputError: features of its method cannot be kept, see `Method.key`.
    """
    config: Any = getattr(encoder.backbone, "config", None)
    facts = [
        repr(encoder),
        encoder.method.key() if method and encoder.method is not None else "",
        repr(config.to_dict()) if hasattr(config, "to_dict") else "",
        # Adapter layers that are not merged keep their strength outside of the parameters.
        repr([getattr(module, "scaling", None) for module in encoder.modules()]),
        repr((encoder.kind, encoder.mean, encoder.std, encoder.patch_size)),
        encoder.device.type,
        torch.__version__,
    ]
    digest = hashlib.sha256("\n".join(facts).encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def is_outdated(found: str | None) -> bool:
    """Whether a fingerprint was made by another version's rule, so that it can be compared with none of today."""
    return found is not None and not found.startswith(VERSION)


def tokenizer_identity(tokenizer: Any) -> dict[str, Any] | None:
    """A transformers tokenizer as JSON values: vocabulary, end token, and what it makes of some texts."""
    if tokenizer is None:
        return None
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items()))
    return {
        "vocabulary": hashlib.sha256(vocabulary.encode()).hexdigest(),
        "end": tokenizer.eos_token_id,
        "ids": token_ids(tokenizer, _PROBES),
    }


def tower_identity(config: Any) -> dict[str, Any]:
    """Of one tower of a transformers CLIP or SigLIP: what its parameters do not show."""
    return {name: getattr(config, name) for name in _SHAPE}


def statistics_identity(mean: tuple[float, ...], std: tuple[float, ...]) -> Mapping[str, list[float]]:
    """Image statistics, rounded as files write them."""
    return {"mean": [round(value, 6) for value in mean], "std": [round(value, 6) for value in std]}


def _base_name(name: str) -> str:
    """A parameter's name without what attaching an adapter inserts into it."""
    return name.replace("base_model.model.", "").replace(".base_layer.", ".")
