"""One process for each rank of a run's folder; a killed one keeps nobody out."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data.samples import write_shards
from ttd.cli import cli
from ttd.errors import InputError
from ttd.runs import lock as run_lock
from ttd.runs.lock import Holder, RunLock

# Holds a lock until its stdin is closed, or until it is killed; SYSTEM=none: on a disk without the system's locks.
HOLDER = """
import errno, fcntl, os, sys
from pathlib import Path
from ttd.runs import lock as run_lock
run_lock.RENEW_SECONDS, run_lock._HANDOVER_SECONDS = 0.05, 0.1
if os.environ.get("SYSTEM") == "none":
    def refuse(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")
    fcntl.flock = refuse
if machine := os.environ.get("MACHINE"):
    run_lock._machine = lambda: machine
with run_lock.RunLock(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])):
    print("held", flush=True)
    sys.stdin.read()
"""

Hold = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "_HANDOVER_SECONDS", 0.1)
    monkeypatch.setattr(run_lock, "RENEW_SECONDS", 0.05)
    monkeypatch.setattr(run_lock, "DEAD_SECONDS", 5.0)


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Hold]:
    """Starts a process that holds the lock of a rank in `tmp_path`."""
    with ExitStack() as stack:

        def start(rank: int = 0, world: int = 1, **environment: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-c", HOLDER, str(tmp_path), str(rank), str(world)],
                env={**os.environ, **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            return process

        yield start


def without_system_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_a_second_process_is_told_who_works(tmp_path: Path, hold: Hold) -> None:
    process = hold()
    with pytest.raises(InputError) as refused, RunLock(tmp_path):
        pass
    told = str(refused.value)
    assert f"process {process.pid} on {socket.gethostname()}" in told
    assert "choose another --out" in told
    process.communicate()
    with RunLock(tmp_path):
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


def test_one_process_does_not_do_it_twice_either(tmp_path: Path) -> None:
    with RunLock(tmp_path), pytest.raises(InputError, match=f"process {os.getpid()} "), RunLock(tmp_path):
        pass


def test_a_killed_process_keeps_nobody_out(tmp_path: Path, hold: Hold, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "DEAD_SECONDS", 1e9)  # which would never end
    process = hold()
    process.kill()
    process.wait()
    assert Holder.parse(next(tmp_path.glob(".ttd-*")).read_bytes()) is not None
    with RunLock(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_ranks_work_side_by_side_and_other_worlds_do_not(tmp_path: Path, hold: Hold) -> None:
    hold(0, 2)
    with RunLock(tmp_path, 1, 2):
        pass
    for rank, world in ((0, 1), (1, 3), (0, 2)):
        with pytest.raises(InputError, match=r"in use as rank 0 of 2 "), RunLock(tmp_path, rank, world):
            pass


def test_ranks_that_were_killed_leave_the_folder_to_any_number(tmp_path: Path, hold: Hold) -> None:
    for process in [hold(rank, 3) for rank in range(3)]:
        process.kill()
        process.wait()
    with RunLock(tmp_path, 1, 2), RunLock(tmp_path, 0, 2):
        assert len(list(tmp_path.iterdir())) == 2
    assert not list(tmp_path.iterdir())


def test_results_beside_each_other_have_locks_of_their_own(tmp_path: Path) -> None:
    with RunLock(tmp_path, name="a.jsonl"), RunLock(tmp_path, name="b.jsonl"):
        pass
    with (
        pytest.raises(InputError, match=r"a\.jsonl is in use"),
        RunLock(tmp_path, name="a.jsonl"),
        RunLock(tmp_path, name="a.jsonl"),
    ):
        pass


@pytest.mark.parametrize("system", ["", "none"])
def test_a_process_on_another_machine_is_known_by_its_renewals(
    tmp_path: Path, hold: Hold, monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    """The disk's locks do not reach the other machine, or there are none; that machine's process is stopped or not."""
    process = hold(SYSTEM="none", MACHINE="another")
    if system:
        without_system_locks(monkeypatch)
    with pytest.raises(InputError, match=f"process {process.pid} on "), RunLock(tmp_path):
        pass
    process.kill()
    process.wait()
    monkeypatch.setattr(run_lock, "DEAD_SECONDS", 0.2)
    with RunLock(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_without_the_systems_locks_a_process_of_this_machine_is_found(
    tmp_path: Path, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = hold(SYSTEM="none")
    without_system_locks(monkeypatch)
    with pytest.raises(InputError, match=f"process {process.pid} on "), RunLock(tmp_path):
        pass
    process.kill()
    process.wait()
    monkeypatch.setattr(run_lock, "DEAD_SECONDS", 1e9)  # a process that does not exist is not waited for
    with RunLock(tmp_path):
        pass


def test_of_many_at_once_one_works_also_without_the_systems_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_system_locks(monkeypatch)
    monkeypatch.setattr(run_lock, "_HANDOVER_SECONDS", 0.5)
    begin, end, done = threading.Barrier(6), threading.Barrier(6), []

    def work() -> None:
        begin.wait()
        try:
            with RunLock(tmp_path):
                done.append("worked")
                end.wait()
        except InputError:
            done.append("refused")
            end.wait()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == ["refused"] * 5 + ["worked"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(content=st.binary() | st.dictionaries(st.sampled_from(["pid", "host", "machine"]), st.none()).map(
    lambda found: json.dumps(found).encode()
))  # fmt: skip
def test_a_damaged_lock_keeps_nobody_out(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".ttd-0-of-1.lock").write_bytes(content)
    with RunLock(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def leftover(folder: Path, name: str = "results.json", pid: int = 2**22 + 1) -> Path:
    """What a killed writer leaves; no system has so high a process number."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{name}.{pid}-0123abcd.part"
    part.write_text("half")
    return part


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path, hold: Hold) -> None:
    gone = [leftover(tmp_path), leftover(tmp_path / "images" / "a"), leftover(tmp_path, "model.pt") / "x"]
    gone[-1].parent.unlink()
    leftover(gone[-1].parent)
    outside = leftover(tmp_path / "elsewhere" / "out")
    stays = [leftover(tmp_path, pid=os.getppid()), tmp_path / "photo.part", tmp_path / ".a.1-0123abcd.part.png"]
    for path in stays[1:]:
        path.write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "link").symlink_to(tmp_path / "elsewhere")
    with RunLock(tmp_path / "run"):
        assert outside.exists()
    own = leftover(tmp_path / "elsewhere")
    with RunLock(tmp_path / "elsewhere"):  # is at work inside
        with RunLock(tmp_path):
            assert not any(path.exists() for path in gone)
        assert outside.exists() is own.exists() is False  # it had swept itself
    assert all(path.exists() for path in stays)


def test_what_ranks_at_work_write_is_not_touched(tmp_path: Path, hold: Hold) -> None:
    process = hold(1, 2)
    part = leftover(tmp_path)
    with RunLock(tmp_path, 0, 2):
        assert part.exists()
        inner = tmp_path / "inner"
        inner.mkdir()
        process.kill()
        process.wait()
    assert not part.exists()  # the last one has removed what the killed one left


def test_a_run_inside_that_is_at_work_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "runs" / "one").mkdir(parents=True)
    with RunLock(tmp_path / "runs" / "one"):
        part = leftover(tmp_path / "runs" / "one")
        with RunLock(tmp_path):
            assert part.exists()


def test_results_in_one_file_sweep_only_their_own(tmp_path: Path) -> None:
    own, other = leftover(tmp_path, "a.run.json"), leftover(tmp_path, "b.jsonl")
    below = leftover(tmp_path / "folder", "a.run.json")
    with RunLock(tmp_path, name="a.jsonl"):
        assert [path.exists() for path in (own, other, below)] == [False, True, True]


COMMANDS = {
    "tag": "tag {images} a-dog --model mini --out {out}",
    "tag into a file": "tag {images} a-dog --model mini --out {out}/r.jsonl",
    "mask": "mask {images} a-dog --model mini --out {out}",
    "segment": "segment {images} --tags dog --model mini --out {out}",
    "heatmap": "heatmap {images} dog --model mini --out {out}",
    "eval": "eval tagmask --data {set} --model mini --protocol default --out {out}",
    "bias": "bias --data {set} --model mini --protocol default --out {out}",
    "prune": "prune {shards} --model mini --out {out}",
    "data tag": "data tag {shards} --model mini --out {out}",
    "data pack": "data pack {shards} --out {out}",
    "scenes write": "scenes write {out} --count 2",
    "train": "train {shards} --model mini --steps 1 --out {out}",
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    from ttd.scenes import Scenes
    from ttd.scenes.write import write_tagmask

    folder = tmp_path_factory.mktemp("inputs")
    write_shards(folder / "shards", [3])
    write_tagmask(Scenes("test"), 2, folder / "set")
    return {"images": str(folder / "set" / "images"), "set": str(folder / "set"), "shards": str(folder / "shards")}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_goes_on_refuses_a_folder_in_use(
    command: str, inputs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    name = "r.jsonl" if "r.jsonl" in COMMANDS[command] else ""
    with RunLock(out, name=name) as held:
        arguments = COMMANDS[command].format(out=out, **inputs).split()
        result = CliRunner().invoke(cli, arguments, prog_name="ttd")
        error: Any = result.exception
        assert result.exit_code == 2, result.output
        assert isinstance(error, SystemExit), error
        assert f"process {os.getpid()} on {socket.gethostname()}" in result.stderr
        assert list(out.iterdir()) == [held.path]
