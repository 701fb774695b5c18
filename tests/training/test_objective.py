"""A batch's losses against the same thing written plainly: one image, one string, one word at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from tests.tiny_models import tiny_clip, tiny_siglip_model, tiny_tcl
from tests.tolerance import COSINES, LAYERS, TINY_TCL, assert_close, float_tolerance, largest_difference
from tests.training.conftest import tiny_config
from ttd.data.sources import PairSource
from ttd.encoders.base import Encoder
from ttd.errors import InputError
from ttd.losses import l_rank
from ttd.training.augment import normalised
from ttd.training.config import Config
from ttd.training.dataset import Batch, Steps
from ttd.training.lora import Adapter
from ttd.training.objective import NonFiniteLoss, Objective, rows_of

# A squared difference of cosines and targets, over the 16 cells, 5 words and 4 images of a batch.
LOSS = 2 * COSINES + 16 * 5 * 4


def objective_of(config: Config, encoder: Encoder | None = None) -> Objective:
    encoder = encoder or tiny_clip()
    adapter = Adapter(encoder, config.model, 0, config.loss)
    with torch.no_grad():  # LoRA starts at zero: give it something to say
        for _, parameter in adapter.named_parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return Objective(encoder, adapter, config)


def batch_of(config: Config, step: int = 0) -> Batch:
    return Steps(PairSource(config.data.sources), config)[step].batches[0]


def plain_sim(encoder: Encoder, batch: Batch, b: int, text: str) -> np.ndarray:
    """Cosines [h,w] of one image with one string, everything by itself."""
    pixels = normalised(batch.pixels[b : b + 1], batch.rects[b : b + 1], encoder.mean, encoder.std)
    with torch.no_grad():
        dense = encoder.encode_image(pixels).dense[0]
        ids, _ = encoder.tokenize([text])
        embedding = normalize(encoder.embed_tokens(ids), dim=-1)[0]
    return torch.einsum("chw,c->hw", dense, embedding).numpy()


def plain_loss(
    encoder: Encoder, batch: Batch, b: int, trained: Callable[[np.ndarray], np.ndarray] = lambda sim: sim
) -> tuple[float, float, list[bool]]:
    """L_distill and L_tag of one image of `trained` cosines, and which words the largest gap selects."""
    words = [batch.words[r] for r, v in zip(batch.word_rows[b], batch.word_valid[b], strict=True) if v]
    sims = [plain_sim(encoder, batch, b, word) for word in words]
    caption = plain_sim(encoder, batch, b, batch.captions[batch.caption_rows[b, 0]])
    top, left, bottom, right = batch.rects[b].tolist()
    centres = (np.arange(4) + 0.5) * 16
    rows, columns = (centres >= top) & (centres < bottom), (centres >= left) & (centres < right)
    inside = rows[:, None] & columns[None, :]
    scores = [sim[inside].max() for sim in sims]
    order = sorted(scores, reverse=True)
    drops = [order[i] - order[i + 1] for i in range(len(order) - 1)]
    cut = order[int(np.argmax(drops))] if drops else order[0]
    selected = [bool(score >= cut) for score in scores]
    sims, caption = [trained(sim) for sim in sims], trained(caption)
    goals = [(sim - sim[inside].min()) / (np.ptp(sim[inside]) + 1e-6) for sim in sims]
    union = np.max([goal for goal, chosen in zip(goals, selected, strict=True) if chosen], axis=0)
    distill = float(((caption - union)[inside] ** 2).mean())
    tag = sum(
        float(((sim - goal * chosen)[inside] ** 2).mean())
        for sim, goal, chosen in zip(sims, goals, selected, strict=True)
    )
    return distill, tag, selected


def test_a_batch_is_its_images_one_by_one(config: Config) -> None:
    objective, batch = objective_of(config), batch_of(config)
    outcome, inputs = objective(batch), objective.inputs(batch)
    expected = [plain_loss(objective.encoder, batch, b) for b in range(len(batch))]
    assert_close(outcome.terms["distill"], sum(e[0] for e in expected), LOSS)
    assert_close(outcome.terms["tag"], sum(e[1] for e in expected), LOSS)
    assert_close(outcome.loss, sum(e[0] + e[1] for e in expected), LOSS)
    for b, (_, _, selected) in enumerate(expected):
        assert inputs.selected[b, : len(selected)].tolist() == selected


def test_p_is_trained_as_the_cosine_is(base: Path, shards: Path) -> None:
    """The losses of p = sigmoid(w (cos - c)), computed image by image; words are selected by their cosines."""
    config = tiny_config(base, shards, "loss.similarity=calibrated", "loss.w=7", "loss.c=0.1")
    objective, batch = objective_of(config), batch_of(config)
    outcome, inputs = objective(batch), objective.inputs(batch)
    encoder = objective.encoder
    expected = [plain_loss(encoder, batch, b, lambda sim: 1 / (1 + np.exp(-7 * (sim - 0.1)))) for b in range(4)]
    assert_close(outcome.terms["distill"], sum(e[0] for e in expected), LOSS)
    assert_close(outcome.terms["tag"], sum(e[1] for e in expected), LOSS)
    for b, (_, _, selected) in enumerate(expected):
        assert inputs.selected[b, : len(selected)].tolist() == selected


def test_each_distinct_string_is_encoded_once_and_trimmed(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    objective, batch = objective_of(config), batch_of(config)
    seen: list[tuple[int, int]] = []
    inner = objective.encoder.embed_tokens

    def counting(token_ids: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(token_ids.shape))
        return inner(token_ids)

    images = []
    monkeypatch.setattr(objective.encoder, "embed_tokens", counting)
    encode = objective.encoder.encode_pixels
    monkeypatch.setattr(objective.encoder, "encode_pixels", lambda p: images.append(len(p)) or encode(p))
    objective(batch)
    assert sum(rows for rows, _ in seen) == len(set(batch.words)) + len(set(batch.captions))
    assert max(length for _, length in seen) < 12
    assert images == [4]


@pytest.mark.parametrize("encoder", ["clip", "clip values", "siglip", "tcl"])
def test_every_trained_parameter_gets_a_gradient(config: Config, encoder: str) -> None:
    made: Any
    if encoder == "siglip":
        from ttd.encoders.siglip import SigLIPEncoder

        made = SigLIPEncoder(tiny_siglip_model(), None)
        made.tokenize = lambda texts: (
            torch.tensor([[1 + sum(text.encode()) % 290] * 64 for text in texts]),
            [False] * len(texts),
        )
    elif encoder == "tcl":
        made = tiny_tcl()
    else:
        made = tiny_clip(method="values" if "values" in encoder else "maskclip")
    objective, batch = objective_of(config, made), batch_of(config)
    objective(batch).loss.backward()
    trained = [(name, p) for name, p in objective.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in name for name, _ in trained)
    assert [name for name, p in trained if p.grad is None or not p.grad.any()] == []


def test_switches_leave_a_loss_out(base: Path, shards: Path) -> None:
    whole = objective_of(tiny_config(base, shards))
    batch = batch_of(whole.config)
    reference = whole(batch)
    for switch, name in (("loss.tag=0", "distill"), ("loss.distill=0", "tag")):
        whole.config = tiny_config(base, shards, switch)
        alone = whole(batch)
        assert list(alone.terms) == [name]
        assert_close(alone.loss, reference.terms[name], LOSS)


def test_negative_words_add_their_squared_maps(base: Path, shards: Path) -> None:
    config = tiny_config(base, shards, "loss.negatives=2", "loss.negatives_weight=4")
    objective, batch = objective_of(config), batch_of(config)
    extra = 0.0
    for b in range(len(batch)):
        top, left, bottom, right = batch.rects[b].tolist()
        centres = (np.arange(4) + 0.5) * 16
        inside = ((centres >= top) & (centres < bottom))[:, None] & ((centres >= left) & (centres < right))[None, :]
        for row in batch.negative_rows[b]:
            extra += 4 * float((plain_sim(objective.encoder, batch, b, batch.words[row])[inside] ** 2).mean())
    with_words = objective(batch)
    objective.config = tiny_config(base, shards)
    without = objective(batch)
    assert_close(with_words.terms["tag"] - without.terms["tag"], extra, LOSS, scale=with_words.terms["tag"].item())
    # The words are far above the rounding of what they are added to.
    assert extra > 0.01 * with_words.terms["tag"].item()
    assert_close(with_words.terms["distill"], without.terms["distill"], LOSS)
    assert with_words.selected == without.selected


def test_choices(base: Path, shards: Path) -> None:
    objective = objective_of(tiny_config(base, shards))
    batch = batch_of(tiny_config(base, shards, "loss.floor=0.2"))
    batch.given = torch.zeros_like(batch.given)
    batch.given[:, 1] = True
    chosen = {}
    for name in ("s_pixel", "s_image", "negatives"):
        objective.config = tiny_config(base, shards, f"choice.by={name}", "choice.percentile=50")
        chosen[name] = objective.inputs(batch).selected
    by_gap, by_null = chosen["s_pixel"], chosen["negatives"]
    assert by_gap.any(-1).all()
    for b in range(len(batch)):
        null = [
            plain_max(objective.encoder, batch, b, batch.words[row])
            for row, valid in zip(batch.negative_rows[b], batch.negatives_valid[b], strict=True)
            if valid
        ]
        for n, row in enumerate(batch.word_rows[b]):
            mine = plain_max(objective.encoder, batch, b, batch.words[row])
            assert by_null[b, n].item() == (np.mean([mine > other for other in null]) >= 0.5)
    # The softmax at a scale of e^2.66 over five words: at most one word can hold half of it.
    assert chosen["s_image"].sum(-1).max() <= 1


def plain_max(encoder: Encoder, batch: Batch, b: int, word: str) -> float:
    top, left, bottom, right = batch.rects[b].tolist()
    centres = (np.arange(4) + 0.5) * 16
    inside = ((centres >= top) & (centres < bottom))[:, None] & ((centres >= left) & (centres < right))[None, :]
    return float(plain_sim(encoder, batch, b, word)[inside].max())


def test_the_frozen_base_chooses_as_it_did_before(base: Path, shards: Path) -> None:
    config = tiny_config(base, shards)
    batch = batch_of(config)
    untouched = Objective(encoder := tiny_clip(), Adapter(encoder, config.model, 0), config).inputs(batch)
    objective = objective_of(config)
    current = objective.inputs(batch)
    objective.config = tiny_config(base, shards, "choice.model=frozen")
    frozen = objective.inputs(batch)
    assert_close(frozen.scores, untouched.scores, COSINES)
    assert torch.equal(frozen.selected, untouched.selected)
    assert largest_difference(current.scores, untouched.scores) > 1e-3
    assert_close(frozen.sim, current.sim, COSINES)  # what is trained is the current model
    assert frozen.sim.requires_grad


def test_a_floor_lowers_targets(base: Path, shards: Path) -> None:
    config = tiny_config(base, shards, "loss.floor=0.9")
    objective, batch = objective_of(config), batch_of(config)
    floored = objective.inputs(batch).targets
    objective.config = tiny_config(base, shards)
    plain = objective.inputs(batch).targets
    assert (floored <= plain + float_tolerance(torch.float32, COSINES)).all()
    assert floored.mean() < plain.mean()


def test_relative_maps_are_above_the_other_texts(base: Path, shards: Path) -> None:
    config = tiny_config(base, shards, "loss.relative=true", "loss.rank=2")
    objective, batch = objective_of(config), batch_of(config)
    inputs = objective.inputs(batch)
    encoder, captions, cells_below = objective.encoder, batch.captions, 0
    for b in range(len(batch)):
        rows = [row for row, valid in zip(batch.negative_rows[b], batch.negatives_valid[b], strict=True) if valid]
        null = np.mean([plain_sim(encoder, batch, b, batch.words[row]) for row in rows], axis=0)
        for n, row in enumerate(batch.word_rows[b]):
            expected = plain_sim(encoder, batch, b, batch.words[row]) - null
            assert_close(inputs.sim[b, n], expected, COSINES, scale=1)  # a difference of cosines
            below = torch.tensor(expected < -float_tolerance(torch.float32, COSINES))
            assert not inputs.targets[b, n][below].any()
            cells_below += int(below.sum())
        own = int(batch.caption_rows[b, 0])
        others = np.mean([plain_sim(encoder, batch, b, text) for text in captions if text != captions[own]], axis=0)
        above = plain_sim(encoder, batch, b, captions[own]) - others
        assert_close(inputs.caption_sim[b, 0], above, COSINES, scale=1)
    assert cells_below > 0
    whole = objective(batch)
    rank = (whole.loss - whole.terms["distill"] - whole.terms["tag"]).item() / 2
    selected = inputs.selected[:, : inputs.word_scores.shape[1]]
    expected_rank = l_rank(inputs.word_scores, inputs.negative_scores, selected, batch.negatives_valid).sum()
    assert_close(rank, expected_rank, LOSS, scale=whole.loss.item() / 2)  # what is left of a difference
    assert_close(whole.terms["rank"], expected_rank, LOSS)
    assert rank > 0


def test_a_image_alone_has_relative_maps_of_its_own(base: Path, shards: Path) -> None:
    config = tiny_config(base, shards, "loss.relative=true", "loss.rank=1", "optimiser.batch=1")
    objective, batch = objective_of(config), batch_of(config)
    inputs = objective.inputs(batch)
    expected = plain_sim(objective.encoder, batch, 0, batch.words[batch.word_rows[0, 0]])
    assert_close(inputs.sim[0, 0], expected, COSINES, scale=1)
    assert objective(batch).loss.isfinite()


@pytest.mark.parametrize("kind", ["clip", "tcl"])
@pytest.mark.parametrize("numbers", [(), ("loss.w=30", "loss.c=0.1")])
def test_the_similarity_that_is_trained_is_p(base: Path, shards: Path, kind: str, numbers: tuple[str, ...]) -> None:
    encoder = tiny_clip() if kind == "clip" else tiny_tcl()
    config = tiny_config(base, shards, "loss.similarity=calibrated", *numbers)
    objective, batch = objective_of(config, encoder), batch_of(config)
    inputs = objective.inputs(batch)
    raw_config = tiny_config(base, shards, "loss.similarity=raw")
    objective.config, objective.calibration = raw_config, None
    raw = objective.inputs(batch)
    assert torch.equal(raw.selected, inputs.selected)  # words are scored by raw cosines either way
    w, c = (30.0, 0.1) if numbers else (encoder.calibration.w, encoder.calibration.c)
    # Both encode again; the sigmoid is steepest with a quarter of its slope.
    for found, cosines in ((inputs.sim, raw.sim), (inputs.caption_sim, raw.caption_sim)):
        assert_close(found, torch.sigmoid(w * (cosines - c)), COSINES + TINY_TCL, scale=w / 4)
    assert inputs.sim.requires_grad


def test_every_term_gets_p(base: Path, shards: Path) -> None:
    settings = ("loss.similarity=calibrated", "loss.relative=true", "loss.rank=1", "loss.negatives=2")
    config = tiny_config(base, shards, *settings)
    objective, batch = objective_of(config), batch_of(config)
    inputs = objective.inputs(batch)
    assert (inputs.negative_sim >= 0).all()
    assert (inputs.negative_sim <= 1).all()
    assert inputs.word_scores.min() >= 0
    assert set(objective(batch).terms) == {"distill", "tag", "rank"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("loss.similarity=raw", "loss.w=10"), "belong to"),
        (("loss.similarity=calibrated", "loss.c=0.2"), "needs loss.w"),
        (("loss.w=-1",), "at least 0"),
        (("loss.similarity=maps",), "one of calibrated, raw"),
    ],
)
def test_constants_that_cannot_be_are_refused(base: Path, shards: Path, settings: tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        tiny_config(base, shards, *settings)


def test_nan_names_its_pairs(config: Config) -> None:
    objective, batch = objective_of(config), batch_of(config)
    inner = objective.encoder.encode_pixels

    def broken(pixels: torch.Tensor) -> torch.Tensor:
        dense = inner(pixels).clone()
        dense[2] = torch.nan
        return dense

    objective.encoder.encode_pixels = broken  # type: ignore[method-assign]
    with pytest.raises(NonFiniteLoss) as caught:
        objective(batch)
    assert caught.value.keys == [batch.keys[2]]
    assert batch.keys[2] in str(caught.value.at(7))
    assert "step 7" in str(caught.value.at(7))


def test_bfloat16_towers_float32_losses(base: Path, shards: Path) -> None:
    config = tiny_config(base, shards, "run.precision=bfloat16")
    objective, batch = objective_of(config), batch_of(config)
    inputs = objective.inputs(batch)
    assert inputs.sim.dtype == inputs.targets.dtype == torch.float32
    low = objective(batch).loss
    objective.config = tiny_config(base, shards)
    assert low.item() != objective(batch).loss.item()
    assert low.item() == pytest.approx(objective(batch).loss.item(), rel=float_tolerance(torch.bfloat16, 2 * LAYERS))


def test_crops_fit_the_patches(base: Path, shards: Path) -> None:
    with pytest.raises(InputError, match="multiple of the patch size 16"):
        objective_of(tiny_config(base, shards, "augment.crop=70"))


def test_shared_rows_have_the_same_gradient_every_time_and_with_any_number_of_threads() -> None:
    """A run that is resumed ends bit for bit as one in a single go: threads must not race for a row."""
    table, rows = torch.randn(60, 192, requires_grad=True), torch.randint(0, 60, (32, 8))
    weight = torch.randn(32, 8, 192)
    torch.set_num_threads(4)
    gradients = [torch.autograd.grad((rows_of(table, rows) * weight).sum(), table)[0] for _ in range(40)]
    assert torch.equal(rows_of(table, rows), table[rows])
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)
    expected = torch.zeros(60, 192, dtype=torch.float64).index_add_(0, rows.flatten(), weight.flatten(0, 1).double())
    assert_close(gradients[0], expected, 32 * 8)
