"""Runs the commands in a page's ```console blocks and puts their output under them.

    python tools/refresh_examples.py docs/command-line.md

Commands are the lines that begin with "$ ". All blocks of a page share one new folder.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

BLOCK = re.compile(r"(```console\n)(.*?)(```)", re.DOTALL)


def run_block(block: str, folder: str) -> str:
    parts = []
    for line in block.splitlines():
        if line.startswith("$ "):
            result = subprocess.run(
                ["bash", "-c", f"exec 2>&1; {line[2:]}"],
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
            )
            parts += [line, result.stdout.rstrip()] if result.stdout.strip() else [line]
    return "\n".join(parts) + "\n"


def main() -> None:
    for name in sys.argv[1:]:
        page = Path(name)
        text = page.read_text("utf-8")
        with tempfile.TemporaryDirectory() as folder:
            text = BLOCK.sub(lambda found: found[1] + run_block(found[2], folder) + found[3], text)
        page.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
