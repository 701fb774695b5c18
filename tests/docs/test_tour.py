"""The notebook of the tour: its outputs are in it and clean. That its cells run is tested with all blocks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"
TOUR = DOCS / "tour.ipynb"
CELLS = json.loads(TOUR.read_text("utf-8"))["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]
ABSOLUTE = re.compile(r"(?<![\w.:/])(/(?:home|root|tmp|work|usr|opt|Users|var|mnt)\b|[A-Z]:\\)")


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def texts(cell: dict[str, Any]) -> list[str]:
    """What a cell printed or showed as words."""
    found = []
    for output in cell["outputs"]:
        found.append("".join(output.get("text", "")))
        found += ["".join(value) for kind, value in output.get("data", {}).items() if kind.startswith("text/")]
    return found


def test_it_ran_from_the_top_without_errors_or_warnings() -> None:
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    outputs = [output for cell in CODE[1:] for output in cell["outputs"]]
    assert all(cell["outputs"] for cell in CODE[1:])  # the first only imports
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    assert not [cell["id"] for cell in CELLS if cell["metadata"]]  # times of execution would stand there
    images = [output["data"]["image/jpeg"] for output in outputs if "image/jpeg" in output.get("data", {})]
    assert len(images) == sum("show(" in source(cell) for cell in CODE[1:]) >= 5
    assert TOUR.stat().st_size < 1_500_000


def test_it_names_no_path_of_a_machine() -> None:
    for cell in CELLS:
        for text in [source(cell), *(texts(cell) if cell["cell_type"] == "code" else [])]:
            assert not ABSOLUTE.search(text), (cell["id"], text)


def test_its_links_lead_somewhere() -> None:
    links = [link for cell in CELLS if cell not in CODE for link in re.findall(r"\]\(([^)]+)\)", source(cell))]
    assert len(links) >= 6
    assert not [link for link in links if not (DOCS / link).is_file()]
