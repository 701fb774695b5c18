"""Class-wise mAP on data sets that a test writes: layouts, an oracle, a constant encoder, damage."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sklearn.metrics import average_precision_score
from torch.nn.functional import normalize

from tests.evaluation.conftest import Eval
from tests.evaluation.oracle import Oracle, blocks, painted, save
from tests.tolerance import assert_close
from ttd.cli import cli
from ttd.encoders.features import ImageFeatures
from ttd.errors import InputError
from ttd.evaluation.datasets.classes import read_classes
from ttd.evaluation.datasets.multilabel import read_coco, read_nus_wide
from ttd.evaluation.registry import Choices, open_benchmark
from ttd.evaluation.tasks.multilabel import without_common, without_empty

SCORES = ("s_pixel", "s_image", "CLIP", "CLIP Surgery", "CLIP Surgery, label set")
COCO = read_classes("coco-80").titles
NUS = read_classes("nus-wide").titles
CROWD, ALONE = 1, 0


class Constant(Oracle):
    """Sees the same in every image."""

    def encode_image(self, pixels: torch.Tensor) -> ImageFeatures:
        features = super().encode_image(pixels)
        dense = normalize(torch.ones_like(features.dense), dim=1)
        return ImageFeatures(dense, normalize(torch.ones_like(features.pooled), dim=-1), *_sizes(features))


def _sizes(features: ImageFeatures) -> tuple[Any, ...]:
    return features.size, features.offset, features.padded


def shown_images(root: Path, names: list[str], classes: int, seed: int = 5) -> np.ndarray:
    """Images of three classes each out of the first ten, under their names; the truth bool [S,K]."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((len(names), classes), bool)
    for number, name in enumerate(names):
        there = rng.permutation(10)[:3]
        labels = blocks(rng, there.tolist())
        labels[:8, 0], labels[:8, 8], labels[:8, 16] = there
        save(painted(labels, classes), root / name)
        truth[number, there] = True
    return truth


def write_coco(root: Path, count: int = 6, split: str = "val2017", bare: bool = False) -> np.ndarray:
    names = [f"{number:012d}.png" for number in range(count)]
    truth = shown_images(root / split, names, len(COCO))
    if bare:
        truth[0] = False
    annotations = [
        {"image_id": int(image), "category_id": 2 * int(k) + 1, "iscrowd": CROWD if k % 2 else ALONE}
        for image, k in np.argwhere(truth)
        for _ in range(2)
    ]
    content = {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(names)],
        "annotations": annotations,
        "categories": [{"id": 2 * k + 1, "name": name} for k, name in enumerate(COCO)],
    }
    path = root / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return truth


def write_nus(root: Path, labels: str = "Groundtruth/TestLabels", count: int = 5) -> np.ndarray:
    names = [f"actor/{number:04d}.png" for number in range(count)]
    truth = shown_images(root / "Flickr", names, len(NUS))
    (root / labels).mkdir(parents=True)
    for k, concept in enumerate(NUS):
        (root / labels / f"Labels_{concept}_Test.txt").write_text("".join(f"{int(v)}\r\n" for v in truth[:, k]))
    (root / "ImageList").mkdir()
    (root / "ImageList" / "TestImagelist.txt").write_text("".join(n.replace("/", "\\") + "\r\n" for n in names))
    (root / "Concepts81.txt").write_text("\n".join(NUS) + "\n")
    return truth


def results(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "results.json").read_text())
    return found


def test_an_oracle_scores_100_on_coco_and_a_constant_score_the_share_of_positives(
    tmp_path: Path, evaluate: Eval
) -> None:
    truth = write_coco(tmp_path / "coco")
    done = evaluate(Oracle(COCO), "coco-80", tmp_path / "coco", "--protocol", "default")
    assert done.exit_code == 0, done.output
    found = results(tmp_path / "out")
    for score in SCORES:
        assert found["numbers"][f"{score}: mAP"] == 1.0, score
    share = truth.mean(0)[truth.any(0)].mean()
    assert found["numbers"]["constant: mAP"] == pytest.approx(share)
    absent = int((~truth.any(0)).sum())
    assert any(note.startswith(f"{absent} classes that no image shows") for note in found["notes"])
    assert any("6 of 5000 or 40504" in note for note in found["notes"])
    assert re.search(r"^CLIP Surgery +oracle +100\.0", done.stdout, re.M)
    with (tmp_path / "out" / "per_class.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["images"]) for row in rows] == truth.sum(0).tolist()
    assert {row["AP CLIP"] for row in rows if row["images"] == "0"} == {""}


def test_reports_show_the_precision_of_every_class(tmp_path: Path, evaluate: Eval) -> None:
    write_coco(tmp_path / "coco")
    for encoder, out in ((Oracle(COCO), "a"), (Constant(COCO), "b")):
        arguments = ("coco-80", tmp_path / "coco", "--protocol", "default", "--out", tmp_path / out)
        assert evaluate(encoder, *arguments).exit_code == 0
    folders = [str(tmp_path / out) for out in "ab"]
    done = CliRunner().invoke(cli, ["report", *folders, "--out", str(tmp_path / "report")])
    assert done.exit_code == 0, done.output
    page = (tmp_path / "report" / "report.md").read_text()
    assert "## Average precision (AP) of each class" in page
    assert "oracle, a: AP s_pixel" in page
    assert re.search(r"\| person \| 100\.0 \|", page)


def test_a_page_shows_the_best_classes_of_a_image(tmp_path: Path, evaluate: Eval) -> None:
    truth = write_coco(tmp_path / "coco", 4)
    done = evaluate(Oracle(COCO), "coco-80", tmp_path / "coco", "--protocol", "default", "--images", "2")
    assert done.exit_code == 0, done.output
    page = (tmp_path / "out" / "images.html").read_text("utf-8")
    assert "best by AP" in page
    shown = [COCO[k] for k in np.flatnonzero(truth[0])]
    assert all(title in page for title in shown)


def test_quality_is_the_average_precision_of_one_image(tmp_path: Path) -> None:
    truth = write_coco(tmp_path, 2)
    benchmark = open_benchmark("coco-80", tmp_path, Choices(protocol="default"))
    scores = np.random.default_rng(0).normal(size=len(COCO)).round(1)
    record = {"true": np.flatnonzero(truth[1]).tolist(), "scores": {"s_pixel": scores.tolist()}}
    assert benchmark.quality(record)["AP"] == pytest.approx(average_precision_score(truth[1], scores))
    words = benchmark.show(None, 1, record).words[0].words  # type: ignore[arg-type]
    best = set(np.argsort(-scores, kind="stable")[:3].tolist())
    expected = {COCO[k]: "right" if truth[1, k] else "wrong" for k in best}
    expected |= {COCO[k]: "missed" for k in np.flatnonzero(truth[1]) if k not in best}
    assert dict(words) == expected


def test_a_constant_encoder_scores_what_arithmetic_says_by_every_score(tmp_path: Path, evaluate: Eval) -> None:
    truth = write_coco(tmp_path / "coco", bare=True)
    assert evaluate(Constant(COCO), "coco-80", tmp_path / "coco", "--protocol", "default").exit_code == 0
    found = results(tmp_path / "out")
    share = truth.mean(0)[truth.any(0)].mean()
    for score in (*SCORES, "constant"):
        assert found["numbers"][f"{score}: mAP"] == pytest.approx(share), score
    assert any(note.startswith("1 of 6 images show none") for note in found["notes"])


@pytest.mark.parametrize("labels", ["Groundtruth/TestLabels", "Groundtruth/TrainTestLabels", "TrainTestLabels"])
def test_nus_wide_in_its_original_layout(labels: str, tmp_path: Path, evaluate: Eval) -> None:
    truth = write_nus(tmp_path / "nus", labels)
    data = read_nus_wide(tmp_path / "nus")
    np.testing.assert_array_equal(data.truth, truth)
    if labels == "TrainTestLabels":
        done = evaluate(Oracle(NUS), "nus-wide", tmp_path / "nus", "--protocol", "default")
        assert done.exit_code == 0, done.output
        assert {results(tmp_path / "out")["numbers"][f"{score}: mAP"] for score in SCORES} == {1.0}
        assert "(8 published rows under other protocols: ttd report shows them)" in done.stdout
        page = CliRunner().invoke(cli, ["report", str(tmp_path / "out"), "--markdown"]).stdout
        assert re.search(r"TCL \+ TTD.* 42\.6 .*TTD \(ECCV 2024\), Table 10", page)
        assert "5 of 107859 images" in done.stdout


def test_nus_wide_as_a_table(tmp_path: Path) -> None:
    truth = shown_images(tmp_path / "images", ["a.png", "b.png"], len(NUS))
    rows = ["filepath,label,split_name", "images/z.png,\"['sky']\",train"]
    for name, shown in zip(["a.png", "b.png"], truth, strict=True):
        rows.append(f'images/{name},"{[NUS[k] for k in np.flatnonzero(shown)]}",val')
    (tmp_path / "nus_wid_data.csv").write_text("\n".join(rows) + "\n")
    data = read_nus_wide(tmp_path)
    np.testing.assert_array_equal(data.truth, truth)
    assert [sample.id for sample in data.samples] == ["images/a.png", "images/b.png"]
    (tmp_path / "nus_wid_data.csv").write_text("images/a.png,\"['sky', 'bird']\",val\n")
    with pytest.raises(InputError, match="line 1: 'bird' is not one"):
        read_nus_wide(tmp_path)
    (tmp_path / "nus_wid_data.csv").write_text("images/a.png\n")
    with pytest.raises(InputError, match="line 1"):
        read_nus_wide(tmp_path)


def test_damaged_lists_of_nus_wide_are_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no NUS-WIDE"):
        read_nus_wide(tmp_path)
    write_nus(tmp_path)
    sky = tmp_path / "Groundtruth" / "TestLabels" / "Labels_sky_Test.txt"
    for content, sentence in (("0\n1\n", "2 lines for 5 images"), ("0\n1\n0\n1\n2\n", "holds '2'")):
        sky.write_text(content)
        with pytest.raises(InputError, match=sentence):
            read_nus_wide(tmp_path)
    sky.unlink()
    with pytest.raises(InputError, match=r"Labels_sky_Test\.txt does not exist"):
        read_nus_wide(tmp_path)
    (tmp_path / "Concepts81.txt").write_text("sky\n")
    with pytest.raises(InputError, match="other concepts"):
        read_nus_wide(tmp_path)


def test_a_list_of_images_stays_inside_the_data_set(tmp_path: Path) -> None:
    write_nus(tmp_path / "nus", count=1)
    listed = tmp_path / "nus" / "ImageList" / "TestImagelist.txt"
    listed.write_text("nowhere.png\n")
    with pytest.raises(InputError, match="none of the 1 listed images"):
        read_nus_wide(tmp_path / "nus")
    save(np.zeros((8, 8, 3), np.uint8), tmp_path / "secret.png")
    listed.write_text("..\\..\\secret.png\n")
    with pytest.raises(InputError, match=r"TestImagelist\.txt: the image .* leads out of its folder"):
        read_nus_wide(tmp_path / "nus")


def test_damaged_annotations_of_coco_are_refused_in_a_sentence(tmp_path: Path, evaluate: Eval) -> None:
    with pytest.raises(InputError, match="holds no annotations"):
        read_coco(tmp_path)
    write_coco(tmp_path)
    write_coco(tmp_path, split="val2014", count=3)
    with pytest.raises(InputError, match="--split"):
        read_coco(tmp_path)
    assert len(read_coco(tmp_path, "val2014").samples) == 3
    with pytest.raises(InputError, match="no split 'test'"):
        read_coco(tmp_path, "test")
    path = tmp_path / "annotations" / "instances_val2014.json"
    content = json.loads(path.read_text())
    for key, value in (("category_id", 1000), ("image_id", "x"), ("image_id", None)):
        broken = {**content, "annotations": [{**content["annotations"][0], key: value}]}
        path.write_text(json.dumps(broken))
        with pytest.raises(InputError, match=r"does not fit COCO's 80 objects|image_id. is not a whole number"):
            read_coco(tmp_path, "val2014")
    path.write_text("{")
    done = evaluate(Oracle(COCO), "coco-80", tmp_path, "--split", "val2014")
    assert done.exit_code == 2
    assert "not JSON" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_image_that_cannot_be_read_is_skipped_and_a_run_goes_on(tmp_path: Path, evaluate: Eval) -> None:
    truth = write_coco(tmp_path / "coco")
    (tmp_path / "coco" / "val2017" / f"{1:012d}.png").write_bytes(b"no image")
    oracle = Oracle(COCO)
    arguments = ("coco-80", tmp_path / "coco", "--size", 24, "--protocol", "paper")
    assert evaluate(oracle, *arguments, "--limit", 3).exit_code == 1
    seen = oracle.images_seen
    done = evaluate(oracle, *arguments)
    assert done.exit_code == 1
    assert oracle.images_seen - seen == 3 * 2  # each mirrored, too
    found = results(tmp_path / "out")
    assert [item["id"] for item in found["skipped"]] == [f"{1:012d}.png"]
    left = np.delete(truth, 1, axis=0)
    assert found["numbers"]["constant: mAP"] == pytest.approx(left.mean(0)[left.any(0)].mean())


def test_synonyms_take_the_best_name_of_a_class(tmp_path: Path, evaluate: Eval) -> None:
    write_coco(tmp_path / "coco")
    titles = [{"person": "woman", "airplane": "plane"}.get(title, title) for title in COCO]
    arguments = ("coco-80", tmp_path / "coco", "--protocol", "default")
    assert evaluate(Oracle(titles), *arguments, "--out", tmp_path / "plain").exit_code == 0
    assert evaluate(Oracle(titles), *arguments, "--synonyms", "--out", tmp_path / "all").exit_code == 0
    assert results(tmp_path / "plain")["numbers"]["s_pixel: mAP"] < 1
    assert results(tmp_path / "all")["numbers"]["s_pixel: mAP"] == 1.0


def test_splits_are_refused_where_there_are_none(tmp_path: Path, evaluate: Eval) -> None:
    write_nus(tmp_path)
    done = evaluate(Oracle(NUS), "nus-wide", tmp_path, "--split", "val")
    assert done.exit_code == 2
    assert "--split does not apply to nus-wide: leave it out" in done.stderr


def test_surgery_by_channels() -> None:
    """The formula as it is published: products of every channel, summed at the end."""
    rng = np.random.default_rng(0)
    x, text, empty = (_unit(rng.normal(size=shape)) for shape in ((4, 8), (5, 8), (1, 8)))
    cosines = x @ text.T
    found = without_empty(cosines, (x @ empty.T)[:, 0])
    assert_close(found, x @ (text - empty).T, 2 * 8, scale=1, dtype=torch.float64)
    products = x[:, None, :] * text[None]  # (S, K, C)
    weights = np.exp(2 * cosines) / np.exp(2 * cosines).sum(1, keepdims=True)
    weights /= weights.mean(1, keepdims=True)
    products *= weights[:, :, None]
    expected = (products - products.mean(1, keepdims=True)).sum(-1)
    assert_close(without_common(cosines), expected, 2 * 8 + 2 * 5, scale=1, dtype=torch.float64)
    # Without a label set the order of one image's classes cannot change.
    np.testing.assert_array_equal(without_empty(cosines, np.ones(4)).argsort(1), cosines.argsort(1))


def _unit(values: np.ndarray) -> np.ndarray:
    return np.asarray(values / np.linalg.norm(values, axis=-1, keepdims=True))
