"""A finished run of `ttd eval`, read back: its numbers and tables, its data and its model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttd.data.rows import csv_rows
from ttd.encoders.identity import OUTDATED, is_outdated
from ttd.errors import InputError
from ttd.evaluation.benchmark import Benchmark
from ttd.evaluation.registry import Choices, open_benchmark
from ttd.files.documents import read_json
from ttd.files.safe_paths import check_name
from ttd.files.schema import (
    any_text,
    anything,
    count,
    each,
    either,
    fields,
    flag,
    mapping,
    null,
    number,
    optional,
    text,
)

if TYPE_CHECKING:
    from ttd.encoders.base import Encoder
    from ttd.model import TTD

_MODEL = fields(
    {"name": any_text, "adapter": optional(any_text)},
    {
        "adapter_scale": optional(number),
        "method": optional(text),
        "dtype": optional(text),
        "fingerprint": text,
        "encoder": fields({}, {"method": optional(text), "refine": text}),
    },
)
_RESULTS = fields(
    {
        "benchmark": any_text,
        "settings": fields(
            {"model": _MODEL, "data": fields({"root": any_text, "fingerprint": text}), "protocol": text},
            {"task": optional(mapping()), "options": mapping(fields({}, {"refine": text}))},
        ),
        "measured": count,
        "numbers": mapping(optional(number)),
    },
    {
        "items": count,
        "notes": each(text),
        "versions": mapping(text),
        "skipped": each(fields({"id": any_text, "reason": any_text})),
        "choices": optional(mapping(either(null, any_text, number, flag, each(anything), mapping()))),
    },
)


@dataclass(frozen=True)
class FinishedRun:
    """What `ttd eval --out FOLDER` left.

    Attributes:
        folder: of the run.
        results: the content of `results.json`.
    """

    folder: Path
    results: Mapping[str, Any]

    @property
    def model(self) -> str:
        """The model with its adapter, e.g. "tcl + TTD"."""
        model = self._model
        return str(model["name"]) + (f" + {Path(model['adapter']).name}" if model["adapter"] else "")

    @property
    def method(self) -> str:
        """How the encoder's blocks gave maps; "" for an encoder that has one way only."""
        return str(self._model.get("method") or self._model.get("encoder", {}).get("method") or "")

    @property
    def refinement(self) -> str:
        """Of masks, "auto" decided; "" where the benchmark has none."""
        asked = str(self.results["settings"].get("options", {}).get("masks", {}).get("refine", ""))
        return str(self._model.get("encoder", {}).get("refine", asked)) if asked == "auto" else asked

    @property
    def changes(self) -> str:
        """Settings that differ from the protocol, except refinement, e.g. "size=448"."""
        choices, model = self.results.get("choices") or {}, self._model
        given = {name: value for name, value in (choices.get("given") or {}).items() if name != "refine"}
        given |= {name: choices[name] for name in ("classes", "synonyms", "known_classes") if choices.get(name)}
        given |= {name: model[name] for name in ("dtype", "calibration") if model.get(name)}
        given |= {"adapter_scale": scale} if (scale := model.get("adapter_scale")) not in (None, 1) else {}
        return ", ".join(f"{name}={value}" for name, value in given.items())

    @property
    def commit(self) -> str:
        """Of the checkout that measured, "+" where files were changed; the version of a package that is none."""
        versions = self.results.get("versions", {})
        commit = str(versions.get("commit", ""))
        return commit[:7] + "+" * commit.endswith("changes") or str(versions.get("ttd", ""))

    @property
    def names(self) -> dict[str, str]:
        """What tells runs on the same data apart, by heading."""
        return {
            "model": self.model,
            "method": self.method,
            "protocol": self.protocol,
            "refinement": self.refinement,
            "settings": self.changes,
            "commit": self.commit,
        }

    @property
    def facts(self) -> dict[str, str]:
        """`names` with model and adapter apart."""
        return {**self.names, "model": self._model["name"], "adapter": self._model["adapter"] or ""}

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """Id and reason of the items that could not be used."""
        return [(item["id"], item["reason"]) for item in self.results.get("skipped", ())]

    @property
    def _model(self) -> Mapping[str, Any]:
        return self.results["settings"]["model"]  # type: ignore[no-any-return]

    def to_dict(self) -> dict[str, Any]:
        """The numbers, and all that they depend on."""
        found = self.results
        return {
            **{name: found[name] for name in ("benchmark", "items", "measured", "numbers", "notes") if name in found},
            **self.facts,
            "adapter": self._model["adapter"],
            "settings": found["settings"],
            "versions": found.get("versions", {}),
        }

    @property
    def benchmark_name(self) -> str:
        """As for `ttd eval`."""
        return str(self.results["benchmark"])

    @property
    def data(self) -> str:
        """Fingerprint of the data: runs with the same one measured the same items."""
        return str(self.results["settings"]["data"]["fingerprint"])

    @property
    def protocol(self) -> str:
        """The protocol, by its name for `ttd eval`."""
        return str(self.results["settings"]["protocol"])

    @property
    def sweep(self) -> Path | None:
        """The plot of all thresholds, where the run has one."""
        path = self.folder / "sweep.png"
        return path if path.is_file() else None

    def table(self, name: str) -> list[dict[str, str]]:
        """The rows of `NAME.csv`, none where there is no such file."""
        path = self.folder / f"{name}.csv"
        if not path.is_file():
            return []
        return [row for _, row in csv_rows(path)]

    def benchmark(self, encoder: Encoder | None = None) -> Benchmark:
        """The data with the run's protocol, as it is put to this encoder.

        Raises:
            InputError: the data is gone or has changed since.
        """
        if "choices" not in self.results:
            raise InputError(f"{self.folder} was written by an earlier version: run `ttd eval` again for images")
        settings = self.results["settings"]
        try:
            # What taggers of the text chose is in the measurements: they are not run again.
            choices = Choices(**{**self.results["choices"], "taggers": ()})
        except TypeError:
            raise InputError(f"{self.folder} was written by another version: run `ttd eval` again") from None
        found = open_benchmark(self.benchmark_name, Path(settings["data"]["root"]), choices, encoder)
        if found.fingerprint() != self.data:
            raise InputError(f"the data in {found.root} has changed since {self.folder} was measured: measure again")
        return found

    def reopen(self, device: str | None = None) -> tuple[TTD, Benchmark]:
        """The model that was measured, and the benchmark as it was put to it.

        Raises:
            ModelError: the model or adapter is gone.
            InputError: another model is found under its name, or the data has changed.
        """
        import ttd

        model = self.results["settings"]["model"]
        loaded = ttd.load(
            model["name"],
            adapter=model["adapter"],
            adapter_scale=1.0 if model["adapter_scale"] is None else model["adapter_scale"],
            method=model["method"],
            dtype=model["dtype"],
            device=device,
        )
        if is_outdated(model["fingerprint"]):
            raise InputError(f"{self.folder} cannot be compared with a model: {OUTDATED}; measure again")
        if loaded.encoder.fingerprint() != model["fingerprint"]:
            raise InputError(f"{model['name']} is not the model any more that {self.folder} measured: measure again")
        return loaded, self.benchmark(loaded.encoder)


def read_run(folder: Path) -> FinishedRun:
    """The run in a folder.

    Raises:
        InputError: the folder holds no finished run.
    """
    path = folder / "results.json"
    try:
        found = path.is_file()
    except OSError:
        found = False
    if not found:
        raise InputError(f"{folder} holds no results.json: give folders that `ttd eval --out` wrote")
    results = read_json(path, _RESULTS, remedy="run `ttd eval` again")
    check_name(results["benchmark"], path, "benchmark")  # names the page of its images
    return FinishedRun(folder, results)


def naming(runs: Sequence[FinishedRun]) -> tuple[tuple[str, ...], list[tuple[str, ...]], str]:
    """How runs are named: the headings, a name under each for every run, and what all have in common.

    A model and whatever differs; where nothing tells two runs apart, their folders.
    """
    heads, names, common = told_apart([run.names for run in runs])
    if len(set(names)) < len(names):
        heads = (*heads, "folder")
        whole = len({run.folder.resolve().name for run in runs}) < len(runs)
        last = [str(run.folder) if whole else run.folder.resolve().name for run in runs]
        names = [(*one, folder) for one, folder in zip(names, last, strict=True)]
    return heads, names, common


def told_apart(every: Sequence[Mapping[str, str]]) -> tuple[tuple[str, ...], list[tuple[str, ...]], str]:
    """As `naming`, of `FinishedRun.names`."""
    heads = tuple(head for head in every[0] if head == "model" or len({names[head] for names in every}) > 1)
    common = ", ".join(f"{head} {name}" for head, name in every[0].items() if head not in heads and name)
    return heads, [tuple(one[head] for head in heads) for one in every], common
