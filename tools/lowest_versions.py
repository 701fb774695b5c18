"""Writes the lowest version that pyproject.toml allows of every direct dependency, one requirement per line.

python tools/lowest_versions.py pyproject.toml EXTRA...

Torch is left out: its CPU build comes from constraints.txt.
"""

from __future__ import annotations

import sys
from pathlib import Path

from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def lowest(pyproject: Path, extras: list[str]) -> list[str]:
    """`name==bound` for the package's own dependencies on this Python and those of the named extras."""
    project = tomllib.loads(pyproject.read_text("utf-8"))["project"]
    lines = list(project["dependencies"])
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    pinned = []
    for requirement in map(Requirement, lines):
        if requirement.name == "torch" or (requirement.marker and not requirement.marker.evaluate()):
            continue
        (bound,) = (one for one in requirement.specifier if one.operator == ">=")
        pinned.append(f"{requirement.name}=={bound.version}")
    return sorted(set(pinned))


if __name__ == "__main__":
    print("\n".join(lowest(Path(sys.argv[1]), sys.argv[2:])))
