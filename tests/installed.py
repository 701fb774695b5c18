"""Packages as pip would leave them: one module and its metadata in a folder of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def install(site: Path, module: str, code: str, group: str, name: str) -> Path:
    """Put `MODULE.py` and metadata with one entry point into the folder `site`."""
    site.mkdir(exist_ok=True)
    (site / f"{module}.py").write_text(code, "utf-8")
    info = site / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n", "utf-8")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}\n", "utf-8")
    return site


def run_with(site: Path, code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh process, in `folder`, with what is installed in `site`."""
    path = os.pathsep.join([str(site), str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
