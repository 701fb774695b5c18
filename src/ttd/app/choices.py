"""What may be chosen on the page: the models and adapters that were named when it was started.

The page never takes a path or a hub id from a visitor, who could otherwise read files and start downloads on
the machine that serves it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ttd.errors import InputError
from ttd.inference import PRESETS

NO_ADAPTER = "none"


@dataclass(frozen=True)
class Choices:
    """Labels on the page and the names behind them.

    Attributes:
        models: label -> name as `ttd.load` takes it, at least one; the first is shown first.
        adapters: label -> name; may be empty.
        sam_model: SAM-HQ's name for `refine="sam"`, None where it is not offered.
    """

    models: dict[str, str]
    adapters: dict[str, str]
    sam_model: str | None = None

    @classmethod
    def of(cls, models: Sequence[str], adapters: Sequence[str] = (), sam_model: str | None = None) -> Choices:
        """Labels for names as they stand on the command line.

        Raises:
            InputError: no model at all.
        """
        if not models:
            raise InputError("the page needs at least one model: name one with --model")
        return cls(labelled(models), labelled(adapters), sam_model)

    @property
    def adapter_labels(self) -> list[str]:
        """No adapter, then those that were named."""
        return [NO_ADAPTER, *self.adapters]

    @property
    def refinements(self) -> list[str]:
        """The refinements that are installed here."""
        crf = ["crf"] if find_spec("pydensecrf") is not None else []
        sam = ["sam"] if self.sam_model else []
        return ["none", "pamr", *crf, *sam]

    @property
    def presets(self) -> list[str]:
        """All presets by name."""
        return list(PRESETS)

    def names(self, model: str, adapter: str) -> tuple[str, str | None]:
        """The names behind two labels.

        Raises:
            InputError: a label that is not offered.
        """
        if model not in self.models:
            raise InputError(f"{model!r} is not one of the models of this page: choose from the list")
        if adapter in ("", NO_ADAPTER):
            return self.models[model], None
        if adapter not in self.adapters:
            raise InputError(f"{adapter!r} is not one of the adapters of this page: choose from the list")
        return self.models[model], self.adapters[adapter]


def labelled(names: Iterable[str]) -> dict[str, str]:
    """A short label for every distinct name: a path's last part where no other name has the same."""
    names = list(dict.fromkeys(names))
    ends = [Path(name).name if Path(name).exists() else name for name in names]
    return {
        (end if end and ends.count(end) == 1 and end != NO_ADAPTER else name): name
        for name, end in zip(names, ends, strict=True)
    }
