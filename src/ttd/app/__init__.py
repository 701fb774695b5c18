"""The web page of `ttd app`. Only `explore`, `events`, `theme`, `server` and `annotate.page` import gradio."""

import os

# Before any module of this package imports gradio, which reads them at import.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
