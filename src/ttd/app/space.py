"""A folder for a Hugging Face Space (`ttd app --space FOLDER`): this package as it is installed, and what starts it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import ttd
from ttd.errors import InputError, missing_extra
from ttd.files import whole_folder

_README = """---
title: Text-Tag Self-Distillation
emoji: 🏷️
sdk: gradio
sdk_version: {gradio}
python_version: "3.11"
app_file: app.py
pinned: false
---
Which words of a caption are in the image, and where. Written by `ttd app --space` of ttd {ttd}.
"""

_APP = '''"""Serves the page of `ttd app` in a Hugging Face Space, which has a proxy in front of it."""

import os

from ttd.cli import cli

host = os.environ.get("SPACE_HOST")  # NAME.hf.space; without it the page runs on your own machine
behind = ["--host", "0.0.0.0", "--public", "--root-path", f"https://{{host}}", "--embed", "https://huggingface.co"]
cli(["app", *{options}, *(behind if host else [])])
'''


def write_space(folder: Path, models: Sequence[str], adapters: Sequence[str]) -> str:
    """Writes the folder, whole or not at all.

    Args:
        folder: a new one.
        models, adapters: names to offer: short names or hub ids, as the Space has no files of this machine.

    Returns:
        what to do next.

    Raises:
        InputError: the folder is there already, or a name is a file or folder of this machine.
        MissingExtra: gradio is not installed.
    """
    if folder.exists():
        raise InputError(f"{folder} is there already: name a new folder after --space")
    for name in (*models, *adapters):
        if Path(name).exists():
            raise InputError(f"{name} is on this machine, where a Space cannot read it: name a model of the hub")
    try:
        gradio = version("gradio")
    except PackageNotFoundError as error:
        raise missing_extra("app", "the page needs gradio") from error
    options = [part for name in models for part in ("--model", name)]
    options += [part for name in adapters for part in ("--adapter", name)]
    with whole_folder(folder) as part:
        (part / "README.md").write_text(_README.format(gradio=gradio, ttd=ttd.__version__), "utf-8")
        (part / "app.py").write_text(_APP.format(options=json.dumps(options)), "utf-8")
        (part / "requirements.txt").write_text("\n".join(_requirements()) + "\n", "utf-8")
        code = Path(ttd.__file__).parent
        shutil.copytree(code, part / "ttd", ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    return f"{folder} is ready: push it to a Space (`huggingface-cli upload NAME {folder} --repo-type space`)."


def _requirements() -> list[str]:
    """What the package needs to serve the page; gradio comes with the Space."""
    try:
        listed = requires("ttd-clip") or []
    except PackageNotFoundError as error:
        raise InputError("this package is not installed, so its requirements are unknown: pip install it") from error
    return [line for line in listed if "extra ==" not in line]
