"""Many visitors at once: how long an answer about an image that was seen before takes, and whether memory stays flat.

    python -m speed.visitors [--visitors 30] [--seconds 60] [--pause 4]

Every visitor has a session of its own, asks about the same scene with one of four captions, looks at the answer for a
pause, and asks again. Wanted: 95 of 100 answers within a second.
"""

from __future__ import annotations

import argparse
import io
import json
import threading
import time

import numpy as np
from PIL import Image

from tests.app.visitor import Visitor, running, upload
from ttd.scenes import Scenes

CAPTIONS = ("a lion and a couch", "one lion near a turtle", "a couch on snow", "a whale beside a couch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--visitors", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--pause", type=float, default=4.0)
    # `python -m speed` has its own arguments.
    given, _ = parser.parse_known_args()
    stream = io.BytesIO()
    Image.fromarray(Scenes("test", seed=1)[17].image).save(stream, "PNG")
    with running() as page:
        path = json.loads(upload(page.port, "scene.png", stream.getvalue())[1])[0]
        Visitor(page.port, "first").show(path, CAPTIONS[0])
        waited: list[float] = []
        failed: list[str] = []
        end = time.monotonic() + given.seconds

        def visit(number: int) -> None:
            visitor = Visitor(page.port, f"visitor-{number}")
            time.sleep(given.pause * number / given.visitors)
            while time.monotonic() < end:
                start = time.monotonic()
                try:
                    visitor.show(path, CAPTIONS[(number + len(waited)) % len(CAPTIONS)])
                    waited.append(time.monotonic() - start)
                except Exception as error:
                    failed.append(repr(error))
                time.sleep(given.pause)

        threads = [threading.Thread(target=visit, args=(number,)) for number in range(given.visitors)]
        memory = [page.memory()]
        for thread in threads:
            thread.start()
        for _ in range(3):
            time.sleep(given.seconds / 3)
            memory.append(page.memory())
        for thread in threads:
            thread.join()
    middle, most = np.quantile(waited, (0.5, 0.95))
    grown = ", ".join(f"{size / 1e6:.0f}" for size in memory)
    print(
        f"{given.visitors} visitors, {given.seconds:.0f} s: {len(waited)} answers, {len(failed)} failed; half within "
        f"{middle:.2f} s, 95 % within {most:.2f} s (wanted: 1 s), slowest {max(waited):.2f} s; memory at the start and "
        f"after each third: {grown} MB"
    )


if __name__ == "__main__":
    main()
