"""Numbers that this code has given before, held to what another machine's kernels may change.

`python -m tests.test_goldens` writes `goldens.json` again, after a change that is meant to alter them. The commands and
the small sets are those of `make goldens BASE=COMMIT`, which compares everything, to the bit, with another commit.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from tests.tolerance import COSINES_TCL, MINI, float_tolerance
from tools.goldens import inputs
from tools.goldens.plan import ADAPTER, GOLDENS, Golden
from tools.goldens.renames import TABLE, Renames
from ttd.cli import cli

pytestmark = pytest.mark.slow

SHIPPED = "mini+negatives"  # the package's own adapter; where it is trained again, `goldens.json` is too
KEPT = Path(__file__).with_name("goldens.json")
SCENES = (
    "scenes write {inputs}/scenes --count 64",
    "scenes write {inputs}/tagmask --format tagmask --split test --count 6",
)
# Roundings of cosines. Weights shaken by 1e-5, a hundred times the rounding of each, moved shares of pixels by 1e-4 (as
# they are rounded), measures by 6e-5 and losses, means of functions of cosines, by less than scores.
SCORE = float_tolerance(torch.float32, max(MINI, COSINES_TCL))
SHARE = 1e-3
MEASURE = 1e-3
LOSS = 2 * SCORE


def measure(folder: Path) -> dict[str, dict[str, float]]:
    """Runs a few goldens and gives their numbers, for each of the tolerances by name."""
    renames, root = Renames(TABLE.read_text("utf-8")), folder / "inputs"
    root.mkdir(parents=True)
    for line in SCENES:
        _run(renames.command(line), root, folder)
    inputs.main(root)
    found: dict[str, dict[str, float]] = {"score": {}, "share": {}, "measure": {}, "loss": {}}
    for name in ("tag-mini", "tag-adapter", "tag-tcl"):
        for record in _records(name, "out.jsonl", root, folder, renames):
            for word in record["words"]:
                found["score"][f"{name} {record['id']} {word['index']} {word['text']}"] = word["score"]
    for record in _records("mask-adapter", "out/results.jsonl", root, folder, renames):
        found["share"][f"mask-adapter {record['id']}"] = record["share"]
    for record in _records("segment-mini", "out/results.jsonl", root, folder, renames):
        shares = record["shares"].items()
        found["share"] |= {f"segment-mini {record['id']} {label}": share for label, share in shares}
    for name, measures in (
        ("eval-folder", ("mIoU", "mFPR", "mFNR")),
        ("eval-tagmask-adapter", ("s_pixel: F1", "AUC per image", "AUC per word", "CaptionIoU", "mFPR", "mFNR")),
        ("eval-coco-80", ("s_pixel: mAP", "CLIP Surgery: mAP")),
        ("eval-refcoco", ("mIoU", "pooled IoU")),
    ):
        (record,) = _records(name, "out/results.json", root, folder, renames)
        found["measure"] |= {f"{name} {measure}": record["numbers"][measure] for measure in measures}
    for name in ("train-mini", "train-paper"):
        for record in _records(name, "out/log.jsonl", root, folder, renames):
            found["loss"] |= {f"{name} step {record['step']} {term}": record[term] for term in ("distill", "tag")}
    return found


def _records(name: str, file: str, root: Path, folder: Path, renames: Renames) -> Iterator[dict[str, Any]]:
    """The JSON that a golden's command writes, about scenes where it is about images: photos are not everywhere."""
    golden: Golden = next(golden for golden in GOLDENS if golden.name == name)
    out = folder / name
    out.mkdir()
    for line in golden.commands:
        line = line.replace("--steps 20", "--steps 2").replace(ADAPTER, SHIPPED)
        _run(renames.command(line), root, out)
    text = (out / renames.file(file)).read_text("utf-8")
    for record in [json.loads(text)] if file.endswith(".json") else map(json.loads, text.splitlines()):
        if not str(record.get("id", "")).startswith("photo"):
            yield record


def _run(arguments: list[str], root: Path, folder: Path) -> None:
    assert arguments[:2] == ["-m", "ttd"], "a test runs `ttd` itself"
    words = [word.replace("{inputs}", str(root)) for word in arguments[2:]]
    before = Path.cwd()
    os.chdir(folder)
    try:
        done = CliRunner().invoke(cli, words, prog_name="ttd", catch_exceptions=False)
    finally:
        os.chdir(before)
    assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    return measure(tmp_path_factory.mktemp("goldens"))


@pytest.mark.parametrize(
    ("kind", "tolerance"), [("score", SCORE), ("share", SHARE), ("measure", MEASURE), ("loss", LOSS)]
)
def test_numbers_are_those_of_before(kind: str, tolerance: float, measured: dict[str, dict[str, float]]) -> None:
    assert measured[kind] == pytest.approx(json.loads(KEPT.read_text("utf-8"))[kind], rel=0, abs=tolerance)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        KEPT.write_text(json.dumps(measure(Path(scratch)), indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(f"wrote {KEPT}", file=sys.stderr)
