"""SAM-HQ asked with points: which points of a map, and what becomes of the answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.tiny_models import tiny_clip, tiny_sam_model
from ttd.encoders.calibration import Calibration
from ttd.inference.masks import pixel_labels
from ttd.inference.options import Options
from ttd.methods.clip_surgery import points
from ttd.model import TTD
from ttd.refine.sam_points import SAMPointsRefiner

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8))


@pytest.fixture(scope="module")
def refiner() -> SAMPointsRefiner:
    return SAMPointsRefiner(tiny_sam_model())


def test_points_are_those_of_the_similarity(refiner: SAMPointsRefiner, monkeypatch: pytest.MonkeyPatch) -> None:
    sim = 0.2 + 0.1 * torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
    asked: list[dict[str, Any]] = []
    predict = refiner.predict

    def spy(embedding: Any, spots: Any, labels: Any, **more: Any) -> Any:
        asked.append({"points": spots, "labels": labels})
        return predict(embedding, spots, labels, **more)

    monkeypatch.setattr(refiner, "predict", spy)
    found = refiner.refine_each(IMAGE, Calibration(10.0, 0.25)(sim), 0.0)
    assert len(asked) == 2
    for one, prompt, mask in zip(sim, asked, found, strict=True):
        spots, labels = points(one, (60, 90))
        assert np.array_equal(prompt["points"][0], spots.numpy())
        assert np.array_equal(prompt["labels"][0], labels.numpy())
        assert 0 < labels.sum() == len(labels) / 2
        answer = predict(refiner.encode(IMAGE), points=spots.numpy(), labels=labels.numpy(), multimask=True)
        assert np.array_equal(mask.numpy() > 0, answer.masks[0])


def test_maps_that_are_nowhere_high_or_everywhere_equal_stay_empty(refiner: SAMPointsRefiner) -> None:
    maps = torch.rand(3, 6, 8, generator=torch.Generator().manual_seed(1))
    maps[1] *= 0.4
    maps[2] = 0.9
    found = refiner.refine(IMAGE, maps, 0.5)
    assert found.shape == (3, 60, 90)
    assert not found[1:].any()
    whole = refiner.refine(IMAGE, maps[:2], None)
    assert (whole.sum(0) == 1).all()
    undrawn = ~(refiner.refine_each(IMAGE, maps[:2], 0.0) > 0).any(0)
    labels = torch.from_numpy(pixel_labels(maps[:2], (60, 90), None).astype(np.int64))
    assert torch.equal(whole.argmax(0)[undrawn], labels[undrawn])


def test_it_goes_with_clip_surgery(tmp_path: Path) -> None:
    tiny_sam_model().save_pretrained(tmp_path)
    options = Options(size=64, templates="none", refine="sam-points", sam_model=str(tmp_path), background=False)
    found = TTD(tiny_clip(method="clip-surgery")).segment(IMAGE, ["dog", "grass"], options).label_map
    assert found.shape == (60, 90)
    assert set(np.unique(found)) <= {0, 1}
