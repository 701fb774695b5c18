"""Encoders: image and text towers behind one contract (`base.Encoder`). Names load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ttd.encoders.base import Encoder as Encoder
    from ttd.encoders.clip import CLIPEncoder as CLIPEncoder
    from ttd.encoders.families import Format as Format
    from ttd.encoders.families import register_encoder as register_encoder
    from ttd.encoders.features import ImageFeatures as ImageFeatures
    from ttd.encoders.features import MapQuestion as MapQuestion
    from ttd.encoders.loading.formats import Source as Source
    from ttd.encoders.methods import Context as Context
    from ttd.encoders.methods import LastBlock as LastBlock
    from ttd.encoders.methods import Method as Method
    from ttd.encoders.methods import Patches as Patches
    from ttd.encoders.methods import register_method as register_method
    from ttd.encoders.registry import known_models as known_models
    from ttd.encoders.registry import load_encoder as load_encoder
    from ttd.encoders.siglip import SigLIPEncoder as SigLIPEncoder
    from ttd.encoders.tcl import TCLEncoder as TCLEncoder

_HOMES = {
    "Encoder": "base",
    "ImageFeatures": "features",
    "MapQuestion": "features",
    "Format": "families",
    "register_encoder": "families",
    "Source": "loading.formats",
    "Context": "methods",
    "LastBlock": "methods",
    "Method": "methods",
    "Patches": "methods",
    "register_method": "methods",
    "CLIPEncoder": "clip",
    "SigLIPEncoder": "siglip",
    "TCLEncoder": "tcl",
    "load_encoder": "registry",
    "known_models": "registry",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Import the module that holds `name` now: transformers takes seconds to import."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
