"""The store: versions, kills in the middle of writing, two processes at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.annotate.writer import record
from ttd.annotate.export import Exporter
from ttd.annotate.queue import Claims
from ttd.annotate.records import SKIPPED, Record
from ttd.annotate.store import AnnotationStore, ExportFailed, RecordChanged
from ttd.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
FIRST, SECOND = 16, 20  # things that the first and the second record of an item do to the disk


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.annotate.writer", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def written(process: subprocess.Popen[str]) -> list[tuple[str, int, int]]:
    assert process.stdout is not None
    rows = [line.split() for line in process.stdout if line.endswith("\n")]
    return [(name, int(version), int(step)) for name, version, step in rows]


def test_versions_count_up_and_an_old_one_is_refused(tmp_path: Path) -> None:
    store = AnnotationStore(tmp_path)
    first = store.put(record("a", 0), 0)
    second = store.put(record("a", 1), first.version)
    assert (first.version, second.version) == (1, 2)
    with pytest.raises(RecordChanged, match=r"changed in another tab .*true: dog.*nothing of yours was saved") as told:
        store.put(record("a", 2), 1)
    assert told.value.newest.caption == "dog 1"
    assert store.put(record("a", 2), told.value.newest.version).version == 3
    kept = store.get("a")
    assert kept is not None
    assert kept.masks["dog"].sum() == 3
    assert kept.time.endswith("+00:00")
    assert store.get("b") is None


def test_summaries_follow_the_disk_also_when_others_write(tmp_path: Path) -> None:
    mine, other = AnnotationStore(tmp_path), AnnotationStore(tmp_path)
    assert mine.summaries() == {}
    other.put(record("a", 0), 0)
    assert mine.summaries()["a"].version == 1
    other.put(Record("a", 0, SKIPPED, "s", "a", 0, "dog 0", ("dog", "0")), 1)
    summary = mine.summaries()["a"]
    assert (summary.version, summary.status, summary.finished) == (2, "skipped", False)


def test_summaries_reads_only_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = AnnotationStore(tmp_path)
    for number in range(5):
        store.put(record(f"a{number}", 0), 0)
    store.summaries()
    read: list[str] = []
    get = store.get
    monkeypatch.setattr(store, "get", lambda name: read.append(name) or get(name))
    AnnotationStore(tmp_path).put(record("a3", 1), 1)
    assert len(store.summaries()) == 5
    assert read == ["a3"]


def test_two_processes_on_the_same_items_lose_nothing(tmp_path: Path) -> None:
    """Every version of every item was written by exactly one of them, and none is missing."""
    both = [start(tmp_path, name, 20) for name in ("anna", "ben")]
    rows = [row for process in both for row in written(process)]
    assert [process.wait() for process in both] == [0, 0]
    assert len(rows) == 40
    for item in ("item0", "item1", "item2"):
        versions = sorted(version for name, version, _ in rows if name == item)
        assert versions == list(range(1, len(versions) + 1))
        last = AnnotationStore(tmp_path).get(item)
        assert last is not None
        assert last.version == len(versions)
    check_in_step(tmp_path)


@pytest.mark.parametrize(
    "death",
    [d if d in (1, 2, 4, 13, SECOND) else pytest.param(d, marks=pytest.mark.slow) for d in range(1, SECOND + 2)],
)
def test_killed_while_writing_nothing_is_lost_or_half_there(tmp_path: Path, death: int) -> None:
    """Killed at each thing that the second record of an item does to the disk, and at the first thing after it."""
    process = start(tmp_path, "anna", 5, 3, 3 * FIRST + death)
    said = written(process)
    assert process.wait() == -signal.SIGKILL
    assert len(said) == (3 if death <= SECOND else 4)
    newest = {name: (version, step) for name, version, step in said}
    store = AnnotationStore(tmp_path, Exporter(tmp_path).export)
    for name, (version, step) in newest.items():
        kept = store.get(name)
        assert kept is not None
        # What was said is there, or the one step that was under way when the kill came.
        assert kept.version in (version, version + 1)
        assert kept.masks["dog"].sum() == (step if kept.version == version else step + 3) + 1
    with store.locked():
        Exporter(tmp_path).repair(store.records())
    check_in_step(tmp_path)
    assert not list(tmp_path.rglob("*.part"))
    for one in list(store.records()):
        assert store.put(record(one.id, 5), one.version).version == one.version + 1


def check_in_step(root: Path) -> None:
    """The layout says what the records say."""
    rows = {row["id"]: row for row in map(json.loads, (root / "tags.jsonl").read_text().splitlines())}
    records = {one.id: one for one in AnnotationStore(root).records()}
    assert list(rows) == sorted(records)
    from ttd.evaluation.datasets.labels import read_mask

    for name, one in records.items():
        assert rows[name]["version"] == one.version
        assert np.array_equal(read_mask(root / "masks" / f"{name}.png"), one.masks["dog"])
        assert np.array_equal(read_mask(root / "masks" / name / "dog.png"), one.masks["dog"])


def test_what_a_kill_left_half_exported_is_repaired(tmp_path: Path) -> None:
    exporter = Exporter(tmp_path)
    store = AnnotationStore(tmp_path, exporter.export)
    for name in "abc":
        store.put(record(name, 1), 0)
    AnnotationStore(tmp_path).put(record("a", 7), 1)  # a record without its files, as after a kill
    (tmp_path / "masks" / "b" / "dog.png").unlink()
    AnnotationStore(tmp_path).put(Record("c", 0, SKIPPED, "s", "c", 0, "dog", ("dog",)), 1)
    assert exporter.repair(store.records()) == 3
    assert exporter.repair(store.records()) == 0
    assert [json.loads(line)["id"] for line in (tmp_path / "tags.jsonl").read_text().splitlines()] == ["a", "b"]
    assert not (tmp_path / "masks" / "c").exists()
    assert not (tmp_path / "masks" / "c.png").exists()


def test_leftovers_of_killed_writers_are_swept_at_the_start(tmp_path: Path) -> None:
    AnnotationStore(tmp_path)
    parts = [tmp_path / place / ".x.json.1-ab.part" for place in ("annotations", "masks/a", "images", ".")]
    young = tmp_path / "annotations" / "drafts" / ".y.part"
    for part in [*parts, young]:
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_text("{")
    old = young.with_name(".z.part")
    old.write_text("{")
    os.utime(old, (0, 0))
    AnnotationStore(tmp_path)
    assert not any(part.exists() for part in [*parts, old])
    assert young.exists()  # another process may be writing it


def test_when_files_that_follow_cannot_be_written_the_decision_is_safe(tmp_path: Path) -> None:
    def full(_: Record) -> None:
        raise OSError(28, "No space left on device")

    store = AnnotationStore(tmp_path, full)
    with pytest.raises(ExportFailed, match=r"decision is saved, but .*no space left.* next start"):
        store.put(record("a", 0), 0)
    saved = store.get("a")
    assert saved is not None
    reopened = AnnotationStore(tmp_path).get("a")
    assert reopened is not None
    assert reopened.to_json() == saved.to_json()
    assert saved.true == record("a", 0).true


def test_when_the_record_cannot_be_written_nothing_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = Exporter(tmp_path)
    store = AnnotationStore(tmp_path, exporter.export)
    store.put(record("a", 0), 0)

    def full(*_: Any, **__: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space"):
            store.put(record("a", 1), 1)
    assert store.put(record("a", 2), 1).version == 2
    check_in_step(tmp_path)


def test_drafts_come_and_go(tmp_path: Path) -> None:
    store = AnnotationStore(tmp_path)
    assert store.draft("a") is None
    store.save_draft("a", {"base_version": 0, "true": ["dog"]})
    assert AnnotationStore(tmp_path).draft("a") == {"base_version": 0, "true": ["dog"]}
    assert store.summaries() == {}
    store.delete_draft("a")
    store.delete_draft("a")
    assert store.draft("a") is None
    (tmp_path / "annotations" / "drafts" / "b.json").write_text("[1")
    assert store.draft("b") is None


def test_folders_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "tags.jsonl").write_text("{}")
    with pytest.raises(InputError, match="was not annotated here: choose another folder"):
        AnnotationStore(tmp_path / "other")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot hold annotations"):
        AnnotationStore(tmp_path / "file")


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    store = AnnotationStore(tmp_path)
    store.put(record("a", 0), 0)
    path = tmp_path / "annotations" / "a.json"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"a\.json is damaged"):
        store.summaries()


def test_claims_are_per_tab_and_end_with_the_process(tmp_path: Path) -> None:
    claims = Claims(AnnotationStore(tmp_path).claims)
    assert claims.take("a", "one")
    assert claims.take("a", "one")
    assert not claims.take("a", "two")
    assert claims.take("b", "one")
    claims.release("one", but="b")
    assert claims.take("a", "two")
    assert not claims.take("b", "two")
    process = start(tmp_path, "--hold", "c")
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    assert not claims.take("c", "one")
    process.kill()
    process.wait()
    assert claims.take("c", "one")


def test_an_idle_tab_loses_its_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    claims = Claims(AnnotationStore(tmp_path).claims, idle=600)
    assert claims.take("a", "one")
    now += 599
    assert not claims.take("a", "two")
    claims.touch("a", "one")
    now += 599
    assert not claims.take("a", "two")
    now += 1
    assert claims.take("a", "two")
    assert not claims.take("a", "one")
    claims.release("one")
    assert not claims.take("a", "three")
