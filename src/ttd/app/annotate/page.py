"""The Annotate tab in gradio: one HTML component with its script, and one event for all actions."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ttd.annotate.annotation_set import AnnotationSet
from ttd.app.annotate.actions import Actions, Tab
from ttd.app.annotate.view import TabView

_FOLDER = Path(__file__).parent
_NAME = re.compile(r"[a-z0-9-]{1,60}")


def annotate_tab(annotations: AnnotationSet) -> None:
    """Builds the tab inside the current `gr.Blocks`."""
    sessions = _TabSessions(annotations)
    board = gr.HTML(
        '<div class="ann" data-item="-1">Opening the first item …</div>',
        css_template=(_FOLDER / "annotate.css").read_text("utf-8"),
        js_on_load=(_FOLDER / "annotate.js").read_text("utf-8"),
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


class _TabSessions:
    """The open tabs by gradio's session hash."""

    def __init__(self, annotations: AnnotationSet) -> None:
        self._annotations, self._actions = annotations, Actions(annotations)
        self._sessions: dict[str, _Session] = {}
        self._lock = threading.Lock()

    def act(self, event: gr.EventData, request: gr.Request) -> str:
        """Applies the action that the page's script sent; returns the tab as HTML."""
        given: Any = getattr(event, "_data", None)
        given = given if isinstance(given, Mapping) else {}
        session, is_new = self._session(str(request.session_hash), given.get("tab"))
        with session.tab.lock:
            if is_new:
                # After a restart of the server, an action must not apply to an item that the page does not show.
                given = {"do": "open", "item": given.get("item")}
            self._actions.apply(session.tab, given)
            return session.view.html()

    def close(self, request: gr.Request) -> None:
        """Frees the item of a tab that was closed or reloaded, unless the same tab is connected again."""
        with self._lock:
            closed = self._sessions.pop(str(request.session_hash), None)
            names = {session.tab.name for session in self._sessions.values()}
        if closed is not None and closed.tab.name not in names:
            self._annotations.release(closed.tab.name)

    def _session(self, key: str, name: Any) -> tuple[_Session, bool]:
        """The session of a page, and whether it was made just now."""
        with self._lock:
            is_new = key not in self._sessions
            if is_new:
                own = name if isinstance(name, str) and _NAME.fullmatch(name) else f"session-{key}"
                tab = Tab(own)
                self._sessions[key] = _Session(tab, TabView(self._annotations, tab))
            return self._sessions[key], is_new
