"""`ttd data tag`: every tagger, side files and shards, kills, and training on what it wrote."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

import ttd
from tests.cli.conftest import invoke, one_sentence
from tests.data.colour_model import ColourModelEncoder
from tests.data.samples import image, sample, write_shards, write_tar
from tests.extras import needs
from tests.taggers.stub_server import Stub, truthful
from tests.taggers.test_nouns import StandInNltk
from ttd.cli import cli
from ttd.data.sources import INSIDE, PairSource
from ttd.model import TTD
from ttd.negatives import caption_words
from ttd.scoring import SCORES
from ttd.selection import Selection

run = partial(invoke, "data", "tag")


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Captions such as "a red image number 0"."""
    write_shards(tmp_path / "cc", [6, 6])
    return tmp_path / "cc"


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ttd.__dict__, "load", lambda *args, **options: TTD(ColourModelEncoder()))
    monkeypatch.setitem(sys.modules, "nltk", StandInNltk())


@pytest.fixture
def base(clip_folder: Path) -> Path:
    return clip_folder


def language_model(stub: Stub, folder: Path) -> list[object]:
    return ["--tagger", "llm", "--llm-url", stub.url, "--llm-model", "m", "--llm-cache", folder / "cache"]


def words_of(source: PairSource) -> list[tuple[tuple[str, ...], ...] | None]:
    return [source[i].tags for i in range(len(source))]


@pytest.mark.parametrize("tagger", [*SCORES, "nltk", "llm"])
def test_every_tagger_writes_side_files_and_shards(tagger: str, shards: Path, tmp_path: Path, stand_ins: None) -> None:
    with Stub() as stub:
        how = {"nltk": ["--tagger", "nltk"], "llm": language_model(stub, tmp_path)}
        chosen = how.get(tagger, ["--model", "x", "--score", tagger])
        side = run(shards, *chosen, "--out", tmp_path / "side")
        carried = run(shards, *chosen, "--shards", tmp_path / "new")
    assert (side.exit_code, carried.exit_code) == (0, 0), side.output + carried.output
    assert "wrote 2 shards with words" in carried.stdout
    words = words_of(PairSource(shards, tags=tmp_path / "side" / "tags"))
    assert words == words_of(PairSource(tmp_path / "new", tags=INSIDE))
    expected = {"nltk": [("image",)] * 2, "llm": [("red", "image"), ("green", "image")]}
    if tagger in (*expected, "s_pixel"):
        assert words[:2] == [(one,) for one in expected.get(tagger, [("red",), ("green",)])]


def test_training_on_side_files_and_on_shards_is_the_same(shards: Path, tmp_path: Path, base: Path) -> None:
    needs("llm", "openai")
    with Stub() as stub:
        llm = language_model(stub, tmp_path)
        assert run(shards, *llm, "--out", tmp_path / "side").exit_code == 0
        assert run(shards, *llm, "--shards", tmp_path / "new").exit_code == 0
    values = ["augment.crop=64", "augment.shortest=40", "augment.longest=80", "optimiser.batch=4", "run.device=cpu"]
    values += ["run.precision=float32", "run.watch_every=0", "run.log_every=1"]
    losses = []
    for data, tags in ((shards, tmp_path / "side" / "tags"), (tmp_path / "new", "inside")):
        out = tmp_path / f"run-{data.name}"
        options = ["--out", out, "--model", base, "--tags", tags, "--steps", 3]
        sets = [part for value in values for part in ("--set", value)]
        done = CliRunner().invoke(cli, [str(part) for part in ("train", data, *options, *sets)])
        assert done.exit_code == 0, done.output
        losses.append([json.loads(line)["loss"] for line in (out / "log.jsonl").read_text().splitlines()])
    assert len(losses[0]) == 3
    assert losses[0] == losses[1]


def test_damaged_pairs_and_missing_answers_are_counted(tmp_path: Path, shards: Path) -> None:
    needs("llm", "openai")
    broken = {"a": {"png": b"no", "txt": b"a dog"}, "b": {"png": image(0), "txt": b" "}}
    write_tar(shards / "00002.tar", {**broken, "c": sample(1), "d": sample(2)})
    with Stub(lambda caption, attempt: "..." if caption.endswith("7") else truthful(caption)) as stub:
        llm = language_model(stub, tmp_path)
        done = run(shards, *llm, "--shards", tmp_path / "new", "--max-bad-samples", 0.5)
        assert done.exit_code == 1
        told = json.loads((tmp_path / "new" / "damage.json").read_text())
        assert told["reasons"] == {"broken image": 1, "empty caption": 1, "no answer of the tagger": 1}
        assert len(PairSource(tmp_path / "new")) == 16 - 3
        side = run(shards, *llm, "--out", tmp_path / "side", "--max-bad-samples", 0.5)
        assert json.loads((tmp_path / "side" / "damage.json").read_text())["damaged"] == 2  # images are not read
        assert side.exit_code == 1
        assert "are damaged" in one_sentence(run(shards, *llm, "--out", tmp_path / "x", "--max-bad-samples", 0.05))


def test_a_killed_job_goes_on_and_asks_nothing_twice(tmp_path: Path) -> None:
    needs("llm", "openai")
    write_shards(tmp_path / "cc", [10] * 8)

    enough, goes_on = threading.Event(), threading.Event()

    def reply(caption: str, attempt: int) -> str:
        if len(stub.asked) == 80 + 35:
            enough.set()
            goes_on.wait(60)
        return truthful(caption)

    def command(out: str, url: str) -> list[str]:
        llm = ["--tagger", "llm", "--llm-url", url, "--llm-model", "m", "--llm-at-once", "2"]
        more = ["--llm-cache", str(tmp_path / f"cache-{out}"), "--batch", "4"]
        return ["data", "tag", str(tmp_path / "cc"), *llm, *more, "--shards", str(tmp_path / out)]

    with Stub(reply) as stub:
        assert CliRunner().invoke(cli, command("whole", stub.url)).exit_code == 0
        asked = len(stub.asked)
        assert asked == 80
        process = subprocess.Popen([sys.executable, "-m", "ttd", *command("parts", stub.url)])
        assert enough.wait(60)
        process.send_signal(signal.SIGKILL)
        process.wait()
        goes_on.set()
        assert not (tmp_path / "parts" / "tags.json").exists()
        assert CliRunner().invoke(cli, command("parts", stub.url)).exit_code == 0
        assert len(stub.asked) - asked <= 80 + 8
    whole, parts = (sorted((tmp_path / name).glob("*.tar")) for name in ("whole", "parts"))
    assert [path.read_bytes() for path in whole] == [path.read_bytes() for path in parts]
    assert len(whole) == 8
    assert not list((tmp_path / "parts").rglob("*.part"))


def test_ranks_share_the_shards(tmp_path: Path, stand_ins: None, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shards(tmp_path / "cc", [3] * 4)
    assert run(tmp_path / "cc", "--tagger", "nltk", "--shards", tmp_path / "one").exit_code == 0
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        done = run(tmp_path / "cc", "--tagger", "nltk", "--shards", tmp_path / "two")
        assert done.exit_code == 0
        assert ("other ranks are still running" in done.stderr) == (rank == "1")
    one, two = (sorted((tmp_path / name).glob("*.tar")) for name in ("one", "two"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def test_a_dry_run_and_a_limit(tmp_path: Path, shards: Path, stand_ins: None) -> None:
    out = tmp_path / "tags"
    for how in (("--model", "x"), ("--tagger", "nltk")):
        told = run(shards, *how, "--out", out, "--dry-run")
        assert told.exit_code == 0, told.output
        assert "data: 12 pairs in 2 files" in told.stdout
        assert not out.exists()
    assert run(shards, "--model", "x", "--out", out, "--limit", 2).exit_code == 0
    assert len(words_of(PairSource(shards, tags=out / "tags", limit=2))) == 2
    assert "limit was 2" in one_sentence(run(shards, "--model", "x", "--out", out, "--limit", 3))


def test_other_settings_are_refused(tmp_path: Path, shards: Path, stand_ins: None) -> None:
    assert run(shards, "--tagger", "nltk", "--out", tmp_path / "tags").exit_code == 0
    again = run(shards, "--tagger", "nltk", "--drop-stop-words", "--out", tmp_path / "tags")
    assert "stop_words was False, now True" in one_sentence(again)
    assert "made with other settings" in one_sentence(run(shards, "--model", "x", "--out", tmp_path / "tags"))


@pytest.mark.parametrize("percentile", [50, 100])
def test_negative_words_come_from_all_captions(
    shards: Path, tmp_path: Path, stand_ins: None, percentile: float
) -> None:
    """As `TTD.tag` with the words of all captions, written out."""
    options = ("--model", "x", "--drop-stop-words", "--selection", "negatives", "--negatives", "captions")
    done = run(shards, *options, "--percentile", percentile, "--out", tmp_path / "tags")
    assert done.exit_code == 0, done.output
    source = PairSource(shards, tags=tmp_path / "tags" / "tags")
    words = caption_words(caption for i in range(len(source)) for caption in source[i].captions)
    assert f"Words are compared with {len(words)} words of the other captions." in done.stderr
    model = TTD(ColourModelEncoder())
    for i in range(len(source)):
        image, caption = source[i].image, source[i].captions[0]
        tagging = model.tag(
            image, caption, selection=Selection(rule="negatives", percentile=percentile, negatives=words)
        )
        assert source[i].tags == (tuple(tagging.selected),)
    assert any(words_of(source))


def test_where_negative_words_come_from(shards: Path, tmp_path: Path, stand_ins: None) -> None:
    base = ("--model", "x", "--selection", "negatives", "--out", tmp_path / "tags")
    done = run(shards, *base)
    assert "compared with the package's list" in done.stderr  # twelve captions hold too few words
    settings = json.loads((tmp_path / "tags" / "tags.json").read_text())["settings"]
    assert (settings["rule"], settings["percentile"], settings["negatives"]) == ("negatives", 90, "list")
    assert run(shards, *base, "--percentile", 90, "--negatives", "list").exit_code == 0
    assert "percentile was 90.0, now 80.0" in run(shards, *base, "--percentile", 80).stderr
    (tmp_path / "words.txt").write_text("violet\nzebra\n")
    refused = run(shards, *base, "--negatives", tmp_path / "words.txt")
    assert refused.exit_code == 2
    assert f"compared with 2 words of {tmp_path / 'words.txt'}" in refused.stderr
    assert "negatives was 'list', now" in refused.stderr


def test_mistakes_are_answered_in_a_sentence(tmp_path: Path, shards: Path, stand_ins: None) -> None:
    out = ("--out", tmp_path / "out")
    for arguments, message in (
        (("--tagger", "nltk"), "give --out for tables of words, or --shards"),
        (("--tagger", "nltk", *out, "--shards", tmp_path / "s"), "give --out for tables of words, or --shards"),
        (out, "give --model"),
        (("--tagger", "nltk", "--model", "mini", *out), "--model belongs to a model"),
        (("--tagger", "nltk", "--score", "s_pixel", *out), "--score belongs to a model"),
        (("--tagger", "nltk", "--selection", "negatives", *out), "--selection belongs to a model"),
        (("--model", "x", "--percentile", 50, *out), "belong to --selection negatives"),
        (("--model", "x", "--threshold", 0.5, *out), "--threshold cuts"),
        (("--model", "x", "--selection", "negatives", "--score", "s_image", *out), "is for s_pixel, not for s_image"),
        (("--model", "x", "--selection", "negatives", "--negatives", "no.txt", *out), "cannot be read"),
        (("--tagger", "llm", *out), "needs --llm-url"),
        (("--model", "mini", "--llm-model", "m", *out), "--llm-model needs --tagger llm"),
        (("--tagger", "nltk", "--shards", shards), "holds the pairs themselves"),
    ):
        assert message in one_sentence(run(shards, *arguments)), message
    assert not (tmp_path / "out" / "tags.json").exists()


def test_captions_without_spaces_are_counted(tmp_path: Path, stand_ins: None) -> None:
    members = sample(1)
    texts = ["\u8349\u5730\u4e0a\u7684\u72d7", "a dog", "\u829d\u751f\u306e\u4e0a\u306e\u72ac"]
    write_tar(tmp_path / "cc/0.tar", {str(n): {**members, "txt": text.encode()} for n, text in enumerate(texts)})
    done = run(tmp_path / "cc", "--model", "x", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "2 captions: words that are written without spaces count as one" in done.stderr
    assert "--tagger" in done.stderr
