"""The web page: what `ttd app` serves. Only `explore`, `look`, `server` and `annotate_page` know gradio."""
