"""The benchmarks by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ttd.encoders.base import Encoder
from ttd.errors import InputError
from ttd.evaluation.benchmark import Benchmark
from ttd.evaluation.datasets.classes import own_classes, read_classes
from ttd.evaluation.datasets.layouts import DATA_SETS, is_whole, whole_counts
from ttd.evaluation.datasets.multilabel import read_coco, read_nus_wide
from ttd.evaluation.datasets.refcoco import PARTITIONS, read_refer
from ttd.evaluation.datasets.tagmask import read_tagmask
from ttd.evaluation.tasks.multilabel import MultiLabel
from ttd.evaluation.tasks.referring import Referring
from ttd.evaluation.tasks.segmentation import open_data_set
from ttd.evaluation.tasks.tagmask import PARTS, TagMask
from ttd.inference.options import Options
from ttd.inference.protocols import class_options
from ttd.inference.protocols import options as find_options
from ttd.negatives import find_negatives
from ttd.scoring import SCORES
from ttd.taggers.registry import open_tagger
from ttd.text.words import is_stop_word

LABELS = ("coco-80", "nus-wide")
NAMES = ("tagmask", *DATA_SETS, "folder", *LABELS, *PARTITIONS)


@dataclass(frozen=True)
class Choices:
    """What a user may choose about a protocol.

    Attributes:
        protocol: of `ttd.inference.protocols.PROTOCOLS`.
        given: single options for the model's methods that overrule the protocol.
        classes: another class list.
        synonyms: ask for all names of a class.
        taggers, spacy_model, llm: see `ttd.taggers.registry.open_tagger`.
        parts, scores, stop_words, shuffled: see `ttd.evaluation.tasks.tagmask.TagMask`.
        percentiles, negatives: tagmask: rows of the rule "negatives", and where its words come from: captions, list
            or a file; None: captions where they hold enough words.
        split, split_by: see `ttd.evaluation.datasets.refcoco.read_refer`; coco-80 has a split too.
    """

    protocol: str = "paper"
    given: Mapping[str, Any] | None = None
    classes: str | None = None
    synonyms: bool = False
    parts: Sequence[str] = PARTS
    scores: Sequence[str] = SCORES
    stop_words: bool = False
    shuffled: bool = True
    taggers: Sequence[str] = ()
    spacy_model: str | None = None
    llm: Mapping[str, Any] | None = None
    percentiles: Sequence[float] = ()
    negatives: str | None = None
    split: str | None = None
    split_by: str | None = None


def open_benchmark(name: str, root: Path, choices: Choices, encoder: Encoder | None = None) -> Benchmark:
    """A benchmark, ready to run.

    Args:
        name: of `NAMES`.
        root: where the data lies.
        choices: of the user.
        encoder: of the model that is asked, which may have thresholds of its own; None: not loaded yet.

    Raises:
        InputError: unknown name or protocol, or the data is not there.
    """
    given = choices.given or {}
    if name not in NAMES:
        raise InputError(f"unknown benchmark {name!r}: choose from {', '.join(NAMES)}")
    if (choices.split and name not in (*PARTITIONS, "coco-80")) or (choices.split_by and name not in PARTITIONS):
        raise InputError(f"{name} offers no such choice of splits: leave --split and --split-by out")
    if not root.is_dir():
        raise InputError(f"{root} is no folder: --data must be the one that holds the data set")
    if name == "tagmask":
        data = read_tagmask(root)
        said = (word for row in data.rows for word in row.words if choices.stop_words or not is_stop_word(word))
        return TagMask(
            data,
            _tag_options(choices.protocol, given),
            find_options(choices.protocol, "masks", **given),
            parts=choices.parts,
            scores=choices.scores,
            stop_words=choices.stop_words,
            shuffled=choices.shuffled,
            taggers=[open_tagger(one, choices.spacy_model, choices.llm) for one in dict.fromkeys(choices.taggers)],
            percentiles=choices.percentiles,
            negatives=find_negatives(choices.negatives, said) if choices.percentiles else None,
        )
    if name in PARTITIONS:
        expressions = read_refer(name, root, choices.split or "val", choices.split_by)
        return Referring(expressions, find_options(choices.protocol, "masks", **given))
    if name in LABELS:
        images = read_coco(root, choices.split) if name == "coco-80" else read_nus_wide(root)
        classes = own_classes(name, choices.classes)
        return MultiLabel(
            name, images, classes, find_options(choices.protocol, "labels", **_of_views(given)), choices.synonyms
        )
    listed = name if name != "folder" else choices.classes or root / "classes.txt"
    options = class_options(
        choices.protocol,
        given,
        name,
        with_background=read_classes(listed).background,
        encoder=encoder,
    )
    return open_data_set(name, root, options, choices.classes, choices.synonyms)


def _of_views(given: Mapping[str, Any]) -> dict[str, Any]:
    """Those single options that concern how an image is looked at when words and classes are scored."""
    return {name: given[name] for name in ("size", "flip") if name in given}


def _tag_options(protocol: str, given: Mapping[str, Any]) -> Options:
    return find_options(protocol, "tags", **_of_views(given))


def sample_note(name: str, measured: int, protocol: Mapping[str, Any] | None = None) -> str | None:
    """A sentence where fewer images were measured than the data set has: such numbers compare with nothing."""
    if is_whole(name, measured, protocol):
        return None
    whole = " or ".join(str(count) for count in whole_counts(name, protocol))
    return f"Measured on a sample, {measured} of {whole} images; published numbers are about the whole set."
