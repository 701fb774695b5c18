"""The parameter names of the official `tcl.pth`, translated to ours and back.

Official: a CLIP in two halves (`clip_image_encoder`, `clip_text_encoder`), the trained copy of its last
blocks, the decoder and the projection (`masker.image_encoder`), and the calibration (`masker.sim2mask`).
Losses' parameters serve training only.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ttd.encoders.loading.openai_names import block_numbers, block_to_hf, block_to_openai, under, with_prefix
from ttd.encoders.tcl_decoder import decoder_to_official, decoder_to_ours
from ttd.errors import ModelError

Tensors = Mapping[str, Tensor]

_VISUAL = "clip_image_encoder.clip_visual."
_PROJECTION = "clip_image_encoder.clip_proj."
_TEXT = "clip_text_encoder."
_TRAINED = "masker.image_encoder.backbone.transformer.resblocks."
_DECODER = "masker.image_encoder.decoder.decoder."
_IMAGE_PROJECTION = "masker.image_encoder.decoder.image_proj."
_CALIBRATION = "masker.sim2mask."


def is_training_only(name: str) -> bool:
    """Whether a parameter belongs to a loss."""
    return name.split(".")[0].endswith("_loss")


def clip_part(tensors: Tensors) -> dict[str, Tensor]:
    """TCL's frozen CLIP in OpenAI's names."""
    visual = under(tensors, _VISUAL)
    for name, values in under(tensors, _PROJECTION).items():
        visual["proj" if name == "proj" else f"ln_post.{name.removeprefix('ln.')}"] = values
    return with_prefix("visual.", visual) | under(tensors, _TEXT)


def clip_part_to_official(openai: Tensors) -> dict[str, Tensor]:
    """The inverse of `clip_part`."""
    renamed = {}
    for name, values in openai.items():
        part = name.removeprefix("visual.")
        if part.startswith("ln_post."):
            renamed[f"{_PROJECTION}ln.{part.removeprefix('ln_post.')}"] = values
        elif name == "visual.proj":
            renamed[f"{_PROJECTION}proj"] = values
        else:
            renamed[(_VISUAL if name.startswith("visual.") else _TEXT) + part] = values
    return renamed


def first_trained_block(tensors: Tensors) -> int:
    """`ie_freeze`: the blocks before this number feed the trained copy.

    Raises:
        ModelError: the trained blocks are missing or not the last ones.
    """
    depth = len(block_numbers(tensors, _VISUAL + "transformer.resblocks."))
    trained = block_numbers(tensors, _TRAINED)
    if not trained or trained != list(range(trained[0], depth)):
        raise ModelError(
            f"the trained vision blocks {trained} are not the last of the {depth}: this is not a TCL model"
        )
    return trained[0]


def head_to_ours(tensors: Tensors) -> dict[str, Tensor]:
    """What TCL trained, under the names inside `TCLBackbone`; the trained blocks are counted from 0."""
    first = first_trained_block(tensors)
    ours: dict[str, Tensor] = {}
    for number in block_numbers(tensors, _TRAINED):
        block = block_to_hf(under(tensors, f"{_TRAINED}{number}."))
        ours |= with_prefix(f"trained_blocks.{number - first}.", block)
    ours |= with_prefix("decoder.", decoder_to_ours(under(tensors, _DECODER)))
    for name, values in under(tensors, _IMAGE_PROJECTION).items():
        if name == "proj":
            ours["image_projection.weight"] = values.T
        else:
            ours[f"image_norm.{name.removeprefix('ln.')}"] = values
    calibration = under(tensors, _CALIBRATION)
    if set(calibration) != {"w", "b"}:
        raise ModelError(f"the checkpoint lacks the calibration {_CALIBRATION}w and {_CALIBRATION}b")
    ours["mask_scale"], ours["mask_shift"] = calibration["w"], calibration["b"]
    return ours


def head_to_official(ours: Tensors, first: int) -> dict[str, Tensor]:
    """The inverse of `head_to_ours`."""
    official: dict[str, Tensor] = {}
    for number in block_numbers(ours, "trained_blocks."):
        block = block_to_openai(under(ours, f"trained_blocks.{number}."))
        official |= with_prefix(f"{_TRAINED}{number + first}.", block)
    official |= with_prefix(_DECODER, decoder_to_official(under(ours, "decoder.")))
    official |= with_prefix(f"{_IMAGE_PROJECTION}ln.", under(ours, "image_norm."))
    official[f"{_IMAGE_PROJECTION}proj"] = ours["image_projection.weight"].T
    official[f"{_CALIBRATION}w"], official[f"{_CALIBRATION}b"] = ours["mask_scale"], ours["mask_shift"]
    return official
