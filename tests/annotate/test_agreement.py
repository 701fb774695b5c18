"""Agreement between two annotators, against scikit-learn and masks counted here; and its command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score, jaccard_score

from tests.annotate.samples import open_annotations
from ttd.annotate.agreement import agreement, word_agreement
from ttd.cli import cli
from ttd.errors import InputError


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_words_as_scikit_learn_counts_them(pairs: list[tuple[bool, bool]]) -> None:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    equal, kappa, f1 = word_agreement(first, second)
    assert equal == pytest.approx(accuracy_score(first, second))
    if len(set(first) | set(second)) == 1:
        assert kappa is None
    else:
        assert kappa == pytest.approx(cohen_kappa_score(first, second), abs=1e-12)
    if not any(first) and not any(second):
        assert f1 is None
    else:
        assert f1 == pytest.approx(f1_score(first, second))
        assert word_agreement(second, first)[2] == pytest.approx(f1)


def test_nothing_to_count() -> None:
    assert word_agreement([], []) == (None, None, None)


def write_set(root: Path, rows: dict[str, dict[str, Any]], masks: dict[str, dict[str, np.ndarray]]) -> Path:
    for place in ("images", "masks"):
        (root / place).mkdir(parents=True)
    lines = [json.dumps({"id": name, **row}) for name, row in rows.items()]
    (root / "tags.jsonl").write_text("\n".join(lines) + "\n")
    for name, words in masks.items():
        Image.fromarray(np.any(list(words.values()), axis=0)).save(root / "masks" / f"{name}.png")
        (root / "masks" / name).mkdir()
        for word, mask in words.items():
            Image.fromarray(mask).save(root / "masks" / name / f"{word}.png")
    return root


WORDS = ["a", "dog", "on", "green", "grass", "sky", "tree"]


@pytest.fixture
def sets(tmp_path: Path) -> tuple[Path, Path, Any]:
    """Two random annotators of 12 captions, each with one more of his own."""
    rng = np.random.default_rng(0)
    truth: list[Any] = []
    folders = []
    for who in (0, 1):
        rows, masks = {}, {}
        for number in [*range(12), 20 + who]:
            true = [word for word in WORDS if rng.random() < 0.5]
            rows[f"{number}"] = {"caption": " ".join(WORDS), "words": WORDS, "true": true}
            drawn = {word: rng.random((9, 11)) < 0.5 for word in true}
            if drawn:
                masks[f"{number}"] = drawn
        truth.append((rows, masks))
        folders.append(write_set(tmp_path / "ab"[who], rows, masks))
    return folders[0], folders[1], truth


def test_figures_of_two_sets(sets: tuple[Path, Path, Any]) -> None:
    first, second, ((rows_a, masks_a), (rows_b, masks_b)) = sets
    found = agreement(first, second)
    asked = [word for word in WORDS if word not in ("a", "on")]
    names = [str(number) for number in range(12)]
    a = [word in rows_a[name]["true"] for name in names for word in asked]
    b = [word in rows_b[name]["true"] for name in names for word in asked]
    assert (found.captions, found.only_first, found.only_second, found.words) == (12, 1, 1, 60)
    assert found.kappa == pytest.approx(cohen_kappa_score(a, b))
    assert found.f1 == pytest.approx(f1_score(a, b))
    both = [name for name in names if name in masks_a and name in masks_b]
    unions = [[np.any(list(m[name].values()), axis=0) for m in (masks_a, masks_b)] for name in both]
    ious = [jaccard_score(x.ravel(), y.ravel()) for x, y in unions]
    assert found.masks == len(both)
    assert found.one_mask == sum((name in masks_a) != (name in masks_b) for name in names)
    assert found.caption_iou == pytest.approx(np.mean(ious))
    words = [(masks_a[n][w], masks_b[n][w]) for n in both for w in masks_a[n] if w in masks_b[n]]
    assert found.word_masks == len(words)
    assert found.word_iou == pytest.approx(np.mean([jaccard_score(x.ravel(), y.ravel()) for x, y in words]))
    for one in found.disagreements:
        assert set(one.only_first) == set(rows_a[one.id]["true"]) - set(rows_b[one.id]["true"]) - {"a", "on"}
        assert set(one.only_second) == set(rows_b[one.id]["true"]) - set(rows_a[one.id]["true"]) - {"a", "on"}
    assert agreement(first, second, stop_words=True).words == 84


def test_a_set_agrees_with_itself(sets: tuple[Path, Path, Any]) -> None:
    found = agreement(sets[0], sets[0])
    assert (found.equal, found.kappa, found.f1, found.caption_iou, found.word_iou) == (1, 1, 1, 1, 1)
    assert found.disagreements == ()


def ask(*arguments: object) -> Result:
    result = CliRunner().invoke(cli, ["data", "agreement", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_command_on_annotated_sets(tmp_path: Path) -> None:
    for who in ("anna", "ben"):
        annotations = open_annotations(tmp_path / "data", tmp_path / who)
        while (opened := annotations.open_next(-1, "tab")[0]) is not None:
            if who == "ben" and opened.item.number == 1:
                opened.press("wall")
                opened.clear()
                opened.stroke([(5, 5)], 3, True)
            annotations.accept(opened)
    result = ask(tmp_path / "anna", tmp_path / "ben", "--out", tmp_path / "found.json")
    assert result.exit_code == 0
    assert "only the second: wall" in result.stdout
    record = json.loads((tmp_path / "found.json").read_text())
    # 3 captions of red, wall, green, door and (beside is a stop word): 12 decisions, 11 equal.
    assert record["words"] == 12
    assert record["equal"] == pytest.approx(11 / 12)
    assert len(record["disagreements"]) == 1
    as_json = ask(tmp_path / "anna", tmp_path / "ben", "--json")
    assert json.loads(as_json.stdout)["kappa"] == record["kappa"]


def test_what_cannot_be_compared_is_told(sets: tuple[Path, Path, Any], tmp_path: Path) -> None:
    first, second, _ = sets
    lines = [json.loads(line) for line in (second / "tags.jsonl").read_text().splitlines()]
    lines[0] |= {"caption": "another", "words": ["another"], "true": []}
    (second / "tags.jsonl").write_text("\n".join(map(json.dumps, lines)))
    Image.fromarray(np.ones((3, 3), bool)).save(second / "masks" / "1.png")
    result = ask(first, second)
    assert result.exit_code == 1
    assert "skipped 0: the two captions differ" in result.stderr
    assert "skipped 1: the two masks have different sizes" in result.stderr
    other = write_set(tmp_path / "c", {"x": {"caption": "dog", "words": ["dog"], "true": []}}, {})
    with pytest.raises(InputError, match="no item in common"):
        agreement(first, other)
    assert ask(first, other).exit_code == 2
    assert ask(first, tmp_path / "nothing").exit_code == 2


def test_folders_of_other_names_are_the_same_data(tmp_path: Path) -> None:
    for name in ("anna", "ben"):
        annotations = open_annotations(tmp_path / f"photos-of-{name}", tmp_path / name)
        for number in range(3):
            opened = annotations.open(number, "tab")
            if (name, number) == ("ben", 1):
                opened.drop(opened.true[0])
            annotations.accept(opened)
    ids = [{path.stem for path in (tmp_path / name / "annotations").glob("*.json")} for name in ("anna", "ben")]
    assert not ids[0] & ids[1]
    found = agreement(tmp_path / "anna", tmp_path / "ben")
    assert (found.captions, found.only_first, found.only_second, found.skipped) == (3, 0, 0, ())
    assert len(found.disagreements) == 1
    assert found.word_iou == 1
