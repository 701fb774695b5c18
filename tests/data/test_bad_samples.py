from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from ttd.data.bad_samples import BROKEN_IMAGE, EMPTY_CAPTION, TRUNCATED, BadSample, BadSampleReport
from ttd.errors import InputError


def test_counts_by_reason_each_pair_once(tmp_path: Path) -> None:
    report = BadSampleReport(100, 4, limit=0.5)
    for key, reason in (("a", BROKEN_IMAGE), ("b", BROKEN_IMAGE), ("c", EMPTY_CAPTION), ("a", BROKEN_IMAGE)):
        report.add(BadSample(reason, "s.tar", key, "why"))
    report.add(BadSample(TRUNCATED, "s.tar", ""))
    assert len(report) == 4
    assert report.reasons() == {BROKEN_IMAGE: 2, EMPTY_CAPTION: 1, TRUNCATED: 1}
    report.write(tmp_path / "damage.json")
    written = json.loads((tmp_path / "damage.json").read_text())
    assert written["damaged"] == 3
    assert [(s["shard"], s["key"], s["reason"], s["detail"]) for s in written["samples"]] == [
        ("s.tar", "a", BROKEN_IMAGE, "why"),
        ("s.tar", "b", BROKEN_IMAGE, "why"),
        ("s.tar", "c", EMPTY_CAPTION, "why"),
    ]
    assert [s["shard"] for s in written["shards"]] == ["s.tar"]
    assert "3 of 100 pairs" in report.summary()


def test_stops_as_soon_as_the_limit_cannot_hold() -> None:
    report = BadSampleReport(100, limit=0.02)
    report.add(BadSample(BROKEN_IMAGE, "s", "0"))
    report.add(BadSample(BROKEN_IMAGE, "s", "1"))
    with pytest.raises(InputError, match=r"more than 2\.0% of the 100 pairs .*3 broken image; the first is 0 in s"):
        report.add(BadSample(BROKEN_IMAGE, "s", "2"))


def test_too_many_damaged_shards_stop_too() -> None:
    report = BadSampleReport(10_000, shards=5, limit=0.2)
    report.add(BadSample(TRUNCATED, "s0", ""))
    with pytest.raises(InputError, match="of the 5 shards"):
        report.add(BadSample(TRUNCATED, "s1", ""))


@pytest.mark.parametrize(("limit", "allowed"), [(0.0, 0), (1.0, 10)])
def test_the_ends_of_the_limit(limit: float, allowed: int) -> None:
    report = BadSampleReport(10, limit=limit)
    for i in range(allowed):
        report.add(BadSample(BROKEN_IMAGE, "s", str(i)))
    if allowed == 0:
        with pytest.raises(InputError):
            report.add(BadSample(BROKEN_IMAGE, "s", "x"))


def test_names_are_bounded_but_counts_are_not() -> None:
    report = BadSampleReport(10, limit=1)
    for i in range(5):
        report.add(BadSample(BROKEN_IMAGE, "s", str(i)))
    record = report.to_dict(most=3)
    assert (record["damaged"], len(record["samples"]), record["samples_not_named"]) == (5, 3, 2)


def test_damage_survives_the_way_between_processes() -> None:
    before = BadSample(BROKEN_IMAGE, "s.tar", "k", "detail")
    after = pickle.loads(pickle.dumps(before))
    assert after.to_dict() == before.to_dict()
    assert str(after) == str(before)
    assert "'k' of s.tar" in str(after)


@pytest.mark.parametrize("limit", [-0.1, 1.5, float("nan")])
def test_a_limit_is_a_share(limit: float) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        BadSampleReport(10, limit=limit)
