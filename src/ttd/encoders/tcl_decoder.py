"""TCL's decoder: from patches to a map of four times their resolution, in gated residual convolutions.

Each level doubles the map (nearest neighbour) and adds convolutions whose gates training opened from 0.
Widths, kernel sizes and counts are read from the official parameter names and shapes.

Shapes: B images, D channels, h x w cells.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate

from ttd.errors import ModelError

_OFFICIAL = re.compile(r"net\.(\d+)\.conv(\d*)\.(norm\.weight|norm\.bias|conv\.weight|conv\.bias|gate\.gate)")


class GatedConv(nn.Module):
    """`x + tanh(gate) * conv(gelu(norm(x)))`, the norm over channels."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Conv2d(width, width, kernel, padding=kernel // 2)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """`[B,D,h,w]` -> `[B,D,h,w]`."""
        activated = gelu(self.norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        out: Tensor = x + torch.tanh(self.gate) * self.conv(activated)
        return out


class TCLDecoder(nn.Module):
    """`levels` times: double the map, then that level's gated convolutions.

    Args:
        width: channels D.
        convs: how many convolutions each level has.
        kernel: their size in cells.
    """

    def __init__(self, width: int, convs: list[int], kernel: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(nn.ModuleList(GatedConv(width, kernel) for _ in range(count)) for count in convs)

    def forward(self, x: Tensor) -> Tensor:
        """`[B,D,h,w]` -> `[B,D,h*2**levels,w*2**levels]`."""
        for level in self.levels:
            x = interpolate(x, scale_factor=2.0, mode="nearest")
            for conv in level:  # type: ignore[attr-defined]
                x = conv(x)
        return x

    def conv_names(self) -> list[str]:
        """The names of all convolutions inside this module."""
        return [f"{name}.conv" for name, module in self.named_modules() if isinstance(module, GatedConv)]

    @classmethod
    def from_official(cls, tensors: Mapping[str, Tensor]) -> TCLDecoder:
        """Build the decoder, on the meta device, that fits parameters renamed by `decoder_to_ours`."""
        weight = tensors.get("levels.0.0.conv.weight")
        if weight is None:
            raise ModelError("the checkpoint has no decoder convolutions: this is not a TCL model")
        places = {tuple(map(int, name.split(".")[1:3])) for name in tensors}
        convs = [sum(place[0] == level for place in places) for level in range(1 + max(places)[0])]
        with torch.device("meta"):
            return cls(weight.shape[0], convs, weight.shape[-1])


def decoder_to_ours(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Official names (`net.0.conv2.norm.weight`) -> ours (`levels.0.1.norm.weight`).

    Raises:
        ModelError: a name that is not of this form.
    """
    renamed = {}
    for name, values in tensors.items():
        match = _OFFICIAL.fullmatch(name)
        if match is None:
            raise ModelError(f"the decoder has a parameter {name!r} that TCL's does not have")
        level, number, part = match.groups()
        renamed[f"levels.{level}.{int(number or 1) - 1}.{'gate' if part == 'gate.gate' else part}"] = values
    return renamed


def decoder_to_official(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `decoder_to_ours`."""
    renamed = {}
    for name, values in tensors.items():
        _, level, number, part = name.split(".", 3)
        official = f"conv{'' if number == '0' else int(number) + 1}"
        renamed[f"net.{level}.{official}.{'gate.gate' if part == 'gate' else part}"] = values
    return renamed
