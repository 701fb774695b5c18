"""Mini is a plain CLIPModel: the fast pass agrees with transformers, and a killed run goes on bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import CLIPModel

from experiments.train_mini.model import contrastive_loss, embed_captions, embed_patches, new_mini, sigmoid_loss
from experiments.train_mini.pool import ScenePool, mirror_patches, to_patches
from experiments.train_mini.training import BRIEF, SIGLIP_START, Batches, ClipTrainer, Loss, Recipe, _token_batch
from tests.tolerance import assert_close, largest_difference, tower
from ttd.encoders.loading.tokenizers import clip_tokenizer
from ttd.errors import InputError
from ttd.scenes import Scenes


@pytest.fixture(scope="module")
def model() -> CLIPModel:
    torch.manual_seed(0)
    return new_mini().eval()


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    Batches(BRIEF, folder)
    return folder


def run(folder: Path, pool: Path, recipe: Recipe = BRIEF) -> ClipTrainer:
    folder.mkdir(exist_ok=True)
    if not (folder / "pool").exists():
        (folder / "pool").symlink_to(pool)
    return ClipTrainer(recipe, folder)


def terms(config: Any, tokens: int) -> int:
    """Additions one after the other in one of mini's towers."""
    first = 3 * getattr(config, "patch_size", 0) ** 2
    sizes = {"blocks": config.num_hidden_layers, "width": config.hidden_size, "hidden": config.intermediate_size}
    return tower(**sizes, tokens=tokens + 1, first=first, embedding=config.projection_dim)


@torch.inference_mode()
def test_image_pass_agrees_with_transformers(model: CLIPModel) -> None:
    images = np.stack([Scenes("train")[i].image for i in range(3)])
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    expected = model.get_image_features(pixel_values=pixels).pooler_output
    patches = torch.from_numpy(np.stack([to_patches(image) for image in images])).float() / 255
    order = torch.randperm(64)
    places = order.expand(3, -1)
    assert_close(embed_patches(model, patches[:, order], places), expected, terms(model.config.vision_config, 64))
    dropped = embed_patches(model, patches, torch.arange(64).expand(3, -1), torch.tensor([True, False, True]))
    assert_close(dropped[1], expected[1], terms(model.config.vision_config, 64))
    assert largest_difference(dropped[0], expected[0]) > 1e-4


@torch.inference_mode()
def test_caption_pass_agrees_with_transformers(model: CLIPModel) -> None:
    texts = ["a photo of my dog , 2014", "vintage postcard , cute rhinoceros beside one anchor in summer", "bee"]
    batch = clip_tokenizer()(texts, padding=True, return_tensors="pt")
    expected = model.get_text_features(**batch).pooler_output
    ids, lengths = _token_batch(texts)
    assert [row[:n].tolist() for row, n in zip(ids, lengths, strict=True)] == [
        clip_tokenizer()(text)["input_ids"] for text in texts
    ]
    assert_close(embed_captions(model, ids, lengths), expected, terms(model.config.text_config, ids.shape[1]))


def test_loss_is_clips() -> None:
    image, text = torch.randn(5, 8), torch.randn(5, 8)
    scale = torch.tensor(1.3)
    a, b = (x / x.norm(dim=-1, keepdim=True) for x in (image, text))
    logits = np.exp(1.3) * (a @ b.T).numpy()
    rows = [np.log(np.exp(logits[i]).sum()) - logits[i, i] for i in range(5)]
    columns = [np.log(np.exp(logits[:, i]).sum()) - logits[i, i] for i in range(5)]
    expected = (np.mean(rows) + np.mean(columns)) / 2
    assert_close(contrastive_loss(image, text, scale), expected, 3 * 8 + 2 * 5, scale=float(np.abs(logits).max()))


def test_sigmoid_loss_is_siglips() -> None:
    image, text = torch.randn(5, 8), torch.randn(5, 8)
    scale, bias = torch.tensor(1.3), torch.tensor(-2.0)
    a, b = (x / x.norm(dim=-1, keepdim=True) for x in (image, text))
    logits = np.exp(1.3) * (a @ b.T).numpy() - 2
    signs = np.where(np.eye(5, dtype=bool), 1, -1)
    expected = np.log1p(np.exp(-signs * logits)).sum() / 5
    assert_close(sigmoid_loss(image, text, scale, bias), expected, 3 * 8 + 25, scale=float(np.abs(logits).max()))


def test_mirrored_patches_are_those_of_the_mirrored_image() -> None:
    image = Scenes("train", size=64, objects=(1, 1))[0].image
    mirrored = mirror_patches(to_patches(image)[None], 4)[0]
    assert (mirrored == to_patches(image[:, ::-1])).all()


def test_full_scenes_are_mirrored_with_their_places(pool: Path) -> None:
    batches = Batches(replace(BRIEF, stages=(BRIEF.stages[1],)), pool)
    (patches, places), _ = batches.__call__(0)[0]
    rng = np.random.default_rng((0, 0))
    chosen = rng.integers(len(batches.full), size=8)
    rng.random((8, 64))
    flipped = rng.random(8) < 0.5
    assert flipped.any()
    assert not flipped.all()
    for row, number in enumerate(chosen):
        image, _, _ = batches.full.scenes.paint(int(number))
        whole = to_patches(image[:, ::-1] if flipped[row] else image)
        assert (patches[row].numpy() == whole[places[row]]).all()


@pytest.mark.parametrize("loss", ["clip", pytest.param("siglip", marks=pytest.mark.slow)])
def test_a_broken_run_goes_on_bit_for_bit(loss: Loss, tmp_path: Path, pool: Path) -> None:
    recipe = replace(BRIEF, loss=loss)
    whole = run(tmp_path / "whole", pool, recipe)
    whole.train()
    broken = run(tmp_path / "broken", pool, recipe)
    broken.train(until=1)
    broken = run(tmp_path / "broken", pool, recipe)
    assert broken.step == 1
    broken.train(until=3)
    broken = run(tmp_path / "broken", pool, recipe)
    broken.train()
    assert broken.step == whole.step == BRIEF.steps
    for one, two in zip(whole.model.parameters(), broken.model.parameters(), strict=True):
        assert torch.equal(one, two)
    assert torch.equal(broken.bias, whole.bias)
    assert (whole.bias.item() != SIGLIP_START[1]) == (loss == "siglip")


def test_an_interrupted_run_keeps_what_it_reached(tmp_path: Path, pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = run(tmp_path / "run", pool)
    advance = trainer._advance

    def stop(batch: object) -> float:
        if trainer.step == 2:
            raise KeyboardInterrupt
        return advance(batch)

    monkeypatch.setattr(trainer, "_advance", stop)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert run(tmp_path / "run", pool).step == 2


def test_another_recipe_is_refused(tmp_path: Path, pool: Path) -> None:
    run(tmp_path / "run", pool).train(until=1)
    with pytest.raises(InputError, match="another recipe"):
        run(tmp_path / "run", pool, replace(BRIEF, seed=1))


def test_rate_warms_up_and_ends_at_zero() -> None:
    recipe = Recipe()
    assert recipe.rate(0) < recipe.rate(recipe.warmup // 2) < recipe.rate(recipe.warmup) == recipe.learning_rate
    assert recipe.rate(recipe.steps - 1) < 1e-3 * recipe.learning_rate
    assert recipe.stage(0).share == 0
    assert recipe.stage(recipe.steps - 1) == recipe.stages[-1]


def test_an_interrupted_or_foreign_pool_is_painted_anew(tmp_path: Path) -> None:
    world = Scenes("train", size=64, objects=(1, 1))
    first = ScenePool(tmp_path, world, 3)
    card = next(tmp_path.glob("*.json"))
    card.unlink()
    again = ScenePool(tmp_path, world, 3)
    assert (np.asarray(again.patches) == np.asarray(first.patches)).all()
    other = ScenePool(tmp_path, Scenes("train", size=64, objects=(1, 1), styles=("noto",)), 3)
    assert (np.asarray(other.patches) != np.asarray(first.patches)).any() or other.labels == first.labels
    assert len(other) == 3
    assert (other.patches[2] == to_patches(other.scenes.paint(2)[0])).all()
