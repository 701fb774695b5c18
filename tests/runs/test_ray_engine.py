"""A cluster of several local nodes: killed and added in the middle, with nothing lost or doubled."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import invoke
from tests.data.samples import caption, image, write_colour_shards
from tests.extras import needs
from ttd.errors import InputError
from ttd.runs import Prepared
from ttd.runs.ray_engine import MOST_TRIES, RayExecutor
from ttd.scenes import Scenes
from ttd.scenes.write import write_tagmask

ray = needs("ray", "ray")
cluster_utils = needs("ray", "ray.cluster_utils")
pytestmark = [pytest.mark.slow, pytest.mark.apart]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head that does no work, and two nodes of one worker each."""
    found = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        found.add_node(num_cpus=1)
    before = os.environ.get("RAY_ADDRESS")
    os.environ["RAY_ADDRESS"] = found.address
    ray.init(log_to_driver=False)
    yield found
    ray.shutdown()
    found.shutdown()
    os.environ.pop("RAY_ADDRESS") if before is None else os.environ.__setitem__("RAY_ADDRESS", before)


def noted(notes: Path, do: Callable[[int], Any], seconds: float = 0.05) -> Prepared[int, Any]:
    """Work that notes each time it is prepared, and each unit that it begins, in a file of its process."""

    def prepare() -> Callable[[int], Any]:
        path = notes / str(os.getpid())
        path.touch()

        def unit(number: int) -> Any:
            with path.open("a") as file:
                file.write(f"{number}\n")
            time.sleep(seconds)
            return do(number)

        return unit

    notes.mkdir(exist_ok=True)
    return Prepared(prepare)


def begun(notes: Path) -> list[int]:
    return sorted(int(line) for path in notes.iterdir() for line in path.read_text().split())


def test_each_unit_is_done_once_by_workers_that_prepare_once(cluster: Any, tmp_path: Path) -> None:
    executor = RayExecutor()
    found = list(executor.map(noted(tmp_path / "notes", lambda number: number**2), range(12)))
    assert sorted(found) == [(number, number**2) for number in range(12)]
    assert begun(tmp_path / "notes") == list(range(12))
    assert len(list((tmp_path / "notes").iterdir())) == 2
    assert (executor.lost, executor.again) == (0, 0)


def test_a_node_that_dies_costs_its_unit_and_one_that_is_added_takes_part(cluster: Any, tmp_path: Path) -> None:
    notes, added = tmp_path / "notes", tmp_path / "added"

    def unit(number: int) -> int:
        """The tenth waits until all three nodes take part, the twentieth until the new one does."""
        while (number >= 10 and len(os.listdir(notes)) < 3) or (number >= 20 and len(os.listdir(notes)) < 4):
            time.sleep(0.05)
        return -number

    executor, found = RayExecutor(), []
    doomed = cluster.add_node(num_cpus=1)
    for number, result in executor.map(noted(notes, unit, 0.2), range(24)):
        found.append((number, result))
        if len(list(notes.iterdir())) == 3 and not added.exists():
            cluster.remove_node(doomed, allow_graceful=False)
            cluster.add_node(num_cpus=1)
            added.touch()
    assert sorted(found) == [(number, -number) for number in range(24)]
    assert len(begun(notes)) - 24 <= executor.again <= executor.lost
    assert executor.lost >= 1
    assert len(list(notes.iterdir())) == 4


def test_a_worker_that_dies_costs_its_unit(cluster: Any, tmp_path: Path) -> None:
    died = tmp_path / "died"

    def once(number: int) -> int:
        if number == 3 and not died.exists():
            died.touch()
            os._exit(9)
        return number

    executor = RayExecutor()
    assert sorted(executor.map(noted(tmp_path / "notes", once), range(8))) == [(n, n) for n in range(8)]
    assert executor.again == 1 <= executor.lost  # Ray may lose one that only starts, too
    assert begun(tmp_path / "notes") == [0, 1, 2, 3, 3, 4, 5, 6, 7]


def test_workers_that_are_killed_cost_nothing_but_time(cluster: Any, tmp_path: Path) -> None:
    executor, found, killed = RayExecutor(), [], 0
    for number, result in executor.map(noted(tmp_path / "notes", lambda number: -number, 0.1), range(48)):
        found.append((number, result))
        if len(found) % 7 == 0 and killed < 6:
            pids = [int(path.name) for path in (tmp_path / "notes").iterdir() if Path(f"/proc/{path.name}").exists()]
            os.kill(pids[killed % len(pids)], signal.SIGKILL)
            killed += 1
    assert killed == 6
    assert sorted(found) == [(number, -number) for number in range(48)]
    assert len(begun(tmp_path / "notes")) - 48 <= executor.again <= executor.lost
    assert executor.lost >= 6


def test_a_unit_that_ends_every_worker_ends_the_run(cluster: Any, tmp_path: Path) -> None:
    executor = RayExecutor()
    work = noted(tmp_path / "notes", lambda number: os._exit(9) if number == 1 else number)
    with pytest.raises(InputError, match=f"unit 2 of 3 ended its worker {MOST_TRIES} times"):
        list(executor.map(work, range(3)))


def test_an_error_of_ours_ends_the_run_as_anywhere(cluster: Any, tmp_path: Path) -> None:
    def refuse(number: int) -> int:
        raise InputError(f"unit {number} is wrong: repair it")

    with pytest.raises(InputError, match=r"^unit 0 is wrong: repair it$"):
        list(RayExecutor().map(noted(tmp_path / "notes", refuse), [0]))


def test_workers_that_cannot_start_are_one_sentence(cluster: Any) -> None:
    class Broken:
        def __reduce__(self) -> Any:
            return exec, ("raise ValueError('not on this machine')",)

    with pytest.raises(InputError, match="no worker of the Ray cluster could be started"):
        list(RayExecutor().map(Broken(), [0]))


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.parquet"))}


@pytest.mark.parametrize(
    "command", [("prune", "--k", "0"), ("data", "tag", "--selection", "negatives", "--form", "nested")]
)
def test_a_job_gives_the_same_bytes_with_every_engine(
    cluster: Any, tmp_path: Path, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_colour_shards(tmp_path / "cc", 3, lambda number: number % 4 == 3)
    more = (tmp_path / "cc", "--model", "mini", "--batch", 2, "--threads", 1, "--max-bad-samples", 0.5)
    for engine in ("local", "ray"):
        done = invoke(*command, *more, "--out", tmp_path / engine, "--engine", engine)
        assert done.exit_code == 1, done.output  # one image is broken
        assert "1 of 15 pairs skipped" in done.stderr
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        assert invoke(*command, *more, "--out", tmp_path / "torchrun", "--engine", "torchrun").exit_code == 0
    tables = everything(tmp_path / "local")
    assert sum(len(pq.read_table(tmp_path / "local" / name)) for name in tables) >= 14
    assert everything(tmp_path / "ray") == everything(tmp_path / "torchrun") == tables


def test_images_and_items_are_measured_alike_with_every_engine(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ttd.cli import batch
    from ttd.evaluation import runner

    monkeypatch.setattr(batch, "_BLOCK", 4)
    monkeypatch.setattr(runner, "SENT", 2)
    write_tagmask(Scenes("test"), 5, tmp_path / "set")
    (tmp_path / "photos").mkdir()
    for number in range(9):
        (tmp_path / f"photos/{number}.png").write_bytes(image(number, 64))
        (tmp_path / f"photos/{number}.txt").write_text(caption(number))
    (tmp_path / "photos/3.png").write_bytes(b"no image")
    commands = {
        "tag": ("tag", tmp_path / "photos", "--batch", 2),
        "drawn": ("tag", tmp_path / "photos", "--size", 64),
        "eval": ("eval", "tagmask", "--data", tmp_path / "set", "--images", 0),
    }
    for name, command in commands.items():
        for engine in ("local", "ray"):
            out = tmp_path / engine / (f"{name}.jsonl" if name == "tag" else name)
            done = invoke(*command, "--model", "mini", "--out", out, "--engine", engine)
            assert done.exit_code == int(name != "eval"), done.output
            assert ("3.png" in done.stderr) == (name != "eval")
    local, other = tmp_path / "local", tmp_path / "ray"
    for name in ("tag.jsonl", "eval/results.json", "drawn/results.jsonl"):
        there, here = (folder.joinpath(name).read_text().replace(str(folder), "") for folder in (local, other))
        if name.startswith("eval"):
            assert json.loads(there)["numbers"] == json.loads(here)["numbers"]
        else:
            assert there == here
            assert len(there.splitlines()) == 8
    drawn = [sorted(path.name for path in (folder / "drawn/images").iterdir()) for folder in (local, other)]
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 24


def test_a_job_that_ray_began_is_ended_without_it_and_the_other_way_round(cluster: Any, tmp_path: Path) -> None:
    write_colour_shards(tmp_path / "cc", 3, lambda number: number % 4 == 3)
    command = ("prune", tmp_path / "cc", "--model", "mini", "--k", 0, "--batch", 2, "--threads", 1)
    for first, second in (("ray", "local"), ("local", "ray")):
        out = tmp_path / first
        assert invoke(*command, "--out", out, "--engine", first).exit_code == 1
        files = sorted((out / "scores").rglob("*.parquet"))
        before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
        files[1].unlink()
        assert invoke(*command, "--out", out, "--engine", second).exit_code == 1
        assert {path: path.read_bytes() for path in files} == {path: content for path, (content, _) in before.items()}
        assert [path for path in files if path.stat().st_mtime_ns != before[path][1]] == [files[1]]
