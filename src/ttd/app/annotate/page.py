"""The Annotate tab in gradio: one HTML component with its script, and one event for all actions."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ttd.annotate.annotation_set import AnnotationSet
from ttd.annotate.queue import IDLE_SECONDS
from ttd.app.annotate.actions import Actions, Tab
from ttd.app.annotate.view import TabView
from ttd.app.asgi import Heartbeats

_FOLDER = Path(__file__).parent
_NAME = re.compile(r"[a-z0-9-]{1,60}")


def annotate_tab(annotations: AnnotationSet, heartbeats: Heartbeats) -> None:
    """Builds the tab inside the current `gr.Blocks`; sessions without a heartbeat are freed."""
    sessions = TabSessions(annotations, heartbeats.__contains__)
    board = gr.HTML(
        '<div class="ann" data-item="-1">Opening the first item …</div>',
        css_template=(_FOLDER / "annotate.css").read_text("utf-8"),
        js_on_load="".join(path.read_text("utf-8") for path in (_FOLDER.parent / "zoom.js", _FOLDER / "annotate.js")),
        elem_id="ttd-annotate",
    )
    # One at a time, in the order of the clicks.
    board.submit(
        sessions.act,
        None,
        board,
        show_progress="hidden",
        trigger_mode="multiple",
        concurrency_limit=1,
        api_visibility="private",
    )
    context = gr.context.Context.root_block
    assert context is not None
    context.unload(sessions.close)


@dataclass
class _Session:
    tab: Tab
    view: TabView
    used: float


class TabSessions:
    """The open tabs by gradio's session hash.

    A tab that is closed ends its heartbeat, and its session is freed. Of a session that never had one, or whose end was
    missed, nothing is heard: it is freed once it did nothing for as long as a tab keeps its item (`IDLE_SECONDS`).

    Args:
        annotations: the set.
        beating: whether a session has a heartbeat.
        clock: seconds.
        most: sessions at once.
    """

    def __init__(
        self,
        annotations: AnnotationSet,
        beating: Callable[[str], bool],
        clock: Callable[[], float] = time.monotonic,
        most: int = 32,
    ) -> None:
        self._annotations, self._actions = annotations, Actions(annotations)
        self._beating, self._clock, self._most = beating, clock, most
        self._sessions: dict[str, _Session] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._sessions)

    def act(self, event: gr.EventData, request: gr.Request) -> str:
        """Applies the action that the page's script sent; returns the tab as HTML."""
        given: Any = getattr(event, "_data", None)
        return self.apply(str(request.session_hash), given if isinstance(given, Mapping) else {})

    def apply(self, key: str, given: Mapping[str, Any]) -> str:
        """Applies an action of a session; returns the tab as HTML."""
        session, is_new = self._session(key, given.get("tab"))
        with session.tab.lock:
            if is_new:
                # After a restart of the server, an action must not apply to an item that the page does not show.
                given = {"do": "open", "item": given.get("item")}
            self._actions.apply(session.tab, given)
            return session.view.html()

    def close(self, request: gr.Request) -> None:
        """Frees the item of a tab that was closed or reloaded, unless the same tab is connected again."""
        with self._lock:
            self._free(str(request.session_hash))

    def _session(self, key: str, name: Any) -> tuple[_Session, bool]:
        """The session of a page, and whether it was made just now."""
        with self._lock:
            now = self._clock()
            is_new = key not in self._sessions
            if is_new:
                self._make_room(now)
                own = name if isinstance(name, str) and _NAME.fullmatch(name) else f"session-{key}"
                tab = Tab(own)
                self._sessions[key] = _Session(tab, TabView(self._annotations, tab), now)
            self._sessions[key].used = now
            return self._sessions[key], is_new

    def _make_room(self, now: float) -> None:
        """Frees the sessions whose page is closed; of too many others, the least recently used."""
        silent = [key for key in self._sessions if not self._beating(key)]
        for key in silent:
            if now - self._sessions[key].used >= IDLE_SECONDS:
                self._free(key)
        order = sorted(self._sessions, key=lambda key: (self._beating(key), self._sessions[key].used))
        for key in order[: max(0, len(order) - self._most + 1)]:
            self._free(key)

    def _free(self, key: str) -> None:
        closed = self._sessions.pop(key, None)
        names = {session.tab.name for session in self._sessions.values()}
        if closed is not None and closed.tab.name not in names:
            self._annotations.release(closed.tab.name)
