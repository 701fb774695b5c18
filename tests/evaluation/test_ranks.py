"""Processes that share a run: whatever is killed, in whatever order they end, the result is one process's."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import tolerance
from tests.evaluation.conftest import Eval
from tests.evaluation.layouts import write
from tests.evaluation.oracle import Oracle
from tests.evaluation.tasks.test_tagmask import TITLES, write_set
from ttd.errors import InputError
from ttd.evaluation.datasets.classes import read_classes
from ttd.inference.options import Options
from ttd.model import TTD
from ttd.runs import Ranks
from ttd.runs.results_file import RunRecords

# `ttd ...` with the oracle; with KILL=n it is killed when it is asked about its n-th image.
ORACLE = """
import os, signal, sys
import ttd
from tests.evaluation.oracle import Oracle
from tests.threads import use_test_threads
from ttd.evaluation.datasets.classes import read_classes
from ttd.model import TTD
use_test_threads()
model, segment, asked = TTD(Oracle(read_classes("voc").titles)), TTD.segment, []
def ask(self, *args, **options):
    asked.append(1)
    if len(asked) == int(os.environ.get("KILL", 0)):
        os.kill(os.getpid(), signal.SIGKILL)
    return segment(self, *args, **options)
TTD.segment = ask
ttd.__dict__["load"] = lambda *args, **options: model
from ttd.cli import main
main()
"""
MINI = Path(__file__).resolve().parents[2] / "src/ttd/assets/mini"


def numbers(folder: Path) -> dict[str, Any]:
    """What `results.json` says but for where it lies and the command."""
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return {name: value for name, value in found.items() if name != "command"}


def tables(folder: Path) -> dict[str, list[list[str]]]:
    return {path.name: list(csv.reader(path.open())) for path in sorted(folder.glob("*.csv"))}


def file_of(rank: int, world: int) -> str:
    return f"measurements.{rank}-of-{world}.jsonl"


def as_rank(monkeypatch: pytest.MonkeyPatch, rank: int, world: int) -> None:
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(world))


@pytest.mark.parametrize("world", [2, 3, 9])
def test_any_number_of_processes_in_any_order_gives_one_processs_result(
    world: int, tmp_path: Path, evaluate: Eval, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_set(tmp_path / "data", count=7)
    (tmp_path / "data" / "images" / "004.png").write_text("no image")
    one = tmp_path / "one"
    alone = evaluate(Oracle(TITLES), "tagmask", tmp_path / "data", "--protocol", "default", "--out", one)
    assert alone.exit_code == 1
    assert not list(one.glob("ended*"))
    for rank in reversed(range(world)):
        assert not (tmp_path / "out" / "results.json").exists()
        as_rank(monkeypatch, rank, world)
        done = evaluate(Oracle(TITLES), "tagmask", tmp_path / "data", "--protocol", "default")
        assert done.exit_code == (0 if rank else 1), done.output
        assert ("the one that ends last" in done.stderr) == bool(rank)
    assert done.stdout == alone.stdout
    assert numbers(tmp_path / "out") == numbers(one)
    assert tables(tmp_path / "out") == tables(one)
    assert numbers(one)["skipped"][0]["id"] == "004"
    assert not list((tmp_path / "out").glob("ended*"))
    # Once more, all of it: nothing is measured again and the answer is the same.
    before = {path: path.read_bytes() for path in (tmp_path / "out").glob("measurements*.jsonl")}
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("WORLD_SIZE")
    evaluate(Oracle(TITLES), "tagmask", tmp_path / "data", "--protocol", "default")
    assert numbers(tmp_path / "out") == numbers(one)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.skipif(not MINI.is_dir(), reason="the embedded model is not here")
def test_scores_of_a_real_model_do_not_depend_on_who_measured_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ttd.evaluation.datasets.tagmask import read_tagmask
    from ttd.evaluation.runner import run
    from ttd.evaluation.tasks.tagmask import TagMask
    from ttd.scenes import Scenes
    from ttd.scenes.write import write_tagmask

    write_tagmask(Scenes("test"), 5, tmp_path / "data")
    benchmark = TagMask(read_tagmask(tmp_path / "data"), Options(), Options(), scores=("s_pixel", "s_image+s_text"))

    models: list[TTD] = []

    def measured(folder: Path, world: int) -> list[dict[str, Any]]:
        for rank in range(world):
            import ttd

            ranks = Ranks(rank, world)
            with RunRecords(folder, ranks).open({}) as store:
                models.append(ttd.load("mini"))
                run(models[-1], benchmark, store, executor=ranks)
        return list(RunRecords(folder).records([sample.id for sample in benchmark.samples]))

    two, one = measured(tmp_path / "two", 2), measured(tmp_path / "one", 1)
    tolerance.assert_same_record(two, one, tolerance.MINI)
    # The caller's model is as it was: words that are asked for together are encoded together.
    batches: list[list[str]] = []
    encoder = models[-1].encoder
    inner = encoder.encode_text
    monkeypatch.setattr(encoder, "encode_text", lambda texts, *more: batches.append(texts) or inner(texts, *more))
    models[-1].encode_text(["queue", "sky"])
    assert batches == [["queue", "sky"]]


@pytest.mark.slow
def test_killed_processes_go_on_as_another_number_of_them(
    tmp_path: Path, evaluate: Eval, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "data", "voc", count=11)
    arguments = ["eval", "voc", "--data", str(tmp_path / "data"), "--model", "oracle", "--protocol", "default"]
    line = [sys.executable, "-c", ORACLE, *arguments, "--out", str(tmp_path / "out")]
    kills = {"0": "2", "1": "4"}
    processes = [
        subprocess.Popen(line, env={**os.environ, "RANK": rank, "WORLD_SIZE": "2", "KILL": kill})
        for rank, kill in kills.items()
    ]
    assert [process.wait(100) for process in processes] == [-signal.SIGKILL] * 2
    counts = [len((tmp_path / "out" / file_of(rank, 2)).read_bytes().splitlines()) for rank in (0, 1)]
    assert counts == [1, 3]
    # What a kill leaves in the middle of a line:
    with (tmp_path / "out" / file_of(1, 2)).open("ab") as stream:
        stream.write(b'{"id": "item9", "confu')
    titles, segment, asked = read_classes("voc").titles, TTD.segment, []
    monkeypatch.setattr(TTD, "segment", lambda *args, **options: asked.append(1) or segment(*args, **options))
    for rank in (1, 2, 0):
        as_rank(monkeypatch, rank, 3)
        evaluate(Oracle(titles), "voc", tmp_path / "data", "--protocol", "default", "--images", 0)
    assert len(asked) == 11 - sum(counts)
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("WORLD_SIZE")
    evaluate(Oracle(titles), "voc", tmp_path / "data", "--protocol", "default", "--out", tmp_path / "one")
    assert numbers(tmp_path / "out") == numbers(tmp_path / "one")
    assert tables(tmp_path / "out") == tables(tmp_path / "one")


@pytest.mark.slow
def test_under_torchrun(tmp_path: Path, evaluate: Eval) -> None:
    _, _, titles = write(tmp_path / "data", "voc", count=5)
    (tmp_path / "oracle.py").write_text(ORACLE)
    arguments = [
        "eval",
        "voc",
        "--data",
        str(tmp_path / "data"),
        "--model",
        "oracle",
        "--protocol",
        "default",
        "--json",
    ]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29533"]
    done = subprocess.run(
        [*torchrun, str(tmp_path / "oracle.py"), *arguments, "--out", str(tmp_path / "out")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["measured"] == 5  # one of the two answers, not both
    evaluate(Oracle(titles), "voc", tmp_path / "data", "--protocol", "default", "--out", tmp_path / "one")
    assert numbers(tmp_path / "out") == numbers(tmp_path / "one")


def test_other_settings_are_refused_whichever_process_wrote_the_files(
    tmp_path: Path, evaluate: Eval, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, titles = write(tmp_path / "data", "voc", count=3)
    as_rank(monkeypatch, 1, 2)
    evaluate(Oracle(titles), "voc", tmp_path / "data", "--protocol", "default")
    as_rank(monkeypatch, 0, 3)
    other = evaluate(Oracle(titles), "voc", tmp_path / "data", "--protocol", "tcl-plain")
    assert other.exit_code == 2
    assert "holds results of another run" in other.stderr
    assert not (tmp_path / "out" / file_of(0, 3)).exists()


@pytest.mark.parametrize("at", ["first", "last"])
@pytest.mark.parametrize("world", [1, 2])
def test_results_that_vanish_are_no_success(
    world: int, at: str, tmp_path: Path, evaluate: Eval, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody removes the folder while the first or the last item of this process is measured."""
    _, _, titles = write(tmp_path / "data", "voc", count=4)
    as_rank(monkeypatch, 0, world)
    segment, asked = TTD.segment, []

    def remove(self: TTD, *arguments: Any, **options: Any) -> Any:
        asked.append(1)
        if len(asked) == (1 if at == "first" else 4 // world):
            shutil.rmtree(tmp_path / "out")
        return segment(self, *arguments, **options)

    monkeypatch.setattr(TTD, "segment", remove)
    done = evaluate(Oracle(titles), "voc", tmp_path / "data", "--protocol", "default")
    assert done.exit_code == 2
    assert "was removed or replaced during the run: run the same command again" in done.stderr
    monkeypatch.setattr(TTD, "segment", segment)
    for rank in range(world):
        as_rank(monkeypatch, rank, world)
        assert evaluate(Oracle(titles), "voc", tmp_path / "data", "--protocol", "default").exit_code == 0
    assert json.loads((tmp_path / "out" / "results.json").read_text())["measured"] == 4


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / file_of(0, 2)).write_text('{"id": "a"}\n{"i\n{"id": "c"}\n')
    with pytest.raises(InputError, match=r"0-of-2.*is not JSON"):
        RunRecords(tmp_path).left(["a", "b"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(data=st.data())
def test_exactly_one_process_adds_up_whatever_happened_before(data: st.DataObject, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("run")
    ids = [f"i{n}" for n in range(data.draw(st.integers(1, 9)))]
    bad = set(data.draw(st.lists(st.sampled_from(ids))))

    def work(rank: int, world: int, stop: int | None = None) -> list[tuple[str, str]] | None:
        """Measures, or is killed before its item number `stop`; tells what all skipped, once all are done."""
        records = RunRecords(folder, Ranks(rank, world))
        left, _ = records.left(ids)
        skipped = []
        with records.path.open("a") as stream:
            for count, number in enumerate(left):
                if count == stop:
                    return None
                if ids[number] in bad:
                    skipped.append((ids[number], "bad"))
                else:
                    stream.write(json.dumps({"id": ids[number]}) + "\n")
        return records.end(ids, skipped)

    for _ in range(data.draw(st.integers(0, 3))):  # rounds in which some are killed
        world = data.draw(st.integers(2, 4))
        for rank in data.draw(st.permutations(range(world))):
            work(rank, world, data.draw(st.integers(0, 3)))
    world = data.draw(st.integers(1, 4))
    answers = [work(rank, world) for rank in data.draw(st.permutations(range(world)))]
    told = [answer for answer in answers if answer is not None]
    assert told
    assert all(answer == [(name, "bad") for name in ids if name in bad] for answer in told)
    assert [record["id"] for record in RunRecords(folder).records(ids)] == [name for name in ids if name not in bad]
