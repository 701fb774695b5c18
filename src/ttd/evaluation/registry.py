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
from ttd.evaluation.datasets.layouts import find_dataset
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
from ttd.registry import DATASETS
from ttd.scoring import SCORES
from ttd.taggers import open_tagger
from ttd.text.words import is_stop_word

LABELS = ("coco-80", "nus-wide")
# Images of the whole sets that have a layout of their own, with who divided and the split where there are several.
_OTHERS: dict[str, tuple[int, ...]] = {
    "coco-80": (5000, 40504),
    "nus-wide": (107859,),
    "refcoco unc val": (1500,),
    "refcoco unc testA": (750,),
    "refcoco unc testB": (750,),
    "refcoco google val": (4559,),
    "refcoco google test": (4527,),
    "refcoco+ unc val": (1500,),
    "refcoco+ unc testA": (750,),
    "refcoco+ unc testB": (750,),
    "refcocog umd val": (1300,),
    "refcocog umd test": (2600,),
    "refcocog google val": (4650,),
}


@dataclass(frozen=True)
class Choices:
    """What a user may choose about a protocol.

    Attributes:
        protocol: of `ttd.inference.protocols.PROTOCOLS`.
        given: single options for the model's methods that overrule the protocol.
        classes: another class list.
        synonyms: ask for all names of a class.
        taggers, spacy_model, llm: see `ttd.taggers.open_tagger`.
        parts, scores, stop_words, shuffled: see `ttd.evaluation.tasks.tagmask.TagMask`.
        percentiles, negatives: tagmask: rows of the rule "negatives", and where its words come from: captions, list
            or a file; None: captions where they hold enough words.
        label_orientation: of `ttd.evaluation.datasets.labels.ORIENTATIONS`.
        known_classes: label maps: ask each image only for the classes that are in it.
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
    label_orientation: str = "upright"
    known_classes: bool = False


def open_benchmark(name: str, root: Path, choices: Choices, encoder: Encoder | None = None) -> Benchmark:
    """A benchmark, ready to run.

    Args:
        name: of a registered data set, "tagmask", "folder", of `LABELS` or of `PARTITIONS`.
        root: where the data lies.
        choices: of the user.
        encoder: of the model that is asked, which may have thresholds of its own; None: not loaded yet.

    Raises:
        InputError: unknown name or protocol, or the data is not there.
    """
    given = choices.given or {}
    if name not in DATASETS.choices():
        DATASETS.find(name)
    if (choices.split and name not in (*PARTITIONS, "coco-80")) or (choices.split_by and name not in PARTITIONS):
        raise InputError(f"{name} offers no such choice of splits: leave --split and --split-by out")
    if not root.is_dir():
        raise InputError(f"{root} is not a folder: --data must be the one that holds the data set")
    if name == "tagmask":
        tagged = read_tagmask(root)
        words = (word for row in tagged.rows for word in row.words if choices.stop_words or not is_stop_word(word))
        return TagMask(
            tagged,
            _tag_options(choices.protocol, given),
            find_options(choices.protocol, "masks", **given),
            parts=choices.parts,
            scores=choices.scores,
            stop_words=choices.stop_words,
            shuffled=choices.shuffled,
            taggers=[open_tagger(one, choices.spacy_model, choices.llm) for one in dict.fromkeys(choices.taggers)],
            percentiles=choices.percentiles,
            negatives=find_negatives(choices.negatives, words) if choices.percentiles else None,
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
    data = find_dataset(name) if name != "folder" else None
    listed = (data.classes or name) if data is not None else choices.classes or root / "classes.txt"
    options = class_options(
        choices.protocol,
        given,
        name,
        with_background=read_classes(listed).background,
        encoder=encoder,
        threshold=data.threshold if data is not None else None,
    )
    return open_data_set(
        name, root, options, choices.classes, choices.synonyms, choices.label_orientation, choices.known_classes
    )


def _of_views(given: Mapping[str, Any]) -> dict[str, Any]:
    """Those single options that concern how an image is looked at when words and classes are scored."""
    return {name: given[name] for name in ("size", "flip") if name in given}


def _tag_options(protocol: str, given: Mapping[str, Any]) -> Options:
    return find_options(protocol, "tags", **_of_views(given))


def is_whole(name: str, count: int, protocol: Mapping[str, Any] | None = None) -> bool:
    """Whether so many images are a whole validation set; sets without a known size always are."""
    whole = whole_counts(name, protocol)
    return not whole or count in whole


def whole_counts(name: str, protocol: Mapping[str, Any] | None = None) -> tuple[int, ...]:
    """How many images the whole sets of this name have; nothing where it has no known size.

    Args:
        name: of a benchmark.
        protocol: its `settings()`, where "by" and "split" say which of several splits it is.
    """
    if name in DATASETS.names():
        return find_dataset(name).full
    part = [str(protocol[key]) for key in ("by", "split") if key in protocol] if protocol else []
    return _OTHERS.get(" ".join([name, *part]), ())


def sample_note(name: str, measured: int, protocol: Mapping[str, Any] | None = None) -> str | None:
    """A sentence where fewer images were measured than the data set has: such numbers compare with nothing."""
    if is_whole(name, measured, protocol):
        return None
    whole = " or ".join(str(count) for count in whole_counts(name, protocol))
    return f"Measured on a sample, {measured} of {whole} images; published numbers are about the whole set."
