"""Encoders whose scores are known, through `ttd eval` as the papers look at images: resized, in windows, mirrored.

An oracle may only be wrong where a pixel touches another class, so without these pixels it gets full marks. A constant
one cannot tell classes apart: arithmetic says what it scores.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.evaluation.conftest import Eval
from tests.evaluation.layouts import write
from tests.evaluation.oracle import Constant, Oracle, blocks, painted, save, without_edges
from tests.evaluation.tasks.test_tagmask import TITLES, write_set
from ttd.text.words import is_stop_word

SETS = ("voc", "voc20", "context60", "context59", "coco-object", "coco-stuff", "ade20k", "cityscapes")
WITH_BACKGROUND = ("voc", "context60", "coco-object")


def results(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return content


@pytest.mark.parametrize(
    ("name", "protocol"),
    [
        ("voc", "paper"),
        ("voc", "tcl-plain"),
        *(pytest.param(name, "paper", marks=pytest.mark.slow) for name in SETS if name != "voc"),
    ],
)
def test_resizing_and_windows_cost_an_oracle_nothing_but_edges(
    name: str, protocol: str, tmp_path: Path, evaluate: Eval
) -> None:
    benchmark, truths, titles = write(tmp_path / "data", name, count=1, edges=False)
    done = evaluate(Oracle(titles, patch=16), benchmark, tmp_path / "data", "--protocol", protocol)
    assert done.exit_code == 0, done.output
    found = results(tmp_path / "out")
    options = found["settings"]["options"]["masks"]
    assert (options["size"], options["window"], options["stride"]) == (448, 448, 224)
    assert (len(options["scales"]), options["flip"]) == ((4, True) if protocol == "paper" else (1, False))
    counted = sum(int((truth != 255).sum()) for truth in truths)
    assert counted > 100
    assert found["numbers"]["pixel accuracy"] == 1.0
    assert found["numbers"]["mIoU"] == 1.0


def test_pamr_keeps_what_an_oracle_finds(tmp_path: Path, evaluate: Eval) -> None:
    benchmark, _, titles = write(tmp_path / "data", "cityscapes", count=1, edges=False)
    done = evaluate(Oracle(titles, patch=16), benchmark, tmp_path / "data", "--protocol", "tcl")
    assert done.exit_code == 0, done.output
    assert results(tmp_path / "out")["numbers"]["mIoU"] == 1.0


def test_a_folder_and_windows_that_overlap_a_wide_image(tmp_path: Path, evaluate: Eval) -> None:
    truth = blocks(np.random.default_rng(5), [0, 1, 2], (24, 72))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "classes.txt").write_text("cat\ndog\nsky\n")
    save(painted(truth, 3), tmp_path / "data" / "images" / "a.png")
    save(without_edges(truth), tmp_path / "data" / "labels" / "a.png")
    done = evaluate(Oracle(["cat", "dog", "sky"], patch=16), "folder", tmp_path / "data", "--protocol", "paper")
    assert done.exit_code == 0, done.output
    assert results(tmp_path / "out")["numbers"]["mIoU"] == 1.0


def test_masks_and_words_of_captions_with_the_papers_looks(tmp_path: Path, evaluate: Eval) -> None:
    rows = write_set(tmp_path / "data", count=2)
    done = evaluate(Oracle(TITLES, patch=16), "tagmask", tmp_path / "data", "--protocol", "paper")
    assert done.exit_code == 0, done.output
    numbers = results(tmp_path / "out")["numbers"]
    for measure in ("precision", "recall", "F1", "accuracy", "mAP"):
        assert numbers[f"s_pixel: {measure}"] == 1.0
    # The pixels at the edges of the masks bound what resizing may cost.
    least = []
    for row in rows:
        mask = np.asarray(Image.open(tmp_path / "data" / "masks" / f"{row['id']}.png")) > 0
        edge = without_edges(mask.astype(np.uint8)) == 255
        least.append((mask & ~edge).sum() / (mask | edge).sum())
    assert np.mean(least) <= numbers["CaptionIoU"] <= 1.0
    assert numbers["CaptionIoU"] > 0.8


@pytest.mark.parametrize("name", SETS)
def test_a_constant_encoder_scores_what_arithmetic_says(name: str, tmp_path: Path, evaluate: Eval) -> None:
    benchmark, truths, titles = write(tmp_path / "data", name)
    encoder = Constant(titles)
    counts = np.sum([np.bincount(truth[truth != 255], minlength=len(titles)) for truth in truths], axis=0)
    present, total = int((counts > 0).sum()), int(counts.sum())
    # Argmax: everything is the first class that is asked for. With a threshold: an even map lies below it.
    first = 1 if name in WITH_BACKGROUND else 0
    for options, label in ((("--background", "none"), first), (("--background", "0.5"), 0 if first else None)):
        out = tmp_path / str(label)
        done = evaluate(encoder, benchmark, tmp_path / "data", "--protocol", "default", *options, "--out", out)
        assert done.exit_code == 0, done.output
        numbers = results(out)["numbers"]
        hit = int(counts[label]) if label is not None else 0
        classes = present + (label is not None and not hit)  # the predicted class has a union, too
        assert numbers["pixel accuracy"] == pytest.approx(hit / total)
        assert numbers["mIoU"] == pytest.approx(hit / total / classes)
        assert numbers["mFPR"] == pytest.approx((total - hit) / total / classes if label is not None else 0)
        assert numbers["mFNR"] == pytest.approx((present - (hit > 0)) / classes)


def test_a_constant_encoder_selects_every_word_and_masks_nothing(tmp_path: Path, evaluate: Eval) -> None:
    rows = write_set(tmp_path / "data")
    arguments = ("--protocol", "default", "--score", "s_pixel")
    assert evaluate(Constant(TITLES), "tagmask", tmp_path / "data", *arguments).exit_code == 0
    numbers = results(tmp_path / "out")["numbers"]
    words = [(word in row["true"], not is_stop_word(word)) for row in rows for word in row["words"]]
    right = sum(true and asked for true, asked in words)
    assert numbers["s_pixel: recall"] == 1.0
    assert numbers["s_pixel: precision"] == pytest.approx(right / sum(asked for _, asked in words))
    assert numbers["s_pixel: accuracy"] == pytest.approx(sum(true == asked for true, asked in words) / len(words))
    assert (numbers["AUC per image"], numbers["AUC per word"]) == (0.5, 0.5)
    assert (numbers["CaptionIoU"], numbers["mFPR"], numbers["mFNR"]) == (0.0, 0.0, 1.0)
