"""Many images: folders and lists, skipping, continuing, signals."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.cli.conftest import Run, one_sentence
from tests.cli.fake_model import FakeModel
from ttd import images

ROOT = Path(__file__).resolve().parents[2]


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_a_folder_in_batches_with_the_broken_one_listed(run: Run, folder: Path, model: FakeModel) -> None:
    result = run("tag", folder, "--json", "--batch", "3")
    assert result.exit_code == 1
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == [
        "a.png",
        "b.png",
        "c.png",
        "sub/d.png",
    ]
    assert [call[:2] for call in model.calls] == [("tag_many", 2), ("tag_many", 2)]
    lines = result.stderr.splitlines()
    assert lines[0] == "Skipped 1:"
    assert lines[1].startswith("  broken.jpg: ")


def test_one_line_per_image_for_people(run: Run, folder: Path) -> None:
    result = run("tag", folder)
    assert result.stdout.splitlines() == [f"{name}.png: queue" for name in ("a", "b", "c", "sub/d")]


def test_results_and_images_in_a_folder(run: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("tag", folder, "--out", out)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "4 of 5 images written to" in result.stderr
    found = records(out / "results.jsonl")
    assert [record["id"] for record in found] == ["a.png", "b.png", "c.png", "sub/d.png"]
    for record in found:
        assert len(record["files"]) == 3
        for path in record["files"]:
            Image.open(path).verify()
    assert (out / "images" / "sub" / "d.png.png").is_file()
    settings = json.loads((out / "run.json").read_text())["settings"]
    assert settings["command"] == "tag"
    assert settings["model"] == "mini"


def test_results_alone_without_images(run: Run, folder: Path, tmp_path: Path, model: FakeModel) -> None:
    result = run("tag", folder, "--out", tmp_path / "out" / "words.jsonl")
    assert result.exit_code == 1
    assert len(records(tmp_path / "out" / "words.jsonl")) == 4
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"words.jsonl", "words.run.json"}
    assert {name for name, *_ in model.calls} == {"tag_many"}


def test_a_second_run_does_only_what_is_left(run: Run, folder: Path, tmp_path: Path, model: FakeModel) -> None:
    out = tmp_path / "words.jsonl"
    run("tag", folder, "--out", out)
    before = out.read_bytes()
    model.calls.clear()
    Image.new("RGB", (8, 8)).save(folder / "broken.jpg")
    result = run("tag", folder, "--out", out)
    assert result.exit_code == 0
    assert "4 of 5 images were done before." in result.stderr
    assert [call[:2] for call in model.calls] == [("tag_many", 1)]
    assert out.read_bytes().startswith(before)
    assert [record["id"] for record in records(out)][-1] == "broken.jpg"
    model.calls.clear()
    assert run("tag", folder, "--out", out).exit_code == 0
    assert model.calls == []


@pytest.mark.parametrize("out", ["words.jsonl", "out"])
def test_ranks_do_every_nth_image_and_the_last_one_merges(
    run: Run, folder: Path, model: FakeModel, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    results = folder / out if out.endswith(".jsonl") else folder / out / "results.jsonl"
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = []
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        done.append(run("tag", folder, "--out", folder / out))
        assert done[-1].exit_code == 0, done[-1].stderr  # torchrun would end the others
    assert "Process 0 of 2 is done; the one that ends last merges the results." in done[0].stderr
    assert f"2 of 3 images written to {results}" in done[0].stderr + done[1].stderr
    assert [record["id"] for record in records(results)] == ["a.png", "b.png", "c.png", "sub/d.png"]
    assert not list(folder.rglob("*-of-*"))

    monkeypatch.setenv("RANK", "0")
    Image.new("RGB", (8, 8)).save(folder / "broken.jpg")
    run("tag", folder, "--out", folder / out)  # as rank 0 and never as rank 1, who may have been killed
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("WORLD_SIZE")
    assert run("tag", folder, "--out", folder / out).exit_code == 0
    assert sorted(record["id"] for record in records(results)) == ["a.png", "b.png", "broken.jpg", "c.png", "sub/d.png"]


def test_another_question_does_not_mix_into_old_results(run: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "words.jsonl"
    run("tag", folder, "--out", out)
    assert "score was 's_pixel', now 's_seg'" in one_sentence(run("tag", folder, "--out", out, "--score", "s_seg"))


def test_an_item_without_words_is_skipped_alone(run: Run, tmp_path: Path, photo: Path, model: FakeModel) -> None:
    captions = ["a queue", "the of", "", "explode", "a sky"]
    lines = [{"id": str(i), "image": photo.name, "caption": text} for i, text in enumerate(captions)]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = run("tag", tmp_path / "list.jsonl", "--json")
    assert result.exit_code == 1
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == ["0", "4"]
    assert [line.split(":")[0].strip() for line in result.stderr.splitlines()] == ["Skipped 3", "2", "1", "3"]


def test_a_run_that_nothing_can_come_of_is_refused_before_it_starts(
    run: Run, folder: Path, tmp_path: Path, model: FakeModel
) -> None:
    for text in folder.rglob("*.txt"):
        text.unlink()
    sentence = one_sentence(run("tag", folder, "--out", tmp_path / "out"))
    assert "None of the 5 images can be used. There is no caption for a.png" in sentence
    assert "no classes for a.png" in one_sentence(run("segment", folder))
    assert not (tmp_path / "out").exists()
    assert model.calls == []


def test_what_lacks_a_caption_is_not_decoded(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "b.txt").unlink()
    opened = []
    read = images.read_image
    monkeypatch.setattr(images, "read_image", lambda path: opened.append(path.name) or read(path))
    assert run("tag", folder).exit_code == 1
    assert opened == ["a.png", "broken.jpg", "c.png", "d.png"]


def test_segment_heatmap_and_mask_over_a_list(run: Run, tmp_path: Path, photo: Path) -> None:
    (tmp_path / "list.csv").write_text(f"image,caption,tags\n{photo.name},a wall,wall;sky\n")
    for command, key in (("segment", "names"), ("heatmap", "maps"), ("mask", "box")):
        result = run(command, tmp_path / "list.csv", "--out", tmp_path / command)
        assert result.exit_code == 0, result.stderr
        (record,) = records(tmp_path / command / "results.jsonl")
        assert record[key]
        assert record["files"]


def test_places_for_many_images(run: Run, folder: Path, tmp_path: Path, model: FakeModel) -> None:
    assert "give a folder" in one_sentence(run("tag", folder, "--out", tmp_path / "x.png"))
    (tmp_path / "evil.jsonl").write_text(json.dumps({"id": "../../x", "image": "photo.png", "caption": "queue"}))
    run("tag", tmp_path / "evil.jsonl", "--out", tmp_path / "deep" / "out")
    assert (tmp_path / "deep" / "out" / "images" / "x.png").is_file()


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A list of 40 images."""
    Image.new("RGB", (8, 8)).save(tmp_path / "p.png")
    lines = [{"id": str(i), "image": "p.png", "caption": f"queue {i}"} for i in range(40)]
    path = tmp_path / "list.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def in_process(kill: int, after: int, number: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.cli.fake_model", str(kill), str(after), str(number)]
    return subprocess.run(
        [*command, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )


def test_after_kill_9_a_run_continues_without_loss_or_doubles(many: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    killed = in_process(20, 0, 0, "tag", many, "--out", out, "--batch", "4")
    assert killed.returncode == -signal.SIGKILL
    assert [record["id"] for record in records(out)] == [str(i) for i in range(20)]
    with out.open("ab") as stream:
        stream.write(b'{"id": "20", "ima')
    again = in_process(0, 0, 0, "tag", many, "--out", out, "--batch", "4")
    assert again.returncode == 0, again.stderr
    assert [record["id"] for record in records(out)] == [str(i) for i in range(40)]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_with_everything_saved(many: Path, tmp_path: Path, number: int, code: int) -> None:
    out = tmp_path / "out.jsonl"
    stopped = in_process(0, 10, number, "tag", many, "--out", out, "--batch", "4")
    assert stopped.returncode == code, stopped.stderr
    assert [record["id"] for record in records(out)] == [str(i) for i in range(8)]
    assert "8 of 40 images written" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert in_process(0, 0, 0, "tag", many, "--out", out).returncode == 0
    assert [record["id"] for record in records(out)] == [str(i) for i in range(40)]
