"""What a tab of the annotator does when something is clicked or a key is pressed; knows no gradio.

An action is what the page sends: {"do": name, ...}. Its values come from a browser and are checked here.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ttd.annotate.annotation_set import AnnotationSet
from ttd.annotate.item import Work
from ttd.annotate.records import KEPT, REJECTED, Record
from ttd.annotate.store import Changed, Unpublished
from ttd.data.bad_samples import BadSample
from ttd.errors import InputError, TTDError

_log = logging.getLogger(__name__)

MOST_SPOTS = 2000  # of one stroke of the brush
_LARGEST = 1e15
ALL_DONE = "Every item of the queue is accepted or skipped. The second pass shows the accepted ones to keep or reject."
NONE_TO_REVIEW = "No accepted item waits for a second look. P goes back to the last one."


@dataclass
class Tab:
    """One tab of a browser.

    Attributes:
        name: by which it claims items; a reloaded tab keeps it.
        work: the open item; None where nothing is left.
        record: what the second pass shows; None where nothing waits.
        reviewing: which of the two is shown.
        message: the last sentence for the person; `failed` where it tells of an error.
    """

    name: str
    work: Work | None = None
    record: Record | None = None
    reviewing: bool = False
    message: str = ""
    failed: bool = False
    looked_at: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Actions:
    """Applies actions to tabs at one annotations."""

    def __init__(self, annotations: AnnotationSet) -> None:
        self.annotations = annotations
        self._steps: dict[str, Callable[[Tab, Mapping[str, Any]], None]] = {
            "press": lambda tab, given: _work(tab).press(_text(given, "word")),
            "drop": self._drop,
            "word": lambda tab, given: _work(tab).activate(-1 if given.get("back") else 1),
            "choose": self._choose,
            "point": lambda tab, given: _work(tab).point(*_spot(tab, given, "x", "y"), _flag(given)),
            "box": self._box,
            "stroke": self._stroke,
            "clear": lambda tab, given: _work(tab).clear(),
            "again": lambda tab, given: _work(tab).propose_again(),
            "cut": lambda tab, given: _work(tab).set_cut(_number(given, "value")),
            "undo": lambda tab, given: _work(tab).undo(),
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
        }

    def apply(self, tab: Tab, given: Mapping[str, Any]) -> None:
        """Does what was asked; whatever goes wrong becomes the tab's message."""
        tab.message, tab.failed = "", False
        name = str(given.get("do"))
        try:
            if name in self._steps and not tab.reviewing:
                self._steps[name](tab, given)
                self.annotations.keep_draft(_work(tab), tab.name)
            elif name in self._moves:
                self._moves[name](tab, given)
            else:
                raise InputError(f"this page knows no action {name[:40]!r}: reload it")
        except Unpublished as error:
            tab.message, tab.failed = str(error), True
            _log.error("%s", error)
        except TTDError as error:
            tab.message, tab.failed = str(error), True
        except OSError as error:
            tab.message, tab.failed = f"nothing was saved ({error.strerror or error}): make room and try again", True
            _log.error("the set could not be written: %s", error)
        # A person never sees a traceback; whoever runs the page finds it in the log.
        except Exception as error:
            _log.exception("the page could not do %r", name)
            tab.message, tab.failed = f"the page made a mistake ({type(error).__name__}); its log says more", True

    def _open(self, tab: Tab, given: Mapping[str, Any]) -> None:
        """The first item that waits; or, after the server was started anew, the item that the page showed."""
        number = given.get("item")
        if isinstance(number, int) and 0 <= number < len(self.annotations.queue):
            self._show(tab, self.annotations.open(number, tab.name))
            tab.message = tab.message or "The server was started anew; this is where you left."
        else:
            self._go_on(tab, -1)

    def _show(self, tab: Tab, work: Work) -> None:
        tab.work, tab.message = work, work.note

    def _go_on(self, tab: Tab, after: int, said: str = "") -> None:
        """The next item that nobody has decided about."""
        work, notes = self.annotations.open_next(after, tab.name)
        tab.work = work
        told = [said, *(f"Passed over: {note}." for note in notes), work.note if work else ALL_DONE]
        tab.message = " ".join(part for part in told if part)

    def _accept(self, tab: Tab, given: Mapping[str, Any]) -> None:
        work = _work(tab)
        try:
            self.annotations.accept(work)
        except Changed as error:
            raise InputError(f"{error}. A accepts yours, N keeps the other") from None
        self._go_on(tab, work.item.number, f"Item {work.item.number + 1} is saved.")

    def _skip(self, tab: Tab, given: Mapping[str, Any]) -> None:
        work = _work(tab)
        self.annotations.skip(work)
        kept = "stays as it was accepted" if work.status == "accepted" else "is skipped"
        self._go_on(tab, work.item.number, f"Item {work.item.number + 1} {kept}.")

    def _caption(self, tab: Tab, given: Mapping[str, Any]) -> None:
        """The caption of an image that has none."""
        self._show(tab, self.annotations.type_caption(_work(tab), _text(given, "text")))
        self.annotations.keep_draft(_work(tab), tab.name)

    def _walk(self, tab: Tab, step: int) -> None:
        """To the neighbour in the queue, decided or not; damaged ones are passed over."""
        last = len(self.annotations.queue) - 1
        number = tab.work.item.number if tab.work else (last + 1 if step < 0 else last)
        while 0 <= number + step <= last:
            number += step
            try:
                self._show(tab, self.annotations.open(number, tab.name))
                return
            except BadSample as error:
                tab.message = f"Passed over: {error}."
        raise InputError("this is the last item of the queue" if step > 0 else "this is the first item of the queue")

    def _drop(self, tab: Tab, given: Mapping[str, Any]) -> None:
        work = _work(tab)
        if work.active is None:
            raise InputError("no word is active: there is nothing to drop")
        work.drop(work.active)

    def _choose(self, tab: Tab, given: Mapping[str, Any]) -> None:
        """The n-th chosen word becomes active."""
        work, place = _work(tab), int(_number(given, "place"))
        if not 0 <= place < len(work.true):
            raise InputError(f"only {len(work.true)} words are chosen")
        if work.true[place] != work.active:
            work.press(work.true[place])

    def _box(self, tab: Tab, given: Mapping[str, Any]) -> None:
        _work(tab).box(*_spot(tab, given, "x", "y"), *_spot(tab, given, "x2", "y2"))

    def _stroke(self, tab: Tab, given: Mapping[str, Any]) -> None:
        spots = given.get("spots")
        if not isinstance(spots, list) or not 0 < len(spots) <= MOST_SPOTS:
            raise InputError(f"a stroke of the brush has 1 to {MOST_SPOTS} spots: draw a shorter one")
        pairs = [dict(zip("xy", spot, strict=False)) if isinstance(spot, list) else {} for spot in spots]
        radius = min(max(_number(given, "radius"), 0.5), float(max(_work(tab).image.size)))
        _work(tab).stroke([_spot(tab, pair, "x", "y") for pair in pairs], radius, _flag(given))

    def _annotate(self, tab: Tab, given: Mapping[str, Any]) -> None:
        tab.reviewing = False
        if tab.work is None:
            self._go_on(tab, -1)

    def _review(self, tab: Tab, given: Mapping[str, Any]) -> None:
        tab.reviewing = True
        tab.record = self.annotations.to_review()
        tab.message = "" if tab.record else NONE_TO_REVIEW

    def _judge(self, tab: Tab, verdict: str) -> None:
        if not tab.reviewing or tab.record is None:
            raise InputError("there is nothing to keep or reject: choose the second pass first")
        record = tab.record
        try:
            self.annotations.judge(record, verdict)
        except Changed:
            tab.record = self.annotations.store.get(record.id)
            raise InputError("this item was changed in another tab meanwhile: this is its newest state") from None
        tab.looked_at.append(record.id)
        tab.record = self.annotations.to_review(after=record.id) or self.annotations.to_review()
        tab.message = f"{record.id} is {verdict}." + ("" if tab.record else f" {NONE_TO_REVIEW}")

    def _back(self, tab: Tab, given: Mapping[str, Any]) -> None:
        """The item that was judged last, once more; its verdict holds until another one is given."""
        while tab.looked_at:
            record = self.annotations.store.get(tab.looked_at.pop())
            if record is not None:
                tab.reviewing, tab.record = True, record
                tab.message = f"This one is {record.verdict} so far." if record.verdict else ""
                return
        raise InputError("there is no item before this one in this pass")

    def _edit(self, tab: Tab, given: Mapping[str, Any]) -> None:
        """Opens the item of the second pass to change it."""
        number = self.annotations.queue.number(tab.record.id) if tab.record else None
        if number is None:
            raise InputError("this item belongs to other data: start the page with those to change it")
        self._show(tab, self.annotations.open(number, tab.name))
        tab.reviewing = False


def _work(tab: Tab) -> Work:
    if tab.work is None:
        raise InputError("no item is open: P opens the last one of the queue")
    return tab.work


def _text(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str):
        raise InputError("the page sent no text: reload it")
    return value


def _number(given: Mapping[str, Any], name: str) -> float:
    value = given.get(name)
    # NaN is not within the range either.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= _LARGEST:
        raise InputError("the page sent a number that is none: reload it")
    return float(value)


def _flag(given: Mapping[str, Any]) -> bool:
    return given.get("inside") is not False


def _spot(tab: Tab, given: Mapping[str, Any], x: str, y: str) -> tuple[float, float]:
    """A pixel of the image, to a tenth."""
    width, height = _work(tab).image.size
    across = min(max(_number(given, x), 0.0), width - 1.0)
    return round(across, 1), round(min(max(_number(given, y), 0.0), height - 1.0), 1)
