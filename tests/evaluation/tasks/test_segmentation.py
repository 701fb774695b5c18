"""Every layout through `ttd eval` with an oracle that must get full marks; arithmetic; damage; real samples."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_jaccard_index

from tests.evaluation.conftest import Eval
from tests.evaluation.layouts import LAYOUTS, write
from tests.evaluation.oracle import Constant, Oracle, blocks, painted, save
from tests.tiny_models import tiny_clip
from ttd.errors import InputError
from ttd.evaluation.datasets.classes import ClassList, own_classes, read_classes
from ttd.evaluation.datasets.labels import apply_rule, cityscapes_ids, identity, read_labels
from ttd.evaluation.registry import Choices, open_benchmark
from ttd.evaluation.tasks.segmentation import ClassSegmentation
from ttd.inference.options import Options
from ttd.model import TTD


def results(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return content


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_oracle_gets_full_marks_in_every_layout(name: str, tmp_path: Path, evaluate: Eval) -> None:
    benchmark, truths, titles = write(tmp_path / "data", name)
    shown = int(name == "voc")
    done = evaluate(Oracle(titles), benchmark, tmp_path / "data", "--protocol", "default", "--images", shown)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "images.html").is_file() == bool(shown)
    found = results(tmp_path / "out")
    assert found["numbers"]["mIoU"] == 1.0
    assert found["numbers"]["pixel accuracy"] == 1.0
    assert (found["items"], found["measured"], found["skipped"]) == (3, 3, [])
    with (tmp_path / "out" / "per_class.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["class"] for row in rows] == titles
    true = [sum(int((truth == k).sum()) for truth in truths) for k in range(len(titles))]
    assert [int(row["true pixels"]) for row in rows] == true
    assert [row["IoU"] for row in rows] == ["1.0" if n else "" for n in true]


def test_small_windows_change_nothing_for_an_oracle(tmp_path: Path) -> None:
    benchmark, _, titles = write(tmp_path, "voc20", count=1)
    given = {"window": 16, "stride": 8}
    opened = open_benchmark(benchmark, tmp_path, Choices("default", given))
    tally = opened.tally()
    tally.add(opened.measure(TTD(Oracle(titles)), 0))
    assert tally.result().numbers["mIoU"] == 1.0


def test_a_constant_encoder_scores_what_arithmetic_says(tmp_path: Path, evaluate: Eval) -> None:
    rng = np.random.default_rng(0)
    truth = blocks(rng, [1, 2, 3])
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "classes.txt").write_text("background\ncat\ndog\nsky\n")
    save(painted(truth, 4), tmp_path / "data" / "images" / "a.png")
    save(truth, tmp_path / "data" / "labels" / "a.png")
    encoder = Constant(["background", "cat", "dog", "sky"])
    assert (
        evaluate(encoder, "folder", tmp_path / "data", "--protocol", "default", "--background", "none").exit_code == 0
    )
    numbers = results(tmp_path / "out")["numbers"]
    share = float((truth == 1).mean())  # every pixel becomes the first class that is asked for: cat
    assert numbers["pixel accuracy"] == pytest.approx(share)
    present = [k for k in (1, 2, 3) if (truth == k).any()]
    assert numbers["mIoU"] == pytest.approx(share / len(present))
    assert numbers["mFPR"] == pytest.approx((1 - share) / len(present))
    assert numbers["mFNR"] == pytest.approx((len(present) - 1) / len(present))
    # With a threshold an even map is background everywhere, and background is nowhere in the truth.
    again = evaluate(encoder, "folder", tmp_path / "data", "--protocol", "default", "--out", tmp_path / "cut")
    assert again.exit_code == 0
    assert results(tmp_path / "cut")["numbers"]["mIoU"] == 0.0


def test_known_classes_are_those_of_the_image(tmp_path: Path, evaluate: Eval) -> None:
    """An encoder for which every class is alike: the first that is asked for wins, so one class alone is right."""
    titles = ["background", "cat", "dog", "sky"]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "classes.txt").write_text("\n".join(titles) + "\n")
    truths = {"both": np.full((8, 8), 2, np.uint8), "one": np.full((8, 8), 3, np.uint8), "none": np.zeros((8, 8), int)}
    truths["both"][:2], truths["one"][0] = 3, 255
    for name, truth in truths.items():
        save(painted(np.minimum(truth, 3), 4), tmp_path / "data" / "images" / f"{name}.png")
        save(truth.astype(np.uint8), tmp_path / "data" / "labels" / f"{name}.png")
    more = ("--protocol", "default", "--background", "none", "--known-classes")
    assert evaluate(Constant(titles), "folder", tmp_path / "data", *more).exit_code == 0
    lines = (tmp_path / "out" / "measurements.jsonl").read_text().splitlines()
    found = {line["id"]: line["confusion"] for line in map(json.loads, lines)}
    assert found == {"both": [[2, 2, 48], [3, 2, 16]], "one": [[3, 3, 56]], "none": [[0, 0, 64]]}


def test_the_matrix_agrees_with_torchmetrics_over_images_of_different_sizes(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    classes = ClassList((("cat",), ("dog",), ("sky",)), background=False)
    pairs = []
    opened = ClassSegmentation("folder", tmp_path, [], classes, identity, Options())
    tally = opened.tally()
    for size in ((7, 9), (4, 30), (1, 1)):
        truth = rng.choice([0, 1, 2, 255], size)
        predicted = rng.integers(0, 3, size)
        counts = np.zeros((3, 4), int)
        for t, p in zip(truth.ravel(), predicted.ravel(), strict=True):
            if t != 255:
                counts[t, p] += 1
        tally.add({"confusion": [[i, j, int(counts[i, j])] for i, j in np.ndindex(3, 4)]})
        pairs.append((predicted.ravel(), truth.ravel()))
    predictions, truths = (torch.from_numpy(np.concatenate(parts)) for parts in zip(*pairs, strict=True))
    expected = multiclass_jaccard_index(predictions, truths, 3, average="macro", ignore_index=255)
    assert tally.result().numbers["mIoU"] == pytest.approx(expected.item())


def test_pixels_under_the_threshold_are_missed_where_there_is_no_background_class(tmp_path: Path) -> None:
    benchmark, truths, titles = write(tmp_path, "cityscapes", count=1)
    encoder = Oracle([*titles[1:], "unknown"])  # does not know the first class: its pixels look like the last one
    encoder.colours = Oracle(titles).colours.roll(-1, 0)
    shares = {}
    for protocol in ("paper", "tcl-plain"):
        given = {"size": 24, "scales": (1.0,), "flip": False, "window": None, "stride": None, "refine": "none"}
        opened = open_benchmark(benchmark, tmp_path, Choices(protocol, given))
        record = opened.measure(TTD(encoder), 0)
        shares[protocol] = {column for row, column, _ in record["confusion"] if row == 0}
    road = bool((truths[0] == 0).any())
    assert shares["paper"] == ({19} if road else set())
    assert 19 not in shares["tcl-plain"]


def test_synonyms_all_count_for_their_class(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    (tmp_path / "classes.txt").write_text("# mine\nbackground\ncat; kitten ;tabby\ndog\n\n")
    truth = blocks(rng, [0, 1, 2])
    save(painted(truth, 3), tmp_path / "images" / "a.png")
    save(truth, tmp_path / "labels" / "a.png")
    encoder = Oracle(["background", "tabby", "dog"])  # knows cats by their last name only
    numbers = {}
    for synonyms in (False, True):
        opened = open_benchmark("folder", tmp_path, Choices("default", synonyms=synonyms))
        tally = opened.tally()
        tally.add(opened.measure(TTD(encoder), 0))
        numbers[synonyms] = tally.result().numbers["mIoU"]
    assert numbers[True] == 1.0
    assert numbers[False] < 1.0


def test_faulty_items_are_named_and_the_rest_counts(tmp_path: Path, evaluate: Eval) -> None:
    benchmark, _, titles = write(tmp_path / "data", "ade20k", count=7)
    base = tmp_path / "data" / "ADEChallengeData2016"
    labels, images = base / "annotations" / "validation", base / "images" / "validation"
    (labels / "item0.png").write_bytes((labels / "item0.png").read_bytes()[:60])
    (images / "item1.png").unlink()
    save(np.zeros((5, 5), np.uint8), labels / "item2.png")
    save(np.full((24, 32), 200, np.uint8), labels / "item3.png")
    save(np.zeros((24, 32, 3), np.uint8), labels / "item4.png")
    done = evaluate(Oracle(titles), benchmark, tmp_path / "data", "--protocol", "default", "--json")
    assert done.exit_code == 1
    found = results(tmp_path / "out")
    assert json.loads(done.stdout)["numbers"]["mIoU"] == found["numbers"]["mIoU"] == 1.0
    assert found["measured"] == 2
    reasons = {row["id"]: row["reason"] for row in found["skipped"]}
    wanted = {"0": "damaged", "1": "does not exist", "2": "same size", "3": "label 200", "4": "colour image"}
    for number, words in wanted.items():
        assert words in reasons[f"item{number}"]
        assert f"item{number}: " in done.stderr
    for allowed, code in ((["--allow-skips"], 0), (["--allow-skips", 5], 0), (["--allow-skips", 4], 1)):
        again = evaluate(Oracle(titles), benchmark, tmp_path / "data", *allowed, "--protocol", "default", "--json")
        assert again.exit_code == code
        assert again.stderr.count("skipped item") == 5
        assert len(results(tmp_path / "out")["skipped"]) == 5
    wrong = evaluate(Oracle(titles), benchmark, tmp_path / "data", "--allow-skips", "many")
    assert wrong.exit_code == 2
    assert "'many' is not a number" in wrong.stderr


def test_an_interrupted_run_goes_on_and_measures_nothing_twice(
    tmp_path: Path, evaluate: Eval, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark, _, titles = write(tmp_path / "data", "voc", count=5)
    encoder = Oracle(titles)
    whole = evaluate(encoder, benchmark, tmp_path / "data", "--out", tmp_path / "whole", "--protocol", "default")
    assert whole.exit_code == 0
    original, asked = TTD.segment, []

    def stop_at_third(self: TTD, *args: Any, **options: Any) -> Any:
        asked.append(1)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return original(self, *args, **options)

    monkeypatch.setattr(TTD, "segment", stop_at_third)
    assert evaluate(encoder, benchmark, tmp_path / "data", "--protocol", "default").exit_code == 130
    store = tmp_path / "out" / "measurements.jsonl"
    lines = store.read_bytes().splitlines(keepends=True)
    assert len(lines) == 2
    store.write_bytes(lines[0] + lines[1][:20])  # killed in the middle of a line
    assert evaluate(encoder, benchmark, tmp_path / "data", "--protocol", "default").exit_code == 0
    assert len(asked) == 3 + 4
    assert results(tmp_path / "out") | {"command": 0} == results(tmp_path / "whole") | {"command": 0}


def test_other_settings_or_data_do_not_mix_with_an_earlier_run(tmp_path: Path, evaluate: Eval) -> None:
    benchmark, _, titles = write(tmp_path / "data", "voc", count=2)
    encoder = Oracle(titles)
    assert evaluate(encoder, benchmark, tmp_path / "data", "--protocol", "default").exit_code == 0
    other = evaluate(encoder, benchmark, tmp_path / "data", "--protocol", "default", "--background", "0.3")
    assert other.exit_code == 2
    assert "another run" in other.stderr
    write(tmp_path / "data", "voc", count=3)
    assert evaluate(encoder, benchmark, tmp_path / "data", "--protocol", "default").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "is not one of 'voc'"),
        (["voc", "--protocol", "best"], "is not one of 'default'"),
        (["voc"], "known layouts"),
        (["folder"], "classes.txt does not exist"),
        (["tagmask"], "not a TagMask set"),
        (["voc", "--tagger", "nltk"], "--tagger does not apply to voc"),
        (["refcoco", "--no-shuffled"], "--shuffled does not apply to refcoco"),
        (["tagmask", "--synonyms"], "--synonyms does not apply to tagmask"),
        (["coco-80", "--refine", "pamr"], "--refine does not apply to coco-80"),
    ],
)
def test_wrong_use_is_one_sentence(arguments: list[str], words: str, tmp_path: Path, evaluate: Eval) -> None:
    (tmp_path / "data").mkdir()
    done = evaluate(Oracle(["cat"]), arguments[0], tmp_path / "data", *arguments[1:])
    assert done.exit_code == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_missing_folder_is_named_before_what_is_missing_in_it(tmp_path: Path, evaluate: Eval) -> None:
    done = evaluate(Oracle(["cat"]), "folder", tmp_path / "gone")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "gone is not a folder" in done.stderr


def test_a_list_of_ids_that_is_no_text_is_one_sentence(tmp_path: Path, evaluate: Eval) -> None:
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / "data" / name).mkdir(parents=True)
    (tmp_path / "data/ImageSets/Segmentation/val.txt").write_bytes(b"caf\xe9\n")
    done = evaluate(Oracle(["cat"]), "voc", tmp_path / "data")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "val.txt is not a text file in UTF-8" in done.stderr


def test_the_mark_with_which_editors_begin_a_file_is_no_part_of_a_class(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("background\ncat\n", "utf-8-sig")
    found = read_classes(tmp_path / "mine.txt")
    assert (found.titles, found.background) == (["background", "cat"], True)


def test_class_lists_have_the_sizes_of_their_data_sets() -> None:
    sizes = {"voc": 21, "voc20": 20, "context60": 60, "context59": 59, "coco-object": 81}
    sizes |= {"coco-stuff": 171, "ade20k": 150, "cityscapes": 19}
    assert {name: len(read_classes(name)) for name in sizes} == sizes
    assert {name for name in sizes if read_classes(name).background} == {"voc", "context60", "coco-object"}


@pytest.mark.parametrize("text", ["", "# nothing\n", "background\n", "cat\ncat\n", ";\n"])
def test_unusable_class_lists_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text(text)
    with pytest.raises(InputError):
        read_classes(tmp_path / "mine.txt")


@pytest.mark.parametrize(
    ("name", "folder", "count"),
    [
        ("voc", "data/voc", 95),
        ("voc20", "data/voc", 95),
        ("coco-object", "data/coco", 140),
        ("ade20k", "data/layouts/ade", 3),
        ("cityscapes", "data/layouts/cityscapes", 1),
    ],
)
def test_the_real_samples_load(name: str, folder: str, count: int, shared: Path) -> None:
    opened = open_benchmark(name, shared / folder, Choices("default"))
    assert len(opened.samples) == count
    assert all(sample.image.is_file() for sample in opened.samples)
    table = opened.rule(len(opened.classes))
    seen: set[int] = set()
    for sample in opened.samples[:30]:
        labels = apply_rule(read_labels(sample.truth[0]), table, sample.truth[0])
        seen |= set(np.unique(labels).tolist())
    assert len(seen - {255}) >= 3


def test_ade_class_names_begin_the_official_ones(shared: Path) -> None:
    with (shared / "data/layouts/ade/objectInfo150.csv").open() as stream:
        official = [row["Name"].split(";") for row in csv.DictReader(stream)]
    for title, words in zip(read_classes("ade20k").titles, official, strict=True):
        assert set(title.split()) <= set(words)


def test_both_cityscapes_label_files_say_the_same(shared: Path) -> None:
    folder = shared / "data/layouts/cityscapes/gtFine"
    maps = []
    for ending, rule in (("labelTrainIds", identity), ("labelIds", cityscapes_ids)):
        path = next(folder.glob(f"*_{ending}.png"))
        maps.append(apply_rule(read_labels(path), rule(19), path))
    # The sample's two files were shrunk separately and differ at a few edges.
    assert (maps[0] == maps[1]).mean() > 0.995


@pytest.mark.parametrize(("protocol", "name"), [("sclip", "voc"), ("clearclip", "voc"), ("sclip", "voc20")])
def test_a_peers_protocol_measures_and_records_its_settings(
    tmp_path: Path, evaluate: Eval, protocol: str, name: str
) -> None:
    """Pixels of no class are alike for all texts: no share of the softmax reaches the cut, so they are background."""
    _, _, titles = write(tmp_path / "data", name, count=1)
    spelled = own_classes(name, None, None, (protocol,)).titles
    oracle = Oracle([*titles[: len(titles) - len(spelled)], *spelled])
    done = evaluate(oracle, name, tmp_path / "data", "--protocol", protocol, "--size", "48", "--window", "32")
    assert done.exit_code == 0, done.output
    found = results(tmp_path / "out")
    options = found["settings"]["options"]["masks"]
    assert (options["resize"], options["window"], options["stride"]) == ("opencv", 32, None)
    words = {"sclip": "sky", "clearclip": "background"}[protocol]
    assert options["background"][0] == words if name == "voc" else options["background"] is False
    assert found["numbers"]["pixel accuracy"] > 0.6


def test_the_papers_refinement_is_asked_for_before_anything_is_encoded(
    tmp_path: Path, evaluate: Eval, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DenseCRF is MaskCLIP's in the paper's Table 6; without its package the run ends at once, and says what to do."""
    _, _, titles = write(tmp_path / "data", "voc", count=1)
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    oracle = Oracle(titles)
    oracle.default_refinement = tiny_clip().default_refinement
    done = evaluate(oracle, "voc", tmp_path / "data", "--protocol", "paper")
    assert done.exit_code == 2
    assert "[crf]" in done.stderr
    assert "--refine none" in done.stderr
    assert oracle.images_seen == 0
    assert not list((tmp_path / "out").glob("measurements*"))
    assert evaluate(oracle, "voc", tmp_path / "data", "--protocol", "paper", "--refine", "none").exit_code == 0
