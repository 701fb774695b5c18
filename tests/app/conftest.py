"""Images, an adapter and a pool for the page's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image

import ttd
from ttd.app.models import ModelPool, PageChoices
from ttd.scenes import Scene, Scenes


@pytest.fixture(scope="session")
def scene() -> Scene:
    """A lion and a couch on snow; the caption names both and a turtle that is not there."""
    return Scenes("test", seed=1)[17]


@pytest.fixture(scope="session")
def image(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The scene as a file."""
    path = tmp_path_factory.mktemp("images") / "scene.png"
    Image.fromarray(scene.image).save(path)
    return str(path)


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LoRA of mini, strong enough to change its maps."""
    folder = tmp_path_factory.mktemp("adapters") / "changed"
    encoder = ttd.load("mini").encoder
    model = get_peft_model(encoder.backbone, LoraConfig(r=4, lora_alpha=8, target_modules=encoder.lora_targets()))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    return folder


def new_pool(adapter: Path) -> ModelPool:
    """mini, with and without an adapter; nothing is loaded yet."""
    choices = PageChoices.of(["mini"], [str(adapter)])
    return ModelPool(choices, lambda name, adapter: ttd.load(name, adapter=adapter))


@pytest.fixture(scope="session")
def pool(adapter: Path) -> ModelPool:
    """`new_pool`, shared: nothing in it changes but what it remembers."""
    return new_pool(adapter)
