"""Runs a notebook from the top in a new folder and writes it back with its outputs.

    pip install -e '.[notebook]' -c constraints.txt
    python tools/run_notebook.py docs/tour.ipynb

One thread, no hub, no progress bars: the outputs are the same each time. They hold no time stamps; where a cell fails,
warns, or prints a path of this machine, the notebook stays as it was and the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from traitlets.config import Config

from ttd.files import whole_file

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
SECONDS_PER_CELL = 3600


def run(notebook: nbformat.NotebookNode, folder: str) -> None:
    """Fills in the outputs; files that the cells name without a folder land in `folder`."""
    os.environ |= {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "IPYTHONDIR": str(Path(folder) / ".ipython"),
        "PYTHONWARNINGS": "ignore:IProgress not found",  # tqdm misses widgets, of which this needs none
    }
    work = Path(folder) / "work"
    work.mkdir()
    client = NotebookClient(
        notebook,
        timeout=SECONDS_PER_CELL,
        kernel_name="python3",
        # A socket file in the folder: no open port, and no path that depends on where the kernel works.
        config=Config({"KernelManager": {"transport": "ipc", "ip": str(Path(folder) / "kernel")}}),
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(work)}},
    )
    client.execute()
    notebook.metadata = nbformat.from_dict(METADATA)


def faults(notebook: nbformat.NotebookNode, paths: list[str]) -> list[str]:
    """What must not stand in the outputs: warnings, and paths of this machine."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                found.append(f"cell {cell.id} wrote to stderr: {output.text.strip()}")
            texts = [output.get("text", ""), output.get("data", {}).get("text/markdown", "")]
            found += [f"cell {cell.id} warned: {text.strip()}" for text in texts if "Warning" in text]
            found += [f"cell {cell.id} shows the path {path}" for path in paths if any(path in t for t in texts)]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("notebook", type=Path)
    path = parser.parse_args().notebook
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        try:
            run(notebook, folder)
        except CellExecutionError as error:
            print(f"{path} failed: {error}", file=sys.stderr)
            return 1
        wrong = faults(notebook, [folder, str(Path.home()), str(Path.cwd()), sys.prefix])
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
        return 1
    with whole_file(path) as part:
        nbformat.write(notebook, part)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
