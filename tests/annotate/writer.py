"""Writes to a store until it is killed; a line on stdout for every item that is on disk.

python -m tests.annotate.writer FOLDER NAME COUNT [ITEMS [DEATH]]    DEATH: the disk call at which it is killed
python -m tests.annotate.writer FOLDER --hold ID
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from tests.dying import die_at_disk_call
from ttd.annotate.export import Exporter
from ttd.annotate.queue import Claims
from ttd.annotate.records import ACCEPTED, Record
from ttd.annotate.store import AnnotationStore, RecordChanged


def record(identifier: str, step: int, mask_source: str = "") -> Record:
    """Its mask tells the step: as many pixels."""
    mask = np.zeros((64, 64), bool)
    mask.flat[: step + 1] = True
    return Record(
        id=identifier, version=0, status=ACCEPTED, shard="s", key=identifier, caption_index=0, caption=f"dog {step}",
        words=("dog", str(step)), true=("dog",), size=(64, 64), masks={"dog": mask},
        mask_source=mask_source, image=f"{identifier}.png",
    )  # fmt: skip


def main() -> None:
    root = Path(sys.argv[1])
    store = AnnotationStore(root, Exporter(root.absolute()).export)
    if sys.argv[2] == "--hold":
        claims = Claims(store.claims)
        assert claims.take(sys.argv[3], "tab")
        print("held", flush=True)
        sys.stdin.read()
        return
    name, count = sys.argv[2], int(sys.argv[3])
    items = int(sys.argv[4]) if len(sys.argv) > 4 else 3
    die_at_disk_call(int(sys.argv[5]) if len(sys.argv) > 5 else 0)
    step = 0
    while step < count:
        identifier = f"item{step % items}"
        before = store.get(identifier)
        base_version = before.version if before else 0
        try:
            written = store.put(record(identifier, step, mask_source=name), base_version)
        except RecordChanged:
            continue
        print(f"{identifier} {written.version} {step}", flush=True)
        step += 1


if __name__ == "__main__":
    main()
