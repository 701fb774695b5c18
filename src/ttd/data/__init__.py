"""Images with captions: shards, lists and folders of them, bad samples, tags chosen before training, pruning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ttd.data.sources import PairSource

__all__ = ["PairSource"]


def __getattr__(name: str) -> Any:
    """Loaded when it is first asked for, so that the command line starts fast."""
    if name in __all__:
        from ttd.data import sources

        return getattr(sources, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
