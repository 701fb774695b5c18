"""The comparison of two trees' results: renames apply, and every kind of difference is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from tools.goldens.compare import Comparison, Difference
from tools.goldens.plan import GOLDENS
from tools.goldens.renames import TABLE, Renames

TABLE_AFTER = """
[commands]
"scenes prove" = "-m experiments.proof"
[options]
"--variant" = "--method"
"--preset paper-tags" = "--protocol paper"
"eval: --preset" = "--protocol"
"--wrong 4" = ""
"--old" = ""
[python]
preset = "protocol"
[fields]
gradient = "grad_norm"
"numbers.whole picture IoU" = "numbers.whole image IoU"
left = ""
[files]
"pictures/" = "images/"
"""
BEFORE, AFTER = Renames(""), Renames(TABLE_AFTER)


@pytest.mark.parametrize(
    ("line", "before", "after"),
    [
        ("tag a.png --variant naclip", "ttd tag a.png --variant naclip", "ttd tag a.png --method naclip"),
        ("tag --preset paper-tags --json", "ttd tag --preset paper-tags --json", "ttd tag --protocol paper --json"),
        ("eval voc --preset tcl", "ttd eval voc --preset tcl", "ttd eval voc --protocol tcl"),
        ("tag --preset tcl", "ttd tag --preset tcl", "ttd tag --preset tcl"),
        ("scenes prove --old 3 --out o", "ttd scenes prove --old 3 --out o", "experiments.proof --out o"),
        ("tag --wrong 4 --wrong 5", "ttd tag --wrong 4 --wrong 5", "ttd tag --wrong 5"),
    ],
)
def test_commands_are_spelled_as_each_tree_spells_them(line: str, before: str, after: str) -> None:
    assert BEFORE.command(line) == ["-m", *before.split()]
    assert AFTER.command(line) == ["-m", *after.split()]


def test_code_is_renamed_by_whole_words() -> None:
    assert AFTER.command("-c\nf(preset=presets)") == ["-c", "f(protocol=presets)"]


def test_every_golden_has_a_name_of_its_own_and_a_command_in_the_committed_table() -> None:
    renames = Renames(TABLE.read_text("utf-8"))
    assert len({golden.name for golden in GOLDENS}) == len(GOLDENS)
    assert all(renames.command(line)[0] in ("-m", "-c") for golden in GOLDENS for line in golden.commands)


Write = Callable[[str, Path], None]


def compared(folder: Path, write: tuple[Write, Write], pattern: str) -> Difference:
    sides = []
    for name, renames, save in (("base", BEFORE, write[0]), ("new", AFTER, write[1])):
        (folder / name).mkdir(parents=True)
        save(name, folder / name)
        sides.append((folder / name, renames))
    return Comparison(sides[0], sides[1], ignored=("command",)).run([pattern])


def as_json(**content: object) -> Write:
    def write(name: str, folder: Path) -> None:
        (folder / "a.json").write_text(json.dumps(content))

    return write


def test_renamed_fields_are_equal_and_new_ones_are_counted(tmp_path: Path) -> None:
    before = as_json(gradient=1.5, numbers={"whole picture IoU": 0.25}, left=3, command="a")
    after = as_json(grad_norm=1.5, numbers={"whole image IoU": 0.25, "more": 1}, command="b")
    found = compared(tmp_path, (before, after), "*.json")
    assert (found.wrong, found.largest, found.added) == ([], 0.0, ["a.json: numbers: more"])
    assert found.compared >= 2


@pytest.mark.parametrize(
    ("before", "after", "word"),
    [
        ({"a": "x"}, {"a": "y"}, "'y', not 'x'"),
        ({"a": 1}, {}, "a is missing"),
        ({"a": [1, 2]}, {"a": [1]}, "1 entries, not 2"),
        ({"a": True}, {"a": 1}, "1, not True"),
        ({"a": None}, {"a": 0.0}, "0.0, not None"),
        ({"a": float("nan")}, {"a": 0.5}, "0.5, not nan"),
    ],
)
def test_what_no_tolerance_covers_is_named(
    before: dict[str, object], after: dict[str, object], word: str, tmp_path: Path
) -> None:
    found = compared(tmp_path, (as_json(**before), as_json(**after)), "*.json")
    assert len(found.wrong) == 1
    assert word in found.brief(1.0)


def test_numbers_pixels_and_tensors_give_the_largest_gap(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)

    def write(name: str, folder: Path) -> None:
        new = name == "new"
        (folder / "n.csv").write_text(f"id,IoU\nx,{0.5 + 0.125 * new}\n")
        labels = values.astype(np.uint8)
        labels[0, 0] += new
        pictures = folder / ("images" if new else "pictures")
        pictures.mkdir()
        Image.fromarray(labels).save(pictures / "l.png")
        save_file({"w": values + np.float32(0.25 * new)}, folder / "a.safetensors")

    assert compared(tmp_path / "1", (write, write), "*.csv").largest == 0.125
    assert compared(tmp_path / "2", (write, write), "pictures/*.png").largest == pytest.approx(1 / 12)
    found = compared(tmp_path / "3", (write, write), "*.safetensors")
    assert (found.largest, found.where) == (0.25, "a.safetensors: w")
    assert "0.25 at a.safetensors: w" in found.brief(0.1)


def test_a_file_that_is_not_there_is_missing(tmp_path: Path) -> None:
    def nothing(name: str, folder: Path) -> None:
        pass

    assert compared(tmp_path / "1", (nothing, nothing), "*.json").wrong == ["*.json is missing in the base"]
    assert compared(tmp_path / "2", (as_json(a=1), nothing), "*.json").wrong == ["a.json is missing"]
