"""The package offers functions under the names of their rooms, whatever was imported first."""

from __future__ import annotations

import subprocess
import sys


def test_names_are_functions_and_heavy_libraries_wait() -> None:
    code = (
        "import sys, ttd.refine.pamr, ttd.refine.crf; from ttd.refine import SAMRefiner, crf, pamr;"
        "assert callable(pamr) and callable(crf);"
        "assert not {'transformers', 'pydensecrf', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
