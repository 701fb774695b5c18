"""From cosines to values in 0..1: `p = sigmoid(w (cos - c))`, two numbers of a model.

TCL learns them; for the others they are fitted from image-text pairs (`ttd calibrate`) or their family's. They are
settings, kept in the card `ttd.json`: results record them, an adapter stays valid with others. Imports no torch.
"""

from __future__ import annotations

import logging
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttd.errors import InputError, ModelError
from ttd.files.schema import is_number

if TYPE_CHECKING:
    from torch import Tensor

    from ttd.encoders.base import Encoder

log = logging.getLogger(__name__)

ENTRY = "calibration"  # of a card or side file


@dataclass(frozen=True)
class Calibration:
    """How a cosine becomes a value in 0..1.

    Attributes:
        w: the slope, above 0.
        c: the cosine that becomes 0.5.

    Raises:
        InputError: a number that cannot be.
    """

    w: float
    c: float

    def __post_init__(self) -> None:
        if not all(is_number(value) for value in (self.w, self.c)) or self.w <= 0:
            raise InputError(f"a calibration is two finite numbers, w above 0 and c, not {self.w!r} and {self.c!r}")

    def __call__(self, sim: Tensor) -> Tensor:
        """Cosines of any shape -> p of the same shape, in 0..1; gradients flow."""
        return ((sim - self.c) * self.w).sigmoid()

    def to_dict(self) -> dict[str, float]:
        """As it stands in files and records."""
        return {"w": float(self.w), "c": float(self.c)}

    def differs(self, other: Calibration) -> bool:
        """Whether the two would give other values, apart from how numbers are rounded in files."""
        return not all(
            math.isclose(a, b, rel_tol=1e-4) for a, b in zip(asdict(self).values(), asdict(other).values(), strict=True)
        )

    def __str__(self) -> str:
        return f"w {self.w:.4g}, c {self.c:.4g}"


# The constants by which TCL's authors read CLIP's cosines (kakaobrain/tcl).
OPENAI_LIKE = Calibration(10.0, 0.25)


def parse_calibration(content: Any) -> Calibration:
    """The calibration that stands in a file as `{"w": ..., "c": ...}`.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(content, dict) or set(content) != {"w", "c"}:
        raise InputError(f'a calibration is written {{"w": 10.0, "c": 0.25}}, not {content!r}')
    return Calibration(**content)


def read_calibration(path: str | Path) -> tuple[Calibration, dict[str, Any]]:
    """The calibration of a side file of `ttd calibrate` or of a card `ttd.json`, and all that stands in the file.

    Raises:
        ModelError: the file is missing, or holds no calibration.
    """
    from ttd.encoders.loading.files import read_json

    content = read_json(Path(path))
    if ENTRY not in content:
        raise ModelError(f'{path} holds no "{ENTRY}": give a file of ttd calibrate, or a model\'s ttd.json')
    try:
        return parse_calibration(content[ENTRY]), content
    except InputError as error:
        raise ModelError(f"{path}: {error}") from None


def set_calibration(encoder: Encoder, path: str | Path) -> None:
    """Give an encoder the calibration of a file, see `read_calibration`.

    Where the file says that it was fitted to another model or method, a warning says so.
    """
    encoder.calibration, content = read_calibration(path)
    for name, own in (("fingerprint", encoder.fingerprint()), ("method", encoder.method_name)):
        if content.get(name) not in (None, own):
            log.warning("the calibration of %s was fitted to another %s than this model's", path, _LABEL[name])


def compare_trained(encoder: Encoder, trained: Calibration | None, adapter: str | Path, *, chosen: bool) -> None:
    """Say where an adapter was trained with another calibration than the model has; both stay valid.

    Args:
        encoder: the base, with the calibration that is used.
        trained: the adapter's.
        adapter: its folder.
        chosen: whether the adapter brings thresholds of its own; then it is only information.
    """
    if trained is not None and trained.differs(encoder.calibration):
        log.log(
            logging.INFO if chosen else logging.WARNING,
            "the adapter %s was trained with the calibration %s, this model has %s: masks and background may need "
            "another threshold, or --calibration",
            adapter,
            trained,
            encoder.calibration,
        )


_LABEL = {"fingerprint": "base", "method": "method"}
