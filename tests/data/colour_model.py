"""`ttd ARGUMENTS...` with a model that sees colours, for tests that kill it or start several ranks.

    python -m tests.data.colour_model KILL_AFTER ARGUMENTS...

KILL_AFTER images (0: never) were encoded, it kills itself with SIGKILL.
"""

from __future__ import annotations

import os
import signal
import sys

import torch
from torch import Tensor

import ttd
from tests.colour_encoder import ColourEncoder
from tests.threads import use_test_threads
from ttd.encoders.features import ImageFeatures
from ttd.model import TTD


class ColourModelEncoder(ColourEncoder):
    """Kills the process when it has seen enough."""

    def __init__(self, kill_after: int = 0) -> None:
        torch.manual_seed(0)
        super().__init__()
        self.kill_after = kill_after
        self.eval()

    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        if self.kill_after and self.images_seen >= self.kill_after:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode_image(pixels)


def main() -> None:
    use_test_threads()
    model = TTD(ColourModelEncoder(int(sys.argv.pop(1))))
    ttd.__dict__["load"] = lambda *args, **options: model
    from ttd.cli import main as run

    run()


if __name__ == "__main__":
    main()
