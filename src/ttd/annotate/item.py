"""One open item: the chosen words, the prompts of each, the masks that follow, and undo."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image

from ttd.annotate.masks import Mask, Outline, Prompts, traced
from ttd.annotate.proposals import EncodedPair, Proposer
from ttd.annotate.queue import QueueImage, QueueItem
from ttd.annotate.records import ACCEPTED, Record
from ttd.errors import InputError
from ttd.text.words import Word, is_stop_word, split_words
from ttd.viz.overlays import bounded

_UNDO_STEPS = 200
MAX_CHARACTERS = 1000  # of a typed caption
SHOWN_SIDE = 900  # pixels of the longer side as an item is shown


@dataclass(frozen=True)
class ItemState:
    """What undo goes back to: the true words, the prompts of each word, and the active word (which clicks refer to)."""

    true: frozenset[str]
    prompts: tuple[tuple[str, Prompts], ...] = ()
    active: str | None = None

    def prompts_of(self, word: str) -> Prompts:
        """The prompts of a word; empty ones where there are none yet."""
        return dict(self.prompts).get(word, Prompts())

    def with_prompts(self, word: str, prompts: Prompts) -> ItemState:
        """The same with other prompts for one word."""
        return replace(self, prompts=tuple({**dict(self.prompts), word: prompts}.items()))


@dataclass(eq=False)
class OpenItem:
    """An item of the queue while a person annotates it. Words are in lower case; equal words of a caption are one.

    Attributes:
        item, content: what is annotated; of the image only a copy of at most `SHOWN_SIDE` pixels is kept.
        base_version: version of the record it started from; 0: there was none.
        status: of that record, "" without one.
        verdict: of that record.
        tokens: the caption's words, every occurrence.
        note: a message to show once, "" for none.
    """

    item: QueueItem
    content: QueueImage
    base_version: int
    status: str
    verdict: str | None
    tokens: list[Word]
    note: str
    _encoded: EncodedPair
    _proposer: Proposer
    _state: ItemState
    _past: list[ItemState] = field(default_factory=list)

    @classmethod
    def start(
        cls,
        item: QueueItem,
        content: QueueImage,
        proposer: Proposer,
        record: Record | None = None,
        draft: dict[str, Any] | None = None,
    ) -> OpenItem:
        """Opens an item from its draft, else from its record, else with the proposed words."""
        encoded = proposer.encode(content.image, content.caption)
        note = ""
        state = ItemState(frozenset(word.text for word in encoded.candidates if word.proposed))
        if record is not None and record.caption != content.caption:
            note = "The caption has changed since this was annotated: accept it again to save the new words."
        elif record is not None and record.status == ACCEPTED:
            state = ItemState(frozenset(record.true), tuple(record.prompts.items()))
            if record.size == encoded.size:
                for word in record.true:
                    drawn = record.masks.get(word, np.zeros(encoded.size, np.bool_))
                    prompts = state.prompts_of(word)
                    if prompts.outlines is not None and (proposer.mask(encoded, word, prompts) != drawn).any():
                        # The mask was changed in another tool: its outlines are those of the new one.
                        prompts = prompts.with_outlines(traced(drawn))
                        state = state.with_prompts(word, prompts)
                    proposer.remember(encoded, word, prompts, drawn)
        version = record.version if record else 0
        tokens = split_words(content.caption)
        drafted = _from_draft(draft, version, {token.text.lower() for token in tokens})
        if drafted is not None:
            state, note = drafted, "What you had clicked here before is back."
        content = replace(content, image=bounded(content.image, SHOWN_SIDE))
        opened = cls(item, content, version, record.status if record else "", record.verdict if record else None,
                   tokens, note, encoded, proposer, state)  # fmt: skip
        if state.active not in state.true:
            opened._state = replace(state, active=next(iter(opened.true), None))
        return opened

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the image."""
        return self._encoded.size[1], self._encoded.size[0]

    @property
    def shown(self) -> Image.Image:
        """Upright RGB, at most `SHOWN_SIDE` pixels."""
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
        """The word to which clicks on the image refer."""
        return self._state.active

    @property
    def prompts(self) -> Prompts:
        """The prompts of the active word."""
        return self._state.prompts_of(self.active) if self.active else Prompts()

    @property
    def proposed(self) -> list[str]:
        """The words that the scores select."""
        return [word.text for word in self._encoded.candidates if word.proposed]

    @property
    def threshold(self) -> float:
        """The threshold of the active word's map, 0..1."""
        return self._proposer.threshold if self.prompts.threshold is None else self.prompts.threshold

    @property
    def notice(self) -> str | None:
        """Where the image is not what the model learned from: what that means for the proposals."""
        return self._encoded.notice

    @property
    def mask_source(self) -> str:
        """What proposes the masks: "sam-hq" or "own map"."""
        return self._proposer.mask_source

    @property
    def steps(self) -> int:
        """How many steps can be undone."""
        return len(self._past)

    def press(self, word: str) -> None:
        """A click on a word: chooses it and makes it active; makes a chosen one active; drops the active one."""
        self._check(word)
        if word == self.active:
            self.drop(word)
        else:
            self._change(replace(self._state, true=self._state.true | {word}, active=word))

    def drop(self, word: str) -> None:
        """The word is not true; its prompts stay, in case it is chosen again."""
        self._check(word)
        left = self._state.true - {word}
        order = [other for other in self.words if other in left]
        after = [other for other in order if self.words.index(other) > self.words.index(word)]
        active = self.active if self.active in left else next(iter([*after, *order]), None)
        self._change(replace(self._state, true=left, active=active))

    def activate(self, step: int) -> None:
        """Makes the next (`step` 1) or the previous (-1) chosen word active."""
        order = self.true
        if not order:
            raise InputError("no word is chosen: click those that the image shows")
        index = order.index(self.active) if self.active in order else -1
        self._state = replace(self._state, active=order[(index + step) % len(order)])

    def point(self, x: float, y: float, inside: bool) -> None:
        """A point of the active word, in pixels of the image."""
        self._set_prompts(self._current().with_point(x, y, inside))

    def box(self, x: float, y: float, other_x: float, other_y: float) -> None:
        """A box of the active word between two opposite corners."""
        self._set_prompts(self._current().with_box(x, y, other_x, other_y))

    def stroke(self, spots: Iterable[tuple[float, float]], radius: float, inside: bool) -> None:
        """Paints discs around `spots` into the active word's mask, or out of it: one step of undo."""
        prompts = self._current()
        for x, y in spots:
            prompts = prompts.with_dab(x, y, radius, inside)
        self._set_prompts(prompts)

    def outline(self, outlines: tuple[Outline, ...] | None = None) -> None:
        """Gives the active word these outlines as its mask; without any those of the mask that it has now.

        Raises:
            InputError: there is no mask to outline.
        """
        prompts = self._current()
        if outlines is None:
            assert self.active is not None
            outlines = traced(self._proposer.mask(self._encoded, self.active, prompts))
            if not outlines:
                raise InputError("this word has no mask to outline: click or paint where it is first")
        self._set_prompts(prompts.with_outlines(outlines))

    def clear(self) -> None:
        """Empties the active word's mask and removes its prompts."""
        self._current()
        self._set_prompts(Prompts(empty=True))

    def propose_again(self) -> None:
        """Removes the active word's prompts: its mask is the first proposal again."""
        self._current()
        self._set_prompts(Prompts())

    def set_threshold(self, threshold: float) -> None:
        """Sets the threshold of the active word's map; raises `InputError` outside of 0..1."""
        if not 0 <= threshold <= 1:
            raise InputError(f"the threshold must be between 0 and 1, not {threshold}")
        if threshold != self.threshold:
            self._set_prompts(replace(self._current(), threshold=threshold, outlines=None))

    def undo(self) -> None:
        """Goes back one step."""
        if not self._past:
            raise InputError("there is nothing to undo on this image")
        self._state = self._past.pop()

    def masks(self) -> dict[str, Mask]:
        """Each chosen word's mask, bool [H,W]."""
        asked = {word: self._state.prompts_of(word) for word in self.true}
        mapped = [word for word, prompts in asked.items() if not prompts.empty and prompts.outlines is None]
        self._proposer.prepare(self._encoded, mapped)
        return {word: self._proposer.mask(self._encoded, word, prompts) for word, prompts in asked.items()}

    def record(self, status: str, image: str) -> Record:
        """The record to be written; words without a pixel have no mask."""
        accepted = status == ACCEPTED
        masks = self.masks() if accepted else {}
        return Record(
            id=self.item.id,
            version=self.base_version,
            status=status,
            shard=self.item.shard,
            key=self.item.key,
            caption_index=self.item.caption_index,
            caption=self.content.caption,
            words=tuple(token.text.lower() for token in self.tokens),
            true=tuple(self.true) if accepted else (),
            proposed=tuple(self.proposed),
            size=self._encoded.size,
            masks={word: mask for word, mask in masks.items() if mask.any()},
            prompts={word: self._state.prompts_of(word) for word in self.true} if accepted else {},
            mask_source=self._proposer.mask_source,
            image=image,
        )

    def draft(self) -> dict[str, Any]:
        """What is saved of an item before it is accepted."""
        return {
            "caption": self.content.caption,
            "base_version": self.base_version,
            "true": self.true,
            "active": self.active,
            "prompts": {word: prompts.to_dict() for word, prompts in self._state.prompts},
        }

    def _current(self) -> Prompts:
        if self.active is None:
            raise InputError("no word is active: click a word that the image shows, then the image")
        return self.prompts

    def _set_prompts(self, prompts: Prompts) -> None:
        assert self.active is not None
        self._change(self._state.with_prompts(self.active, prompts))

    def _change(self, state: ItemState) -> None:
        self._past = [*self._past, self._state][-_UNDO_STEPS:]
        self._state = state

    def _check(self, word: str) -> None:
        if word not in self.words:
            raise InputError(f"{word!r} is not a word of this caption")


def checked_caption(text: str) -> str:
    """A typed caption in one line; raises `InputError` where it is empty or too long."""
    caption = " ".join(text.encode("utf-8", "replace").decode("utf-8").split())
    if not caption or len(caption) > MAX_CHARACTERS:
        raise InputError(f"a caption has 1 to {MAX_CHARACTERS} characters: type what the image shows")
    return caption


def typed_before(record: Record | None, draft: dict[str, Any] | None) -> str:
    """The caption that was typed for an image without one: of the draft, else of the record; "" where none was."""
    if draft is not None and draft.get("base_version") == (record.version if record else 0):
        with suppress(InputError):
            return checked_caption(str(draft.get("caption", "")))
    return record.caption if record is not None else ""


def _from_draft(draft: dict[str, Any] | None, version: int, words: set[str]) -> ItemState | None:
    """The state of a draft; None where it started from another version or is damaged."""
    if draft is None or draft.get("base_version") != version:
        return None
    try:
        true = frozenset(str(word) for word in draft["true"]) & words
        prompts = tuple((str(word), Prompts.from_dict(one)) for word, one in draft["prompts"].items() if word in words)
        return ItemState(true, prompts, draft["active"] if draft["active"] in true else None)
    except (InputError, KeyError, TypeError, AttributeError):
        return None
