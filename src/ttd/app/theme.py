"""The page's theme and CSS; system fonts by name only, so that nothing is fetched."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

_SANS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif"]
_MONO = ["ui-monospace", "Consolas", "DejaVu Sans Mono", "monospace"]
CSS = (Path(__file__).parent / "page.css").read_text("utf-8")


def theme() -> gr.themes.Base:
    """Grey and blue."""
    return gr.themes.Default(
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
