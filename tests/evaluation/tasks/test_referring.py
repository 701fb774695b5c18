"""Expressions and their objects on sets that a test writes in the authors' layout."""

from __future__ import annotations

import csv
import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from pycocotools import mask as coco_masks

from tests.evaluation.conftest import Eval
from tests.evaluation.datasets.test_refcoco_pickle import Runs
from tests.evaluation.datasets.test_tagmask_from_coco import pack
from tests.evaluation.oracle import Oracle, blocks, painted, save
from ttd.cli import cli
from ttd.errors import InputError
from ttd.evaluation.datasets.refcoco import PARTITIONS, read_refer
from ttd.evaluation.metrics import mask_counts
from ttd.evaluation.tasks.referring import Referring
from ttd.inference.options import Options

TITLES = ["grass", "dog", "cat", "tree", "car", "boat"]


def runs(mask: np.ndarray) -> list[int]:
    """COCO's run lengths, down the columns, the first one of zeros."""
    flat = mask.T.reshape(-1).astype(int)
    changes = np.flatnonzero(np.diff(np.concatenate(([0], flat))))
    return [int(run) for run in np.diff(np.concatenate(([0], changes, [len(flat)])))]


def segmentation(mask: np.ndarray, how: int) -> Any:
    """Run lengths, packed ones, or a square polygon around every block of 8 x 8."""
    if how == 0:
        return {"counts": runs(mask), "size": list(mask.shape)}
    if how == 1:
        return {"counts": pack(runs(mask)), "size": list(mask.shape)}
    corners = np.argwhere(mask[::8, ::8]) * 8
    return [[x, y, x + 8, y, x + 8, y + 8, x, y + 8] for y, x in corners.tolist()]


def write_refer(root: Path, name: str = "refcoco", by: str = "unc", splits: tuple[str, ...] = ("val", "testA")) -> Any:
    """Two images per split with an object for each of three classes, and two expressions about every object.

    Gives the shares of the expressions' objects by split.
    """
    rng = np.random.default_rng(1)
    images: list[Any] = []
    annotations: list[Any] = []
    refs: list[Any] = []
    shares: dict[str, list[float]] = {}
    for number in range(2 * len(splits)):
        split = splits[number // 2]
        labels = blocks(rng, rng.permutation(6)[:3].tolist())
        file = f"COCO_train2014_{number:012d}.png"
        save(painted(labels, 6), root / "images/mscoco/images/train2014" / file)
        images.append({"id": 100 + number, "file_name": file, "height": 24, "width": 32})
        for k in np.unique(labels):
            key = len(annotations) + 1
            mask = labels == k
            annotations.append(
                {"id": key, "image_id": 100 + number, "category_id": 1, "segmentation": segmentation(mask, key % 3)}
            )
            sentences = [
                {"sent_id": 10 * key + i, "sent": text, "raw": text.upper(), "tokens": text.split()}
                for i, text in enumerate((TITLES[k], f"the left {TITLES[k]}"))
            ]
            shares.setdefault(split, []).extend([float(mask.mean())] * 2)
            refs.append(
                {
                    "ref_id": key,
                    "ann_id": key,
                    "image_id": 100 + number,
                    "category_id": 1,
                    "file_name": f"COCO_train2014_{number:012d}_{key}.jpg",
                    "split": split,
                    "sent_ids": [10 * key, 10 * key + 1],
                    "sentences": sentences,
                }
            )
    (root / name).mkdir()
    (root / name / "instances.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    (root / name / f"refs({by}).p").write_bytes(pickle.dumps(refs, 2))
    return shares


def numbers(out: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((out / "results.json").read_text())["numbers"]
    return found


@pytest.mark.parametrize(
    ("name", "by", "split", "table"),
    [("refcoco", "unc", "testA", "13.2"), ("refcoco+", "unc", "val", "19.8"), ("refcocog", "umd", "val", "28.2")],
)
def test_an_oracle_scores_100_with_one_look_at_each_image(
    name: str, by: str, split: str, table: str, tmp_path: Path, evaluate: Eval
) -> None:
    shares = write_refer(tmp_path / "data", name, by, PARTITIONS[name][by])
    oracle = Oracle(TITLES)
    arguments = (name, tmp_path / "data", "--protocol", "default", "--split", split, "--images", 0)
    done = evaluate(oracle, *arguments)
    assert done.exit_code == 0, done.output
    found = numbers(tmp_path / "out")
    assert (found["mIoU"], found["pooled IoU"]) == (1.0, 1.0)
    assert found["whole image IoU"] == pytest.approx(np.mean(shares[split]))
    assert oracle.images_seen == 2
    whole = {"refcoco": 750, "refcoco+": 1500, "refcocog": 1300}[name]
    assert f"Measured on a sample, 2 of {whole} images" in done.stdout
    assert f"Masks of expressions, {split}\n" in done.stdout
    assert done.stdout.count("Masks of expressions") == 1
    assert table in CliRunner().invoke(cli, ["report", str(tmp_path / "out"), "--markdown"]).stdout
    with (tmp_path / "out" / "expressions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 12
    assert {row["IoU"] for row in rows} == {"1.0"}
    assert sum(row["expression"].startswith("the left ") for row in rows) == 6


def test_a_page_shows_the_first_expressions(tmp_path: Path, evaluate: Eval) -> None:
    write_refer(tmp_path / "data")
    done = evaluate(Oracle(TITLES), "refcoco", tmp_path / "data", "--protocol", "default", "--images", 1)
    assert done.exit_code == 0, done.output
    page = (tmp_path / "out" / "images.html").read_text()
    assert page.count("<figcaption>the left ") == 2  # of the first three expressions of each of two images
    assert len(re.findall("<img", page)) == 2 * (1 + 3)


def test_masks_of_everything_and_of_nothing_score_what_arithmetic_says(tmp_path: Path, evaluate: Eval) -> None:
    shares = write_refer(tmp_path / "data")["val"]
    arguments = ("refcoco", tmp_path / "data", "--protocol", "default", "--images", 0)
    blind = Oracle([title.upper() + " " for title in TITLES])  # knows none of the words: a flat map
    assert evaluate(blind, *arguments, "--background", 0, "--out", tmp_path / "all").exit_code == 0
    found = numbers(tmp_path / "all")
    assert found["mIoU"] == found["whole image IoU"] == pytest.approx(np.mean(shares))
    assert found["pooled IoU"] == pytest.approx(np.mean(shares))  # images of one size
    assert evaluate(blind, *arguments, "--out", tmp_path / "none").exit_code == 0
    assert numbers(tmp_path / "none")["mIoU"] == numbers(tmp_path / "none")["pooled IoU"] == 0.0
    assert (found["empty masks"], numbers(tmp_path / "none")["empty masks"]) == (0.0, 1.0)


def test_means_and_pooled_ratio_by_hand(tmp_path: Path, evaluate: Eval) -> None:
    write_refer(tmp_path / "data")
    path = tmp_path / "data" / "refcoco" / "refs(unc).p"
    refs = pickle.loads(path.read_bytes())
    first, second = refs[0], refs[1]
    first["sentences"] = [{"sent_id": 1, "sent": second["sentences"][0]["sent"]}]  # names the other object
    second["sentences"] = [{"sent_id": 2, "sent": second["sentences"][0]["sent"]}, {"sent_id": 3, "sent": " "}]
    path.write_bytes(pickle.dumps([first, second], 0))
    done = evaluate(Oracle(TITLES), "refcoco", tmp_path / "data", "--protocol", "default", "--images", 0)
    assert done.exit_code == 0, done.output
    data = read_refer("refcoco", tmp_path / "data")
    masks = [data.images[0].mask(ref["ann_id"]) for ref in (first, second)]
    found = numbers(tmp_path / "out")
    assert found["mIoU"] == pytest.approx(0.5)
    assert found["pooled IoU"] == pytest.approx(masks[1].sum() / (masks[0].sum() + 2 * masks[1].sum()))
    assert "1 expressions without words are left out." in done.stdout


def test_precisions_agree_with_pycocotools(tmp_path: Path) -> None:
    """Overlaps by pycocotools, counted as the field does: an expression is right where its IoU is at least X."""
    write_refer(tmp_path)
    data = read_refer("refcoco", tmp_path)
    rng = np.random.default_rng(0)
    tally, overlaps = Referring(data, Options()).tally(), []
    for number, image in enumerate(data.images):
        counts = []
        for place, expression in enumerate(image.expressions):
            truth = image.mask(expression.annotation)
            found = truth & (rng.random(truth.shape) > rng.random() ** 2)
            if number == place == 0:  # exactly half: on the bound
                found = truth & (np.cumsum(truth).reshape(truth.shape) * 2 <= truth.sum())
            pair = [coco_masks.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in (found, truth)]
            overlaps.append(float(coco_masks.iou(pair[:1], pair[1:], [0])[0, 0]))
            one = mask_counts(found, truth)
            counts.append([expression.id, one.hit, one.wrong, one.missed])
        tally.add({"id": image.sample.id, "expressions": counts, "pixels": 768})
    found_numbers = tally.result().numbers
    assert overlaps[0] == 0.5
    assert len({found_numbers[f"Precision@{x}"] for x in (0.5, 0.6, 0.7, 0.8, 0.9)}) > 2
    for least in (0.5, 0.6, 0.7, 0.8, 0.9):
        right = sum(iou >= least for iou in overlaps)
        assert found_numbers[f"Precision@{least}"] == pytest.approx(right / len(overlaps))


def test_other_places_of_the_files(tmp_path: Path) -> None:
    write_refer(tmp_path, "refcocog", "google", ("val",))
    expected = [image.sample for image in read_refer("refcocog", tmp_path, by="google").images]
    assert [p.sample for p in read_refer("refcocog", tmp_path / "refcocog", by="google").images] == expected
    (tmp_path / "images/mscoco/images/train2014").rename(tmp_path / "train2014")
    (tmp_path / "refcocog" / "annotations").mkdir()
    for file in ("instances.json", "refs(google).p"):
        (tmp_path / "refcocog" / file).rename(tmp_path / "refcocog" / "annotations" / file)
    moved = read_refer("refcocog", tmp_path, by="google").images
    assert [image.sample.image.parent for image in moved] == [tmp_path / "train2014"] * 2


def test_splits_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    write_refer(tmp_path)
    for arguments, sentence in (
        ({"split": "test"}, "choose from val, testA, testB"),
        ({"by": "umd"}, "choose from unc, google"),
        ({"split": "testB"}, "no expression of the split testB"),
        ({"by": "google"}, r"holds no refcoco/refs\(google\)\.p"),
    ):
        with pytest.raises(InputError, match=sentence):
            read_refer("refcoco", tmp_path, **arguments)
    with pytest.raises(InputError, match=r"holds no refcoco\+"):
        read_refer("refcoco+", tmp_path)


def test_a_hostile_pickle_ends_with_a_sentence(tmp_path: Path, evaluate: Eval) -> None:
    write_refer(tmp_path / "data")
    trace = tmp_path / "trace"
    path = tmp_path / "data" / "refcoco" / "refs(unc).p"
    path.write_bytes(pickle.dumps([Runs(os.system, f"touch {trace}")]))
    done = evaluate(Oracle(TITLES), "refcoco", tmp_path / "data")
    assert done.exit_code == 2
    assert "could run code" in done.stderr
    assert not trace.exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "content",
    [7, {}, [7], [{}], ["val"], [{"split": "val"}], [{"split": "val", "image_id": "x", "ann_id": 1, "sentences": []}],
     [{"split": "val", "image_id": 100, "ann_id": 1, "sentences": [{"sent_id": 1, "sent": None}]}],
     [{"split": "val", "image_id": 100, "ann_id": 1, "sentences": 5}]],
)  # fmt: skip
def test_expressions_of_another_shape_are_refused(content: Any, tmp_path: Path) -> None:
    write_refer(tmp_path)
    (tmp_path / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps(content, 2))
    with pytest.raises(InputError, match=r"download it again|download the file again"):
        read_refer("refcoco", tmp_path)


def test_instances_that_do_not_belong_are_refused(tmp_path: Path) -> None:
    write_refer(tmp_path)
    path = tmp_path / "refcoco" / "instances.json"
    whole = json.loads(path.read_text())
    broken: list[tuple[Any, str]] = [
        ({**whole, "images": whole["images"][1:]}, "does not list image 100"),
        ({**whole, "annotations": whole["annotations"][1:]}, "no object 1 in image 100"),
        ({**whole, "images": [{**i, "file_name": "../a.png"} for i in whole["images"]]}, "leads out of its folder"),
        ({**whole, "images": [{**i, "file_name": "a.png"} for i in whole["images"]]}, "none of the 2 listed"),
        ({**whole, "images": [{"id": 100}]}, "lacks what COCO's instances have"),
        ({"images": []}, 'has no "annotations"'),
    ]
    for content, sentence in broken:
        path.write_text(json.dumps(content))
        with pytest.raises(InputError, match=sentence):
            read_refer("refcoco", tmp_path)


@pytest.mark.parametrize(
    "damage",
    [None, "x", [[1, 2, 3]], [["a", "b"]], [[float("nan")] * 6], {}, {"counts": [1]}, {"counts": "a"},
     {"counts": [-5, 10**30]}, [], [[4, 4], [20, 4], [20, 20]], [[200, 200, 300, 200, 300, 300]],
     {"counts": [0, 768], "size": [32, 24]}, {"counts": [768], "size": [24, 32]}],
)  # fmt: skip
def test_a_damaged_mask_or_image_is_skipped_and_named(damage: Any, tmp_path: Path, evaluate: Eval) -> None:
    write_refer(tmp_path / "data")
    path = tmp_path / "data" / "refcoco" / "instances.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["segmentation"] = damage
    path.write_text(json.dumps(content))
    done = evaluate(Oracle(TITLES), "refcoco", tmp_path / "data", "--protocol", "default", "--images", 0)
    assert done.exit_code == 1, done.output
    assert "skipped COCO_train2014_000000000000.png: object 1" in done.stderr
    assert numbers(tmp_path / "out")["mIoU"] == 1.0


def test_a_image_of_another_size_is_skipped(tmp_path: Path, evaluate: Eval) -> None:
    write_refer(tmp_path / "data")
    image = tmp_path / "data" / "images/mscoco/images/train2014" / "COCO_train2014_000000000001.png"
    Image.open(image).resize((30, 20)).save(image)
    done = evaluate(Oracle(TITLES), "refcoco", tmp_path / "data", "--protocol", "default", "--images", 0)
    assert done.exit_code == 1
    assert "is 30x20 pixels, its annotation says 32x24" in done.stderr


def test_real_photos_through_mini(shared: Path, tmp_path: Path) -> None:
    """COCO's val photos under RefCOCO's names, each object called by its category."""
    write_from_coco(shared / "data" / "coco", tmp_path / "data", images=1)
    arguments = ["eval", "refcoco", "--data", str(tmp_path / "data"), "--model", "mini", "--protocol", "default"]
    done = CliRunner().invoke(cli, [*arguments, "--out", str(tmp_path / "out"), "--images", "0"])
    assert done.exit_code == 0, done.output
    found = numbers(tmp_path / "out")
    assert 0 < found["mIoU"] < 1
    assert 0 < found["whole image IoU"] < 1


def write_from_coco(coco: Path, root: Path, images: int) -> None:
    """The first photos of the sample as a RefCOCO set; an expression is "the" and the object's category."""
    content = json.loads((coco / "annotations" / "instances_val2017.json").read_text())
    titles = {c["id"]: c["name"] for c in content["categories"]}
    chosen = content["images"][:images]
    numbers = {image["id"] for image in chosen}
    objects = [a for a in content["annotations"] if a["image_id"] in numbers and not a["iscrowd"]]
    refs = [
        {
            "split": "val",
            "image_id": a["image_id"],
            "ann_id": a["id"],
            "sentences": [{"sent_id": number, "sent": f"the {titles[a['category_id']]}"}],
        }
        for number, a in enumerate(objects)
    ]
    (root / "refcoco").mkdir(parents=True)
    (root / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps(refs, 2))
    (root / "refcoco" / "instances.json").write_text(json.dumps({"images": chosen, "annotations": objects}))
    (root / "train2014").symlink_to((coco / "images" / "val2017").resolve())
