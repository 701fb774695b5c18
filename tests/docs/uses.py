"""Blocks of data are read by what the page says reads them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docs.inputs import photo
from tests.docs.pages import Block
from ttd.encoders.registry import MINI


def use(block: Block, folder: Path, run: Callable[[str], None]) -> None:
    """Writes the block into a file, and runs the command that takes such a file."""
    match block.page, block.kind:
        case "docs/command-line.md", "json" | "csv":
            for name in ("a.png", "b.png"):
                photo(folder / "listed" / name)
            name = {"json": "list.jsonl", "csv": "list.csv"}[block.kind]
            (folder / "listed" / name).write_text(block.text + "\n", "utf-8")
            run(f"ttd tag listed/{name} --out listed/{block.kind}.jsonl")
            assert len((folder / f"listed/{block.kind}.jsonl").read_text("utf-8").splitlines()) == 2
        case "docs/models.md", "json":
            shutil.copytree(MINI, folder / "with-card")
            (folder / "with-card/ttd.json").write_text(block.text, "utf-8")
            (folder / "with-card/words.txt").write_text("dog\ngrass\n", "utf-8")
            photo(folder / "carded.png")
            run('ttd tag carded.png "a dog on the grass" --model ./with-card')
        case "docs/data.md", "json":
            shown = json.loads(block.text)
            rest = [{"shard": f"cc3m/{n // 13:05d}.tar", "key": f"{n:09d}", "tags": [["dog"]]} for n in range(26)]
            lines = [block.text, *(json.dumps(line) for line in rest if line["key"] != shown["key"])]
            (folder / "words.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
            how = "--config scenes-paper --tags words.jsonl --set choice.by=given --dry-run"
            run(f"ttd train cc3m/ {how} --out runs/words")
        case "docs/training.md", "json":  # a line of the log of the config that the page has trained with by now
            logged = json.loads((folder / "runs/whole/log.jsonl").read_text("utf-8").splitlines()[0])
            shown = json.loads(block.text)
            assert list(logged) == list(shown), f"the log has {list(logged)}"
            for row in (logged, shown):
                terms = sum(row[name] * row[f"{name}_weight"] for name in ("distill", "tag", "rank"))
                assert row["loss"] == pytest.approx(terms, abs=2e-4)
        case _:
            raise AssertionError(f"{block.page}:{block.line}: nothing reads this block")
