"""A session from the first item to the evaluation, with the ways in which it may be interrupted."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tests.annotate.samples import COLOURS, colour_model, halves, left_half, open_annotations, write_folder
from tests.data.samples import write_tar
from ttd.annotate.annotation_set import AnnotationSet
from ttd.annotate.item import OpenItem
from ttd.annotate.proposals import Proposer, candidate_words
from ttd.annotate.queue import Queue
from ttd.annotate.records import KEPT, REJECTED
from ttd.annotate.store import ExportFailed, RecordChanged
from ttd.cli import cli
from ttd.data.bad_samples import BadSample
from ttd.errors import InputError
from ttd.evaluation.datasets.tagmask import read_tagmask
from ttd.images import read_image


@pytest.fixture
def annotations(tmp_path: Path) -> AnnotationSet:
    return open_annotations(tmp_path / "data", tmp_path / "set")


def open_next(annotations: AnnotationSet, after: int = -1, tab: str = "tab") -> OpenItem:
    opened, notes = annotations.open_next(after, tab)
    assert opened is not None
    assert notes == []
    return opened


def test_our_scores_choose_the_words_and_our_maps_the_masks(annotations: AnnotationSet) -> None:
    opened = open_next(annotations)
    assert [token.text for token in opened.tokens][-1] == "."
    assert opened.words == ["a", "red", "wall", "beside", "green", "door"]
    assert opened.true == opened.proposed == ["red", "green"]
    assert opened.active == "red"
    masks = opened.masks()
    # The colours' maps are exact up to the cells that are enlarged bilinearly.
    assert (masks["red"] == left_half()).mean() > 0.95
    assert (masks["green"] == ~left_half()).mean() > 0.95


def test_words_are_pressed_and_dropped(annotations: AnnotationSet) -> None:
    opened = open_next(annotations)
    opened.press("wall")
    assert (opened.true, opened.active) == (["red", "wall", "green"], "wall")
    opened.press("red")
    assert (opened.true, opened.active) == (["red", "wall", "green"], "red")
    opened.press("red")
    assert (opened.true, opened.active) == (["wall", "green"], "wall")
    opened.activate(1)
    assert opened.active == "green"
    opened.activate(1)
    assert opened.active == "wall"
    opened.activate(-1)
    opened.drop("green")
    opened.drop("wall")
    assert (opened.true, opened.active, opened.masks()) == ([], None, {})
    with pytest.raises(InputError, match="no word is active"):
        opened.point(1, 1, True)
    with pytest.raises(InputError, match="no word is chosen"):
        opened.activate(1)
    with pytest.raises(InputError, match="not a word of this caption"):
        opened.press("cat")
    for _ in range(5):
        opened.undo()
    assert (opened.true, opened.active) == (["red", "green"], "red")
    with pytest.raises(InputError, match="nothing to undo"):
        opened.undo()


def test_steps_on_the_image_and_back(annotations: AnnotationSet) -> None:
    opened = open_next(annotations)
    first = opened.masks()["red"]
    opened.box(0, 0, 10, 31)
    boxed = opened.masks()["red"]
    assert boxed[:, :11].all()
    assert not boxed[:, 11:].any()
    opened.stroke([(40, 5), (41, 5)], 3, True)
    assert opened.masks()["red"][5, 40]
    opened.clear()
    assert not opened.masks()["red"].any()
    opened.point(3, 3, True)
    assert opened.masks()["red"][3, 3]
    opened.propose_again()
    assert np.array_equal(opened.masks()["red"], first)
    opened.set_threshold(1.0)
    assert opened.threshold == 1.0
    assert opened.masks()["red"].sum() < first.sum()
    with pytest.raises(InputError, match="between 0 and 1"):
        opened.set_threshold(1.5)
    assert opened.steps == 6
    for _ in range(4):
        opened.undo()
    assert opened.masks()["red"][5, 40]
    opened.undo()
    assert np.array_equal(opened.masks()["red"], boxed)


def accept_all(annotations: AnnotationSet, tab: str = "tab") -> int:
    count = 0
    while (opened := annotations.open_next(-1, tab)[0]) is not None:
        annotations.accept(opened)
        count += 1
    return count


def test_accepted_items_are_a_tagmask_set_that_eval_reads(annotations: AnnotationSet, tmp_path: Path) -> None:
    opened = open_next(annotations)
    opened.press("wall")
    opened.clear()
    record = annotations.accept(opened)
    assert (record.version, opened.base_version) == (1, 1)
    # On disk when `accept` returns, the image with its own bytes.
    rows = read_tagmask(tmp_path / "set").rows
    assert [row.true for row in rows] == [{"red", "wall", "green"}]
    assert rows[0].sample.image.read_bytes() == (tmp_path / "data" / "000.png").read_bytes()
    assert np.array_equal(rows[0].mask(), opened.masks()["red"] | opened.masks()["green"])
    folder = tmp_path / "set" / "masks" / record.id
    assert sorted(path.name for path in folder.iterdir()) == ["green.png", "red.png"]
    assert accept_all(annotations) == 2
    assert annotations.progress().left == 0
    out = tmp_path / "run"
    options = ["--data", str(tmp_path / "set"), "--model", "mini", "--protocol", "default", "--out", str(out)]
    result = CliRunner().invoke(cli, ["eval", "tagmask", *options])
    assert result.exit_code == 0, result.output
    numbers = json.loads((out / "results.json").read_text())
    assert "Masks of 3 captions." in json.dumps(numbers)


def test_resume_where_it_was_left(annotations: AnnotationSet, tmp_path: Path) -> None:
    annotations.accept(open_next(annotations))
    opened = open_next(annotations)
    assert opened.item.number == 1
    opened.press("wall")
    opened.box(0, 0, 5, 5)
    annotations.save_draft(opened, "tab")
    again = open_annotations(tmp_path / "data", tmp_path / "set")  # as after a kill: nothing was closed
    assert again.progress().accepted == 1
    annotations.release("tab")
    back = open_next(again)
    assert back.item.number == 1
    assert "is back" in back.note
    assert (back.true, back.active) == (["green", "wall", "blue"], "wall")
    assert back.prompts == opened.prompts
    again.accept(back)
    assert again.store.draft(back.item.id) is None
    assert open_next(again).item.number == 2


def test_an_accepted_item_opens_as_it_was_accepted(annotations: AnnotationSet, tmp_path: Path) -> None:
    opened = open_next(annotations)
    opened.press("wall")
    opened.stroke([(4, 4)], 3, True)
    opened.drop("green")
    annotations.accept(opened)
    # Another model would propose something else, but what was drawn stays.
    other = open_annotations(tmp_path / "data", tmp_path / "set")
    other.proposer.threshold = 0.99
    back = other.open(0, "tab")
    assert back.true == ["red", "wall"]
    assert (back.status, back.base_version) == ("accepted", 1)
    for word, mask in opened.masks().items():
        assert np.array_equal(back.masks()[word], mask)
    other.skip(back)  # going on without a change takes nothing away
    assert other.progress().accepted == 1
    back.drop("wall")
    assert other.accept(back).version == 2
    assert read_tagmask(tmp_path / "set").rows[0].true == {"red"}
    assert not (tmp_path / "set" / "masks" / back.item.id / "wall.png").exists()


def test_skipped_items_do_not_come_back_by_themselves(annotations: AnnotationSet, tmp_path: Path) -> None:
    opened = open_next(annotations)
    annotations.save_draft(opened, "tab")
    annotations.skip(opened)
    assert annotations.store.draft(opened.item.id) is None
    assert (annotations.progress().skipped, annotations.progress().left) == (1, 2)
    assert open_next(annotations).item.number == 1
    assert not (tmp_path / "set" / "tags.jsonl").exists()
    back = annotations.open(0, "tab")
    assert back.true == ["red", "green"]
    annotations.accept(back)
    assert (annotations.progress().skipped, annotations.progress().accepted) == (0, 1)


def test_two_tabs_get_different_items(annotations: AnnotationSet, tmp_path: Path) -> None:
    one, two = open_next(annotations, tab="one"), open_next(annotations, tab="two")
    other_process = open_annotations(tmp_path / "data", tmp_path / "set")
    three = open_next(other_process, tab="one")
    assert [opened.item.number for opened in (one, two, three)] == [0, 1, 2]
    fourth = open_next(annotations, tab="four")
    assert fourth.item.number == 0
    assert "also open in another tab" in fourth.note
    annotations.release("one")
    assert "also open" not in open_next(annotations, tab="four").note


def test_two_tabs_on_one_item_lose_nothing(annotations: AnnotationSet, tmp_path: Path) -> None:
    mine = open_next(annotations, tab="one")
    theirs = annotations.open(mine.item.number, "two")
    assert "also open in another tab" in theirs.note
    mine.drop("green")
    theirs.press("wall")
    annotations.accept(mine)
    with pytest.raises(RecordChanged, match=r"changed in another tab \(accepted, true: red\)"):
        annotations.accept(theirs)
    assert read_tagmask(tmp_path / "set").rows[0].true == {"red"}
    assert theirs.true == ["red", "wall", "green"]  # still on the page
    annotations.skip(theirs)  # skipping keeps the other's
    assert read_tagmask(tmp_path / "set").rows[0].true == {"red"}
    assert annotations.accept(theirs).version == 2
    assert read_tagmask(tmp_path / "set").rows[0].true == {"red", "wall", "green"}


def test_second_pass_keeps_and_rejects(annotations: AnnotationSet, tmp_path: Path) -> None:
    assert annotations.next_to_review() is None
    accept_all(annotations)
    seen, record = [], annotations.next_to_review()
    while record is not None:
        seen.append(record.id)
        assert annotations.image_of(record).size == (48, 32)
        annotations.judge(record, REJECTED if len(seen) == 2 else KEPT)
        record = annotations.next_to_review(after=record.id)
    assert len(seen) == 3
    progress = annotations.progress()
    assert (progress.accepted, progress.kept, progress.rejected) == (3, 2, 1)
    assert {row.sample.id for row in read_tagmask(tmp_path / "set").rows} == {seen[0], seen[2]}
    assert not (tmp_path / "set" / "masks" / f"{seen[1]}.png").exists()
    assert annotations.next_to_review() is None
    rejected = annotations.store.get(seen[1])
    assert rejected is not None
    annotations.judge(rejected, None)
    assert len(read_tagmask(tmp_path / "set").rows) == 3
    with pytest.raises(RecordChanged):
        annotations.judge(rejected, KEPT)
    # Accepting an item again asks for another look.
    opened = annotations.open(annotations.queue.number(seen[0]) or 0, "tab")
    annotations.accept(opened)
    waiting = {name for name, summary in annotations.store.summaries().items() if summary.verdict is None}
    assert waiting == {seen[0], seen[1]}


def test_damaged_images_are_passed_over_and_told(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data")
    (data / "000.png").write_bytes(b"no image")
    annotations = open_annotations(data, tmp_path / "set")
    opened, notes = annotations.open_next(-1, "tab")
    assert opened is not None
    assert opened.item.number == 1
    assert len(notes) == 1
    assert "000.png" in notes[0]
    with pytest.raises(BadSample):
        annotations.open(0, "tab")
    with pytest.raises(InputError, match="the queue has 3"):
        annotations.open(3, "tab")


def test_a_full_disk_after_the_record_is_told_and_not_lost(
    annotations: AnnotationSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_next(annotations)

    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(annotations.store, "_export", full)
    with pytest.raises(ExportFailed):
        annotations.accept(opened)
    monkeypatch.undo()
    assert open_annotations(tmp_path / "data", tmp_path / "set").progress().accepted == 1
    assert len(read_tagmask(tmp_path / "set").rows) == 1
    assert annotations.accept(opened).version == 2


def test_odd_captions(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", 4)
    captions = ["1/2 of a red/green wall .. con", "!!! ...", "the of and", "Red red RED"]
    lines = [json.dumps({"image": f"{i:03d}.png", "caption": text}) for i, text in enumerate(captions)]
    (data / "captions.jsonl").write_text("\n".join(lines))
    annotations = open_annotations(data, tmp_path / "set")
    odd = open_next(annotations)
    for word in odd.words:
        if word != odd.active:
            odd.press(word)
        odd.stroke([(5, 5)], 2, True)
    annotations.accept(odd)
    marks = open_next(annotations)
    assert (marks.words, marks.true, marks.active) == ([], [], None)
    annotations.accept(marks)
    stops = open_next(annotations)
    assert candidate_words("the of and") == []
    stops.press("the")
    annotations.accept(stops)
    repeated = open_next(annotations)
    assert repeated.words == ["red"]
    annotations.accept(repeated)
    rows = {row.caption: row for row in read_tagmask(tmp_path / "set").rows}
    assert rows[captions[0]].true == set(odd.words)
    assert rows[captions[1]].sample.truth == ()
    assert rows[captions[2]].true == {"the"}
    assert rows[captions[3]].words == ("red", "red", "red")
    everything = {path.resolve() for path in tmp_path.rglob("*")}
    assert all(path.is_relative_to(tmp_path.resolve()) for path in everything)
    files = {path.name for path in (tmp_path / "set" / "masks" / odd.item.id).iterdir()}
    assert {"1%2F2.png", "red.png", "%63on.png"} <= files
    assert len(files) == len(odd.words)


def test_queue_of_shards_and_of_coco_captions(tmp_path: Path) -> None:
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.fromarray(halves(*list(COLOURS)[:2])).save(stream, "JPEG", exif=exif, quality=95)
    members = {"jpg": stream.getvalue(), "txt": b"a red wall and a green door"}
    write_tar(tmp_path / "data" / "0.tar", {"x/y": members, "b": members})
    annotations = open_annotations(tmp_path / "data", tmp_path / "set")
    assert accept_all(annotations) == 2
    row = read_tagmask(tmp_path / "set").rows[0]
    assert row.mask().shape == (48, 32)
    assert read_image(row.sample.image).size == (32, 48)
    coco = {
        "images": [{"id": 7, "file_name": "000.png"}, {"id": 9, "file_name": "001.png"}],
        "annotations": [{"image_id": 7, "caption": f"a red thing {i}"} for i in range(5)]
        + [{"image_id": 9, "caption": "a green thing"}],
    }
    images = write_folder(tmp_path / "images")
    (tmp_path / "captions_val.json").write_text(json.dumps(coco))
    assert len(Queue.open(tmp_path / "captions_val.json", images)) == 2
    queue = Queue.open(tmp_path / "captions_val.json", images, every_caption=True)
    assert [queue.read(item).caption for item in queue.items][4:] == ["a red thing 4", "a green thing"]
    assert [queue.number(item.id) for item in queue.items] == list(range(6))
    assert queue.number("other") is None


def test_ids_do_not_move_when_data_are_added(tmp_path: Path) -> None:
    before = [item.id for item in Queue.open(write_folder(tmp_path / "data", 3)).items]
    after = [item.id for item in Queue.open(write_folder(tmp_path / "data", 9)).items]
    assert after[:3] == before


def test_a_caption_that_changed_is_told(annotations: AnnotationSet, tmp_path: Path) -> None:
    annotations.accept(open_next(annotations))
    text = (tmp_path / "data" / "captions.jsonl").read_text().replace("A red wall", "The red wall")
    (tmp_path / "data" / "captions.jsonl").write_text(text)
    opened = open_annotations(tmp_path / "data", tmp_path / "set").open(0, "tab")
    assert "caption has changed" in opened.note
    assert opened.true == ["red", "green"]


def plain_photos(folder: Path) -> Path:
    """Images in a folder and a subfolder, two of three with their captions beside them."""
    write_folder(folder)
    (folder / "captions.jsonl").unlink()
    (folder / "more").mkdir()
    (folder / "002.png").rename(folder / "more" / "002.png")
    (folder / "000.txt").write_text("A red wall beside a green door .\n", "utf-8")
    (folder / "more" / "002.txt").write_text("A blue wall", "utf-8")
    return folder


def test_a_plain_folder_of_images_is_annotated(tmp_path: Path) -> None:
    annotations = AnnotationSet(
        Queue.open(plain_photos(tmp_path / "photos")), tmp_path / "set", Proposer(colour_model())
    )
    assert [item.key for item in annotations.queue.items] == ["000.png", "001.png", "more/002.png"]
    first = open_next(annotations)
    assert (first.true, first.content.typed) == (["red", "green"], False)
    with pytest.raises(InputError, match="a caption of its own"):
        annotations.type_caption(first, "another")
    annotations.accept(first)
    bare = open_next(annotations)
    assert (bare.content.caption, bare.words, bare.masks()) == ("", [], {})
    with pytest.raises(InputError, match="no caption yet"):
        annotations.accept(bare)
    for wrong in (" \n", "x" * 1001):
        with pytest.raises(InputError, match="1 to 1000 characters"):
            annotations.type_caption(bare, wrong)
    typed = annotations.type_caption(bare, " Green and  blue\nwalls ")
    assert (typed.content.caption, typed.true) == ("Green and blue walls", ["green", "blue"])
    typed.press("walls")
    annotations.save_draft(typed, "tab")
    back = annotations.open(1, "tab")  # as after the page was closed
    assert (back.content.caption, back.true) == ("Green and blue walls", ["green", "blue", "walls"])
    annotations.accept(back)
    again = annotations.open(1, "tab")
    assert (again.content.caption, again.true, again.note) == (back.content.caption, back.true, "")
    annotations.accept(open_next(annotations))
    rows = {row.caption: row.true for row in read_tagmask(tmp_path / "set").rows}
    assert rows == {
        "A red wall beside a green door .": {"red", "green"},
        "Green and blue walls": {"green", "blue", "walls"},
        "A blue wall": {"blue"},
    }


def test_the_set_does_not_lie_among_the_images(tmp_path: Path) -> None:
    photos = plain_photos(tmp_path / "photos")
    with pytest.raises(InputError, match="choose another folder for the set"):
        AnnotationSet.from_data(colour_model(), str(photos), str(photos / "set"))
    assert not (photos / "set").exists()
