"""What the proof's trainings read: scenes as shards, lists of words, a keep-list. Whatever is there is kept."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.prove.plan import ProofRun
from ttd.data.calibration_fit import fit, read_counts
from ttd.data.pruning import prune
from ttd.data.score_jobs import ScoreJob, WordScoreJob
from ttd.data.shard_jobs import run_shards, table_path
from ttd.data.sources import PairSource
from ttd.encoders.registry import load_encoder
from ttd.files import whole_file
from ttd.files.documents import parse_json
from ttd.negatives import listed_words
from ttd.scenes.nouns import WORDS
from ttd.scenes.scene import Scenes
from ttd.scenes.write import write_shards
from ttd.text.words import split_words

CALIBRATED_ON = 2  # shards of 1,200 pairs
WRONG_PERCENT = 40
PAIRS: dict[str, dict[str, int]] = {"clean": {}, "several": {"captions": 3}, "mixed": {"wrong_percent": WRONG_PERCENT}}
_PER_SHARD = 1200


def prepare(folder: Path, model: str, runs: tuple[ProofRun, ...], pairs: int) -> None:
    """Writes what `runs` of a base model need: `pairs` scenes for each kind of data, and the files beside them."""
    for data in dict.fromkeys(run.data for run in runs):
        write_shards(Scenes("train"), pairs, folder / data, _PER_SHARD, **PAIRS[data])
    for name in dict.fromkeys(run.tags for run in runs if run.tags):
        if not (folder / name).exists():
            _write_tags(folder / "clean", folder / name)
    for name in dict.fromkeys(run.keep for run in runs if run.keep):
        if not (folder / name).exists():
            _write_keep(folder / "mixed", folder / name, model)


def wrong_share(folder: Path) -> dict[str, float]:
    """Share of wrong pairs before and after pruning, and of pairs that were kept."""
    import pyarrow.parquet as pq

    kept = set(pq.read_table(folder / "keep.parquet", columns=["key"]).column("key").to_pylist())
    wrong = {key: bool(truth["wrong"]) for _, key, truth in _truths(folder / "mixed")}
    return {
        "wrong before": sum(wrong.values()) / len(wrong),
        "wrong after": sum(wrong[key] for key in kept) / len(kept),
        "kept": len(kept) / len(wrong),
    }


def fit_pair(model: str, method: str, folder: Path) -> dict[str, float]:
    """The numbers w and c of p for a base by one last block, as `ttd calibrate` fits them, rounded as in `ttd.json`."""
    encoder = load_encoder(model, method=method)
    source = PairSource([str(path) for path in sorted((folder / "clean").glob("*.tar"))[:CALIBRATED_ON]])
    counts = folder / f"counts-{method}"
    run_shards(WordScoreJob(encoder, listed_words(encoder.vocabulary)), source, counts)
    pair = fit(read_counts(table_path(counts, shard) for shard in source.shards)).calibration
    return {"w": round(pair.w, 1), "c": round(pair.c, 3)}


def _write_tags(shards: Path, path: Path) -> None:
    """Side files of words: the nouns of every caption, which needs no look at the image, and the true words."""
    with whole_file(path) as part, part.open("w", encoding="utf-8") as stream:
        for shard, key, truth in _truths(shards):
            known = WORDS if path.stem == "nouns" else truth["true"]
            words = list(dict.fromkeys(w.text for w in split_words(truth["caption"]) if w.text in known))
            stream.write(json.dumps({"shard": shard, "key": key, "tags": [words]}) + "\n")


def _write_keep(shards: Path, path: Path, model: str) -> None:
    """Prunes by the model itself, at mean + one standard deviation."""
    source = PairSource([str(shards)])
    scores = path.parent / "scores"
    run_shards(ScoreJob(load_encoder(model)), source, scores)
    prune([table_path(scores, shard) for shard in source.shards], path)


def _truths(folder: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Shard, key and truth of every pair, in order."""
    for shard in PairSource([str(folder)]).shards:
        with tarfile.open(folder / Path(shard.name).name) as tar:
            for name in tar.getnames():
                if name.endswith(".json"):
                    yield shard.name, Path(name).stem, parse_json(tar.extractfile(name).read())  # type: ignore[union-attr]
