"""Which scored words count as tags: rules by name, and the score and rule of a question.

A rule is one `SelectionRule` and one `register_rule(...)`, here or in another package, which names its module in its
entry points:

    [project.entry-points."ttd.rules"]
    half = "half_rule"
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ttd.encoders.calibration import OPENAI_LIKE, Calibration
from ttd.errors import InputError
from ttd.negatives import PERCENTILE
from ttd.registry import RULES, SCORES, origin_of
from ttd.scoring import (
    check_percentile,
    checked,
    min_max_scores,
    select_largest_gap,
    select_threshold,
    softmax_scores,
)

Scale: TypeAlias = Callable[[Tensor, "Tensor | None", float, Calibration], Tensor]
Select: TypeAlias = Callable[[Tensor, float, "Tensor | None"], Tensor]


@dataclass(frozen=True)
class SelectionRule:
    """Which scored words count as tags.

    Attributes:
        name: of `Selection(rule=...)`, `--selection` and `choice.rule` of a training's config.
        select: gets the scaled scores `[...,N]`, the threshold and `valid`, bool `[...,N]` (None: all words are there);
            gives bool `[...,N]`. What it says of words that are not there does not count.
        scale: makes what `select` gets of raw scores `[...,N]`, `valid`, the model's logit scale and its calibration;
            None: they stay as they are.
        threshold: whether `select` looks at the threshold.
        scores: the scores that it may be used with.
        negatives: whether it compares with negative words: `select` gets each word's percentile among their scores,
            and `Selection.percentile` as its threshold.
    """

    name: str
    select: Select
    scale: Scale | None = None
    threshold: bool = False
    scores: tuple[str, ...] = SCORES
    negatives: bool = False

    def scaled(self, scores: Tensor, valid: Tensor | None, logit_scale: float, calibration: Calibration) -> Tensor:
        """What `select` looks at, `[...,N]`."""
        return scores if self.scale is None else self.scale(scores, valid, logit_scale, calibration)

    def selected(self, scores: Tensor, threshold: float, valid: Tensor | None = None) -> Tensor:
        """The selection among scaled scores `[...,N]`, bool `[...,N]`.

        Raises:
            InputError: a score is NaN or infinite, or the rule gives something else.
        """
        scores = checked(scores, valid)
        found = self.select(scores, threshold, valid)
        if not isinstance(found, Tensor) or found.dtype != torch.bool or found.shape != scores.shape:
            given = f"{found.dtype} {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise InputError(f"the selection {self.name!r} must give bool {list(scores.shape)}, not {given}")
        return found if valid is None else found & valid


def register_rule(rule: SelectionRule) -> SelectionRule:
    """Make a rule of selection known by its name; gives it back.

    Raises:
        InputError: the name is taken or is not a name, or a score of it is unknown.
    """
    if strange := [score for score in rule.scores if score not in SCORES]:
        raise InputError(f"unknown score {strange[0]!r}: choose from {', '.join(SCORES)}")
    if rule.negatives and rule.scores != ("s_pixel",):
        raise InputError(f"the selection {rule.name!r} compares with negative words: give it scores=('s_pixel',)")
    RULES.add(rule.name, rule, origin_of(rule.select))
    return rule


def find_rule(name: str) -> SelectionRule:
    """The rule with that name.

    Raises:
        InputError: there is none.
    """
    rule: SelectionRule = RULES.find(name)
    return rule


def _gap(scores: Tensor, threshold: float, valid: Tensor | None) -> Tensor:
    return select_largest_gap(scores, valid)


def _each(scores: Tensor, threshold: float, valid: Tensor | None) -> Tensor:
    return select_threshold(scores, threshold, valid, each=True)


def _softmax(scores: Tensor, valid: Tensor | None, logit_scale: float, calibration: Calibration) -> Tensor:
    return softmax_scores(scores, logit_scale, valid)


def _min_max(scores: Tensor, valid: Tensor | None, logit_scale: float, calibration: Calibration) -> Tensor:
    return min_max_scores(scores, valid)


def _calibrated(scores: Tensor, valid: Tensor | None, logit_scale: float, calibration: Calibration) -> Tensor:
    p = calibration(checked(scores, valid))
    return p if valid is None else p.masked_fill(~valid, 0.0)


for _rule in (
    SelectionRule("gap", _gap),
    SelectionRule("softmax", select_threshold, _softmax, threshold=True),
    SelectionRule("min-max", select_threshold, _min_max, threshold=True),
    # s_seg is a share of the image and no cosine.
    SelectionRule("calibrated", _each, _calibrated, threshold=True, scores=tuple(s for s in SCORES if s != "s_seg")),
    SelectionRule("threshold", select_threshold, threshold=True),
    SelectionRule("negatives", _each, scores=("s_pixel",), negatives=True),
):
    RULES.add(_rule.name, _rule, __name__)


@dataclass(frozen=True)
class Selection:
    """How words are scored, and which of them count as tags of the image.

    Attributes:
        score: one of `ttd.scoring.SCORES`; the paper's is "s_pixel".
        rule: "gap" (the paper's for "s_pixel"), a threshold on "softmax" or "min-max"
            scaled scores, on what the model's calibration makes of cosines ("calibrated", each word by itself), or on
            the scores as they are ("threshold"), or "negatives": what exceeds words that were not
            said of the image (not in the paper; for "s_pixel"); or one of `ttd.register_rule`.
            "": the paper's for this score.
        threshold: for all rules but "gap" and "negatives".
        percentile: for "negatives", 0..100: of the negative words' scores, which a word must exceed.
        negatives: for "negatives": the words to compare with, without those that are akin to the caption's own;
            None: the package's list of visible things. See `ttd.negatives`.

    Raises:
        InputError: an unknown name, or a value out of range.
    """

    score: str = "s_pixel"
    rule: str = ""
    threshold: float = 0.5
    percentile: float = PERCENTILE
    negatives: Sequence[str] | None = None

    def __post_init__(self) -> None:
        usual = default_rule(self.score)
        object.__setattr__(self, "rule", self.rule or usual)
        if self.score not in self.found.scores:
            fit = ", ".join(self.found.scores)
            raise InputError(f'the rule "{self.rule}" is for {fit}, not for {self.score}: leave one of them out')
        check_percentile(self.percentile)
        if self.negatives is not None:
            if not self.found.negatives:
                raise InputError('negative words are for the rule "negatives"')
            if isinstance(self.negatives, str):
                raise InputError("negatives must be a list of words")
            object.__setattr__(self, "negatives", tuple(self.negatives))

    @property
    def found(self) -> SelectionRule:
        """What `rule` names."""
        return find_rule(self.rule)

    @property
    def needs_caption(self) -> bool:
        """Whether the whole caption's embedding enters the score."""
        return self.score in ("s_text", "s_image+s_text")

    def select(self, scores: Tensor, valid: Tensor | None = None) -> Tensor:
        """The selection among scores `[...,N]` that `score_words` made; for "negatives" among percentiles."""
        return self.found.selected(scores, self.percentile if self.found.negatives else self.threshold, valid)


def find_selection(given: Selection | str | None) -> Selection:
    """A selection as it is, or by the name of a score or a rule; None is the paper's.

    Raises:
        InputError: no score and no rule has this name.
    """
    if isinstance(given, Selection):
        return given
    return Selection(score=given) if given in SCORES else Selection(rule=given or "")


def default_rule(score: str) -> str:
    """The rule of selection that the paper pairs with a score (section 3.1 and Table 9; "softmax" decided here).

    Raises:
        InputError: an unknown score.
    """
    if score not in SCORES:
        raise InputError(f"unknown score {score!r}: choose from {', '.join(SCORES)}")
    return {"s_pixel": "gap", "s_seg": "threshold"}.get(score, "softmax")


def select_tags(
    scores: Tensor | NDArray[np.floating] | Sequence[float],
    rule: str = "gap",
    *,
    threshold: float = 0.5,
    logit_scale: float = 100.0,
    calibration: Calibration = OPENAI_LIKE,
    valid: Tensor | None = None,
) -> Tensor:
    """Select by name.

    Args:
        scores: `[...,N]`; raw cosines, or shares for "threshold".
        rule: "gap"; or a threshold on "softmax" or "min-max" scaled or "calibrated" scores, or on the scores as they
            are ("threshold"); or one of `register_rule`. For "negatives" there is `select_above_negatives`.
        threshold: for all but "gap".
        logit_scale: for "softmax".
        calibration: for "calibrated".
        valid: bool `[...,N]`.

    Returns:
        bool `[...,N]`.

    Raises:
        InputError: an unknown rule, or a score that is NaN or infinite.
    """
    found = find_rule(rule)
    if found.negatives:
        raise InputError("this rule needs the negative words' scores: use select_above_negatives")
    scaled = found.scaled(torch.as_tensor(scores), valid, logit_scale, calibration)
    return found.selected(scaled, threshold, valid)
