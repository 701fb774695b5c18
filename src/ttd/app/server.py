"""Builds the page and serves it until it is stopped."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from ttd.app.models import ModelPool
from ttd.app.security import Access, Guard
from ttd.app.uploads import MAX_BYTES
from ttd.errors import missing_extra
from ttd.scenes.examples import telling_scenes
from ttd.viz.overlays import save_png

if TYPE_CHECKING:
    from ttd.annotate.annotation_set import AnnotationSet

NUMBER = 6
SEED = 1  # as `ttd demo`


@dataclass(frozen=True)
class Example:
    """An image on disk, its caption, and what is in it, apart by commas."""

    path: Path
    caption: str
    tags: str


def write_examples(folder: Path, number: int = NUMBER) -> list[Example]:
    """Draw `number` scenes whose caption names two things that are there and one that is not.

    Args:
        folder: where the PNGs go; made where it is missing.
        number: how many.
    """
    found = []
    for scene in islice(telling_scenes(SEED), number):
        path = folder / f"scene-{scene.index}.png"
        save_png(Image.fromarray(scene.image), path)
        found.append(Example(path, scene.caption, ", ".join((*scene.nouns, scene.background))))
    return found


_HOUR = 3600


@contextmanager
def page(pool: ModelPool, access: Access, annotate: AnnotationSet | None = None) -> Iterator[str]:
    """Serves the page while the block runs; gives its address.

    Args:
        pool: the models that the page offers.
        access: where, and to whom.
        annotate: the set that is annotated; None: no such tab.

    Raises:
        MissingExtra: gradio is not installed.
        InputError: the address is taken or is none of this machine's.
    """
    access.check_free()
    folder = Path(tempfile.mkdtemp(prefix="ttd-app-")).resolve()
    try:
        blocks, look = build(pool, folder, annotate)
        _launch(blocks, access, folder, look)
        try:
            yield access.address
        finally:
            blocks.close(verbose=False)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def build(pool: ModelPool, folder: Path, annotate: AnnotationSet | None = None) -> tuple[Any, dict[str, Any]]:
    """The page as `gr.Blocks`, and what its `launch` takes for its look; what visitors send goes into `folder`."""
    _prepare_gradio(folder)
    import gradio as gr

    from ttd.app.explore import explore_tab
    from ttd.app.server import write_examples
    from ttd.app.theme import CSS, theme

    examples = write_examples(folder / "examples")
    with gr.Blocks(title="ttd", analytics_enabled=False, delete_cache=(_HOUR, _HOUR)) as blocks:
        gr.HTML(
            '<div class="ttd-head"><h1>ttd</h1><span>Which words of a caption are in the image, '
            "and where: Text-Tag Self-Distillation</span></div>"
        )
        on_load: Callable[[], None]
        if annotate is None:
            on_load = explore_tab(pool, examples)
        else:
            from ttd.app.annotate.page import annotate_tab

            with gr.Tabs(selected="annotate"):
                with gr.Tab("Explore"):
                    on_load = explore_tab(pool, examples)
                with gr.Tab("Annotate", id="annotate"):
                    annotate_tab(annotate)
        on_load()
    blocks.queue(default_concurrency_limit=4, max_size=64, api_open=False)
    return blocks, {"theme": theme(), "css": CSS}


def _prepare_gradio(folder: Path) -> None:
    """Where gradio keeps files; it asks the environment."""
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_EXAMPLES_CACHE"] = str(folder / "cached_examples")
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise missing_extra("app", "the page needs gradio") from error


def _launch(blocks: Any, access: Access, folder: Path, look: dict[str, Any]) -> None:
    from starlette.middleware import Middleware

    guard = Middleware(Guard, folder=folder, hosts=access.hosts, upload_bytes=MAX_BYTES)
    blocks.launch(
        server_name=access.host,
        server_port=access.port,
        auth=access.allows if access.user is not None else None,
        max_file_size=MAX_BYTES,
        app_kwargs={"middleware": [guard], "docs_url": None, "redoc_url": None, "openapi_url": None},
        share=False,
        quiet=True,
        inbrowser=False,
        prevent_thread_lock=True,
        show_error=False,
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        strict_cors=True,
        **look,
    )
