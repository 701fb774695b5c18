"""The contract of refiners: those of the package, and one from outside."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ttd
from tests.colour_encoder import ColourEncoder
from tests.extras import needs
from tests.installed import install, run_with
from tests.tiny_models import tiny_sam_model
from ttd.errors import InputError
from ttd.inference.masks import pixel_labels
from ttd.inference.options import Options
from ttd.refine import Refiner, SAMRefiner, crf, register_refiner
from ttd.refine.base import working_image
from ttd.refine.crf import CRFRefiner
from ttd.refine.pamr import PAMRRefiner
from ttd.registry import REFINERS

PAGE = Path(__file__).parents[2] / "docs/refinement.md"


class Eraser(SAMRefiner):
    """Stands in for SAM-HQ: keeps the upper half of the first mask and all of the others."""

    def __init__(self) -> None:
        super().__init__(tiny_sam_model())

    def redraw(self, image, masks, **options):  # type: ignore[no-untyped-def, override]
        assert masks.shape[1:] == (image.height, image.width)
        masks = masks.copy()
        masks[0, image.height // 2 :] = False
        return masks, np.ones(len(masks), np.float32)


def photo(height: int = 20, width: int = 40) -> Image.Image:
    values = np.zeros((height, width, 3), np.uint8)
    values[:, : width // 2] = (255, 0, 0)
    return Image.fromarray(values)


def test_large_images_are_refined_at_a_bounded_size() -> None:
    assert working_image(Image.new("RGB", (3000, 10))).size == (1024, 3)
    assert working_image(Image.new("RGB", (1, 9000))).size == (1, 1024)
    small = Image.new("RGB", (100, 50))
    assert working_image(small) is small


def test_what_sam_leaves_over_is_background_or_keeps_its_label() -> None:
    maps = torch.zeros(2, 1, 2)
    maps[0, 0, 0] = maps[1, 0, 1] = 1.0
    refiner = Eraser()
    labels = pixel_labels(refiner.refine(photo(), maps, 0.5), (20, 40), 0.5)
    assert (labels[0, 0], labels[-1, 0], labels[-1, -1]) == (1, 0, 2)
    labels = pixel_labels(refiner.refine(photo(), maps, None), (20, 40), None)
    assert (labels[0, 0], labels[-1, 0], labels[-1, -1]) == (0, 0, 1)
    masks = refiner.refine_each(photo(), maps, 0.5)
    assert (masks[0, 0, 0], masks[0, -1, 0]) == (1, 0)


@pytest.mark.parametrize("background", [0.2, 0.5, 0.8])
def test_crf_tells_the_threshold_apart(background: float) -> None:
    needs("crf", "pydensecrf")
    maps = torch.rand(3, 5, 10, generator=torch.Generator().manual_seed(0))
    refined = CRFRefiner().refine(photo(), maps, background)
    assert refined.shape == (3, 20, 40)
    assert refined.min() >= 0
    assert refined.max() <= 1
    values = torch.nn.functional.interpolate(maps[None], (20, 40), mode="bilinear")[0].numpy()
    marginals = crf(np.array(photo()), values, background=background)
    every = np.concatenate([1 - marginals.sum(0, keepdims=True), marginals])
    ordered = np.sort(every, 0)
    clear = ordered[-1] - ordered[-2] > 1e-4  # the library's own rounding decides the rest
    assert np.array_equal(pixel_labels(refined, (20, 40), background)[clear], every.argmax(0)[clear])


def test_pamr_looks_at_a_quarter_of_what_the_encoder_sees() -> None:
    encoder = ColourEncoder()
    refiner = PAMRRefiner.create(encoder, Options(size=64))
    assert refiner.refine(photo(), torch.rand(2, 5, 10), 0.5).shape == (2, 16, 32)


def test_a_refiner_from_outside_answers_every_question() -> None:
    (example,) = [
        block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.S) if "class " in block
    ]
    exec(example, {})
    assert "smooth" in REFINERS.names()
    model = ttd.TTD(ColourEncoder())
    for refine in ("none", "smooth"):
        options = Options(refine=refine)
        assert model.segment(photo(), ["red", "blue"], options).label_map.shape == (20, 40)
        assert model.heatmaps(photo(), ["red"], options).shape == (1, 20, 40)
        assert model.caption_mask(photo(), "red", options=options).shape == (20, 40)
    plain, smooth = (model.heatmaps(photo(), ["red"], Options(refine=name)) for name in ("none", "smooth"))
    assert not np.array_equal(plain, smooth)


@pytest.mark.slow
def test_a_refiner_of_another_package_is_a_choice_of_the_command_line(tmp_path: Path) -> None:
    (example,) = [
        block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.S) if "class " in block
    ]
    site = install(tmp_path / "site", "smooth_refiner", example, "ttd.refiners", "smooth")
    code = """
from click.testing import CliRunner
from PIL import Image
from ttd.cli import cli
Image.new("RGB", (40, 20), "red").save("a.png")
for arguments in (["segment", "--help"], ["heatmap", "a.png", "dog", "--refine", "smooth", "--out", "o.png"]):
    done = CliRunner().invoke(cli, arguments, prog_name="ttd")
    assert done.exit_code == 0, done.output
    assert "--help" not in arguments or "smooth" in done.output
"""
    done = run_with(site, code, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    alone = run_with(tmp_path, code, tmp_path)
    assert "AssertionError" in alone.stderr


def test_names_that_cannot_be() -> None:
    with pytest.raises(InputError, match="unknown refinement 'paint': choose from none, auto, pamr, crf, sam"):
        Options(refine="paint")
    for name in ("none", "auto", "crf"):
        with pytest.raises(InputError, match="registered already"):

            @register_refiner(name)
            class Other(Refiner):
                pass
