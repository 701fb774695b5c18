"""The page's theme, and the styles of the HTML that `ttd.app.html` makes; system fonts, nothing is fetched."""

from __future__ import annotations

import gradio as gr

_SANS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif"]
_MONO = ["ui-monospace", "Consolas", "DejaVu Sans Mono", "monospace"]


def theme() -> gr.themes.Base:
    """Grey and blue; fonts by name only, so that the browser uses installed ones."""
    return gr.themes.Default(
        primary_hue="blue",
        neutral_hue="slate",
        spacing_size="sm",
        radius_size="sm",
        font=_SANS,
        font_mono=_MONO,
    ).set(body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_300")


CSS = """
.gradio-container { max-width: 1280px !important; }
.gradio-container main.app { padding: 8px 16px !important; }
.ttd-head { margin: 0 0 2px; display: flex; gap: 12px; align-items: baseline; flex-wrap: wrap; }
.ttd-head h1 { font-size: 20px; font-weight: 700; margin: 0; }
.ttd-head span { color: var(--body-text-color-subdued); font-size: 14px; }
.ttd-caption { font-size: 18px; line-height: 2.15; margin: 0; overflow-wrap: anywhere; max-height: 240px;
  overflow: auto; }
.ttd-word { border-radius: 5px; padding: 3px 6px; white-space: nowrap; border: 3px solid transparent; }
.ttd-word small { font-size: 11px; margin-left: 5px; color: inherit; }
.ttd-chosen { font-weight: 700; border-color: var(--body-text-color); }
.ttd-plain { color: var(--body-text-color-subdued); }
.ttd-scale { font-size: 13px; color: var(--body-text-color-subdued); display: flex; gap: 4px 18px; flex-wrap: wrap;
  align-items: center; margin: 4px 0; }
.ttd-bar { display: inline-block; width: 110px; height: 10px; border-radius: 3px; margin: 0 6px;
  vertical-align: middle; }
.ttd-grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); gap: 10px; }
.ttd-grid figure, .ttd-columns figure { margin: 0; min-width: 0; }
.ttd-grid img { width: 100%; aspect-ratio: 4 / 3; object-fit: contain; background: var(--background-fill-secondary);
  border-radius: 4px; display: block; margin: 0; }
.ttd-grid figcaption { display: flex; justify-content: space-between; gap: 8px; font-size: 14px; padding: 2px; }
.ttd-grid figcaption b { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.ttd-note { color: var(--body-text-color-subdued); white-space: nowrap; }
.ttd-columns { display: flex; gap: 24px; }
.ttd-columns .ttd-grid { grid-template-columns: 1fr 1fr; }
.ttd-columns .ttd-grid img { aspect-ratio: 1; }
.ttd-columns section { flex: 1 1 0; min-width: 0; max-width: 560px; }
.ttd-columns h4 { margin: 0 0 4px; font-size: 15px; overflow-wrap: anywhere; }
.ttd-labelled { display: flex; gap: 16px; align-items: flex-start; }
.ttd-layers { position: relative; flex: 0 1 auto; min-width: 0; }
.ttd-layers img { display: block; margin: 0; max-width: 100%; max-height: 400px; border-radius: 4px; }
.ttd-layers img.ttd-upper { position: absolute; inset: 0; width: 100%; height: 100%; opacity: var(--ttd-opacity, .6); }
.ttd-sign { position: absolute; transform: translate(-50%, -50%); background: rgba(255, 255, 255, .9); color: #141414;
  font-size: 13px; font-weight: 600; padding: 0 5px; border: 2px solid; border-radius: 4px; white-space: nowrap; }
.ttd-legend { font-size: 14px; flex: 1 0 170px; max-width: 300px; max-height: 400px; overflow: auto; }
.ttd-legend ul { list-style: none; margin: 0; padding: 0; }
.ttd-legend li { display: flex; gap: 8px; align-items: center; margin: 0 0 4px; }
.ttd-legend li span:nth-child(2) { flex: 1; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.ttd-legend li span:last-child { color: var(--body-text-color-subdued); }
.ttd-square { width: 16px; height: 16px; border: 1px solid #555; border-radius: 3px; flex: none; }
.ttd-legend p { color: var(--body-text-color-subdued); margin: 6px 0 0; overflow-wrap: anywhere; }
.ttd-notice { border-left: 4px solid #0072b2; background: var(--background-fill-secondary); padding: 5px 10px;
  margin: 4px 0; font-size: 14px; border-radius: 3px; overflow-wrap: anywhere; }
.ttd-error { border-left-color: #d55e00; font-weight: 600; }
.ttd-hint { color: var(--body-text-color-subdued); font-size: 13px; }
#ttd-examples .gallery { gap: 4px; flex-wrap: nowrap; }
#ttd-examples .gallery-item { flex: 1 1 0; min-width: 0; }
#ttd-examples .gallery-item * { width: 100%; height: auto; max-width: 100%; aspect-ratio: 1; }
footer { display: none !important; }
"""
