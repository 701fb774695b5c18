"""Tag selection and caption masks on sets that a test writes, against scikit-learn and by hand."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, precision_score, recall_score

import ttd
from tests.evaluation.conftest import Eval
from tests.evaluation.oracle import Oracle, blocks, painted, save
from tests.tolerance import MINI, float_tolerance
from ttd.errors import InputError
from ttd.evaluation.datasets.tagmask import read_tagmask
from ttd.evaluation.runner import measure_all
from ttd.evaluation.tasks.tag_tables import NEVER, THRESHOLDS, Cut, PresentAboveAbsent, Sweep, TagRow, decide
from ttd.evaluation.tasks.tagmask import TagMask
from ttd.inference.options import Options
from ttd.model import TTD
from ttd.scoring import SCORES
from ttd.selection import Selection

TITLES = ["grass", "dog", "cat", "tree", "car", "boat"]


def write_set(root: Path, count: int = 4, vocabulary: bool = True) -> list[dict[str, Any]]:
    """Images of three things; the caption names two of them, one absent noun, stop words and a filler."""
    rng = np.random.default_rng(3)
    rows = []
    for number in range(count):
        there = [int(k) for k in rng.permutation(6)[:3]]
        labels = blocks(rng, there)
        labels[0, :3] = there
        absent = next(k for k in range(6) if k not in there)
        named = there[:2]
        caption = f"a {TITLES[named[0]]} and the {TITLES[absent]} on the nice {TITLES[named[1]]} {TITLES[named[0]]}"
        name = f"{number:03d}"
        save(painted(labels, 6), root / "images" / f"{name}.png")
        save(np.isin(labels, named).astype(np.uint8) * 255, root / "masks" / f"{name}.png")
        row = {"id": name, "caption": caption, "words": caption.split(), "true": [TITLES[k] for k in named]}
        if vocabulary:
            row["present"] = [TITLES[k] for k in there]
        rows.append(row)
    (root / "tags.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if vocabulary:
        (root / "vocabulary.txt").write_text("\n".join(TITLES) + "\n")
    return rows


def test_an_oracle_gets_full_marks_and_the_controls_say_what_the_text_alone_does(
    tmp_path: Path, evaluate: Eval
) -> None:
    rows = write_set(tmp_path / "data")
    done = evaluate(Oracle(TITLES), "tagmask", tmp_path / "data", "--protocol", "default")
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    numbers = found["numbers"]
    for measure in ("precision", "recall", "F1", "accuracy", "mAP"):
        assert numbers[f"s_pixel: {measure}"] == 1.0
    assert numbers["s_pixel: absent selected"] == 0.0
    # Every caption: 4 nouns at 10 words of which 3 are true (one of them twice), one is absent.
    assert numbers["every noun: precision"] == pytest.approx(3 / 4)
    assert numbers["every noun: recall"] == 1.0
    assert numbers["every noun: F1"] == pytest.approx(6 / 7)
    assert numbers["every noun: absent selected"] == 1.0
    assert numbers["AUC per image"] == numbers["AUC per word"] == 1.0
    assert numbers["s_pixel (shuffled): F1"] < 1.0
    truths = [np.asarray(Image.open(tmp_path / "data" / "masks" / f"{row['id']}.png")) > 0 for row in rows]
    assert numbers["whole image IoU"] == pytest.approx(np.mean([truth.mean() for truth in truths]))
    # The caption also names what is not there, which has no pixels: its map is the union of the two others.
    assert (numbers["CaptionIoU"], numbers["mFPR"], numbers["mFNR"]) == (1.0, 0.0, 0.0)
    assert re.search(r"^s_pixel +oracle +100\.0", done.stdout, re.M)
    assert "(10 published rows under other protocols" in done.stdout
    for name in ("tags.csv", "captions.csv", "sweep.csv", "sweep.png"):
        assert (tmp_path / "out" / name).stat().st_size > 0
    with (tmp_path / "out" / "captions.csv").open() as stream:
        listed = list(csv.DictReader(stream))
    assert np.mean([float(row["CaptionIoU"]) for row in listed]) == pytest.approx(numbers["CaptionIoU"])


def test_shuffled_control_is_the_tagging_of_the_next_caption_on_this_image(tmp_path: Path) -> None:
    rows = write_set(tmp_path, vocabulary=False)
    model = TTD(Oracle(TITLES))
    benchmark = TagMask(read_tagmask(tmp_path), Options(), Options(), parts=("tags",), scores=("s_pixel", "s_seg"))
    record = benchmark.measure(model, 3)["shuffled"]
    expected = model.tag(tmp_path / "images" / "003.png", None, tags=record["asked"], selection="s_seg").words
    assert record["words"] == rows[0]["words"]
    assert [kept for _, kept in record["decisions"]["s_seg"]] == [word.selected for word in expected]
    assert not {"a", "the", "on", "and"} & set(record["asked"])


def test_cuts_and_a_part_of_the_captions_by_hand(tmp_path: Path) -> None:
    rows = write_set(tmp_path)
    model, cuts = TTD(Oracle(TITLES)), (Cut("norm", 0.5), Cut("calibrated", 0.0))
    benchmark = TagMask(read_tagmask(tmp_path), Options(), Options(), scores=("s_pixel",), cuts=cuts)
    found = measure_all(model, benchmark)
    assert [record["id"] for record in found.records] == [row["id"] for row in rows]
    part = found.result(lambda record: record["id"] in ("001", "003"))
    assert [row["id"] for row in part.rows["captions"]] == ["001", "003"]
    assert part.numbers["CaptionIoU"] == np.mean([row["CaptionIoU"] for row in part.rows["captions"]])
    perfect, whole = found.result().rows["cuts"]
    assert perfect == {"cut": "norm 0.5", "CaptionIoU": 1.0, "mFPR": 0.0, "mFNR": 0.0}
    assert (whole["cut"], whole["mFNR"]) == ("calibrated 0", 0.0)
    assert whole["CaptionIoU"] == found.result().numbers["whole image IoU"] < 1


def test_stop_words_can_be_scored_too(tmp_path: Path) -> None:
    write_set(tmp_path)
    benchmark = TagMask(
        read_tagmask(tmp_path), Options(), Options(), parts=("tags",), scores=("s_pixel",), stop_words=True
    )
    assert "the" in benchmark.measure(TTD(Oracle(TITLES)), 0)["tags"]["asked"]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), min_size=1, max_size=8), min_size=1, max_size=5
    )
)
def test_table_rows_agree_with_scikit_learn(captions: list[list[tuple[str, bool]]]) -> None:
    row, all_true, all_selected, precisions = TagRow(), [], [], []
    for caption in captions:
        words = [word for word, _ in caption]
        true = [right for _, right in caption]
        decisions = {word: (float(ord(word) % 3), word < "c") for word in set(words) - {"f"}}
        row.add(decide(words, true, decisions))
        all_true += true
        all_selected += [word < "c" for word in words]
        if any(true):
            scores = [decisions[word][0] if word != "f" else NEVER for word in words]
            precisions.append(average_precision_score(true, scores))
    numbers = row.numbers
    if any(all_selected):
        assert numbers["precision"] == pytest.approx(precision_score(all_true, all_selected))
    else:
        assert np.isnan(numbers["precision"])
    if any(all_true):
        assert numbers["recall"] == pytest.approx(recall_score(all_true, all_selected))
        assert numbers["F1"] == pytest.approx(f1_score(all_true, all_selected))
        assert numbers["mAP"] == pytest.approx(np.mean(precisions))
    assert numbers["accuracy"] == pytest.approx(accuracy_score(all_true, all_selected))


def test_sweep_by_hand() -> None:
    sweep = Sweep(["s_seg"])
    decisions = {"s_seg": [[0.7, True], [0.3, False]]}
    said = {"words": ["a", "dog", "cat"], "true": [False, True, False], "asked": ["dog", "cat"]}
    sweep.add({**said, "decisions": decisions})
    rows = {row["threshold"]: row for row in sweep.rows()}
    assert list(rows) == list(THRESHOLDS)
    assert (rows[0.3]["precision"], rows[0.3]["recall"]) == (0.5, 1.0)
    assert (rows[0.35]["precision"], rows[0.7]["recall"], rows[0.75]["recall"]) == (1.0, 1.0, 0.0)


def test_auc_of_present_words_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    scores, present = rng.integers(0, 4, (5, 7)).astype(float), rng.random((5, 7)) < 0.4
    present[0] = False  # an image without any word of the vocabulary does not count
    rows = []
    for row, there in zip(scores, present, strict=True):
        pairs = [(a > b) + (a == b) / 2 for a in row[there] for b in row[~there]]
        if pairs:
            rows.append(np.mean(pairs))
    table = PresentAboveAbsent()
    for row, there in zip(scores, present, strict=True):
        table.add(row, there)
    assert table.numbers["AUC per image"] == pytest.approx(np.mean(rows))


def test_parts_and_missing_masks(tmp_path: Path, evaluate: Eval) -> None:
    write_set(tmp_path / "data", vocabulary=False)
    (tmp_path / "data" / "masks" / "001.png").unlink()
    done = evaluate(
        Oracle(TITLES), "tagmask", tmp_path / "data", "--protocol", "default", "--score", "s_pixel", "--json"
    )
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert found["measured"] == 4
    assert "Masks of 3 captions." in found["notes"]
    assert not any(name.startswith(("AUC", "every noun", "s_seg")) for name in found["numbers"])
    only_tags = ("--part", "tags", "--no-shuffled", "--json", "--out", tmp_path / "tags")
    tags = evaluate(Oracle(TITLES), "tagmask", tmp_path / "data", *only_tags)
    assert "CaptionIoU" not in json.loads(tags.stdout)["numbers"]
    for path in (tmp_path / "data" / "masks").iterdir():
        path.unlink()
    masks = evaluate(Oracle(TITLES), "tagmask", tmp_path / "data", "--part", "masks", "--out", tmp_path / "m")
    assert masks.exit_code == 2
    assert "no masks" in masks.stderr


def test_faulty_items_are_listed(tmp_path: Path, evaluate: Eval) -> None:
    write_set(tmp_path / "data")
    (tmp_path / "data" / "images" / "000.png").write_bytes(b"no image")
    save(np.zeros((3, 3), np.uint8), tmp_path / "data" / "masks" / "002.png")
    done = evaluate(Oracle(TITLES), "tagmask", tmp_path / "data", "--protocol", "default", "--json")
    assert done.exit_code == 1
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [row["id"] for row in found["skipped"]] == ["000", "002"]
    assert "same size" in found["skipped"][1]["reason"]
    assert found["numbers"]["s_pixel: F1"] == 1.0


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 1"),
        ('{"id": 1, "caption": "a dog"}', "line 1"),
        ('{"id": 1, "caption": "a dog", "true": "dog"}', "line 1"),
        ('{"id": 1, "caption": "a dog", "true": ["cat"]}', "'cat'"),
        ("", "lists no image"),
        ('{"id": 1, "caption": "a", "true": []}\n{"id": 1, "caption": "a", "true": []}', "same id"),
    ],
)
def test_damaged_lists_are_refused_in_a_sentence(line: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "tags.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match=words):
        read_tagmask(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        {"caption": "A dog on the grass .", "tags": ["dog", "grass"]},
        {"text": "A dog on the grass .", "true": {"dog": True, "on": False, "grass": 1}},
        {"sentence": "A dog on the grass .", "labels": ["green grass", "dog"], "more": [1, 2]},
    ],
)
@pytest.mark.parametrize("per_word", [False, True])
def test_the_authors_folders(content: dict[str, Any], per_word: bool, tmp_path: Path) -> None:
    home = tmp_path / "cc3m_for_evaluation"
    save(np.zeros((4, 4, 3), np.uint8), home / "image" / "7.jpg")
    (home / "json_refined").mkdir()
    (home / "json_refined" / "7.json").write_text(json.dumps(content))
    left, right = np.eye(4, dtype=np.uint8), np.eye(4, dtype=np.uint8)[::-1]
    if per_word:
        save(left, home / "mask_using_HQ-SAM" / "7" / "dog.png")
        save(right, home / "mask_using_HQ-SAM" / "7" / "grass.png")
    else:
        save((left | right) * 255, home / "mask_using_HQ-SAM" / "7.png")
    (row,) = read_tagmask(tmp_path).rows
    assert row.words == ("a", "dog", "on", "the", "grass", ".")
    assert row.true == {"dog", "grass"}
    assert np.array_equal(row.mask(), (left | right) > 0)


@pytest.mark.parametrize("content", [[], {"tags": ["dog"]}, {"caption": "a dog"}, {"caption": 3, "tags": [1]}])
def test_an_unknown_form_of_the_authors_files_is_said_so(content: Any, tmp_path: Path) -> None:
    (tmp_path / "image").mkdir()
    (tmp_path / "json_refined").mkdir()
    (tmp_path / "json_refined" / "7.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="form that is not known"):
        read_tagmask(tmp_path)


def test_scenes_written_as_tagmask_and_the_embedded_model(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from ttd.cli import cli

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(cli, list(arguments), prog_name="ttd")

    data, out = str(tmp_path / "data"), tmp_path / "out"
    assert run("scenes", "write", data, "--format", "tagmask", "--split", "test", "--count", "3").exit_code == 0
    done = run("eval", "tagmask", "--data", data, "--model", "mini", "--protocol", "default", "--out", str(out))
    assert done.exit_code == 0, done.output
    numbers = json.loads((out / "results.json").read_text())["numbers"]
    for score in SCORES:
        assert 0 <= numbers[f"{score}: mAP"] <= 1
    assert numbers["CaptionIoU"] + numbers["mFPR"] + numbers["mFNR"] == pytest.approx(1)
    records = [json.loads(line) for line in (out / "measurements.jsonl").read_text("utf-8").splitlines()]
    hit, wrong, missed, _ = np.sum([record["mask"] for record in records], 0)
    assert numbers["pooled CaptionIoU"] == pytest.approx(hit / (hit + wrong + missed))
    model, data_set = ttd.load("mini"), read_tagmask(Path(data))
    calibration = model.encoder.calibration
    for row, record in zip(data_set.rows, records, strict=True):
        for score in ("s_image", "s_text"):
            rule, tags = Selection(score, "threshold"), record["tags"]["asked"]
            cosines = [word.score for word in model.tag(row.sample.image, row.caption, tags=tags, selection=rule).words]
            expected = 1 / (1 + np.exp(-calibration.w * (np.array(cosines) - calibration.c)))
            found = record["tags"]["decisions"][f"{score}, calibrated"]
            assert [p for p, _ in found] == pytest.approx(
                expected, abs=float_tolerance(torch.float32, MINI) * calibration.w
            )
            assert [selected for _, selected in found] == [p >= 0.5 for p, _ in found]


def test_rows_of_the_negative_word_rule(tmp_path: Path, evaluate: Eval) -> None:
    rows = write_set(tmp_path / "data")
    options = (
        "--protocol",
        "default",
        "--part",
        "tags",
        "--score",
        "s_pixel",
        "--percentile",
        "90",
        "--percentile",
        "0",
    )
    done = evaluate(Oracle(TITLES), "tagmask", tmp_path / "data", *options, "--negatives", "captions")
    assert done.exit_code == 0, done.output
    numbers = json.loads((tmp_path / "out" / "results.json").read_text())["numbers"]
    # An oracle scores what is there above what is not: a true word beats all words that are not there.
    assert numbers["s_pixel, negatives 90: absent selected"] == 0.0
    assert numbers["s_pixel, negatives 90: filler selected"] == 0.0
    for measure in ("absent", "filler"):
        assert numbers[f"s_pixel, negatives 0: {measure} selected"] == 1.0
    data, model = read_tagmask(tmp_path / "data"), TTD(Oracle(TITLES))
    words = list(dict.fromkeys(word for row in rows for word in row["words"]))
    benchmark = TagMask(
        data, Options(), Options(), parts=("tags",), scores=("s_pixel",), percentiles=(50,), negatives=words
    )
    record = benchmark.measure(model, 0)["tags"]
    image = tmp_path / "data" / "images" / "000.png"
    rule = Selection(rule="negatives", percentile=50, negatives=words)
    expected = model.tag(image, rows[0]["caption"], tags=record["asked"], selection=rule).words
    assert record["decisions"]["s_pixel, negatives 50"] == [[word.score, word.selected] for word in expected]


def test_captions_without_spaces_are_counted(tmp_path: Path, evaluate: Eval) -> None:
    write_set(tmp_path / "data", 2)
    path = tmp_path / "data" / "tags.jsonl"
    row = json.loads(path.read_text().splitlines()[0])
    word = "\u8349\u5730\u4e0a\u7684\u72d7"
    path.write_text(json.dumps({**row, "caption": word, "words": [word], "true": [word]}) + "\n")
    done = evaluate(Oracle([*TITLES, word]), "tagmask", tmp_path / "data", "--protocol", "default", "--part", "tags")
    assert "1 captions: words that are written without spaces count as one." in done.stdout
