"""Annotations in the formats of other tools, against pycocotools and the converter of label-studio-sdk."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from tests.annotate.samples import open_annotations
from ttd.annotate.exchange import (
    decode_runs,
    encode_runs,
    from_coco,
    from_label_studio,
    import_records,
    read_exchanged,
    to_coco,
    to_label_studio,
)
from ttd.annotate.records import REJECTED, Record
from ttd.cli import cli
from ttd.errors import InputError


def brush() -> ModuleType:
    """label_studio_sdk/converter/brush.py by itself: the package around it needs half the world."""
    found = importlib.util.find_spec("label_studio_sdk")
    if found is None or not found.submodule_search_locations:
        pytest.skip("label-studio-sdk is not installed: pip install --no-deps label-studio-sdk")
    path = Path(found.submodule_search_locations[0]) / "converter" / "brush.py"
    spec = importlib.util.spec_from_file_location("brush", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def random_mask(seed: int, height: int, width: int, share: float) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width)) < share


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 99), st.integers(1, 40), st.integers(1, 40), st.sampled_from([0.0, 0.03, 0.5, 1.0]))
def test_run_lengths_come_back(seed: int, height: int, width: int, share: float) -> None:
    mask = random_mask(seed, height, width, share)
    assert np.array_equal(decode_runs(encode_runs(mask), (height, width), "here"), mask)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.6, 1.0])
def test_label_studio_reads_ours_and_we_read_theirs(share: float) -> None:
    theirs, mask = brush(), random_mask(0, 150, 217, share)
    shown = theirs.decode_rle(encode_runs(mask)).reshape(150, 217, 4)[..., 3]
    assert np.array_equal(shown, 255 * mask.astype(np.uint8))
    assert np.array_equal(
        decode_runs(theirs.encode_rle(np.repeat(255 * mask.ravel(), 4).astype(np.uint8)), mask.shape, ""), mask
    )


@pytest.mark.parametrize("runs", [None, [], [300], ["a"], 10**12, [10**30], [0.5], [0, 0, 0, 4, 57], [255] * 40])
def test_damaged_run_lengths_are_a_sentence(runs: Any) -> None:
    with pytest.raises(InputError, match="run lengths"):
        decode_runs(runs, (1, 1), "tasks.json, task 1")


@pytest.fixture
def annotated(tmp_path: Path) -> tuple[Path, list[Record]]:
    """Accepted with clicks, a brush, an outline and a second verdict; accepted with words alone; skipped."""
    annotations = open_annotations(tmp_path / "data", tmp_path / "set")
    first, _ = annotations.open_next(-1, "tab")
    assert first is not None
    first.point(3, 3, True)
    first.stroke([(30.0, 5.0)], 4, True)
    first.press("green")
    first.outline((((20.5, 2.5), (44.25, 6.5), (31.5, 29.5)), ((28.5, 9.5), (34.5, 9.5), (31.5, 14.5))))
    annotations.judge(annotations.accept(first), REJECTED)
    second, _ = annotations.open_next(0, "tab")
    assert second is not None
    for word in list(second.true):
        second.press(word) if word != second.active else None
        second.clear()
    annotations.accept(second)
    third, _ = annotations.open_next(1, "tab")
    assert third is not None
    annotations.skip(third)
    return tmp_path / "set", list(annotations.store.records())


def same(a: Record, b: Record) -> bool:
    plain = [replace(one, masks={}, version=0, time="") for one in (a, b)]
    masks = a.masks.keys() == b.masks.keys() and all(np.array_equal(a.masks[word], b.masks[word]) for word in a.masks)
    return plain[0] == plain[1] and masks


@pytest.mark.parametrize("kind", ["coco", "label-studio"])
def test_a_round_trip_loses_nothing(annotated: tuple[Path, list[Record]], kind: str, tmp_path: Path) -> None:
    root, records = annotated
    file, back = tmp_path / "file.json", tmp_path / "back"
    for arguments in (
        [str(root), str(file), "--format", kind],
        [str(file), str(back), "--images", str(root / "images")],
    ):
        done = CliRunner().invoke(cli, ["data", "annotations", *arguments])
        assert done.exit_code == 0, done.output
    assert "3 annotations are new" in done.output
    again = [Record.from_json(path.read_bytes(), path) for path in sorted((back / "annotations").glob("*.json"))]
    assert len(again) == len(records) == 3
    assert all(same(a, b) for a, b in zip(records, again, strict=True))
    assert any(prompts.outlines for record in again for prompts in record.prompts.values())
    kept = [sorted(str(p.relative_to(one)) for p in one.rglob("*.png")) for one in (root / "masks", back / "masks")]
    assert kept[0] == kept[1]
    done = CliRunner().invoke(cli, ["data", "annotations", str(file), str(back), "--images", str(root / "images")])
    assert "0 annotations are new" in done.output
    assert "3 were replaced" in done.output


def test_pycocotools_draws_the_same_masks(annotated: tuple[Path, list[Record]], tmp_path: Path) -> None:
    _, records = annotated
    (tmp_path / "coco.json").write_text(json.dumps(to_coco(records)))
    data = COCO(tmp_path / "coco.json")
    drawn = {
        (data.loadImgs(one["image_id"])[0]["ttd"]["id"], data.loadCats(one["category_id"])[0]["name"]): data.annToMask(
            one
        )
        for one in data.loadAnns(data.getAnnIds())
    }
    expected = {(record.id, word): mask for record in records for word, mask in record.masks.items()}
    assert drawn.keys() == expected.keys()
    assert all(np.array_equal(drawn[key] > 0, mask) for key, mask in expected.items())


def test_a_file_of_another_tool_becomes_a_set(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "cat.png")
    content = {
        "images": [{"id": "x", "file_name": "folder/cat.png", "height": 6, "width": 8}],
        "annotations": [
            {"id": 1, "image_id": "x", "category_id": 7, "segmentation": [[0, 0, 4, 0, 4, 6, 0, 6]]},
            {"id": 2, "image_id": "x", "category_id": 7, "segmentation": {"size": [6, 8], "counts": [42, 6]}},
        ],
        "categories": [{"id": 7, "name": "Cat"}],
    }
    (record,) = from_coco(content, "file.json")
    assert (record.id, record.caption, record.true) == ("cat", "cat", ("cat",))
    assert record.masks["cat"].sum() == 30
    assert import_records([record], tmp_path, tmp_path / "set").new == 1
    assert (tmp_path / "set" / "masks" / "cat" / "cat.png").is_file()
    task = to_label_studio([record])[0]
    del task["data"]["ttd"]
    (other,) = from_label_studio([task], "tasks.json")
    assert same(replace(record, key="cat"), other)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c["annotations"][0].update(image_id=99), "names an image"),
        (lambda c: c["annotations"][0].update(segmentation={"size": [1, 1], "counts": "01"}), "for an image of 1x1"),
        (lambda c: c["annotations"][0].update(segmentation=7), "not a list of polygons"),
        (lambda c: c["annotations"][0]["segmentation"].update(counts="\x7f" * 40), "annotation 1"),
        (lambda c: c["annotations"][0].pop("segmentation"), "segmentation"),
        (lambda c: c["categories"][0].update(name="whale"), "is not a word"),
        (lambda c: c["images"][0]["ttd"].update(id="../../x"), "id"),
        (lambda c: c["images"][0].update(ttd=[]), "damaged"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(
    annotated: tuple[Path, list[Record]], tmp_path: Path, change: Any, sentence: str
) -> None:
    content = to_coco(annotated[1])
    change(content)
    (tmp_path / "file.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=sentence):
        read_exchanged(tmp_path / "file.json")


def test_an_image_that_is_missing_or_another_one_is_skipped(
    annotated: tuple[Path, list[Record]], tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    accepted = [record for record in annotated[1] if record.image]
    Image.new("RGB", (5, 5)).save(tmp_path / "images" / accepted[0].image)
    done = import_records(annotated[1], tmp_path / "images", tmp_path / "new")
    assert done.new == 1  # the one that was skipped by its annotator
    assert [identifier for identifier, _ in done.skipped] == [record.id for record in accepted]
    assert "another size" in done.skipped[0][1]
