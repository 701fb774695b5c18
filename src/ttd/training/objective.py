"""One training step's forward pass: a batch in, the losses of its images out.

The images, the distinct words and the distinct captions of a batch are encoded once each; the maps that score
the words are the maps that the losses use, at the encoder's own grid.

Shapes: B images, M captions, N words, K negative words, W and T distinct words and captions of the batch, C
embedding, h x w patches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttd.encoders.base import Encoder
from ttd.encoders.features import ImageFeatures
from ttd.errors import InputError, TTDError
from ttd.losses import LossInputs, above_others, find_loss_terms, negatives_floor, targets
from ttd.scoring import (
    mean_feature,
    s_image,
    s_pixel,
    select_above_negatives,
    select_threshold,
    softmax_scores,
)
from ttd.selection import find_rule
from ttd.training.augment import inside_cells, normalised
from ttd.training.config import Config
from ttd.training.dataset import Batch
from ttd.training.lora import Adapter


class NonFiniteLoss(TTDError):
    """A loss or a gradient is NaN or infinite; `keys` are the pairs that it came from."""

    def __init__(self, what: str, keys: list[str]) -> None:
        self.what, self.keys = what, keys
        shown = ", ".join(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")
        super().__init__(f"{what} is not finite, for the pairs {shown}: lower the learning rate, or check these pairs")

    def at(self, step: int) -> NonFiniteLoss:
        """The same with the step in front."""
        return NonFiniteLoss(f"step {step}: {self.what}", self.keys)


@dataclass(frozen=True)
class Encoded:
    """A batch after the encoder: features, and text per image, normalised.

    Attributes:
        features: of B images.
        words: `[W,C]`.
        captions: `[T,C]`.
    """

    features: ImageFeatures
    words: Tensor
    captions: Tensor


@dataclass(frozen=True)
class BatchLoss:
    """The losses of a batch.

    Attributes:
        loss: the sum over its images, with gradient.
        terms: of each term that is trained (`Loss.weights`) the sum over the images, unweighted, detached.
        selected, words: how many of the captions' words were selected, of how many.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    selected: Tensor
    words: Tensor


class Objective(nn.Module):
    """The paper's losses of a batch, with the run's options.

    Args:
        encoder: with the adapter's layers in its backbone.
        adapter: for the choice by the frozen base.
        config: of the run.

    Raises:
        InputError: an option that this encoder does not support.
    """

    def __init__(self, encoder: Encoder, adapter: Adapter, config: Config) -> None:
        super().__init__()
        self.encoder, self.config = encoder, config
        self._without_adapter = adapter.left_out
        self.calibration = adapter.calibration
        if config.augment.crop % encoder.patch_size:
            raise InputError(f"augment.crop must be a multiple of the patch size {encoder.patch_size}")

    def forward(self, batch: Batch | None) -> BatchLoss:
        """The losses of a batch on the encoder's device; of None, zeros whose gradient is zero everywhere.

        A process whose pairs were all damaged takes part in the others' step with None.

        Raises:
            NonFiniteLoss: names the pairs.
        """
        if batch is None:
            nothing = sum((p.sum() * 0 for p in self.parameters() if p.requires_grad), torch.zeros(()))
            zero = nothing.detach()
            return BatchLoss(nothing, dict.fromkeys(self.config.loss.weights(), zero), zero, zero)
        weights, inputs = self.config.loss.weights(), self.inputs(batch)
        # A switched-off term is left out, not multiplied by 0, so that it may not spoil the others by a NaN.
        terms = {term.name: term.function(inputs) for term in find_loss_terms(weights)}  # each (B,)
        weighted = [weight * terms[name] for name, weight in weights.items()]
        total = sum(weighted[1:], weighted[0])
        _require_finite("the loss", total.detach(), batch.keys)
        return BatchLoss(
            loss=total.sum(),
            terms={name: term.detach().sum() for name, term in terms.items()},
            selected=inputs.selected.sum(),
            words=batch.word_valid.sum(),
        )

    def inputs(self, batch: Batch) -> LossInputs:
        """Encode, score, select: what the terms get."""
        encoded, loss = self._encode(batch), self.config.loss
        terms = find_loss_terms(loss.weights())
        grid = (encoded.features.dense.shape[-2], encoded.features.dense.shape[-1])
        inside = inside_cells(batch.rects, grid, batch.pixels.shape[1])
        words = rows_of(encoded.words, batch.word_rows)  # (B, N, C)
        number = loss.negatives
        in_loss = rows_of(encoded.words, batch.negative_rows[:, :number])  # (B, N', C)
        text = torch.cat([words, in_loss], 1)
        raw = self.encoder.similarity(encoded.features, text)
        sim = raw if self.calibration is None else self.calibration(raw)
        caption_sim = self._maps(encoded.features, rows_of(encoded.captions, batch.caption_rows))
        scores, selected = self._select(batch, encoded, raw[:, : words.shape[1]], inside)
        zero, negative_sim, valid = None, sim.new_zeros(len(batch), 0, *grid), batch.negatives_valid[:, :0]
        trained = loss.relative or any(term.negatives for term in terms)
        if trained or loss.floor >= 0:
            with torch.set_grad_enabled(torch.is_grad_enabled() and trained):
                negative_words = rows_of(encoded.words, batch.negative_rows)
                negative_sim = self._maps(encoded.features, negative_words)  # (B, K, h, w)
            valid = batch.negatives_valid
        negative_scores = s_pixel(negative_sim, inside[:, None])
        word_scores = s_pixel(sim[:, : words.shape[1]], inside[:, None])
        of_captions = None
        if loss.relative or any(term.other_captions for term in terms):
            of_captions = self._maps(encoded.features, encoded.captions.expand(len(batch), -1, -1))  # (B, T, h, w)
        if loss.floor >= 0:
            zero = negatives_floor(negative_scores, loss.floor, valid)
        if loss.relative:
            assert of_captions is not None
            zero = sim.new_zeros(len(batch))
            sim = above_others(sim, negative_sim, valid)
            caption_sim = above_others(caption_sim, of_captions, batch.other_captions())
        negatives = batch.negatives_valid[:, :number]
        return LossInputs(
            inside=inside,
            caption_sim=caption_sim,
            sim=sim,
            targets=targets(sim, inside, zero),
            selected=torch.cat([selected, torch.zeros_like(negatives)], 1),
            weight=torch.cat([batch.word_valid.float(), negatives * loss.negatives_weight], 1),
            member=_with_negatives(batch.member, sim.shape[1]),
            mean=loss.mean,
            scores=scores,
            word_scores=word_scores,
            negative_sim=negative_sim,
            negative_scores=negative_scores,
            negatives_valid=valid,
            other_caption_sim=of_captions,
            other_captions=batch.other_captions(),
        )

    def _encode(self, batch: Batch) -> Encoded:
        """Both towers under autocast; what comes out is float32."""
        encoder, device = self.encoder, batch.pixels.device
        pixels = normalised(batch.pixels, batch.rects, encoder.mean, encoder.std)
        low = self.config.run.precision == "bfloat16"
        with torch.autocast(device.type, torch.bfloat16, enabled=low):
            # The ordinary image embedding is not trained: where maps do without it, it is not computed.
            features = encoder.encode_for_similarity(pixels)
            # Words and captions apart: together, every word would be padded to the longest caption.
            words = encoder.encode_text(batch.words).float()
            captions = encoder.encode_text(batch.captions).float()
        return Encoded(features, words, captions)

    def _maps(self, features: ImageFeatures, text: Tensor) -> Tensor:
        """What is trained, `[B,N,h,w]`: cosines, or p of them."""
        sim = self.encoder.similarity(features, text)
        return sim if self.calibration is None else self.calibration(sim)

    def _select(self, batch: Batch, encoded: Encoded, sim: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        """s_pixel `[B,N]` and the selection bool `[B,N]` by the run's choice; no gradient."""
        choice = self.config.choice
        with torch.no_grad():
            if choice.model == "frozen" and choice.by not in ("nouns", "given"):
                with self._without_adapter():
                    encoded = self._encode(batch)
                sim = self.encoder.similarity(encoded.features, rows_of(encoded.words, batch.word_rows))
            scores = s_pixel(sim.detach(), inside[:, None])
            valid = batch.word_valid
            _require_finite("a word's score", scores.masked_fill(~valid, 0).sum(-1), batch.keys)
            if choice.by in ("nouns", "given"):
                return scores, batch.given & valid
            if choice.by == "s_image":
                mean = mean_feature(encoded.features.dense, inside)
                cosines = s_image(mean, rows_of(encoded.words, batch.word_rows))
                shares = softmax_scores(cosines, self.encoder.logit_scale, valid)
                return scores, select_threshold(shares, choice.threshold, valid)
            encoder = self.encoder
            rule = find_rule(choice.rule)
            scaled = rule.scaled(scores, valid, encoder.logit_scale, encoder.calibration)
            selected = rule.selected(scaled, choice.threshold, valid)
            if choice.by == "negatives":
                null_words = rows_of(encoded.words, batch.negative_rows)
                null = s_pixel(self.encoder.similarity(encoded.features, null_words), inside[:, None])
                some = batch.negatives_valid.any(-1)
                if bool(some.any()):
                    beaten = select_above_negatives(
                        scores[some], null[some], choice.percentile, valid[some], batch.negatives_valid[some]
                    )
                    # An image alone in its batch has nothing to compare with: the paper's gap stands.
                    selected[some] = beaten
            return scores, selected


def _with_negatives(member: Tensor, words: int) -> Tensor:
    """`[B,M,N]` -> `[B,M,words]`: negative words stand in no caption."""
    return torch.nn.functional.pad(member, (0, words - member.shape[-1]), value=False)


def _require_finite(what: str, per_image: Tensor, keys: list[str]) -> None:
    bad = ~per_image.isfinite()
    if bool(bad.any()):
        raise NonFiniteLoss(what, [key for key, is_bad in zip(keys, bad.tolist(), strict=True) if is_bad])


def rows_of(table: Tensor, rows: Tensor) -> Tensor:
    """Rows `[...,C]` of a table `[W,C]`, as `table[rows]`, with a gradient that is the same every time.

    On a CPU all threads add up the gradient of plain indexing at once, in any order; a row that several images
    share then differs in its last bits from run to run, and a resumed training from one in a single go.
    """
    return F.embedding(rows, table)
