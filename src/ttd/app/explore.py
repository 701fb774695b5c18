"""The Explore tab: words, maps and labels of an image and its caption; and the images with captions to try there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from ttd.app import gallery, html
from ttd.app.answers import AS_PROTOCOL, MAX_CAPTION
from ttd.app.downloads import DOWNLOADS
from ttd.app.events import WAITING, Events
from ttd.app.html import notice
from ttd.app.models import NO_ADAPTER, OWN_METHOD, ModelPool
from ttd.app.viewer import SCRIPT
from ttd.data.bad_samples import BadSample
from ttd.data.sources import PairSource
from ttd.errors import InputError
from ttd.scenes.scene import example_scenes
from ttd.scoring import SCORES
from ttd.viz.overlays import bounded, save_png

_TELL = "watch('value', () => document.dispatchEvent(new Event('{}')));"
_CHOOSE = """element.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (button) trigger('click', {index: Number(button.dataset.example)});
});"""


def explore_tab(pool: ModelPool, examples: Sequence[Example]) -> Callable[[], None]:
    """Builds the tab inside the current `gr.Blocks`.

    Args:
        pool: the models that the page offers.
        examples: images to try; the first one is shown when the page is loaded.

    Returns:
        a function to call at the end of the Blocks: it connects the loading of the page with the first answer.
    """
    with gr.Row(elem_id="ttd-explore"):
        with gr.Column(elem_id="ttd-question"):
            fields = _question(examples)
        with gr.Column(elem_id="ttd-result"):
            fields |= _results()
        with gr.Column(elem_id="ttd-more"):
            fields |= _more(pool, examples)
    events = Events(pool, examples, fields)
    events.connect()
    return events.on_load


def _question(examples: Sequence[Example]) -> dict[str, Any]:
    """Image, caption and button, by the names of `Question`'s fields."""
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
        label="Caption (Enter asks, Shift+Enter starts a new line)",
        lines=1,  # with more, Enter would start a new line
        max_lines=5,
        max_length=MAX_CAPTION,
        submit_btn=False,
        elem_id="ttd-caption",
    )
    fields["go"] = gr.Button("Show", variant="primary", size="md", elem_id="ttd-go")
    fields["good"] = gr.State(str(first.path) if first else None)  # the last image that could be read
    return fields


def _more(pool: ModelPool, examples: Sequence[Example]) -> dict[str, Any]:
    """Examples, and the settings."""
    choices = pool.choices
    fields: dict[str, Any] = {}
    if examples:
        fields["examples"] = gr.HTML(html.examples_html(examples), js_on_load=_CHOOSE, elem_id="ttd-examples")
    with gr.Accordion("More", open=False, elem_id="ttd-settings"):
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
        fields["method"] = gr.Dropdown(choices.methods, value=OWN_METHOD, label="Method", elem_id="ttd-method")
        fields["threshold"] = gr.Slider(0, 1, 0.5, step=0.01, label="Threshold of masks", elem_id="ttd-threshold")
        fields["protocol"] = gr.Dropdown(choices.protocols, value="default", label="Protocol", elem_id="ttd-protocol")
        fields["refine"] = gr.Dropdown(
            [AS_PROTOCOL, *choices.refinements], value=AS_PROTOCOL, label="Refinement of maps", elem_id="ttd-refine"
        )
        fields["score"] = gr.Dropdown(list(SCORES), value="s_pixel", label="Score of words", elem_id="ttd-score")
        fields["stop_words"] = gr.Checkbox(False, label="Score stop words too (the, on, ...)")
    return fields


def _results() -> dict[str, Any]:
    """The answer: the canvas, and below it what it shows as small images."""
    parts: dict[str, Any] = {}
    parts["status"] = gr.HTML(notice(WAITING), js_on_load=_TELL.format("ttd-answer"), elem_id="ttd-status")
    parts["viewer"] = gr.HTML("", js_on_load=SCRIPT, elem_id="ttd-viewer")
    parts["layers"] = gr.HTML("", js_on_load=_TELL.format("ttd-layers"), elem_id="ttd-layers")
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
        with gr.Tab("Download"):
            with gr.Row():
                parts["downloads"] = {
                    name: gr.Button(name, size="sm", min_width=110, elem_id=f"ttd-get-{name.lower().replace(' ', '-')}")
                    for name in DOWNLOADS
                }
            parts["link"] = gr.Button("Copy a link to this question", size="sm", elem_id="ttd-link")
        with gr.Tab("Several images"):
            parts["many"] = gr.HTML(gallery.FORM, js_on_load=gallery.SCRIPT, elem_id="ttd-many")
            parts["gallery"] = gr.HTML("", elem_id="ttd-gallery")
            parts["csv"] = gr.Button("Table as CSV", size="sm", interactive=False, elem_id="ttd-csv")
            parts["table"] = gr.State("")
    parts["file"] = gr.Textbox(elem_id="ttd-file")
    return parts


_log = logging.getLogger(__name__)

_DRAWN = 6
_MOST = 24
_SIDE = 1600  # pixels of the longer side of a copy
_SEED = 1  # as `ttd demo`


@dataclass(frozen=True)
class Example:
    """An image file, its caption, and what the image shows, separated by commas ("": unknown)."""

    path: Path
    caption: str
    tags: str = ""


def drawn_examples(folder: Path, number: int = _DRAWN) -> list[Example]:
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


def folder_examples(source: str, folder: Path) -> list[Example]:
    """Copies the first images of a folder, with their captions, to where the page may read them.

    Args:
        source: a folder of images with `NAME.txt`, or what else `PairSource` reads.
        folder: for the copies, which have no metadata of the photos.

    Raises:
        InputError: there is no image with a caption.
    """
    pairs = PairSource(source)
    examples = []
    for number in range(min(len(pairs), _MOST)):
        try:
            pair = pairs[number]
        except BadSample as error:
            _log.warning("not used as an example: %s", error)
            continue
        path = folder / f"example-{number}.png"
        save_png(bounded(pair.image, _SIDE), path)
        examples.append(Example(path, pair.captions[0]))
    if not examples:
        raise InputError(f"{source} holds no image with a caption: write the caption of NAME.jpg into NAME.txt")
    return examples
