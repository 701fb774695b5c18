"""What the fields and buttons of the Explore tab do."""

from __future__ import annotations

import base64
import itertools
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import gradio as gr

from ttd.app import gallery, html
from ttd.app.answers import AS_PROTOCOL, PageAnswer, Question, answer, download, threshold_of
from ttd.app.downloads import DOWNLOADS, Download
from ttd.app.html import notice
from ttd.app.models import DECODED_SIDE, ModelPool
from ttd.app.uploads import digest, read_upload
from ttd.app.viewer import layers_html, viewer_html
from ttd.errors import InputError, TTDError
from ttd.lru_cache import LRUCache

if TYPE_CHECKING:
    from ttd.app.explore import Example

_log = logging.getLogger(__name__)

DRAWN_BYTES = 128 << 20  # of answers as HTML, for visitors who ask what others asked

_LINK = """(query) => {
  if (!query) return [];
  const link = `${location.origin}${location.pathname}?${query}`;
  history.replaceState(null, '', link);
  navigator.clipboard?.writeText(link).catch(() => {});
  return [];
}"""
WAITING = "Drop an image into its field and write its caption, or choose one of the examples."
_SET_OPACITY = "(value) => { document.documentElement.style.setProperty('--ttd-opacity', value); return []; }"
_SAVE = """(file) => {
  if (!file) return [];
  const {name, type, data} = JSON.parse(file);
  const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([bytes], {type}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  return [];
}"""


class Events:
    """Connects the fields with the functions that answer.

    Args:
        pool: the models.
        examples: those of the page.
        fields: gradio's components, by name.
    """

    def __init__(self, pool: ModelPool, examples: Sequence[Example], fields: dict[str, Any]) -> None:
        self._pool = pool
        self._examples = [(str(e.path), e.caption, e.tags) for e in examples]
        self._fields = fields
        names = ("path", "caption", "tags", "model", "adapter", "method", "protocol", "refine", "threshold", "score")
        self._names = (*names, "stop_words", "background")
        self._inputs = [self._fields[name] for name in self._names]
        self._numbers = itertools.count(1)
        self._drawn: LRUCache[tuple[Any, ...], list[str]] = LRUCache(DRAWN_BYTES, lambda parts: sum(map(len, parts)))
        self._shown = ["status", "viewer", "layers", "maps", "captions", "best", "segments"]
        self._threshold_parts = ["status", "layers", "captions", "segments"]

    def connect(self) -> None:
        """Every change of a field gives a new answer; a change of the threshold only the parts that depend on it."""
        f = self._fields
        whole = [self._fields[name] for name in self._shown]
        masks = [self._fields[name] for name in self._threshold_parts]
        plain: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        latest: dict[str, Any] = {**plain, "trigger_mode": "always_last"}
        for event in (f["go"].click, f["caption"].submit):
            event(self.show, self._inputs, whole, **plain)
        f["path"].upload(self.upload, [f["good"], *self._inputs], [f["path"], f["good"], *whole], **plain)
        for name in ("method", "refine", "score", "stop_words"):
            f[name].input(self.show, self._inputs, whole, **latest)
        for name in ("model", "adapter", "protocol"):
            f[name].input(self.switch, self._inputs, [f["threshold"], *whole], **latest)
        for event in (f["threshold"].input, f["background"].input, f["tags"].submit):
            event(self.show_masks, self._inputs, masks, **latest)
        f["opacity"].input(None, [f["opacity"]], None, js=_SET_OPACITY, api_visibility="private")
        f["link"].click(self.link, self._inputs, [f["file"], f["status"]], **plain).then(
            None, [f["file"]], None, js=_LINK, api_visibility="private"
        )
        for name, button in f["downloads"].items():
            # One at a time: they are made at the image's own size, which may be 50 megapixels.
            button.click(
                self._saver(DOWNLOADS[name]),
                [f["opacity"], *self._inputs],
                [f["file"], f["status"]],
                **plain,
                concurrency_limit=1,
                concurrency_id="downloads",
            ).then(None, [f["file"]], None, js=_SAVE, api_visibility="private")
        f["many"].submit(
            self.show_many,
            self._inputs,
            [f["gallery"], f["table"], f["csv"]],
            **plain,
            concurrency_limit=1,
            concurrency_id="many",
        )
        f["csv"].click(_csv_file, [f["table"]], [f["file"]], **plain).then(
            None, [f["file"]], None, js=_SAVE, api_visibility="private"
        )
        if "examples" in f:
            f["examples"].click(
                self.show_example,
                self._inputs,
                [f["path"], f["good"], f["caption"], f["tags"], *whole],
                **plain,
            )

    def on_load(self) -> None:
        """Answers for the fields' first values when the page is loaded."""
        context = gr.context.Context.root_block
        assert context is not None
        whole = [self._fields[name] for name in self._shown]
        given = [*self._inputs, self._fields["good"]]
        context.load(self.arrive, self._inputs, [*given, *whole], api_visibility="private", show_progress="hidden")

    def arrive(self, request: gr.Request, *values: Any) -> list[Any]:
        """The fields' values and the answer for a page that was just opened, by a link to a question or without one."""
        given = dict(zip(self._names, values, strict=True))
        asked = dict(request.query_params)
        given |= {name: asked[name] for name in self._names if name in asked and name != "path"}
        for name in ("stop_words", "background"):
            given[name] = str(given[name]).lower() in ("true", "1")
        number = asked.get("example", "")
        if number.isdigit() and int(number) < len(self._examples):
            given["path"] = self._examples[int(number)][0]

        def parts() -> list[Any]:
            choices = self._pool.choices
            choices.names(given["model"], given["adapter"])
            offered = {
                "method": choices.methods,
                "protocol": choices.protocols,
                "refine": (AS_PROTOCOL, *choices.refinements),
            }
            if any(given[name] not in values for name, values in offered.items()):
                raise InputError("This link names settings that this page does not have.")
            if "threshold" not in asked:
                given["threshold"] = threshold_of(self._pool, given["model"], given["adapter"], given["protocol"])
            given["threshold"] = min(1.0, max(0.0, _as_number(given["threshold"])))
            changed = list(given.values())
            if given["path"] is None:
                return [*changed, None, self._status(WAITING), *[gr.skip()] * (len(self._shown) - 1)]
            return [*changed, given["path"], *self._answered(changed)]

        return self._guarded(parts, len(self._shown), before=[gr.skip()] * (len(self._names) + 1))

    def link(self, *values: Any) -> list[Any]:
        """The settings of a question as the end of a link, with the example's number where the image is one."""
        given = dict(zip(self._names, values, strict=True))
        paths = [_digest_or_none(path) for path, *_ in self._examples]
        path = given.pop("path")
        own = _digest_or_none(path) if path else None
        said = "The link was copied; an uploaded image is not part of it."
        if own is not None and own in paths:
            given["example"] = paths.index(own)
            said = "The link was copied: it shows this image with these words and settings."
        return [urlencode({name: value for name, value in given.items() if value != ""}), self._status(said)]

    def show(self, *values: Any) -> list[Any]:
        """The whole answer."""
        return self._guarded(lambda: self._answered(values), len(self._shown))

    def upload(self, good: str | None, *values: Any) -> list[Any]:
        """The whole answer about another image; one that cannot be read leaves the image and the answer before it."""
        path = values[self._names.index("path")]
        try:
            if path is not None:
                read_upload(path, DECODED_SIDE)
        except TTDError as error:
            return [good, good, self._status(str(error), "error"), *[gr.skip()] * (len(self._shown) - 1)]
        return [gr.skip(), path, *self.show(*values)]

    def show_masks(self, *values: Any) -> list[Any]:
        """The parts of the answer that depend on the threshold."""
        return self._guarded(lambda: self._answered(values, threshold_only=True), len(self._threshold_parts))

    def switch(self, *values: Any) -> list[Any]:
        """The whole answer of another model or protocol, with its own threshold."""

        def parts() -> list[Any]:
            question = self._question(values)
            threshold = threshold_of(self._pool, question.model, question.adapter, question.protocol)
            changed = list(values)
            changed[self._names.index("threshold")] = threshold
            if question.path is None:
                return [threshold, self._status(WAITING), *[gr.skip()] * (len(self._shown) - 1)]
            return [threshold, *self._answered(changed)]

        return self._guarded(parts, len(self._shown), before=[gr.skip()])

    def show_example(self, event: gr.EventData, *values: Any) -> list[Any]:
        """The values of the fields for an example, and its answer."""
        number = getattr(event, "_data", {}).get("index")
        if not isinstance(number, int) or not 0 <= number < len(self._examples):
            return [gr.skip()] * (4 + len(self._shown))
        chosen = list(values)
        for name, value in zip(("path", "caption", "tags"), self._examples[number], strict=True):
            chosen[self._names.index(name)] = value
        path, *texts = self._examples[number]
        return [path, path, *texts, *self.show(*chosen)]

    def show_many(self, event: gr.EventData, *values: Any) -> Iterator[list[Any]]:
        """The gallery as it grows, then the table, for images that were sent one after the other."""
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        try:
            images = gallery.sent_images(getattr(event, "_data", None), folder)
            for shown, table in gallery.gallery(self._pool, images, self._question(values)):
                yield [shown, table, gr.Button(interactive=bool(table))]
        except TTDError as error:
            yield [notice(str(error), "error"), "", gr.Button(interactive=False)]
        # As in `_guarded`.
        except Exception as error:
            _log.exception("images could not be answered")
            sentence = f"Internal error ({type(error).__name__}): see the log of ttd app."
            yield [notice(sentence, "error"), "", gr.Button(interactive=False)]

    def _saver(self, kind: Download) -> Callable[..., list[Any]]:
        def save(opacity: float, *values: Any) -> list[Any]:
            def file_parts() -> list[Any]:
                content = kind.content(download(self._pool, self._question(values)), float(opacity))
                data = base64.b64encode(content).decode("ascii")
                sentence = f"Saved {kind.name}, {len(content) / 1000:.0f} kB."
                return [json.dumps({"name": kind.name, "type": kind.media_type, "data": data}), self._status(sentence)]

            return self._guarded(file_parts, 1, before=[""])

        return save

    def _question(self, values: Sequence[Any]) -> Question:
        given = dict(zip(self._names, values, strict=True))
        given["threshold"] = float(given["threshold"])
        for name in ("caption", "tags"):
            given[name] = given[name] or ""
        return Question(**given)

    def _answered(self, values: Sequence[Any], *, threshold_only: bool = False) -> list[str]:
        """The status and the parts of an answer; for a question that was asked before what was drawn then."""
        question = self._question(values)
        key = (threshold_only, digest(question.check()), *list(values)[1:])
        drawn = self._drawn.get(key)
        seconds, encoded = 0.0, "encoded before"
        if drawn is None:
            found = answer(self._pool, question, threshold_only=threshold_only)
            drawn = [found.notice or "", *_draw(found, question.threshold)]
            self._drawn.put(key, drawn)
            seconds, encoded = found.seconds, "the image was encoded" if found.newly_encoded else "encoded before"
        warning = notice(drawn[0], "warning") if drawn[0] else ""
        return [warning + self._status(f"Answered in {seconds:.2f} s ({encoded})."), *drawn[1:]]

    def _guarded(self, ask: Callable[[], list[Any]], parts: int, before: Sequence[Any] = ()) -> list[Any]:
        """The result of `ask`; after an error `before` and one sentence, and the rest of the `parts` stays."""
        try:
            return ask()
        except TTDError as error:
            sentence = str(error)
        # The visitor sees a sentence; the traceback goes to the log.
        except Exception as error:
            _log.exception("a question could not be answered")
            sentence = f"Internal error ({type(error).__name__}): see the log of ttd app."
        return [*before, self._status(sentence, "error"), *[gr.skip()] * (parts - 1)]

    def _status(self, sentence: str, kind: str = "info") -> str:
        """A line for the status, with a number: two equal sentences in a row are still two responses."""
        return f'<div data-answer="{next(self._numbers)}">{notice(sentence, kind)}</div>'


def _draw(found: PageAnswer, threshold: float) -> list[str]:
    """The parts of an answer below the status, as HTML: all, or those that depend on the threshold."""
    captions = html.captions_html(found.captions, found.image, threshold)
    segments = html.segmentation_html(found.segmentation, found.image)
    layers = layers_html(found.captions, found.segmentation)
    if found.words is None:
        return [layers, captions, segments]
    maps = html.maps_html(found.words, found.image)
    return [viewer_html(found), layers, maps, captions, html.best_html(found.words, found.image), segments]


def _csv_file(table: str) -> str:
    data = base64.b64encode(table.encode("utf-8", "replace")).decode("ascii")
    return json.dumps({"name": "ttd.csv", "type": "text/csv", "data": data})


def _as_number(value: Any) -> float:
    try:
        return float(value)
    except ValueError:
        raise InputError(f"{str(value)[:40]!r} is not a threshold: it is a number from 0 to 1.") from None


def _digest_or_none(path: str) -> str | None:
    """The digest of a file; None where it is gone."""
    try:
        return digest(path)
    except InputError:
        return None
