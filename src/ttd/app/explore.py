"""The Explore tab: words, maps and labels of an image and its caption."""

from __future__ import annotations

import base64
import itertools
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from ttd.app import html
from ttd.app.answers import AS_PROTOCOL, MAX_CAPTION, PageAnswer, Question, answer, download, threshold_of
from ttd.app.html import FILES, notice
from ttd.app.models import NO_ADAPTER, ModelPool
from ttd.errors import TTDError
from ttd.scenes.scene import example_scenes
from ttd.scoring import SCORES
from ttd.viz.overlays import save_png

_log = logging.getLogger(__name__)

_WAITING = "Drop an image into the field on the left and write its caption, or choose one of the examples."
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
_TYPES = {"png": "image/png", "json": "application/json"}
_EXAMPLES = 6
_SEED = 1  # as `ttd demo`


@dataclass(frozen=True)
class Example:
    """An image file, its caption, and what the image shows, separated by commas."""

    path: Path
    caption: str
    tags: str


def write_examples(folder: Path, number: int = _EXAMPLES) -> list[Example]:
    """Draws scenes whose captions name two things that are in the image and one that is not.

    Args:
        folder: for the PNGs; made where it is missing.
        number: of scenes.
    """
    examples = []
    for scene in islice(example_scenes(_SEED), number):
        path = folder / f"scene-{scene.index}.png"
        save_png(Image.fromarray(scene.image), path)
        examples.append(Example(path, scene.caption, ", ".join((*scene.nouns, scene.background))))
    return examples


def explore_tab(pool: ModelPool, examples: Sequence[Example]) -> Callable[[], None]:
    """Builds the tab inside the current `gr.Blocks`.

    Args:
        pool: the models that the page offers.
        examples: images to try; the first one is shown when the page is loaded.

    Returns:
        a function to call at the end of the Blocks: it connects the loading of the page with the first answer.
    """
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            question = _fields(pool, examples)
        with gr.Column(scale=8, min_width=480):
            results = _results()
    events = _Events(pool, examples, question, results)
    events.connect()
    return events.on_load


def _fields(pool: ModelPool, examples: Sequence[Example]) -> dict[str, Any]:
    """The left column, by the names of `Question`'s fields."""
    choices = pool.choices
    first = examples[0] if examples else None
    fields: dict[str, Any] = {}
    image = gr.Image(
        str(first.path) if first else None,
        type="filepath",
        image_mode=None,
        sources=["upload", "clipboard"],
        label="Image",
        height=210,
        buttons=[],
        elem_id="ttd-image",
    )
    # Gradio would open the file here and fail for a damaged one; `read_upload` explains what is wrong.
    image.preprocess = lambda payload: payload.path if payload else None
    fields["path"] = image
    fields["caption"] = gr.Textbox(
        first.caption if first else "",
        label="Caption",
        lines=2,
        max_lines=4,
        max_length=MAX_CAPTION,
        submit_btn=False,
        elem_id="ttd-caption",
    )
    fields["go"] = gr.Button("Show", variant="primary", size="md", elem_id="ttd-go")
    if examples:
        fields["examples"] = gr.Dataset(
            components=[gr.Image(render=False)],
            samples=[[str(example.path)] for example in examples],
            label="Drawn scenes to try" + ("; mini is for drawings only" if "mini" in choices.models else ""),
            samples_per_page=12,
            type="index",
            elem_id="ttd-examples",
        )
    with gr.Group():
        with gr.Row():
            fields["model"] = gr.Dropdown(
                list(choices.models),
                value=next(iter(choices.models)),
                label="Model",
                min_width=120,
                elem_id="ttd-model",
            )
            fields["adapter"] = gr.Dropdown(
                choices.adapter_labels,
                value=NO_ADAPTER,
                label="Adapter",
                min_width=120,
                elem_id="ttd-adapter",
                visible=bool(choices.adapters),
            )
        fields["threshold"] = gr.Slider(0, 1, 0.5, step=0.01, label="Threshold of masks", elem_id="ttd-threshold")
    with gr.Accordion("More settings", open=False):
        fields["protocol"] = gr.Dropdown(choices.protocols, value="default", label="Protocol", elem_id="ttd-protocol")
        fields["refine"] = gr.Dropdown(
            [AS_PROTOCOL, *choices.refinements], value=AS_PROTOCOL, label="Refinement of maps", elem_id="ttd-refine"
        )
        fields["score"] = gr.Dropdown(list(SCORES), value="s_pixel", label="Score of words", elem_id="ttd-score")
        fields["stop_words"] = gr.Checkbox(False, label="Score stop words too (the, on, ...)")
    return fields


def _results() -> dict[str, Any]:
    """The right column."""
    parts: dict[str, Any] = {}
    parts["status"] = gr.HTML(notice(_WAITING), elem_id="ttd-status")
    parts["words"] = gr.HTML("", elem_id="ttd-words")
    with gr.Tabs():
        with gr.Tab("Words"):
            parts["maps"] = gr.HTML("", elem_id="ttd-maps")
        with gr.Tab("Caption"):
            parts["captions"] = gr.HTML("", elem_id="ttd-captions")
        with gr.Tab("Most similar word"):
            parts["best"] = gr.HTML("", elem_id="ttd-best")
        with gr.Tab("Segment"):
            with gr.Row(equal_height=True):
                parts["tags"] = gr.Textbox(
                    "",
                    label="Tags, separated by commas",
                    placeholder="empty: the chosen words",
                    scale=4,
                    elem_id="ttd-tags",
                )
                parts["background"] = gr.Checkbox(True, label="Background", scale=1, min_width=110)
                parts["opacity"] = gr.Slider(0, 1, 0.6, step=0.05, label="Opacity of colours", scale=2, min_width=140)
            parts["segments"] = gr.HTML("", elem_id="ttd-segments")
            with gr.Row():
                parts["downloads"] = {
                    name: gr.Button(f"Download {name}", size="sm", elem_id=f"ttd-get-{name.split()[0].lower()}")
                    for name in FILES
                }
            parts["file"] = gr.Textbox(visible=False)
    return parts


class _Events:
    """Connects the fields with the functions that answer.

    Args:
        pool: the models.
        examples: those of the page.
        fields, results: gradio's components of both columns, by name.
    """

    def __init__(
        self, pool: ModelPool, examples: Sequence[Example], fields: dict[str, Any], results: dict[str, Any]
    ) -> None:
        self._pool = pool
        self._examples = [(str(e.path), e.caption, e.tags) for e in examples]
        self._fields = {**fields, **results}
        names = ("path", "caption", "tags", "model", "adapter", "protocol", "refine", "threshold", "score")
        self._names = (*names, "stop_words", "background")
        self._inputs = [self._fields[name] for name in self._names]
        self._numbers = itertools.count(1)
        self._shown = ["status", "words", "maps", "captions", "best", "segments"]
        self._threshold_parts = ["status", "captions", "segments"]

    def connect(self) -> None:
        """Every change of a field gives a new answer; a change of the threshold only the parts that depend on it."""
        f = self._fields
        whole = [self._fields[name] for name in self._shown]
        masks = [self._fields[name] for name in self._threshold_parts]
        plain: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal"}
        latest: dict[str, Any] = {**plain, "trigger_mode": "always_last"}
        for event in (f["go"].click, f["caption"].submit, f["path"].upload):
            event(self.show, self._inputs, whole, **plain)
        for name in ("refine", "score", "stop_words"):
            f[name].input(self.show, self._inputs, whole, **latest)
        for name in ("model", "adapter", "protocol"):
            f[name].input(self.switch, self._inputs, [f["threshold"], *whole], **latest)
        for event in (f["threshold"].input, f["background"].input, f["tags"].submit):
            event(self.show_masks, self._inputs, masks, **latest)
        f["opacity"].input(None, [f["opacity"]], None, js=_SET_OPACITY, api_visibility="private")
        for name, button in f["downloads"].items():
            # One at a time: they are made at the image's own size, which may be 50 megapixels.
            button.click(
                self._saver(name),
                [f["opacity"], *self._inputs],
                [f["file"], f["status"]],
                **plain,
                concurrency_limit=1,
                concurrency_id="downloads",
            ).then(None, [f["file"]], None, js=_SAVE, api_visibility="private")
        if "examples" in f:
            f["examples"].click(
                self.show_example,
                [f["examples"], *self._inputs],
                [f["path"], f["caption"], f["tags"], *whole],
                **plain,
            )

    def on_load(self) -> None:
        """Answers for the fields' first values when the page is loaded."""
        context = gr.context.Context.root_block
        assert context is not None
        whole = [self._fields[name] for name in self._shown]
        context.load(self.switch, self._inputs, [self._fields["threshold"], *whole], api_visibility="private")

    def show(self, *values: Any) -> list[Any]:
        """The whole answer."""
        return self._guarded(lambda: self._draw(answer(self._pool, self._question(values)), values), len(self._shown))

    def show_masks(self, *values: Any) -> list[Any]:
        """The parts of the answer that depend on the threshold."""
        question = self._question
        return self._guarded(
            lambda: self._draw(answer(self._pool, question(values), threshold_only=True), values),
            len(self._threshold_parts),
        )

    def switch(self, *values: Any) -> list[Any]:
        """The whole answer of another model or protocol, with its own threshold."""

        def parts() -> list[Any]:
            question = self._question(values)
            threshold = threshold_of(self._pool, question.model, question.adapter, question.protocol)
            changed = list(values)
            changed[self._names.index("threshold")] = threshold
            if question.path is None:
                return [threshold, self._status(_WAITING), *[""] * (len(self._shown) - 1)]
            return [threshold, *self._draw(answer(self._pool, self._question(changed)), changed)]

        return self._guarded(parts, len(self._shown), before=[gr.skip()])

    def show_example(self, number: int, *values: Any) -> list[Any]:
        """The values of the fields for an example, and its answer."""
        chosen = list(values)
        for name, value in zip(("path", "caption", "tags"), self._examples[number], strict=True):
            chosen[self._names.index(name)] = value
        return [*self._examples[number], *self.show(*chosen)]

    def _saver(self, name: str) -> Callable[..., list[Any]]:
        def save(opacity: float, *values: Any) -> list[Any]:
            def file_parts() -> list[Any]:
                file, content = FILES[name](download(self._pool, self._question(values)), float(opacity))
                data = base64.b64encode(content).decode("ascii")
                kind = _TYPES[file.rsplit(".", 1)[1]]
                size = f"{len(content) / 1000:.0f} kB"
                return [json.dumps({"name": file, "type": kind, "data": data}), self._status(f"Saved {file}, {size}.")]

            return self._guarded(file_parts, 1, before=[""])

        return save

    def _question(self, values: Sequence[Any]) -> Question:
        given = dict(zip(self._names, values, strict=True))
        given["threshold"] = float(given["threshold"])
        for name in ("caption", "tags"):
            given[name] = given[name] or ""
        return Question(**given)

    def _draw(self, found: PageAnswer, values: Sequence[Any]) -> list[Any]:
        threshold = self._question(values).threshold
        encoded = "the image was encoded" if found.newly_encoded else "encoded before"
        captions = html.captions_html(found.captions, found.image, threshold)
        segments = html.segmentation_html(found.segmentation, found.image)
        status = self._status(f"Answered in {found.seconds:.2f} s ({encoded}).")
        if found.words is None:
            return [status, captions, segments]
        words = html.words_html(found.words, found.vocabulary_size)
        maps = html.maps_html(found.words, found.image)
        return [status, words, maps, captions, html.best_html(found.words, found.image), segments]

    def _guarded(self, ask: Callable[[], list[Any]], parts: int, before: Sequence[Any] = ()) -> list[Any]:
        """The result of `ask`; after an error `before`, one sentence, and nothing for the rest of the `parts`."""
        try:
            return ask()
        except TTDError as error:
            sentence = str(error)
        # The visitor sees a sentence; the traceback goes to the log.
        except Exception as error:
            _log.exception("a question could not be answered")
            sentence = f"Internal error ({type(error).__name__}): see the log of ttd app."
        return [*before, self._status(sentence, "error"), *[""] * (parts - 1)]

    def _status(self, sentence: str, kind: str = "info") -> str:
        """A line for the status, with a number: two equal sentences in a row are still two responses."""
        return f'<div data-answer="{next(self._numbers)}">{notice(sentence, kind)}</div>'
