"""Numbers that others published, each with the table it was copied from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from ttd.files.documents import parse_json


@dataclass(frozen=True)
class Published:
    """One row of a published table.

    Attributes:
        benchmark: name, as for `ttd eval`.
        table: "classes", "tags", "masks", or a split.
        method: as the source calls it.
        numbers: by measure; percent, but mFPR and mFNR as shares.
        source: where the row stands.
        setting: encoder, refinement and the like, as far as the source says.
        protocols: those of ours that are the source's; none: not known, or none of ours.
        refine: its refinement, by our name; "": the numbers have nothing to do with one.
    """

    benchmark: str
    table: str
    method: str
    numbers: dict[str, float]
    source: str
    setting: str = ""
    protocols: tuple[str, ...] = ()
    refine: str = ""

    def is_under(self, protocol: str, refinement: str) -> bool:
        """Whether a run by this protocol and refinement compares with this row."""
        return protocol in self.protocols and self.refine in ("", refinement)

    @property
    def label(self) -> str:
        """The method with its setting."""
        return f"{self.method} ({self.setting})" if self.setting else self.method


def published(benchmark: str, table: str) -> list[Published]:
    """The rows for one benchmark's table, in the order of the sources."""
    return [row for row in _all() if (row.benchmark, row.table) == (benchmark, table)]


@cache
def _all() -> tuple[Published, ...]:
    content = parse_json(files("ttd").joinpath("assets/published.json").read_bytes())
    return tuple(Published(**{**row, "protocols": tuple(row.get("protocols", ()))}) for row in content["rows"])
