"""Sessions of the Annotate tab: freed when nobody looks at them, and never too many."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the extra app is not installed")

from tests.annotate.samples import open_annotations
from ttd.annotate.queue import IDLE_SECONDS
from ttd.app.annotate.page import TabSessions


class Tabs:
    """Sessions, their heartbeats and their clock."""

    def __init__(self, folder: Path) -> None:
        self.now, self.beating = 0.0, set[str]()
        annotations = open_annotations(folder / "data", folder / "set")
        self.sessions = TabSessions(annotations, self.beating.__contains__, lambda: self.now, most=4)

    def opens(self, key: str) -> str:
        """The id's place in the queue that a new tab is given, as the page's HTML says it."""
        return self.sessions.apply(key, {"tab": f"tab-{key}", "do": "open"}).split('data-item="')[1].split('"')[0]


@pytest.fixture
def tabs(tmp_path: Path) -> Tabs:
    return Tabs(tmp_path)


def test_a_session_without_a_heartbeat_is_freed_with_its_item_and_one_with_it_stays(tabs: Tabs) -> None:
    tabs.beating.add("here")
    assert [tabs.opens(key) for key in ("here", "gone")] == ["0", "1"]
    tabs.now = IDLE_SECONDS - 1
    assert tabs.opens("third") == "2"
    assert len(tabs.sessions) == 3
    tabs.now = IDLE_SECONDS
    assert tabs.opens("fourth") == "1"
    assert len(tabs.sessions) == 3


def test_a_storm_of_sessions_frees_those_that_nobody_looks_at(tabs: Tabs) -> None:
    tabs.beating.update(("one", "two"))
    assert [tabs.opens(key) for key in ("one", "two")] == ["0", "1"]
    for number in range(20):
        tabs.now += 1
        tabs.opens(f"storm-{number}")
        assert len(tabs.sessions) <= 4
    # Their own items are still open: an action is applied, not answered by opening something.
    for key, item in (("one", "0"), ("two", "1")):
        answer = tabs.sessions.apply(key, {"do": "press", "word": "door"})
        assert f'data-item="{item}"' in answer
        assert "restarted" not in answer


def test_who_comes_back_after_being_freed_finds_his_item(tabs: Tabs) -> None:
    tabs.opens("late")
    tabs.sessions.apply("late", {"do": "press", "word": "door"})
    tabs.now = 2 * IDLE_SECONDS
    tabs.opens("other")
    answer = tabs.sessions.apply("late", {"tab": "tab-late", "do": "accept", "item": 0})
    assert 'data-item="0"' in answer
    assert "What you had clicked here before is back." in answer
    assert "0 accepted" in answer
