"""The written table of renames: commands, options and names of one tree, from and to the words of `plan.py`."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TABLE = Path(__file__).with_name("renames.toml")
SECTIONS = ("commands", "options", "python", "fields", "files")


class Renames:
    """One tree's copy of the table.

    Args:
        text: the table as TOML; empty: the tree spells everything as `plan.py` does.
    """

    def __init__(self, text: str) -> None:
        self.rows: dict[str, dict[str, str]] = tomllib.loads(text)
        if unknown := sorted(set(self.rows) - set(SECTIONS)):
            raise SystemExit(f"renames.toml has an unknown section {unknown[0]}: known are {', '.join(SECTIONS)}.")
        self._fields = sorted(
            ((here.split("."), ours.split(".")) for ours, here in self._rows("fields").items() if here),
            key=lambda row: -len(row[0]),
        )

    def _rows(self, section: str) -> dict[str, str]:
        return self.rows.get(section, {})

    def command(self, line: str) -> list[str]:
        """A command line of `plan.py` as this tree's `python` arguments."""
        if line.startswith("-c\n"):
            return ["-c", self._code(line[3:])]
        words = shlex.split(line)
        first = next((i for i, word in enumerate(words) if word.startswith(("-", "{")) or "." in word), len(words))
        rows, name, rest = self._rows("commands"), "", words
        for length in range(first, 0, -1):
            if (tried := " ".join(words[:length])) in rows:
                name, rest = tried, words[length:]
                break
        else:
            name, rest = words[0], words[1:]
        start = shlex.split(rows.get(name, name))
        return [*(start if start[0] == "-m" else ["-m", "ttd", *start]), *self._options(name, rest)]

    def _options(self, command: str, words: list[str]) -> list[str]:
        rows, found, i = self._rows("options"), [], 0
        while i < len(words):
            option, value = words[i], words[i + 1] if i + 1 < len(words) else ""
            pair, width = f"{option} {value}", 2
            here = rows.get(f"{command}: {pair}", rows.get(pair))
            if here is None:
                here, width = rows.get(f"{command}: {option}", rows.get(option)), 1
            if here is None:
                found.append(option)
            else:
                found.extend(shlex.split(here))
                if not here and width == 1 and value and not value.startswith("-"):
                    width = 2  # the option is gone, so its value is too
            i += width
        return found

    def _code(self, code: str) -> str:
        for ours, here in self._rows("python").items():
            code = re.sub(rf"\b{re.escape(ours)}\b", here, code)
        return code

    def file(self, pattern: str) -> str:
        """A path or pattern of `plan.py` in this tree."""
        for ours, here in self._rows("files").items():
            pattern = pattern.replace(ours, here)
        return pattern

    def our_file(self, path: str) -> str:
        """This tree's path in `plan.py`'s words."""
        for ours, here in self._rows("files").items():
            path = path.replace(here, ours) if here else path
        return path

    @property
    def gone(self) -> set[str]:
        """Fields that this tree has no more."""
        return {ours for ours, here in self._rows("fields").items() if not here}

    def record(self, content: Any, path: tuple[str, ...] = ()) -> Any:
        """JSON of this tree with the fields named as in `plan.py`."""
        if isinstance(content, list):
            return [self.record(value, path) for value in content]
        if not isinstance(content, dict):
            return content
        return {self._field((*path, key)): self.record(value, (*path, key)) for key, value in content.items()}

    def _field(self, path: tuple[str, ...]) -> str:
        for here, ours in self._fields:
            if path[-len(here) :] == tuple(here):
                return ours[-1]
        return path[-1]
