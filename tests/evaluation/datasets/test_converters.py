"""`ttd data prepare`: label maps from small annotation files in the data sets' own forms, against plain tables."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from scipy.io import savemat

from tests.evaluation.layouts import CITYSCAPES_IDS
from tests.evaluation.oracle import save
from ttd.cli import cli
from ttd.errors import InputError
from ttd.evaluation.datasets.classes import read_classes, read_numbers
from ttd.evaluation.datasets.labels import read_labels
from ttd.evaluation.registry import Choices, open_benchmark
from ttd.runs import engine as runs

# The numbers of the 59 classes among the 459 as the field's converters list them (mmsegmentation, pascal_context.py).
CONTEXT = [
    2, 259, 260, 415, 324, 9, 258, 144, 18, 19, 22, 23, 397, 25, 284, 158, 159, 416, 33, 162, 420, 454, 295, 296, 427,
    44, 45, 46, 308, 59, 440, 445, 31, 232, 65, 354, 424, 68, 326, 72, 458, 34, 207, 80, 355, 85, 347, 220, 349, 360,
    98, 187, 104, 105, 366, 189, 368, 113, 115,
]  # fmt: skip


def prepare(name: str, annotations: Path, out: Path, *more: object) -> Result:
    arguments = ["data", "prepare", name, "--annotations", annotations, "--out", out, *more]
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments], prog_name="ttd")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def mat(path: Path, values: Any, **more: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"LabelMap": values}, **more)


def test_stuff_maps_skip_the_gaps_of_cocos_numbers(tmp_path: Path) -> None:
    ids = [number for number in range(182) if number + 1 not in {12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91}]
    values = np.array([[*ids, 255]], np.uint8)
    save(values, tmp_path / "stuffthingmaps" / "val2017" / "1.png")
    save(np.array([[11]], np.uint8), tmp_path / "stuffthingmaps" / "val2017" / "2.png")  # no such category
    done = prepare("coco-stuff", tmp_path / "stuffthingmaps" / "val2017", tmp_path / "annotations" / "val2017")
    assert done.exit_code == 1
    assert "2.png" in done.stderr
    assert "label 11" in done.stderr
    made = read_labels(tmp_path / "annotations" / "val2017" / "1_labelTrainIds.png")
    assert made.tolist() == [[*range(171), 255]]
    assert not (tmp_path / "annotations" / "val2017" / "2_labelTrainIds.png").exists()


def frame(labels: list[tuple[str, list[list[int]]]], size: tuple[int, int] = (12, 8), **more: Any) -> dict[str, Any]:
    objects = [{"label": label, "polygon": polygon} for label, polygon in labels]
    return {"imgWidth": size[0], "imgHeight": size[1], "objects": objects, **more}


def box(left: int, top: int, right: int, bottom: int) -> list[list[int]]:
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def test_polygons_are_drawn_in_order_and_plates_and_deleted_things_are_not(tmp_path: Path) -> None:
    content = frame(
        [
            ("road", box(0, 4, 11, 7)),
            ("cargroup", box(2, 3, 6, 6)),
            ("license plate", box(3, 4, 4, 5)),
            ("traffic sign", box(6, 0, 8, 3)),
            ("out of roi", box(9, 0, 11, 7)),
        ]
    )
    content["objects"].append({"label": "person", "polygon": box(0, 0, 11, 7), "deleted": 1})
    path = tmp_path / "gtFine" / "val" / "bonn" / "bonn_0_1_gtFine_polygons.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))
    assert prepare("cityscapes", tmp_path / "gtFine" / "val", tmp_path / "made").exit_code == 0
    expected = np.full((8, 12), 255)
    expected[4:8, :] = 0
    expected[3:7, 2:7] = 13
    expected[0:4, 6:9] = 7
    expected[:, 9:] = 255
    made = read_labels(tmp_path / "made" / "bonn" / "bonn_0_1_gtFine_labelTrainIds.png")
    assert np.array_equal(made, expected)


def test_cityscapes_ids_and_a_benchmark_that_reads_what_was_made(tmp_path: Path) -> None:
    values = np.arange(34, dtype=np.uint8).reshape(2, 17)
    folder = tmp_path / "gtFine" / "val" / "bonn"
    save(values, folder / "a_gtFine_labelIds.png")
    (folder / "a_gtFine_polygons.json").write_text("not read: the ids are there")
    (folder / "a_gtFine_color.png").write_bytes(b"")
    save(np.zeros((2, 17, 3), np.uint8), tmp_path / "leftImg8bit" / "val" / "bonn" / "a_leftImg8bit.png")
    done = prepare("cityscapes", tmp_path / "gtFine" / "val", tmp_path / "gtFine" / "val")
    assert done.exit_code == 0, done.output
    made = read_labels(folder / "a_gtFine_labelTrainIds.png").ravel()
    assert [int(made[number]) for number in CITYSCAPES_IDS] == list(range(19))
    assert (np.delete(made, CITYSCAPES_IDS) == 255).all()
    opened = open_benchmark("cityscapes", tmp_path, Choices("default"))
    assert opened.samples[0].truth == (folder / "a_gtFine_labelTrainIds.png",)


def test_the_cityscapes_sample(shared: Path, tmp_path: Path) -> None:
    source = shared / "data/layouts/cityscapes/gtFine"
    assert prepare("cityscapes", source, tmp_path).exit_code == 0
    (made,) = tmp_path.iterdir()
    # The sample's own two files were shrunk separately and differ at a few edges.
    assert (read_labels(made) == read_labels(source / made.name)).mean() > 0.995


def test_context_maps_have_the_fields_classes(tmp_path: Path) -> None:
    values = np.arange(460, dtype=np.uint16).reshape(20, 23)
    expected = np.zeros(460, int)
    for number, original in enumerate(sorted(CONTEXT), 1):
        expected[original] = number
    mat(tmp_path / "trainval" / "2008_000001.mat", values, do_compression=True)
    mat(tmp_path / "trainval" / "2008_000002.mat", values.astype(float))
    save_16_bits(values, tmp_path / "png" / "2008_000003.png")
    home = tmp_path / "VOC2010"
    out = home / "SegmentationClassContext"
    assert prepare("context59", tmp_path / "trainval", out).exit_code == 0
    assert prepare("context60", tmp_path / "png", out).exit_code == 0
    assert len(list(out.iterdir())) == 3
    for path in out.iterdir():
        assert np.array_equal(read_labels(path).ravel(), expected)
    # The official half is VOC 2010's; the field's own list comes first where it is there.
    main, field = home / "ImageSets/Main/val.txt", home / "ImageSets/SegmentationContext/val.txt"
    save(np.zeros((20, 23, 3), np.uint8), home / "JPEGImages" / "2008_000001.png")
    for path, ids in ((main, "2008_000001\n2008_000002\n"), (field, "2008_000001\n")):
        path.parent.mkdir(parents=True)
        path.write_text(ids)
        opened = open_benchmark("context59", tmp_path, Choices("default"))
        assert [sample.id for sample in opened.samples] == ids.split()


def save_16_bits(values: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint16)).save(path)


def test_other_label_images_need_the_list_of_their_numbers(tmp_path: Path) -> None:
    # The page's list of 59: another order, and three other names.
    titles = [title.replace(" ", "") for title in read_classes("context59").titles][::-1]
    others = {"table": "diningtable", "bedclothes": "bedcloth", "cloth": "clothes"}
    lines = [f"{number}: {others.get(title, title)}" for number, title in enumerate(titles, 1)]
    (tmp_path / "59_labels.txt").write_text("\n".join(lines))
    save(np.arange(60, dtype=np.uint8).reshape(6, 10), tmp_path / "png" / "a.png")
    arguments = (tmp_path / "png", tmp_path / "out", "--labels", tmp_path / "59_labels.txt")
    assert prepare("context59", *arguments).exit_code == 0
    assert read_labels(tmp_path / "out" / "a.png").ravel().tolist() == [0, *range(59, 0, -1)]
    (tmp_path / "59_labels.txt").write_text("\n".join(lines[1:]))
    short = prepare("context59", *arguments)
    assert short.exit_code == 2
    assert "'wood'" in short.stderr


class Boom:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("ran"),))


def test_damaged_and_hostile_matrices_are_named_and_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "trainval"
    good = np.full((4, 5), 2, np.uint16)
    mat(source / "0 good.mat", good)
    mat(source / "1 cut.mat", good)
    (source / "1 cut.mat").write_bytes((source / "1 cut.mat").read_bytes()[:170])
    (source / "2 pickle.mat").write_bytes(pickle.dumps(Boom()))
    (source / "3 hdf5.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF" * 40)
    savemat(source / "4 other.mat", {"Labels": good})
    mat(source / "5 cells.mat", np.array([[good, "text"]], object))
    mat(source / "6 stray.mat", np.full((4, 5), 460, np.uint16))
    mat(source / "7 negative.mat", np.full((4, 5), -1, np.int16))
    mat(source / "8 halves.mat", np.full((4, 5), 0.5))
    (source / "9 empty.mat").write_bytes(b"")
    done = prepare("context59", source, tmp_path / "out")
    assert done.exit_code == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["0 good.png"]
    for number, words in enumerate(
        ("damaged", "damaged", "7.2", "no matrix", "no matrix", "460", "-1", "whole", "damaged"), 1
    ):
        (line,) = [line for line in done.stderr.splitlines() if line.startswith(f"  skipped {number} ")]
        assert words in line
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        json.dumps({"objects": []}),
        json.dumps(frame([("spaceship", box(0, 0, 1, 1))])),
        json.dumps(frame([("road", [[0, "a"]])])),
        json.dumps(frame([("road", box(0, 0, 1, 1))], (10**9, 10**9))),
        json.dumps(frame([("road", box(0, 0, 1, 1))], (0, 4))),
        json.dumps({"imgWidth": 3, "imgHeight": 3, "objects": [7]}),
    ],
)
def test_damaged_polygons_are_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a_gtFine_polygons.json").write_text(content)
    done = prepare("cityscapes", tmp_path / "in", tmp_path / "out")
    assert done.exit_code == 1
    assert "a_gtFine_polygons.json" in done.stderr
    assert not list((tmp_path / "out").iterdir())


def test_a_stopped_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        mat(tmp_path / "in" / f"{name}.mat", np.full((4, 5), 2, np.uint16))
    original = runs.whole_file

    def stop_at_b(path: Path) -> Any:
        if path.name == "b.png":
            raise KeyboardInterrupt
        return original(path)

    monkeypatch.setattr(runs, "whole_file", stop_at_b)
    assert prepare("context59", tmp_path / "in", tmp_path / "out").exit_code == 130
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]
    before = (tmp_path / "out" / "a.png").stat().st_mtime_ns
    monkeypatch.setattr(runs, "whole_file", original)
    again = prepare("context59", tmp_path / "in", tmp_path / "out")
    assert again.exit_code == 0
    assert "3 label maps" in again.stdout
    assert "2 of them made now" in again.stdout
    assert (tmp_path / "out" / "a.png").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("name", "source", "words"),
    [
        ("coco-stuff", "nothing", "not a folder"),
        ("coco-stuff", "", "holds no *.png"),
        ("cityscapes", "", "gtFine"),
        ("context59", "", ".mat files"),
        ("coco-object", "nothing.json", "does not exist"),
    ],
)
def test_wrong_places_are_one_sentence(name: str, source: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    done = prepare(name, tmp_path / "in" / source, tmp_path / "out")
    assert done.exit_code == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_labels_are_for_context_alone(tmp_path: Path) -> None:
    done = prepare("coco-stuff", tmp_path, tmp_path / "out", "--labels", tmp_path / "a.txt")
    assert done.exit_code == 2
    assert "leave --labels out" in done.stderr


@pytest.mark.parametrize("text", ["", "# nothing\n", "one: cat\n", "1 cat\n", "1:\n"])
def test_unusable_number_lists_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "numbers.txt").write_text(text)
    with pytest.raises(InputError):
        read_numbers(tmp_path / "numbers.txt")


def test_the_packages_number_lists() -> None:
    assert sorted(read_numbers("context459")) == list(range(1, 460))
    assert sorted(read_numbers("cityscapes")) == list(range(-1, 34))
    names = {name: number for number, name in read_numbers("cityscapes").items()}
    assert [names[title] for title in read_classes("cityscapes").titles] == CITYSCAPES_IDS
