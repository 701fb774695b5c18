"""What a run says while it goes: `log.jsonl`, a progress bar, TensorBoard.

A step's numbers have the same names in the log and in TensorBoard: `loss`; every term that is trained, unweighted, as
`distill`, `tag`, `rank`, and its weight as `distill_weight` ...; `lr`; `grad_norm` (before clipping); `selected` (share
of the captions' words); `images`, `images_per_second`, `damaged`, `truncated_captions`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ttd.errors import missing_extra
from ttd.files import whole_file
from ttd.files.documents import parse_json, refused
from ttd.files.schema import any_number, count, fields, mapping

LOG = "log.jsonl"
_ENTRY = fields({"step": count, "loss": any_number})
_VALUES = mapping(any_number)


class Journal:
    """The log of the process that writes; a run that continues goes on where its checkpoint stands.

    Args:
        folder: of the run.
        done: steps that the checkpoint holds; what the log says of later ones is dropped.
        total: steps of the run.
        tensorboard: also write event files.
        quiet: no progress bar whatever stderr is.
    """

    def __init__(self, folder: Path, done: int, total: int, *, tensorboard: bool = False, quiet: bool = False) -> None:
        self._path = folder / LOG
        _drop_after(self._path, done)
        self._events = _event_writer(folder, done) if tensorboard else None
        self._bar = tqdm(total=total, initial=done, desc="training", unit="step", disable=quiet or None)

    def step(self, entry: dict[str, Any], *, write: bool) -> None:
        """One step's numbers, "step" and "loss" among them; `write` puts them into the log."""
        self._bar.set_postfix(loss=f"{entry['loss']:.4f}", images=f"{entry['images_per_second']:.1f}/s", refresh=False)
        self._bar.update()
        if not write:
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        if self._events is not None:
            for name, value in entry.items():
                if name not in ("step", "epoch"):
                    self._events.add_scalar(name, value, entry["step"])

    def close(self) -> None:
        """Ends the bar and the event file."""
        self._bar.close()
        if self._events is not None:
            self._events.close()


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The entries of a run's log, in order; a last line that was cut off by a crash is left out.

    Raises:
        InputError: another line is damaged.
    """
    path = folder / LOG
    lines = path.read_bytes().split(b"\n") if path.is_file() else [b""]
    entries = []
    for number, line in enumerate(lines[:-1], 1):
        with refused(f"{path}, line {number}", "restore it, or remove the file: the run goes on without its past"):
            entry = parse_json(line, _ENTRY, nan=True)
            _VALUES(entry)
            entries.append(entry)
    return entries


def _drop_after(path: Path, done: int) -> None:
    kept = [entry for entry in read_log(path.parent) if entry["step"] <= done]
    with whole_file(path) as part:
        part.write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")


def _event_writer(folder: Path, done: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise missing_extra("tensorboard", "run.tensorboard, which may be left off, needs TensorBoard") from error
    return SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)
