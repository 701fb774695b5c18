"""How a model's folder says its image statistics: the mean and std by which pixels in 0..1 are normalised."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ttd.encoders.loading.files import read_json
from ttd.errors import ModelError

PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
_BYTE = 1 / 255


def load_statistics(folder: str | Path) -> dict[str, tuple[float, ...]]:
    """`mean` and `std` of a transformers folder, as far as it says them.

    transformers 5 writes `processor_config.json` with the image processor inside, versions before it
    `preprocessor_config.json`; where both are there the first counts, as it does there.

    Raises:
        ModelError: a value is none, or pixels are not scaled to 0..1 before.
    """
    for name in PROCESSOR_FILES:
        path = Path(folder) / name
        if not path.is_file():
            continue
        content = read_json(path)
        settings = content.get("image_processor") if name == PROCESSOR_FILES[0] else content
        if isinstance(settings, dict):
            return _of_processor(settings, path)
    return {}


def _of_processor(settings: Mapping[str, Any], path: Path) -> dict[str, tuple[float, ...]]:
    if settings.get("do_normalize") is False:
        plain: dict[str, tuple[float, ...]] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    else:
        plain = statistics({"mean": settings.get("image_mean"), "std": settings.get("image_std")}, path)
    factor = 1 if settings.get("do_rescale") is False else settings.get("rescale_factor")
    if factor is not None and not (_is_number(factor) and abs(factor - _BYTE) < 1e-4 * _BYTE):
        raise ModelError(
            f"{path} scales pixels by {factor} (rescale_factor, do_rescale) before they are normalised, and only 1/255 "
            "is supported: correct it"
        )
    return plain


def statistics(named: Mapping[str, Any], where: object) -> dict[str, tuple[float, ...]]:
    """`mean` and `std` of three channels from values as files write them; what is null is left out.

    Raises:
        ModelError: a value is not three numbers, or a std is not positive.
    """
    found = {}
    for name, values in named.items():
        if values is None:
            continue
        numbers = [values] * 3 if _is_number(values) else values  # one for all channels
        if not isinstance(numbers, list | tuple) or len(numbers) != 3 or not all(map(_is_number, numbers)):
            raise ModelError(f"{where}: the {name} of images must be three numbers, not {values!r}: correct it")
        if name == "std" and min(numbers) <= 0:
            raise ModelError(f"{where}: the std of images must be above 0, not {values!r}: correct it")
        found[name] = tuple(map(float, numbers))
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value
