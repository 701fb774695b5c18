"""The settings of a run, section by section. Defaults are the paper's recipe (Table 6); what the paper does not say is
marked "ours", and its default does nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Model:
    """The base model.

    Attributes:
        name: short name, folder, file or hub id.
        method: name of the last vision block; "" takes the model's own.
        rank: of the low-rank updates.
        alpha: updates are scaled by alpha / rank; 0 means the rank.
        dropout: in 0..1, of the low-rank updates' input.
        towers: which towers are adapted.
        kept: share of the update that the finished adapter keeps; below 1 its weights are between the base and
            what was trained (ours).
    """

    name: str = "mini"
    method: str = ""
    rank: int = 10
    alpha: float = 0.0
    dropout: float = 0.0
    towers: Literal["both", "image", "text"] = "both"
    kept: float = 1.0


@dataclass(frozen=True)
class Data:
    """The pairs.

    Attributes:
        sources: tar shards (brace ranges too), folders, captions files.
        images: the folder that a captions file's image paths start from; "": the file's own.
        keep: keep-list of `ttd prune` (Parquet); "" keeps all.
        tags: what `ttd data tag` wrote, for the choice "given"; "inside": the words that the shards carry.
        captions: of several captions of an image, one drawn newly each epoch, or all together (ours).
        tokenised: captions are split at white space only, as CC3M's may be.
        stop_words: keep stop words among the candidates, as the paper does.
        workers: processes that read and augment; 0 does it in the main process.
        max_bad_samples: share of damaged samples, 0..1, above which the run stops.
    """

    sources: tuple[str, ...] = ()
    images: str = ""
    keep: str = ""
    tags: str = ""
    captions: Literal["one", "together"] = "one"
    tokenised: bool = False
    stop_words: bool = True
    workers: int = 0
    max_bad_samples: float = 0.1


@dataclass(frozen=True)
class Augment:
    """The pixels.

    Attributes:
        shortest, longest: the longer side is resized to a random length between them, in pixels.
        crop: side of the random crop; smaller images are padded with the mean colour.
        flip: share of images that are mirrored.
    """

    shortest: int = 320
    longest: int = 640
    crop: int = 448
    flip: float = 0.0


@dataclass(frozen=True)
class Choice:
    """Which words of a caption are selected.

    Attributes:
        by: "s_pixel" (the paper's), "s_image", "nouns" (a parser's), "given" (words of the data), or
            "negatives": those that exceed a percentile of the negative words (ours).
        rule: for "s_pixel": the paper's "gap", or another rule of `ttd.selection` (ours), also of another package.
        model: the current one, or the frozen base (ours).
        threshold: for "s_image", on the softmax over the caption's words; for a rule that has one.
        percentile: for "negatives", 0..100.
        parser: for "nouns".
    """

    by: Literal["s_pixel", "s_image", "nouns", "given", "negatives"] = "s_pixel"
    rule: str = "gap"
    model: Literal["current", "frozen"] = "current"
    threshold: float = 0.5
    percentile: float = 90.0
    parser: Literal["spacy", "nltk"] = "spacy"


@dataclass(frozen=True)
class Loss:
    """The losses.

    Attributes:
        distill, tag: weights of L_distill and L_tag; 0 switches one off (Table 5).
        mean: L_tag as a mean over the words in place of the sum (ours).
        similarity: what is pulled to the targets: p = sigmoid(w (cos - c)), or the raw cosine as Eq. 3 writes it.
        w, c: of p; with w 0 both are the model's own calibration.
        learned: w and c are only where training starts, and are two more numbers that it changes, as in TCL's own.
        negatives: how many words of other captions of the batch each image gets as unselected words (ours).
        negatives_weight: of each of them in L_tag.
        relative: train how far maps exceed the mean of the negative words' maps, and captions' maps that of the
            batch's other captions, in every cell; what is below is a target of 0 (ours).
        rank: weight of `ttd.losses.l_rank`: selected words should score above negatives ones (ours).
        floor: the quantile of the negative words' scores that is a target's zero; -1: the map's own minimum.
        compared: how many negative words an image is compared with, for `relative`, `rank`, `floor` and the
            choice "negatives".
        others: weights of terms that other packages register, by name (see `ttd.losses.LossTerm`); in the config each
            is `loss.NAME`, like our own.
    """

    distill: float = 1.0
    tag: float = 1.0
    mean: bool = False
    similarity: Literal["calibrated", "raw"] = "calibrated"
    w: float = 0.0
    c: float = 0.0
    learned: bool = False
    negatives: int = 0
    negatives_weight: float = 1.0
    relative: bool = False
    rank: float = 0.0
    floor: float = -1.0
    compared: int = 64
    others: Mapping[str, float] = field(default_factory=dict)

    def weights(self) -> dict[str, float]:
        """The terms that are trained and their weights; the log has each term under its name here."""
        weights = {"distill": self.distill, "tag": self.tag, "rank": self.rank, **self.others}
        return {name: weight for name, weight in weights.items() if weight}


@dataclass(frozen=True)
class Optimiser:
    """AdamW and its schedule.

    Attributes:
        rate: learning rate.
        weight_decay: AdamW's.
        batch: pairs per step over all devices.
        micro_batch: pairs per forward pass of one device; 0: all of its share. Smaller: gradients accumulate.
        epochs: passes over the data, after which the run ends.
        steps: end after so many steps, where the epochs have more; 0: no.
        schedule: after the warm-up.
        warmup: steps of linear warm-up.
        clip: largest norm of the gradient; 0: not clipped.
    """

    rate: float = 1e-4
    weight_decay: float = 5e-5
    batch: int = 32
    micro_batch: int = 0
    epochs: int = 1
    steps: int = 0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup: int = 0
    clip: float = 0.0


@dataclass(frozen=True)
class Run:
    """How the run goes.

    Attributes:
        seed: of the order, the augmentation, the adapter's start.
        deterministic: ask torch for deterministic algorithms only.
        precision: of the towers under autocast; losses are always in float32.
        device: "" takes CUDA where there is one, else MPS, else the CPU.
        checkpoint_every: steps between checkpoints.
        keep_checkpoints: how many are kept.
        log_every: steps between lines of the log.
        watch_every: steps between images of fixed samples; 0: none.
        watch_samples: how many.
        tensorboard: also write its event files.
        gradient_checkpointing: recompute blocks in the backward pass: slower, less memory.
        compile: `torch.compile` every block.
    """

    seed: int = 0
    deterministic: bool = False
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    device: str = ""
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    log_every: int = 10
    watch_every: int = 500
    watch_samples: int = 4
    tensorboard: bool = False
    gradient_checkpointing: bool = False
    compile: bool = False
