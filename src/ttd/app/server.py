"""Builds the page and serves it until it is stopped."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttd.app.models import ModelPool
from ttd.app.security import Access, Guard
from ttd.app.uploads import MAX_BYTES
from ttd.errors import missing_extra

if TYPE_CHECKING:
    from ttd.annotate.annotation_set import AnnotationSet

_HOUR = 3600  # seconds


@contextmanager
def page(pool: ModelPool, access: Access, annotate: AnnotationSet | None = None) -> Iterator[str]:
    """Serves the page while the block runs, which is given its address.

    Args:
        pool: the models that the page offers.
        access: address, port and password.
        annotate: the set for the Annotate tab; None: without that tab.

    Raises:
        MissingExtra: gradio is not installed.
        InputError: the port is in use, or the address does not belong to this machine.
    """
    access.check_free()
    folder = Path(tempfile.mkdtemp(prefix="ttd-app-")).resolve()
    try:
        blocks, style = build(pool, folder, annotate)
        _launch(blocks, access, folder, style)
        try:
            yield access.address
        finally:
            blocks.close(verbose=False)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def build(pool: ModelPool, folder: Path, annotate: AnnotationSet | None = None) -> tuple[Any, dict[str, Any]]:
    """The page as `gr.Blocks`, and the theme and CSS for its `launch`; uploads are written into `folder`."""
    _prepare_gradio(folder)
    import gradio as gr

    from ttd.app.explore import explore_tab, write_examples
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
    """Sets the folders of gradio's files, which it reads from the environment."""
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_EXAMPLES_CACHE"] = str(folder / "cached_examples")
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise missing_extra("app", "the page needs gradio") from error


def _launch(blocks: Any, access: Access, folder: Path, style: dict[str, Any]) -> None:
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
        **style,
    )
