"""A benchmark measured into a folder, as `ttd eval`, `ttd compare` and `ttd bias` do it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttd.errors import TTDError
from ttd.evaluation.registry import Choices, sample_note
from ttd.evaluation.report.finished_run import FinishedRun, read_run
from ttd.evaluation.runner import run, write_outcome
from ttd.evaluation.tasks.tag_tables import plot_sweep
from ttd.files.documents import read_json
from ttd.files.schema import mapping
from ttd.images import read_image
from ttd.runs import ALONE, Ranks
from ttd.runs.results_file import RunRecords

if TYPE_CHECKING:
    from ttd.evaluation.benchmark import Benchmark
    from ttd.model import TTD


def measure_into(
    folder: Path,
    benchmark: Benchmark,
    model: TTD,
    named: Mapping[str, Any],
    protocol: str,
    *,
    choices: Choices | None = None,
    limit: int | None = None,
    ranks: Ranks = ALONE,
) -> FinishedRun | None:
    """Measures what is not measured yet, and writes `results.json`, tables and the plot of all thresholds.

    Args:
        folder: of the run; what is there must have been measured with the same settings.
        benchmark, model: what is asked, and who.
        named: how the model was named: "name", "adapter", "method" and what else decides its answers.
        protocol: its name.
        choices: of the user, so that the run can be opened again; None: it is not.
        limit: only so many items, the first ones.
        ranks: which of how many processes this is.

    Returns:
        the run; None where another process is still at work, and will write it.

    Raises:
        MissingExtra: a package for the refinement is not installed; before anything is encoded.
    """
    for options in benchmark.options.values():
        model.check_refinement(options)
    settings = {
        "benchmark": benchmark.name,
        "data": {"root": str(benchmark.root.resolve()), "fingerprint": benchmark.fingerprint()},
        "model": {"fingerprint": model.encoder.fingerprint(), "encoder": model.encoder.settings(), **named},
        "protocol": protocol,
        "options": {task: asdict(options) for task, options in benchmark.options.items()},
        "task": benchmark.settings(),
    }
    with RunRecords(folder, ranks).open(settings) as store:
        outcome = run(model, benchmark, store, limit, ranks=ranks)
    if outcome is None:
        return None
    notes = [sample_note(benchmark.name, outcome.measured, benchmark.settings()), _domain_note(model, benchmark)]
    if outcome.items < (every := len(benchmark.samples)):
        notes.append(f"Only the first {outcome.items} of {every} items were asked about (--limit).")
    result = replace(outcome.result, notes=(*filter(None, notes), *outcome.result.notes))
    record = {"benchmark": benchmark.name, **read_json(store.run_path, mapping())}
    if choices is not None:
        record["choices"] = asdict(choices)
    write_outcome(folder, replace(outcome, result=result), record)
    if sweep := result.rows.get("sweep"):
        gap = next((row for row in result.rows["tags"] if row["tagger"] == "s_pixel"), None)
        plot_sweep(sweep, gap, folder / "sweep.png")
    return read_run(folder)


def _domain_note(model: TTD, benchmark: Benchmark, looked_at: int = 50) -> str:
    """What is wrong where many of the benchmark's images do not look like those that a small model learned from."""
    if model.encoder.domain is None:
        return ""
    samples = benchmark.samples[:: max(1, -(-len(benchmark.samples) // looked_at))]
    found = []
    for sample in samples:
        # What cannot be read is counted where it is measured.
        with suppress(TTDError, OSError):
            found.append(model.notice(read_image(sample.image)))
    notices = [notice for notice in found if notice]
    return f"{len(notices)} of {len(found)} images that were looked at: {notices[0]}." if notices else ""
