"""What one person does to one item: choose words, say where they are, take steps back."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image

from ttd.annotate.map_masks import Mask
from ttd.annotate.prompts import Prompts
from ttd.annotate.proposals import Look, Proposer
from ttd.annotate.queue import QueueImage, QueueItem
from ttd.annotate.records import ACCEPTED, Record
from ttd.errors import InputError
from ttd.text.words import Word, is_stop_word, split_words

_STEPS_KEPT = 200
MOST_CHARACTERS = 1000  # of a typed caption


@dataclass(frozen=True)
class State:
    """One moment: the true words, what was said about each, and the word that clicks on the image are about."""

    true: frozenset[str]
    prompts: tuple[tuple[str, Prompts], ...] = ()
    active: str | None = None

    def of(self, word: str) -> Prompts:
        """What was said about a word so far."""
        return dict(self.prompts).get(word, Prompts())

    def saying(self, word: str, prompts: Prompts) -> State:
        """The same with something else said about one word."""
        return replace(self, prompts=tuple({**dict(self.prompts), word: prompts}.items()))


@dataclass(eq=False)
class Work:
    """An open item. Words are in lower case; equal words of a caption are one.

    Attributes:
        item, content: what is annotated.
        seen: version of the record it started from; 0: there was none.
        status: of that record, "" without one.
        verdict: of that record.
        tokens: the caption's words, every occurrence.
        note: something to tell the person once, "" for nothing.
    """

    item: QueueItem
    content: QueueImage
    seen: int
    status: str
    verdict: str | None
    tokens: list[Word]
    note: str
    _look: Look
    _proposer: Proposer
    _state: State
    _past: list[State] = field(default_factory=list)

    @classmethod
    def start(
        cls,
        item: QueueItem,
        content: QueueImage,
        proposer: Proposer,
        record: Record | None = None,
        draft: dict[str, Any] | None = None,
    ) -> Work:
        """Opens an item as it was left: by a draft, else by its record, else with the words that we propose."""
        look = proposer.look(content.image, content.caption)
        note = ""
        state = State(frozenset(word.text for word in look.candidates if word.proposed))
        if record is not None and record.caption != content.caption:
            note = "The caption has changed since this was annotated: accept it again to keep the new words."
        elif record is not None and record.status == ACCEPTED:
            state = State(frozenset(record.true), tuple(record.prompts.items()))
            if record.size == look.size:
                for word in record.true:
                    drawn = record.masks.get(word, np.zeros(look.size, np.bool_))
                    proposer.remember(look, word, state.of(word), drawn)
        version = record.version if record else 0
        tokens = split_words(content.caption)
        kept = _from_draft(draft, version, {token.text.lower() for token in tokens})
        if kept is not None:
            state, note = kept, "What you had clicked here before is back."
        work = cls(item, content, version, record.status if record else "", record.verdict if record else None,
                   tokens, note, look, proposer, state)  # fmt: skip
        if state.active not in state.true:
            work._state = replace(state, active=next(iter(work.true), None))
        return work

    @property
    def image(self) -> Image.Image:
        """Upright RGB."""
        return self.content.image

    @property
    def words(self) -> list[str]:
        """The distinct words that can be chosen: all but punctuation."""
        texts = dict.fromkeys(token.text.lower() for token in self.tokens)
        return [text for text in texts if any(char.isalnum() for char in text) or not is_stop_word(text)]

    @property
    def true(self) -> list[str]:
        """The chosen words, in the caption's order."""
        return [word for word in self.words if word in self._state.true]

    @property
    def active(self) -> str | None:
        """The word that clicks on the image are about."""
        return self._state.active

    @property
    def prompts(self) -> Prompts:
        """What was said about the active word."""
        return self._state.of(self.active) if self.active else Prompts()

    @property
    def proposed(self) -> list[str]:
        """The words that our scores choose."""
        return [word.text for word in self._look.candidates if word.proposed]

    @property
    def cut(self) -> float:
        """Where our own map counts as the active word, 0..1."""
        return self._proposer.cut if self.prompts.cut is None else self.prompts.cut

    @property
    def by(self) -> str:
        """What draws the masks: "sam-hq" or "own map"."""
        return self._proposer.source

    @property
    def steps(self) -> int:
        """How many steps can be taken back."""
        return len(self._past)

    def press(self, word: str) -> None:
        """A click on a word: chooses it and makes it active; makes a chosen one active; drops the active one."""
        self._check(word)
        if word == self.active:
            self.drop(word)
        else:
            self._go(replace(self._state, true=self._state.true | {word}, active=word))

    def drop(self, word: str) -> None:
        """The word is not true; what was said about it is kept in case it comes back."""
        self._check(word)
        left = self._state.true - {word}
        order = [other for other in self.words if other in left]
        after = [other for other in order if self.words.index(other) > self.words.index(word)]
        active = self.active if self.active in left else next(iter([*after, *order]), None)
        self._go(replace(self._state, true=left, active=active))

    def activate(self, step: int) -> None:
        """Makes the next (`step` 1) or the previous (-1) chosen word active."""
        order = self.true
        if not order:
            raise InputError("no word is chosen: click those that the image shows")
        place = order.index(self.active) if self.active in order else -1
        self._state = replace(self._state, active=order[(place + step) % len(order)])

    def point(self, x: float, y: float, inside: bool) -> None:
        """A point of the active word, in pixels of the image."""
        self._say(self._current().with_point(x, y, inside))

    def box(self, x: float, y: float, other_x: float, other_y: float) -> None:
        """A box of the active word between two opposite corners."""
        self._say(self._current().with_box(x, y, other_x, other_y))

    def stroke(self, spots: Iterable[tuple[float, float]], radius: float, inside: bool) -> None:
        """Paints discs around `spots` into the active word's mask, or out of it: one step to take back."""
        prompts = self._current()
        for x, y in spots:
            prompts = prompts.with_dab(x, y, radius, inside)
        self._say(prompts)

    def clear(self) -> None:
        """The active word has no pixels any more; points and boxes begin anew."""
        self._current()
        self._say(Prompts(empty=True))

    def propose_again(self) -> None:
        """Forgets all that was said about the active word: the first proposal is back."""
        self._current()
        self._say(Prompts())

    def set_cut(self, cut: float) -> None:
        """Where our own map counts as the active word, 0..1."""
        if not 0 <= cut <= 1:
            raise InputError(f"the cut must lie between 0 and 1, not at {cut}")
        if cut != self.cut:
            self._say(replace(self._current(), cut=cut))

    def undo(self) -> None:
        """Takes the last step back."""
        if not self._past:
            raise InputError("there is nothing to take back on this image")
        self._state = self._past.pop()

    def masks(self) -> dict[str, Mask]:
        """Each chosen word's mask, bool [H,W]; do not change them."""
        self._proposer.prepare(self._look, [word for word in self.true if not self._state.of(word).empty])
        return {word: self._proposer.mask(self._look, word, self._state.of(word)) for word in self.true}

    def record(self, status: str, image: str) -> Record:
        """What is to be written; words without a pixel have no mask."""
        accepted = status == ACCEPTED
        masks = self.masks() if accepted else {}
        return Record(
            id=self.item.id,
            version=self.seen,
            status=status,
            shard=self.item.shard,
            key=self.item.key,
            which=self.item.which,
            caption=self.content.caption,
            words=tuple(token.text.lower() for token in self.tokens),
            true=tuple(self.true) if accepted else (),
            proposed=tuple(self.proposed),
            size=self._look.size,
            masks={word: mask for word, mask in masks.items() if mask.any()},
            prompts={word: self._state.of(word) for word in self.true} if accepted else {},
            by=self._proposer.source,
            image=image,
        )

    def draft(self) -> dict[str, Any]:
        """What is to be kept of an item that is not accepted yet."""
        return {
            "caption": self.content.caption,
            "seen": self.seen,
            "true": self.true,
            "active": self.active,
            "prompts": {word: prompts.to_dict() for word, prompts in self._state.prompts},
        }

    def _current(self) -> Prompts:
        if self.active is None:
            raise InputError("no word is active: click a word that the image shows, then the image")
        return self.prompts

    def _say(self, prompts: Prompts) -> None:
        assert self.active is not None
        self._go(self._state.saying(self.active, prompts))

    def _go(self, state: State) -> None:
        self._past = [*self._past, self._state][-_STEPS_KEPT:]
        self._state = state

    def _check(self, word: str) -> None:
        if word not in self.words:
            raise InputError(f"{word!r} is not a word of this caption")


def checked_caption(text: str) -> str:
    """A caption as it was typed, in one line; raises InputError where it is none."""
    caption = " ".join(text.encode("utf-8", "replace").decode("utf-8").split())
    if not caption or len(caption) > MOST_CHARACTERS:
        raise InputError(f"a caption has 1 to {MOST_CHARACTERS} characters: type what the image shows")
    return caption


def typed_before(record: Record | None, draft: dict[str, Any] | None) -> str:
    """The caption that was typed for an image without one: of the draft, else of the record; "" where none was."""
    if draft is not None and draft.get("seen") == (record.version if record else 0):
        with suppress(InputError):
            return checked_caption(str(draft.get("caption", "")))
    return record.caption if record is not None else ""


def _from_draft(draft: dict[str, Any] | None, version: int, words: set[str]) -> State | None:
    """The state of a draft that started from the same version; None where it is of no use."""
    if draft is None or draft.get("seen") != version:
        return None
    try:
        true = frozenset(str(word) for word in draft["true"]) & words
        prompts = tuple((str(word), Prompts.from_dict(one)) for word, one in draft["prompts"].items() if word in words)
        return State(true, prompts, draft["active"] if draft["active"] in true else None)
    except (InputError, KeyError, TypeError, AttributeError):
        return None
