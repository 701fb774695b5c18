"""What a format of the harness is: how a file of it is made, damaged and read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.mutations import Damage
from ttd.data.bad_samples import BadSample
from ttd.data.sources import PairSource


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        make: writes files into a folder; gives the one that is damaged.
        read: reads them as the package does; gives what came out, to be compared.
        leaf: damage that keeps the container valid; None where there is none but of the bytes.
        sealed: it carries checksums, so damage to its bytes must not give other values.
    """

    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    leaf: Damage | None = None
    sealed: bool = False


def written(path: Path, content: Any) -> Path:
    text = content if isinstance(content, str) else json.dumps(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def pairs(source: PairSource) -> list[Any]:
    found: list[Any] = []
    for number in range(len(source)):
        try:
            pair = source[number]
            found.append((pair.shard, pair.key, pair.captions, pair.tags, pair.image.size))
        except BadSample as bad:
            found.append(("skipped", bad.reason))
    return found
