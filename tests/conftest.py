"""What every test shares: the number of threads, fixed seeds, the shared folder if it is there."""

from __future__ import annotations

import os
import signal
import tempfile
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.threads import use_test_threads

use_test_threads()
# What a shell starts in the background ignores Ctrl-C, and its children with it; tests send it to commands they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# On a busy machine an example takes as long as it takes.
settings.register_profile("no clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no clock")
os.environ.setdefault("OMP_NUM_THREADS", os.environ.get("TTD_TEST_THREADS", "1"))  # for the commands that tests start
_CACHE = tempfile.TemporaryDirectory()
os.environ.setdefault("TTD_CACHE", _CACHE.name)  # texts that commands keep do not belong into the tester's home

TOLD = "told"  # property of a test whose text is printed when all tests are done, also by processes of pytest-xdist
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def _seed() -> None:
    use_test_threads()  # a command of the test before may have set its own number
    torch.manual_seed(0)


@pytest.hookimpl(wrapper=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None, None, None]:
    """For pytest-xdist: the tests of a file stay together, because what they share is made once in each process. Those
    marked `apart`, the longest, come first, so that no process ends with them alone; of these the slow ones are dealt
    out one by one."""
    items.sort(key=lambda item: item.get_closest_marker("apart") is None)
    for item in items:
        if item.get_closest_marker("apart") is None or item.get_closest_marker("slow") is None:
            item.add_marker(
                pytest.mark.xdist_group(item.path.relative_to(item.config.rootpath).with_suffix("").as_posix())
            )
    yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests counted, and one line for each reason why tests were skipped."""
    for report in terminalreporter.getreports("passed"):
        for name, text in report.user_properties:
            if name == TOLD:
                terminalreporter.section(report.nodeid)
                terminalreporter.write_line(str(text))
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"skipped {count}: {reason}")


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP as transformers saves it, with a tokenizer of few words. Not to be changed: copy it."""
    from tests.tiny_models import write_tiny_clip

    return write_tiny_clip(tmp_path_factory.mktemp("models") / "tiny-clip")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with reference outputs and real photos; tests that use it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("the shared folder with reference outputs and photos is not here")
    return SHARED
