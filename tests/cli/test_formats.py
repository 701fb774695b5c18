"""The files and the JSON of `ttd tag`, `heatmap`, `mask` and `segment`, and of their results in Python."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from jsonschema import Draft202012Validator
from PIL import Image
from pycocotools import mask as coco

from tests.cli.conftest import one_sentence
from tests.cli.fake_model import FakeModel
from ttd.errors import InputError
from ttd.results import Segmentation, TaggedWord, Tagging

Run = Callable[..., Result]
SCHEMA = json.loads((Path(__file__).parents[2] / "docs/results.schema.json").read_text("utf-8"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("tag", "{image}", "a queue on the sea"),
        ("tag", "{image}", "--tags", "xylophone", "sea"),
        ("heatmap", "{image}", "sea", "a queue"),
        ("mask", "{image}", "a queue"),
        ("segment", "{image}", "--tags", "sea", "queue"),
    ],
)
def test_every_record_follows_the_schema(
    run: Run, photo: Path, model: FakeModel, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    check = Draft202012Validator({"$defs": SCHEMA["$defs"], "$ref": f"#/$defs/{arguments[0]}"})
    one = run(*[part.format(image=photo) for part in arguments], "--json", "--out", tmp_path / "one")
    check.validate(json.loads(one.stdout))
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.png").write_bytes(photo.read_bytes())
    (folder / "a.txt").write_text("a queue on the sea")
    many = [part.format(image=folder) for part in arguments]
    done = run(*(many[:2] if arguments[0] == "mask" else many), "--out", tmp_path / "many")
    assert done.exit_code == 0, done.output
    (line,) = (tmp_path / "many/results.jsonl").read_text("utf-8").splitlines()
    check.validate(json.loads(line))


def test_the_schema_refuses_what_is_not_documented() -> None:
    wrong: dict[str, Any] = {"image": "a.png", "model": "mini", "caption": "a", "selected": [], "colour": 1}
    assert not Draft202012Validator(SCHEMA).is_valid(wrong)


def test_masks_as_run_lengths(run: Run, photo: Path, model: FakeModel, tmp_path: Path) -> None:
    done = run("mask", photo, "a queue", "--format", "png, coco-rle", "--out", tmp_path / "m.png", "--json")
    files = [Path(name) for name in json.loads(done.stdout)["files"]]
    assert [path.name for path in files] == ["m.png", "m-mask.png", "m.coco.json"]
    (annotation,) = json.loads(files[2].read_text())
    mask = np.array(Image.open(files[1])) > 0
    assert np.array_equal(coco.decode(annotation["segmentation"]), mask)
    assert (annotation["area"], annotation["caption"], annotation["image_id"]) == (mask.sum(), "a queue", photo.name)


def test_labels_as_run_lengths_without_images(run: Run, photo: Path, model: FakeModel, tmp_path: Path) -> None:
    run("segment", photo, "--tags", "a", "b", "--format", "coco-rle", "--out", tmp_path)
    (path,) = tmp_path.glob("*.json")
    assert not list(tmp_path.glob("*-labels.png"))
    (annotation,) = json.loads(path.read_text())
    assert (annotation["category"], annotation["category_id"]) == ("a", 1)
    dark = np.asarray(Image.open(photo).convert("L")) < 127
    assert np.array_equal(coco.decode(annotation["segmentation"]) > 0, dark)


def test_maps_as_arrays(run: Run, photo: Path, model: FakeModel, tmp_path: Path) -> None:
    run("heatmap", photo, "sea", "a queue", "--format", "npz", "--out", tmp_path / "out")
    with np.load(tmp_path / "out" / f"{photo.stem}.npz", allow_pickle=False) as found:
        assert found["texts"].tolist() == ["sea", "a queue"]
        with Image.open(photo) as image:
            assert found["maps"].shape == (2, image.height, image.width)
        assert found["maps"].dtype == np.float16


def test_a_format_that_a_command_does_not_write(run: Run, photo: Path, model: FakeModel) -> None:
    assert "'npz' is not one of png, coco-rle" in one_sentence(run("mask", photo, "a", "--format", "npz"))


def test_results_save_themselves(tmp_path: Path) -> None:
    labels = np.zeros((4, 6), np.uint16)
    labels[1:3, 2:5] = 2
    found = Segmentation(labels, ("background", "a", "b"), 0.5)
    found.save(tmp_path / "labels.png")
    assert np.array_equal(np.array(Image.open(tmp_path / "labels.png")), labels)
    found.save(tmp_path / "labels.json")
    saved = json.loads((tmp_path / "labels.json").read_text())
    assert saved["shares"] == found.shares()
    (annotation,) = saved["annotations"]
    assert (annotation["category"], annotation["bbox"], annotation["area"]) == ("b", [2, 1, 3, 2], 6)
    assert found.plot(Image.new("RGB", (6, 4))).width > 6
    tagging = Tagging("a b", (TaggedWord("a", 0, 0, 1, 0.5, True), TaggedWord("b", 1, 2, 3, 0.1, False)))
    tagging.save(tmp_path / "tags.json")
    assert json.loads((tmp_path / "tags.json").read_text()) == tagging.to_dict()
    tagging.save(tmp_path / "tags.png")
    assert np.array_equal(np.array(Image.open(tmp_path / "tags.png")), np.array(tagging.plot()))
    for result in (found, tagging):
        with pytest.raises(InputError, match=r"json or \.png"):
            result.save(tmp_path / "x.gif")


def test_what_a_bug_report_needs(run: Run) -> None:
    lines = dict(line.split(None, 1) for line in run("--version", "--verbose").stdout.splitlines())
    assert {"ttd", "commit", "python", "system", "torch", "devices", "threads", "kernels", "transformers"} <= set(lines)
    assert run("--version").stdout == f"ttd, version {lines['ttd']}\n"
    assert run("--verbose").exit_code == 2
