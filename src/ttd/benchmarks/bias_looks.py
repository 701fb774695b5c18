"""Asks models about one caption for the picture of its bias."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ttd.benchmarks.bias_picture import BiasLook, bias_picture
from ttd.benchmarks.bias_set import SingleTagBias, of_record, true_words
from ttd.images import read_image

if TYPE_CHECKING:
    from ttd.model import TTD


def draw(benchmark: SingleTagBias, models: Mapping[str, TTD], number: int) -> Image.Image:
    """The bias of caption `number`, a row for each model under its name."""
    row = benchmark.rows[number]
    words, picture, options = true_words(row), read_image(row.sample.image), benchmark.options["masks"]
    looks = []
    for title, model in models.items():
        maps = model.heatmaps(picture, [row.caption, *words], **options)
        mask = model.caption_mask(picture, row.caption, **options)
        found, score = of_record(benchmark.measure(model, number))
        looks.append(BiasLook(title, maps[0], mask, maps[1:], found, score))
    truth = np.asarray(benchmark.regions_of(next(iter(models.values())), number).any(0))
    return bias_picture(picture, row.words, words, truth, looks)
