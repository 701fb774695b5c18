"""The actions of the Annotate tab: what a click or a key does. Independent of gradio.

The page sends an action as {"do": name, ...}. Its values come from a browser and are checked here.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ttd.annotate.annotation_set import AnnotationSet
from ttd.annotate.item import OpenItem
from ttd.annotate.masks import MOST_CORNERS, checked_outlines
from ttd.annotate.records import ACCEPTED, KEPT, REJECTED, Record
from ttd.annotate.store import ExportFailed, RecordChanged
from ttd.data.bad_samples import BadSample
from ttd.errors import InputError, TTDError

_log = logging.getLogger(__name__)

MAX_SPOTS = 2000  # of one stroke of the brush
_MAX_NUMBER = 1e15
_MOST_TAKEN = 50  # decisions that can be taken back
ALL_DONE = "Every item of the queue is accepted or skipped. The second pass shows the accepted ones to keep or reject."
NONE_TO_REVIEW = "No accepted item is left without a verdict. P goes back to the last one."


@dataclass
class Tab:
    """One tab of a browser.

    Attributes:
        name: by which it claims items; the same after a reload.
        opened: the open item; None where nothing is left.
        record: what the second pass shows; None where no item is left without a verdict.
        reviewing: whether the second pass is shown.
        message: the last sentence for the person; `failed` where it is an error.
        judged: ids of the items that were given a verdict in this tab, in order.
        taken: what takes back a decision of this tab, the last one at the end; each gives a sentence.
    """

    name: str
    opened: OpenItem | None = None
    record: Record | None = None
    reviewing: bool = False
    message: str = ""
    failed: bool = False
    judged: list[str] = field(default_factory=list)
    taken: list[Callable[[], str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Actions:
    """Applies actions to the tabs of one annotation set."""

    def __init__(self, annotations: AnnotationSet) -> None:
        self.annotations = annotations
        self._edits: dict[str, Callable[[Tab, Mapping[str, Any]], None]] = {
            "press": lambda tab, given: _opened(tab).press(_text(given, "word")),
            "drop": self._drop,
            "word": lambda tab, given: _opened(tab).activate(-1 if given.get("back") else 1),
            "choose": self._choose,
            "point": lambda tab, given: _opened(tab).point(*_spot(tab, given, "x", "y"), _flag(given)),
            "box": self._box,
            "stroke": self._stroke,
            "outline": self._outline,
            "clear": lambda tab, given: _opened(tab).clear(),
            "again": lambda tab, given: _opened(tab).propose_again(),
            "threshold": lambda tab, given: _opened(tab).set_threshold(_number(given, "value")),
        }
        self._moves: dict[str, Callable[[Tab, Mapping[str, Any]], None]] = {
            "open": self._open,
            "accept": self._accept,
            "skip": self._skip,
            "caption": self._caption,
            "next": lambda tab, given: self._walk(tab, 1),
            "previous": lambda tab, given: self._walk(tab, -1),
            "annotate": self._annotate,
            "review": self._review,
            "keep": lambda tab, given: self._judge(tab, KEPT),
            "reject": lambda tab, given: self._judge(tab, REJECTED),
            "back": self._back,
            "edit": self._edit,
            "undo": self._undo,
        }

    def apply(self, tab: Tab, given: Mapping[str, Any]) -> None:
        """Applies one action; an error becomes the tab's message."""
        tab.message, tab.failed = "", False
        name = str(given.get("do"))
        try:
            if name in self._edits and not tab.reviewing:
                self._edits[name](tab, given)
                self.annotations.save_draft(_opened(tab), tab.name)
            elif name in self._moves:
                self._moves[name](tab, given)
            else:
                raise InputError(f"this page does not have the action {name[:40]!r}: reload it")
        except ExportFailed as error:
            tab.message, tab.failed = str(error), True
            _log.error("%s", error)
        except TTDError as error:
            tab.message, tab.failed = str(error), True
        except OSError as error:
            tab.message, tab.failed = f"nothing was saved ({error.strerror or error}): make room and try again", True
            _log.error("the set could not be written: %s", error)
        # The person sees a sentence; the traceback goes to the log.
        except Exception as error:
            _log.exception("the action %r failed", name)
            tab.message, tab.failed = f"internal error ({type(error).__name__}): see the log of ttd app", True

    def _open(self, tab: Tab, given: Mapping[str, Any]) -> None:
        """The first undecided item; or, after the server was restarted, the item that the page showed."""
        number = given.get("item")
        if isinstance(number, int) and 0 <= number < len(self.annotations.queue):
            self._show(tab, self.annotations.open(number, tab.name))
            tab.message = tab.message or "The page was loaded again; this is where you left."
        else:
            self._open_next(tab, -1)

    def _show(self, tab: Tab, opened: OpenItem) -> None:
        tab.opened, tab.message = opened, opened.note

    def _open_next(self, tab: Tab, after: int, message: str = "") -> None:
        """The next undecided item."""
        opened, notes = self.annotations.open_next(after, tab.name)
        tab.opened = opened
        parts = [message, *(f"Left out: {note}." for note in notes), opened.note if opened else ALL_DONE]
        tab.message = " ".join(part for part in parts if part)

    def _accept(self, tab: Tab, given: Mapping[str, Any]) -> None:
        opened = _opened(tab)
        before = self.annotations.store.get(opened.item.id)
        try:
            self.annotations.accept(opened)
        except RecordChanged as error:
            raise InputError(f"{error}. A accepts yours, N leaves the other") from None
        self._remember(tab, opened, before)
        self._open_next(tab, opened.item.number, f"Item {opened.item.number + 1} is saved.")

    def _skip(self, tab: Tab, given: Mapping[str, Any]) -> None:
        opened = _opened(tab)
        before = self.annotations.store.get(opened.item.id)
        self.annotations.skip(opened)
        if before is None or before.status != ACCEPTED:
            self._remember(tab, opened, before)
        outcome = "stays accepted" if opened.status == "accepted" else "is skipped"
        self._open_next(tab, opened.item.number, f"Item {opened.item.number + 1} {outcome}.")

    def _remember(self, tab: Tab, opened: OpenItem, before: Record | None) -> None:
        """How to take back what was just decided about an item."""

        def take_back() -> str:
            self.annotations.take_back(opened, before)
            self._show(tab, self.annotations.open(opened.item.number, tab.name))
            return f"The decision about item {opened.item.number + 1} is taken back."

        tab.taken = [*tab.taken, take_back][-_MOST_TAKEN:]

    def _undo(self, tab: Tab, given: Mapping[str, Any]) -> None:
        """Takes back the last click on the open item; without one the last decision of this tab."""
        if tab.reviewing:
            self._back(tab, given)
            if tab.record is not None and tab.record.verdict is not None:
                tab.record = self.annotations.judge(tab.record, None)
                tab.message = f"{tab.record.id} has no verdict any more."
        elif tab.opened is not None and tab.opened.steps:
            tab.opened.undo()
            self.annotations.save_draft(tab.opened, tab.name)
        elif tab.taken:
            tab.message = tab.taken.pop()()
        else:
            raise InputError("there is nothing to undo on this image, and no decision of this tab to take back")

    def _caption(self, tab: Tab, given: Mapping[str, Any]) -> None:
        """The caption of an image that has none."""
        before = _opened(tab)
        self._show(tab, self.annotations.type_caption(before, _text(given, "text")))
        self.annotations.save_draft(_opened(tab), tab.name)

        def take_back() -> str:
            self._show(tab, before)
            self.annotations.save_draft(before, tab.name)
            return "The caption before is back."

        tab.taken = [*tab.taken, take_back][-_MOST_TAKEN:]

    def _walk(self, tab: Tab, step: int) -> None:
        """To the neighbour in the queue, decided or not; bad samples are left out."""
        last = len(self.annotations.queue) - 1
        number = tab.opened.item.number if tab.opened else (last + 1 if step < 0 else last)
        while 0 <= number + step <= last:
            number += step
            try:
                self._show(tab, self.annotations.open(number, tab.name))
                return
            except BadSample as error:
                tab.message = f"Left out: {error}."
        raise InputError("this is the last item of the queue" if step > 0 else "this is the first item of the queue")

    def _drop(self, tab: Tab, given: Mapping[str, Any]) -> None:
        opened = _opened(tab)
        if opened.active is None:
            raise InputError("no word is active: there is nothing to drop")
        opened.drop(opened.active)

    def _choose(self, tab: Tab, given: Mapping[str, Any]) -> None:
        """The n-th chosen word becomes active."""
        opened, index = _opened(tab), int(_number(given, "index"))
        if not 0 <= index < len(opened.true):
            raise InputError(f"only {len(opened.true)} words are chosen")
        if opened.true[index] != opened.active:
            opened.press(opened.true[index])

    def _box(self, tab: Tab, given: Mapping[str, Any]) -> None:
        _opened(tab).box(*_spot(tab, given, "x", "y"), *_spot(tab, given, "x2", "y2"))

    def _stroke(self, tab: Tab, given: Mapping[str, Any]) -> None:
        spots = given.get("spots")
        if not isinstance(spots, list) or not 0 < len(spots) <= MAX_SPOTS:
            raise InputError(f"a stroke of the brush has 1 to {MAX_SPOTS} spots: draw a shorter one")
        pairs = [dict(zip("xy", spot, strict=False)) if isinstance(spot, list) else {} for spot in spots]
        radius = min(max(_number(given, "radius"), 0.5), float(max(_opened(tab).size)))
        _opened(tab).stroke([_spot(tab, pair, "x", "y") for pair in pairs], radius, _flag(given))

    def _outline(self, tab: Tab, given: Mapping[str, Any]) -> None:
        """The outlines that the page sent, or those of the mask as it is."""
        opened = _opened(tab)
        try:
            outlines = checked_outlines(given.get("outlines"))
        except (TypeError, ValueError, OverflowError):
            raise InputError(
                f"an outline has 3 corners or more, a word at most {2 * MOST_CORNERS}: U takes the last step back"
            ) from None
        if outlines is not None:
            far_x, far_y = (side - 0.5 for side in opened.size)
            outlines = tuple(
                tuple((round(min(max(x, -0.5), far_x), 2), round(min(max(y, -0.5), far_y), 2)) for x, y in outline)
                for outline in outlines
            )
        opened.outline(outlines)

    def _annotate(self, tab: Tab, given: Mapping[str, Any]) -> None:
        tab.reviewing = False
        if tab.opened is None:
            self._open_next(tab, -1)

    def _review(self, tab: Tab, given: Mapping[str, Any]) -> None:
        tab.reviewing = True
        tab.record = self.annotations.next_to_review()
        tab.message = "" if tab.record else NONE_TO_REVIEW

    def _judge(self, tab: Tab, verdict: str) -> None:
        if not tab.reviewing or tab.record is None:
            raise InputError("there is nothing to keep or reject: choose the second pass first")
        record = tab.record
        try:
            self.annotations.judge(record, verdict)
        except RecordChanged:
            tab.record = self.annotations.store.get(record.id)
            raise InputError("this item was changed in another tab: this is its newest version") from None
        tab.judged.append(record.id)
        tab.record = self.annotations.next_to_review(after=record.id) or self.annotations.next_to_review()
        tab.message = f"{record.id} is {verdict}." + ("" if tab.record else f" {NONE_TO_REVIEW}")

    def _back(self, tab: Tab, given: Mapping[str, Any]) -> None:
        """The item that was judged last; its verdict stays until another one is given."""
        while tab.judged:
            record = self.annotations.store.get(tab.judged.pop())
            if record is not None:
                tab.reviewing, tab.record = True, record
                tab.message = f"This one is {record.verdict} so far." if record.verdict else ""
                return
        raise InputError("there is no item before this one in this pass")

    def _edit(self, tab: Tab, given: Mapping[str, Any]) -> None:
        """Opens the item of the second pass to change it."""
        number = self.annotations.queue.number(tab.record.id) if tab.record else None
        if number is None:
            raise InputError("this item belongs to other data: start the page with that data to change it")
        self._show(tab, self.annotations.open(number, tab.name))
        tab.reviewing = False


def _opened(tab: Tab) -> OpenItem:
    if tab.opened is None:
        raise InputError("no item is open: P opens the last one of the queue")
    return tab.opened


def _text(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str):
        raise InputError("the page sent no text: reload it")
    return value


def _number(given: Mapping[str, Any], name: str) -> float:
    value = given.get(name)
    # False for NaN, too.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= _MAX_NUMBER:
        raise InputError("the page sent something that is not a number: reload it")
    return float(value)


def _flag(given: Mapping[str, Any]) -> bool:
    return given.get("inside") is not False


def _spot(tab: Tab, given: Mapping[str, Any], x: str, y: str) -> tuple[float, float]:
    """A position in the image, clamped to it and rounded to a tenth of a pixel."""
    width, height = _opened(tab).size
    across = min(max(_number(given, x), 0.0), width - 1.0)
    return round(across, 1), round(min(max(_number(given, y), 0.0), height - 1.0), 1)
