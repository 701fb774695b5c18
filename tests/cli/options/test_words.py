"""`--selection negatives`: where the words come from, what is remembered of them, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run, one_sentence
from tests.cli.fake_model import FakeModel
from ttd.negatives import FEWEST


def write_captions(folder: Path, photo: Path, count: int) -> None:
    folder.mkdir()
    for i in range(count):
        (folder / f"{i}.png").write_bytes(photo.read_bytes())
        (folder / f"{i}.txt").write_text(f"the thing{i} and stuff{i}\n")


def asked(model: FakeModel) -> dict[str, object]:
    """Options of the last question."""
    return next(options for name, _, options in reversed(model.calls) if name.startswith("tag"))


def test_a_folder_lends_its_own_words(run: Run, model: FakeModel, tmp_path: Path, photo: Path) -> None:
    write_captions(tmp_path / "photos", photo, FEWEST // 2)
    result = run(
        "tag", tmp_path / "photos", "--selection", "negatives", "--percentile", "80", "--out", tmp_path / "o.jsonl"
    )
    assert result.exit_code == 0
    assert f"compared with {FEWEST} words of the other captions" in result.stderr
    assert asked(model)["percentile"] == 80
    words = asked(model)["negatives"]
    assert {"thing0", "stuff1"} <= set(words)  # type: ignore[call-overload]
    assert "the" not in words  # type: ignore[operator]


def test_too_few_words_give_way_to_the_list(run: Run, model: FakeModel, folder: Path) -> None:
    result = run("tag", folder, "--selection", "negatives")
    assert "compared with the package's list" in result.stderr
    assert "negatives" not in asked(model)
    assert asked(model)["rule"] == "negatives"
    run("tag", folder, "--selection", "negatives", "--negatives", "captions")
    assert {"queue", "sky"} <= set(asked(model)["negatives"])  # type: ignore[call-overload]


def test_words_from_a_file(run: Run, model: FakeModel, photo: Path, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("# mine\ncat\nhot dog\n")
    result = run("tag", photo, "a queue", "--selection", "negatives", "--negatives", words)
    assert asked(model)["negatives"] == ("cat", "hot dog")
    assert f"2 words of {words}" in result.stderr
    words.write_text("")
    assert "holds no word" in one_sentence(
        run("tag", photo, "a queue", "--selection", "negatives", "--negatives", words)
    )
    assert "cannot be read" in one_sentence(run("tag", photo, "a", "--selection", "negatives", "--negatives", "no.txt"))


def test_results_of_other_words_are_not_mixed(run: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    base = ("tag", folder, "--selection", "negatives", "--out", out)
    assert run(*base).exit_code == 1  # one image is broken
    settings = json.loads((tmp_path / "out.run.json").read_text())["settings"]
    assert (settings["rule"], settings["percentile"], settings["negatives"]) == ("negatives", 90, "list")
    assert run(*base, "--percentile", "90").exit_code == 1
    assert "percentile was 90.0, now 50.0" in one_sentence_of_many(run(*base, "--percentile", "50"))
    assert "negatives was 'list'" in one_sentence_of_many(run(*base, "--negatives", "captions"))


def one_sentence_of_many(result: object) -> str:
    """The last line on stderr, after the line that says where the words come from."""
    assert result.exit_code == 2  # type: ignore[attr-defined]
    return str(result.stderr.splitlines()[-1])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--percentile", "50"), "belong to --selection negatives"),
        (("--selection", "gap", "--negatives", "list"), "belong to --selection negatives"),
        (("--selection", "negatives", "--score", "s_image"), "is for s_pixel, not for s_image"),
        (("--threshold", "0.5"), "--threshold cuts"),
        (("--selection", "negatives", "--threshold", "0.5"), "--threshold cuts"),
        (("--selection", "negatives", "--percentile", "101"), "0.0<=x<=100.0"),
    ],
)
def test_options_that_do_not_go_together(run: Run, photo: Path, options: tuple[str, ...], message: str) -> None:
    assert message in one_sentence(run("tag", photo, "a queue", *options))


def test_a_threshold_reaches_the_model(run: Run, model: FakeModel, photo: Path) -> None:
    assert run("tag", photo, "a queue", "--selection", "softmax", "--threshold", "0.25").exit_code == 0
    assert (asked(model)["rule"], asked(model)["threshold"]) == ("softmax", 0.25)
