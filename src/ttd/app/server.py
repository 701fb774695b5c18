"""Builds the page and serves it until it is stopped."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttd.app.access import CLIENT, MAX_DELAY, Access, LoginDelays, TooManyLogins
from ttd.app.asgi import Heartbeats, Running
from ttd.app.models import ModelPool
from ttd.app.uploads import MAX_BYTES
from ttd.errors import missing_extra

if TYPE_CHECKING:
    from ttd.annotate.annotation_set import AnnotationSet

GRACE = 20.0  # seconds in which what is being answered may end once the page is to stop
_HOUR = 3600  # seconds
_MAX_SESSIONS = 64  # of which gradio remembers the values of the fields
_SANS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif"]
_MONO = ["ui-monospace", "Consolas", "DejaVu Sans Mono", "monospace"]
_PROXIES = "FORWARDED_ALLOW_IPS"  # uvicorn's variable: whose X-Forwarded-For it believes


@contextmanager
def page(
    pool: ModelPool,
    access: Access,
    annotate: AnnotationSet | None = None,
    examples: str | None = None,
    delays: LoginDelays | None = None,
) -> Iterator[str]:
    """Serves the page while the block runs, which is given its address.

    At its end open questions are answered first, within `GRACE` seconds; new ones are refused during this time.

    Args:
        pool: the models that the page offers.
        access: address, port and password.
        annotate: the set for the Annotate tab; None: without that tab.
        examples: a folder of images with captions to try; None: drawn scenes.
        delays: after wrong passwords; None: new ones.

    Raises:
        MissingExtra: gradio is not installed.
        InputError: the port is in use, or the address does not belong to this machine.
    """
    access.check_free()
    folder = Path(tempfile.mkdtemp(prefix="ttd-app-")).resolve()
    try:
        heartbeats, running = Heartbeats(), Running()
        blocks, style = build(pool, folder, annotate, heartbeats, examples)
        _launch(blocks, access, folder, style, heartbeats, running, LoginDelays() if delays is None else delays)
        try:
            yield access.address
        finally:
            try:
                running.stop(GRACE)
            finally:
                blocks.close(verbose=False)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def build(
    pool: ModelPool,
    folder: Path,
    annotate: AnnotationSet | None,
    heartbeats: Heartbeats,
    examples: str | None = None,
) -> tuple[Any, dict[str, Any]]:
    """The page as `gr.Blocks`, and the theme and CSS for its `launch`; uploads are written into `folder`."""
    _prepare_gradio(folder)
    import gradio as gr

    from ttd.app.explore import drawn_examples, explore_tab, folder_examples

    place = folder / "examples"
    found = drawn_examples(place) if examples is None else folder_examples(examples, place)
    with gr.Blocks(title="ttd", analytics_enabled=False, delete_cache=(_HOUR // 12, _HOUR)) as blocks:
        gr.HTML(
            '<div class="ttd-head"><h1>ttd</h1><span>Which words of a caption are in the image, '
            "and where: Text-Tag Self-Distillation</span></div>"
        )
        on_load: Callable[[], None]
        if annotate is None:
            on_load = explore_tab(pool, found)
        else:
            from ttd.app.annotate.page import annotate_tab

            with gr.Tabs(selected="annotate"):
                with gr.Tab("Explore"):
                    on_load = explore_tab(pool, found)
                with gr.Tab("Annotate", id="annotate"):
                    annotate_tab(annotate, heartbeats)
        on_load()
    blocks.queue(default_concurrency_limit=4, max_size=64, api_open=False)
    return blocks, _style()


def _style() -> dict[str, Any]:
    """Theme (grey and blue) and CSS; system fonts by name only, so that nothing is fetched."""
    import gradio as gr

    theme = gr.themes.Default(
        primary_hue="blue",
        neutral_hue="slate",
        spacing_size="sm",
        radius_size="sm",
        font=_SANS,
        font_mono=_MONO,
    ).set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        # White on the theme's own blue has too little contrast.
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
    )
    return {"theme": theme, "css": (Path(__file__).parent / "page.css").read_text("utf-8")}


def _prepare_gradio(folder: Path) -> None:
    """Sets the folders of gradio's files, which it reads from the environment."""
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_EXAMPLES_CACHE"] = str(folder / "cached_examples")
    # Gradio keeps the times of so many answers, and after so many more makes a table of them, which nothing here shows.
    os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "10"
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**9)
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise missing_extra("app", "the page needs gradio") from error


def _launch(
    blocks: Any,
    access: Access,
    folder: Path,
    style: dict[str, Any],
    heartbeats: Heartbeats,
    running: Running,
    delays: LoginDelays,
) -> None:
    from starlette.middleware import Middleware

    from ttd.app.security import Guard
    from ttd.app.uploads import UploadFolder

    guard = Middleware(
        Guard,
        uploads=UploadFolder(folder),
        hosts=access.hosts,
        upload_bytes=MAX_BYTES,
        heartbeats=heartbeats,
        running=running,
        proxied=access.root_path is not None,
        origin=access.origin,
        embed=access.embed,
    )
    with _no_proxy_believed() if access.root_path is None else nullcontext():
        blocks.launch(
            server_name=access.host,
            server_port=access.port,
            root_path=(access.root_path or "").rstrip("/"),
            auth=_login(access, delays) if access.user is not None else None,
            max_file_size=MAX_BYTES,
            state_session_capacity=_MAX_SESSIONS,
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


def _login(access: Access, delays: LoginDelays) -> Callable[[str, str], Awaitable[bool]]:
    """What gradio asks about a name and a password: with a delay after wrong ones."""
    from starlette.exceptions import HTTPException

    async def allowed(user: str, password: str) -> bool:
        try:
            return await delays.check(CLIENT.get(), user, lambda: access.allows(user, password))
        except TooManyLogins:
            wait = {"Retry-After": f"{MAX_DELAY:.0f}"}
            raise HTTPException(429, "Too many logins at the same time: wait a minute.", wait) from None

    return allowed


@contextmanager
def _no_proxy_believed() -> Iterator[None]:
    """While the server starts in the block: without a proxy, a visitor on this machine could name any address."""
    before = os.environ.get(_PROXIES)
    os.environ[_PROXIES] = ""
    try:
        yield
    finally:
        if before is None:
            del os.environ[_PROXIES]
        else:
            os.environ[_PROXIES] = before
