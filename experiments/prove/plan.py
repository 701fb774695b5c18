"""Which runs the proof consists of, and which rows of which table they are."""

from __future__ import annotations

from dataclasses import dataclass

PAPERS_BLOCK = "maskclip"
BEST = "best"
"""Stands for the method of the last block with the highest mIoU on validation scenes before training."""


@dataclass(frozen=True)
class ProofRun:
    """A training, once for every seed.

    Attributes:
        name: of its folders.
        method: of the last block, or `BEST`.
        config: shipped config: the paper's recipe at the size of scenes, or ours.
        settings: what it changes, `section.name=value`.
        data: name of `experiments.prove.inputs.PAIRS`.
        keep, tags: a file of `experiments.prove.inputs` that it reads.
    """

    name: str
    method: str = BEST
    config: str = "scenes-paper"
    settings: tuple[str, ...] = ()
    data: str = "clean"
    keep: str = ""
    tags: str = ""


RUNS = (
    ProofRun("ttd"),
    ProofRun("ttd-maskclip", PAPERS_BLOCK),
    ProofRun("negatives", config="scenes-negatives"),
    ProofRun("negatives-maskclip", PAPERS_BLOCK, config="scenes-negatives"),
    ProofRun("only-tag", settings=("loss.distill=0",)),
    ProofRun("only-distill", settings=("loss.tag=0",)),
    ProofRun("two-negatives", settings=("loss.negatives=2",)),
    ProofRun("two-negatives-maskclip", PAPERS_BLOCK, settings=("loss.negatives=2",)),
    ProofRun("two-negatives-rule", settings=("loss.negatives=2", "choice.by=negatives")),
    ProofRun("frozen", settings=("choice.model=frozen",)),
    ProofRun("several", settings=("data.captions=together",), data="several"),
    ProofRun("every-noun", settings=("choice.by=given",), tags="nouns.jsonl"),
    ProofRun("s-image", settings=("choice.by=s_image",)),
    ProofRun("true-words", settings=("choice.by=given",), tags="true.jsonl"),
    ProofRun("mixed", data="mixed"),
    ProofRun("pruned-steps", settings=("optimiser.epochs=10",), data="mixed", keep="keep.parquet"),
    ProofRun("pruned-pass", settings=("optimiser.steps=0", "optimiser.epochs=1"), data="mixed", keep="keep.parquet"),
)

Row = tuple[str, str]
"""Title, and the run's name or "base" / "base-maskclip"."""

BASES = {"base": BEST, "base-maskclip": PAPERS_BLOCK}

TAGS = ("precision", "recall", "F1", "accuracy", "mAP")
HONEST = ("absent selected", "F1, shuffled", "AUC per image", "AUC per word")
CAPTION = ("CaptionIoU", "mFPR", "mFNR", "CaptionIoU, objects only")
CHOSEN = ("chosen threshold", "CaptionIoU, chosen threshold", "objects only, chosen threshold")
MEMORY = ("image to text", "text to image", "noun accuracy")
IN_SHORT = (
    "F1",
    "absent selected",
    "CaptionIoU",
    "CaptionIoU, objects only",
    "mIoU",
    "AUC per image",
    "AUC per word",
)


@dataclass(frozen=True)
class Table:
    """One table of the proof.

    Attributes:
        title: with the paper's number.
        columns: measures.
        rows: models.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


_MAIN = (
    ("MaskCLIP's block", "base-maskclip"),
    ("+ TTD", "ttd-maskclip"),
    ("+ `scenes-negatives`", "negatives-maskclip"),
    ("best method", "base"),
    ("+ TTD", "ttd"),
    ("+ `scenes-negatives`", "negatives"),
)

TABLES = (
    Table("Tag selection by s_pixel (Table 2)", (*TAGS, *HONEST), _MAIN),
    Table("The caption's mask (Table 3)", (*CAPTION, *CHOSEN), _MAIN),
    Table(
        "Segmentation among the words that are there (Table 4's measure), and what is forgotten",
        ("mIoU", *MEMORY),
        _MAIN,
    ),
    Table(
        "The two losses, best method (Table 5a)",
        IN_SHORT,
        (("nothing", "base"), ("only L_tag", "only-tag"), ("only L_distill", "only-distill"), ("both", "ttd")),
    ),
    Table(
        "Who selects the words in training, best method (Tables 5b and 8)",
        IN_SHORT,
        (
            ("nothing", "base"),
            ("every noun, without looking", "every-noun"),
            ("s_image", "s-image"),
            ("s_pixel", "ttd"),
            ("the truth", "true-words"),
        ),
    ),
    Table(
        "Pairs of which 40 % have another image's caption, best method (Table 7)",
        IN_SHORT,
        (
            ("nothing", "base"),
            ("no wrong pairs", "ttd"),
            ("not pruned", "mixed"),
            ("pruned, as many steps", "pruned-steps"),
            ("pruned, one pass", "pruned-pass"),
        ),
    ),
    Table(
        "Past the paper, best method",
        IN_SHORT,
        (
            ("nothing", "base"),
            ("TTD", "ttd"),
            ("+ 2 negative words", "two-negatives"),
            ("+ 2 negative words, chosen by their rule", "two-negatives-rule"),
            ("chosen by the frozen base", "frozen"),
            ("three captions of each image together", "several"),
            ("`scenes-negatives`", "negatives"),
        ),
    ),
    Table(
        "Past the paper, MaskCLIP's block",
        IN_SHORT,
        (
            ("nothing", "base-maskclip"),
            ("TTD", "ttd-maskclip"),
            ("+ 2 negative words", "two-negatives-maskclip"),
            ("`scenes-negatives`", "negatives-maskclip"),
        ),
    ),
)
