"""What `ttd eval` and `ttd bias` keep of a run."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ttd.benchmarks.benchmark import Benchmark
    from ttd.benchmarks.runner import Outcome
    from ttd.cli.data_options import Model
    from ttd.model import TTD


def run_settings(benchmark: Benchmark, model: Model, loaded: TTD, preset: str) -> dict[str, Any]:
    """What decides the result: a run goes on only where all of this is the same."""
    from ttd.inference import resolve

    options = benchmark.options
    parts = {"": options} if "preset" in options else options
    return {
        "benchmark": benchmark.name,
        "data": {"root": str(benchmark.root.resolve()), "fingerprint": benchmark.fingerprint()},
        "model": {"name": model.model, "fingerprint": loaded.encoder.fingerprint(), **model.settings()},
        "preset": preset,
        "options": {part: asdict(resolve(**given)) for part, given in parts.items()},
        "protocol": benchmark.settings(),
    }


def write_results(place: Path, outcome: Outcome, facts: dict[str, Any]) -> dict[str, Any]:
    """Writes `results.json` and the tables; gives what `results.json` holds."""
    from ttd.benchmarks.runner import write_outcome

    write_outcome(place, outcome, facts)
    found: dict[str, Any] = json.loads((place / "results.json").read_text("utf-8"))
    return found


def skipped_of(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Id and reason of the items that could not be used."""
    return [(item["id"], item["reason"]) for item in results["skipped"]]
