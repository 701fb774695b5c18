"""`ttd train` and `ttd merge` on a tiny model; stopping by signal and a full disk in processes of their own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.cli.conftest import invoke as run
from tests.data.samples import image, sample, write_tar
from tests.tiny_models import small_tokenizer, tiny_siglip_model, tiny_tcl_tensors
from tests.tolerance import TINY_TCL, TINY_TEXT, assert_close, float_tolerance, largest_difference
from ttd.encoders.loading.formats import Card, read_card, write_card
from ttd.encoders.registry import load_encoder

SMALL = [
    "--set", "augment.shortest=40", "--set", "augment.longest=80", "--set", "augment.crop=64",
    "--set", "optimiser.batch=4", "--set", "run.precision=float32", "--set", "run.watch_every=0",
    "--set", "run.device=cpu",
]  # fmt: skip

HELD_IN_STEP_3 = """
import sys
from ttd.training.trainer import Trainer
advance = Trainer.advance
def hold(self, *arguments):
    if self.step == 2:
        print("in step 3", flush=True)
        sys.stdin.readline()
    return advance(self, *arguments)
Trainer.advance = hold
from ttd.cli import main
main()
"""


@pytest.fixture(scope="module")
def base(clip_folder: Path) -> Path:
    return clip_folder


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tar(tmp_path_factory.mktemp("data") / "pairs.tar", {f"{n}": sample(n) for n in range(10)})


def test_train_and_merge(base: Path, shard: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = run("train", shard, "--model", base, "--out", out, "--seed", 3, *SMALL)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(out)
    record = json.loads((out / "run.json").read_text("utf-8"))
    assert record["config"]["run"]["seed"] == record["seed"] == 3
    assert record["config"]["data"]["sources"] == [str(shard)]
    merged = tmp_path / "merged"
    result = run("merge", "--model", base, "--adapter", out, "--out", merged)
    assert result.exit_code == 0, result.output
    adapted, plain = load_encoder(base, adapter=out), load_encoder(merged)
    assert plain.fingerprint() != load_encoder(base).fingerprint()
    assert_close(plain.encode_text(["a dog"]), adapted.encode_text(["a dog"]), TINY_TEXT)


@pytest.fixture(scope="module")
def of_each_kind(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small random model of each kind; TCL's lies where the short name "tcl" finds it."""
    folder = tmp_path_factory.mktemp("kinds")
    tiny_siglip_model().save_pretrained(folder / "siglip")
    small_tokenizer().save_pretrained(folder / "siglip")
    save_file(tiny_tcl_tensors(), folder / "tcl.safetensors")
    return {"clip": base, "siglip": folder / "siglip", "tcl": folder / "tcl.safetensors"}


@pytest.mark.parametrize(("kind", "block"), [("clip", "maskclip"), ("siglip", None), ("tcl", None)])
def test_the_papers_recipe_trains_every_kind(
    kind: str, block: str | None, of_each_kind: dict[str, Path], shard: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    model: Path | str = of_each_kind[kind]
    if kind == "tcl":
        monkeypatch.setenv("TTD_CACHE", str(of_each_kind[kind].parent))
        model = "tcl"
    command = ["train", shard, "--config", "paper", "--model", model, *SMALL, "--set", "data.workers=0", "--steps", 2]
    planned = run(*command, "--out", tmp_path / "run", "--dry-run")
    assert planned.exit_code == 0, planned.output
    assert ("last block maskclip" in planned.stdout) == (block is not None)
    trained = run(*command, "--out", tmp_path / "run")
    assert trained.exit_code == 0, trained.output
    assert "WARNING" not in trained.stderr
    assert json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))["method"] == block
    card = read_card(tmp_path / "run")
    assert card is not None
    assert (card.kind, card.method) == (kind, block)
    before, after = load_encoder(model), load_encoder(model, adapter=tmp_path / "run")
    words = ["dog", "cat"]
    rounding = float_tolerance(torch.float32, TINY_TCL)  # the largest of the three
    assert largest_difference(before.encode_text(words), after.encode_text(words)) > rounding
    if block is None:
        refused = run(*command, "--method", "maskclip", "--out", tmp_path / "other")
        assert refused.exit_code == 2
        assert "leave the method out" in refused.stderr
        assert not (tmp_path / "other").exists()


def test_a_folder_that_names_another_block_says_which_is_trained(base: Path, shard: Path, tmp_path: Path) -> None:
    model, out = shutil.copytree(base, tmp_path / "model"), tmp_path / "run"
    write_card(model, Card("clip", method="naclip"))
    command = ["train", shard, "--config", "paper", "--model", model, *SMALL, "--set", "data.workers=0", "--out", out]
    trained = run(*command, "--steps", 1)
    assert trained.exit_code == 0, trained.output
    assert f'the last block that is trained is "naclip", which ttd.json of {model} names' in trained.stderr
    assert json.loads((out / "run.json").read_text("utf-8"))["method"] == "naclip"
    chosen = run(*command, "--steps", 2, "--method", "naclip")  # the same run: only its name was not given before
    assert chosen.exit_code == 0, chosen.output
    assert "naclip" not in chosen.stderr
    (model / "ttd.json").unlink()
    refused = run(*command, "--steps", 3)
    assert refused.exit_code == 2
    assert "another run (last block was 'naclip', now 'maskclip')" in refused.stderr


def test_skipped_pairs_are_exit_code_1(base: Path, tmp_path: Path) -> None:
    pairs = {f"{n}": sample(n) for n in range(10)} | {"bad": {"png": b"x", "txt": b"a cat"}}
    shard = write_tar(tmp_path / "pairs.tar", pairs)
    result = run("train", shard, "--model", base, "--out", tmp_path / "run", *SMALL)
    assert result.exit_code == 1, result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "x"], "no data"),
        (["nowhere.tar", "--out", "x"], "does not exist"),
        (["--config", "papper", "--out", "x"], "one of paper, scenes-negatives, scenes-paper"),
        (["--set", "loss.tagg=1", "--out", "x"], "did you mean tag"),
        ([], "--out"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_code_2(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("train", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_a_signal_ends_the_command_with_its_code_and_the_command_goes_on(base: Path, tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "pairs.tar", {f"{n}": {"png": image(n, 400), "txt": b"a cat"} for n in range(40)})
    out = tmp_path / "run"
    command = [sys.executable, "-c", HELD_IN_STEP_3, "train", str(shard), "--model", str(base), "--out", str(out)]
    command += [*SMALL, "--set", "run.log_every=1", "--set", "optimiser.epochs=100"]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in step 3\n"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate("sent\n", timeout=600)
    assert process.returncode == 143
    assert errors.strip() == "ttd: Terminated; what was written is complete."
    reached = max(int(path.stem.partition("-")[2]) for path in (out / "checkpoints").iterdir())
    assert reached == 3
    again = run(*command[3:], "--steps", reached + 1)
    assert again.exit_code == 0, again.output
    steps = [json.loads(line)["step"] for line in (out / "log.jsonl").read_text("utf-8").splitlines()]
    assert steps == list(range(1, reached + 2))


def test_a_dry_run_writes_nothing(base: Path, shard: Path, tmp_path: Path) -> None:
    result = run("train", shard, "--model", base, "--out", tmp_path / "run", "--dry-run", *SMALL)
    assert result.exit_code == 0, result.output
    assert "with the adapter" in result.stdout
    assert "10 pairs in 1 files" in result.stdout
    assert re.search(r"time: .* on cpu: \d+\.\d\d s a step", result.stdout)
    assert "disk: " in result.stdout
    assert not (tmp_path / "run").exists()


def test_a_hub_that_cannot_be_reached_stops_before_training(
    base: Path, shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    command = ("train", shard, "--model", base, "--out", tmp_path / "run", "--push-to-hub", "me/adapter", *SMALL)
    result = run(*command)
    assert result.exit_code == 2
    assert "cannot be reached" in result.stderr
    assert not (tmp_path / "run").exists()
