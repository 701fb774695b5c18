"""The web page: what `ttd app` serves. Only `explore`, `look`, `server` and `annotate_page` know gradio."""

import os

# Before any module of this room imports gradio, which reads them then.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
