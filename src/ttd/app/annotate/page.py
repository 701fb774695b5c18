"""The tab Annotate: one piece of HTML, its script, and one event that carries everything that is done."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ttd.annotate.annotation_set import AnnotationSet
from ttd.app.annotate.actions import Actions, Tab
from ttd.app.annotate.view import tab_html

_HERE = Path(__file__).parent
_NAME = re.compile(r"[a-z0-9-]{1,60}")


def annotate_tab(annotations: AnnotationSet) -> None:
    """Builds the tab inside the current `gr.Blocks`."""
    page = _Page(annotations)
    board = gr.HTML(
        '<div class="ann" data-item="-1">Opening the first item …</div>',
        css_template=(_HERE / "annotate.css").read_text("utf-8"),
        js_on_load=(_HERE / "annotate.js").read_text("utf-8"),
        elem_id="ttd-annotate",
    )
    # One at a time and in order: what was clicked first counts first.
    board.submit(
        page.act,
        None,
        board,
        show_progress="hidden",
        trigger_mode="multiple",
        concurrency_limit=1,
        api_visibility="private",
    )
    context = gr.context.Context.root_block
    assert context is not None
    context.unload(page.closed)


@dataclass
class _Session:
    tab: Tab
    answers: itertools.count[int]


class _Page:
    """The tabs that are open, by gradio's name for each."""

    def __init__(self, annotations: AnnotationSet) -> None:
        self._annotations, self._actions = annotations, Actions(annotations)
        self._sessions: dict[str, _Session] = {}
        self._lock = threading.Lock()

    def act(self, event: gr.EventData, request: gr.Request) -> str:
        """Does what the page's script sent and gives the page as it is then."""
        given: Any = getattr(event, "_data", None)
        given = given if isinstance(given, Mapping) else {}
        session, known = self._session(str(request.session_hash), given.get("tab"))
        with session.tab.lock:
            if not known:
                # After the server was started anew, a page must not act on what it does not show.
                given = {"do": "open", "item": given.get("item")}
            self._actions.apply(session.tab, given)
            return tab_html(self._annotations, session.tab, next(session.answers))

    def closed(self, request: gr.Request) -> None:
        """A tab was closed or loaded anew: its item is free, unless the same tab is back already."""
        with self._lock:
            gone = self._sessions.pop(str(request.session_hash), None)
            names = {session.tab.name for session in self._sessions.values()}
        if gone is not None and gone.tab.name not in names:
            self._annotations.leave(gone.tab.name)

    def _session(self, key: str, name: Any) -> tuple[_Session, bool]:
        """The session of a page, and whether it was known."""
        with self._lock:
            known = key in self._sessions
            if not known:
                own = name if isinstance(name, str) and _NAME.fullmatch(name) else f"session-{key}"
                self._sessions[key] = _Session(Tab(own), itertools.count(1))
            return self._sessions[key], known
