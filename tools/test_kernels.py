"""Run the numeric tests as other processors would: with the kernels of fewer vector instructions, and with two threads.

    python tools/test_kernels.py [--all] [PYTEST OPTIONS...]

torch and oneDNN choose their kernels by the processor, and both can be told to take those of an older one. A
combination that asks for more than the processor has runs what it has. By default two combinations run, the oldest
and the middle, without the tests that run whole commands over many images; `--all` runs every combination with
these too. Combinations go side by side, as many as the cores hold.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
# Bits that are promised; all other files are found by what they import.
BITWISE = "tests/inference/test_feature_cache.py"
# Whole commands over many images: most of the time, and no kernels that the others do not run.
WHOLE = (
    "evaluation/test_shares.py",
    "cli/test_train.py",
    "loading/test_field_models.py",
    "scenes/test_mini.py",
    "scenes/test_proof.py",
    "tests/test_goldens.py",
    "tests/test_images.py",
)


class Kernels(NamedTuple):
    """What chooses the kernels; None leaves the choice to the library."""

    aten: str | None
    onednn: str | None
    threads: int

    def __str__(self) -> str:
        """As a line of the summary."""
        return f"ATen {self.aten or 'own':7} oneDNN {self.onednn or 'own':5} threads {self.threads}"

    def environment(self) -> dict[str, str]:
        """The variables of a process that runs these kernels."""
        chosen = {"ATEN_CPU_CAPABILITY": self.aten, "ONEDNN_MAX_CPU_ISA": self.onednn}
        rest = {name: value for name, value in os.environ.items() if name not in chosen}
        # Threads that wait for each other sleep, instead of turning on a core that another combination needs.
        threads = dict.fromkeys(("TTD_TEST_THREADS", "OMP_NUM_THREADS"), str(self.threads))
        capped = {name: value for name, value in chosen.items() if value}
        return rest | threads | {"OMP_WAIT_POLICY": "PASSIVE"} | capped


EVERY = [Kernels(*one) for one in product(("default", "avx2", None), ("SSE41", "AVX2", None), (1, 2))]
USUAL = [Kernels("default", "SSE41", 1), Kernels("avx2", "AVX2", 2)]


def numeric_tests(whole: bool) -> list[str]:
    """The test files that compare floats, and so import `tests.tolerance`; `whole`: those of `WHOLE` too."""
    imports = re.compile(r"^from tests(\.tolerance import|  *import .*\btolerance\b)", re.MULTILINE)
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    found = [str(path.relative_to(ROOT)) for path in files if imports.search(path.read_text("utf-8"))]
    return [BITWISE, *(name for name in found if whole or not name.endswith(WHOLE))]


def run(kernels: Kernels, options: list[str], tests: list[str]) -> bool:
    """Run the tests with these kernels and print how it ended; whether all passed."""
    command = [sys.executable, "-m", "pytest", "--tb=short", "-m", "not slow and not browser"]
    start = time.monotonic()
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", *options, *tests],
        cwd=ROOT, env=kernels.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    lines = done.stdout.strip().splitlines()
    last = next((line for line in reversed(lines) if re.search(r"\d+ (passed|failed|error)", line)), f"{lines[-1:]}")
    print(f"{kernels}: {last.strip('= ')}, {time.monotonic() - start:.0f} s", flush=True)
    if done.returncode:
        print(done.stdout, flush=True)
    return done.returncode == 0


def main() -> None:
    """Exit with 1 if a combination failed."""
    options = sys.argv[1:]
    everything = "--all" in options
    chosen, tests = EVERY if everything else USUAL, numeric_tests(everything)
    options = [option for option in options if option != "--all"]
    with ThreadPoolExecutor(max(1, min(len(chosen), os.cpu_count() or 1))) as pool:
        passed = list(pool.map(lambda kernels: run(kernels, options, tests), chosen))
    print(f"{sum(passed)} of {len(passed)} combinations passed")
    sys.exit(0 if all(passed) else 1)


if __name__ == "__main__":
    main()
