"""SAM-HQ on a small random model: prompts against transformers' own forward, and what refine does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.tiny_models import tiny_sam_model
from tests.tolerance import (
    PIXELS,
    assert_close,
    assert_same_decisions,
    float_tolerance,
    largest_difference,
    tower,
)
from ttd.errors import InputError, ModelError
from ttd.refine import SAMRefiner
from ttd.refine.sam import SAMEmbedding, SAMPrediction, connected_parts

# Two blocks, then the neck's two convolutions with their norms.
ENCODED = tower(blocks=2, width=32, tokens=64, first=PIXELS) + 9 * 32 + 3 * 32
LONGEST = 9 * 32  # the longest sum of a layer, but for the first
NOISE = 1e-5


@pytest.fixture(scope="module")
def refiner() -> SAMRefiner:
    return SAMRefiner(tiny_sam_model())


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)


@pytest.fixture(scope="module")
def noisy() -> list[SAMRefiner]:
    """The same model with every weight changed by about NOISE of itself, four times."""
    found = []
    for seed in range(4):
        model, draw = tiny_sam_model(), torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1 + NOISE * torch.randn(parameter.shape, generator=draw))
        found.append(SAMRefiner(model))
    return found


def assert_same_answers(
    found: SAMPrediction, logits: Any, scores: Any, noisy: list[SAMRefiner], ask: Callable[[SAMRefiner], SAMPrediction]
) -> None:
    """Logits and scores of each prompt are as close as roundings in every layer leave them.

    The random weights are so large that attention jumps between places: one prompt of twenty multiplies an error by
    more than a hundred. So what errors of all layers together do to each answer is measured, far above the roundings,
    with weights that are a little wrong; roundings do the same, smaller by eps * sqrt(LONGEST) to NOISE.
    """
    moved = [ask(model) for model in noisy]
    for i in range(len(logits)):
        for name, wanted in (("logits", logits[i]), ("scores", scores[i])):
            change = max(largest_difference(getattr(other, name)[i], wanted) for other in moved)
            assert change < 0.2 * float(np.abs(logits[i]).max())  # no fault would be seen beside more
            assert_close(getattr(found, name)[i], wanted, LONGEST, scale=change / NOISE)


def processed(image: np.ndarray, **prompts: Any) -> dict[str, torch.Tensor]:
    """transformers' own preparation of an image and prompts, for the small model's square."""
    from transformers import SamHQProcessor
    from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

    pil = SamImageProcessorPil(size={"longest_edge": 128}, pad_size={"height": 128, "width": 128})
    return dict(SamHQProcessor(pil)(Image.fromarray(image), return_tensors="pt", **prompts))


def own_forward(refiner: SAMRefiner, inputs: dict[str, torch.Tensor], **options: Any) -> Any:
    names = ("pixel_values", "input_points", "input_labels", "input_boxes", "input_masks")
    given = {name: inputs[name] for name in names if name in inputs}
    given = {name: v.float() if v.is_floating_point() else v for name, v in given.items()}
    with torch.inference_mode():
        return refiner.model(**given, **options)


@pytest.mark.parametrize("size", [(60, 90), (128, 128), (301, 47), (1, 1), (3, 500)])
def test_encodes_as_transformers_prepares(refiner: SAMRefiner, size: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    embedding = refiner.encode(image)
    inputs = processed(image)
    features, early = refiner.model.get_image_embeddings(inputs["pixel_values"])
    assert embedding.size == size
    assert list(embedding.resized) == inputs["reshaped_input_sizes"][0].tolist()
    assert_close(embedding.features, features, ENCODED)
    assert_close(embedding.early, early[0], ENCODED)


@pytest.mark.parametrize("multimask", [False, True])
def test_boxes_and_points_equal_transformers_forward(
    refiner: SAMRefiner, noisy: list[SAMRefiner], image: np.ndarray, multimask: bool
) -> None:
    boxes = [[5.0, 10.0, 50.0, 40.0], [0.0, 0.0, 89.0, 59.0], [30.0, 20.0, 30.0, 20.0]]
    points = [[[10.0, 12.0], [45.0, 30.0]], [[80.0, 50.0], [0.0, 0.0]], [[30.0, 20.0], [89.0, 59.0]]]
    labels = [[1, 0], [1, 1], [1, 0]]
    inputs = processed(image, input_boxes=[boxes], input_points=[points], input_labels=[labels])
    wanted = own_forward(refiner, inputs, multimask_output=multimask)
    got = refiner.predict(refiner.encode(image), points, labels, boxes, multimask=multimask)
    ask = lambda model: model.predict(model.encode(image), points, labels, boxes, multimask=multimask)  # noqa: E731
    assert_same_answers(got, wanted.pred_masks[0, :, 0].numpy(), wanted.iou_scores[0, :, 0].numpy(), noisy, ask)
    assert np.ptp(got.logits, axis=0).max() > 0.1  # the prompts do get different answers


@pytest.mark.parametrize("with_box", [True, False])
def test_mask_prompt_equals_transformers_forward(
    refiner: SAMRefiner, noisy: list[SAMRefiner], image: np.ndarray, with_box: bool
) -> None:
    mask = torch.randn(1, 1, 32, 32) * 5
    box = [[5.0, 10.0, 50.0, 40.0]]
    inputs = processed(image, **({"input_boxes": [box]} if with_box else {})) | {"input_masks": mask}
    wanted = own_forward(refiner, inputs, multimask_output=False)
    embedding = refiner.encode(image)
    prompt: dict[str, Any] = {"boxes": box if with_box else None, "mask": mask[0, 0].numpy()}
    got = refiner.predict(embedding, **prompt)
    ask = lambda model: model.predict(model.encode(image), **prompt)  # noqa: E731
    assert_same_answers(got, wanted.pred_masks[0, :, 0].numpy(), wanted.iou_scores[0, :, 0].numpy(), noisy, ask)
    without = refiner.predict(embedding, boxes=box)
    assert np.abs(without.logits - got.logits).max() > 0.1


def test_masks_come_back_as_transformers_post_processes(refiner: SAMRefiner, image: np.ndarray) -> None:
    from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

    inputs = processed(image)
    got = refiner.predict(refiner.encode(image), boxes=[[5, 10, 50, 40], [0, 0, 20, 20]])
    pil = SamImageProcessorPil(size={"longest_edge": 128}, pad_size={"height": 128, "width": 128})
    given = [torch.from_numpy(got.logits)[:, None]], inputs["original_sizes"], inputs["reshaped_input_sizes"]
    wanted = pil.post_process_masks(*given)[0]
    assert got.masks.shape == (2, 60, 90)
    assert 0 < got.masks.mean() < 1
    values = pil.post_process_masks(*given, binarize=False)[0][:, 0]
    enlarged = float_tolerance(torch.float32, 2 * 4, scale=float(np.abs(got.logits).max()))  # twice by four neighbours
    assert_same_decisions(got.masks, wanted[:, 0].numpy(), values, enlarged)


def test_many_prompts_answer_as_one_by_one(refiner: SAMRefiner, noisy: list[SAMRefiner], image: np.ndarray) -> None:
    embedding = refiner.encode(image)
    boxes = np.random.default_rng(2).integers(0, 60, (19, 4)).astype(float)
    together = refiner.predict(embedding, boxes=boxes)
    alone = [refiner.predict(embedding, boxes=box) for box in boxes]  # another shape of the batch, another kernel
    logits, scores = (np.concatenate([getattr(one, name) for one in alone]) for name in ("logits", "scores"))
    ask = lambda model: model.predict(model.encode(image), boxes=boxes)  # noqa: E731
    assert_same_answers(together, logits, scores, noisy, ask)


class Recorder(SAMRefiner):
    """Answers from a table instead of the model; keeps what it was asked."""

    def __init__(self, refiner: SAMRefiner, answer: Any) -> None:
        super().__init__(refiner.model)
        self.answer, self.boxes, self.prompts, self.encoded = answer, [], [], 0

    def encode(self, image: Any) -> SAMEmbedding:
        self.encoded += 1
        return super().encode(image)

    def predict(self, embedding: SAMEmbedding, *_: Any, boxes: Any, mask: Any, **__: Any) -> SAMPrediction:
        self.boxes += [tuple(int(v) for v in box) for box in boxes]
        self.prompts += list(mask)
        drawn, scores = zip(*(self.answer(tuple(int(v) for v in box)) for box in boxes), strict=True)
        return SAMPrediction(np.stack(drawn), np.array(scores, np.float32), np.asarray(mask))


def filled(box: tuple[int, int, int, int], size: tuple[int, int] = (60, 90)) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[box[1] : box[3] + 1, box[0] : box[2] + 1] = True
    return mask


def test_asks_once_per_part_and_unites_the_answers(refiner: SAMRefiner, image: np.ndarray) -> None:
    first, second, third = (3, 4, 20, 18), (40, 30, 89, 59), (60, 2, 60, 2)
    recorder = Recorder(refiner, lambda box: (filled(box), box[0] / 100))
    masks = np.stack([filled(first) | filled(second), filled(third)])
    out, scores = recorder.redraw(image, masks)
    assert recorder.encoded == 1
    assert recorder.boxes == [first, second, third]
    assert np.array_equal(out, masks)
    assert_close(scores, [0.4, 0.6], 2)


def test_the_mask_prompt_lies_where_the_part_does(refiner: SAMRefiner, image: np.ndarray) -> None:
    box = (45, 30, 89, 59)  # the lower right quarter, touching the border
    recorder = Recorder(refiner, lambda box: (filled(box), 0.5))
    recorder.redraw(image, filled(box)[None])
    (prompt,) = recorder.prompts
    assert prompt.shape == (32, 32)
    # 60x90 becomes 85x128 of 128x128: 21.25 rows of the low-resolution square; below them is padding.
    assert (prompt[12:21, 17:] > 9).all()
    assert (prompt[:10] < -9).all()
    assert (prompt[:, :15] < -9).all()
    assert (prompt[22:] == -10).all()


def test_drops_small_parts_but_never_the_largest(refiner: SAMRefiner, image: np.ndarray) -> None:
    recorder = Recorder(refiner, lambda box: (filled(box), 0.5))
    masks = np.stack([filled((0, 0, 19, 19)) | filled((50, 50, 51, 51)), filled((70, 9, 70, 9))])
    out, _ = recorder.redraw(image, masks, min_part=0.05)
    assert recorder.boxes == [(0, 0, 19, 19), (70, 9, 70, 9)]
    assert out[1].sum() == 1


def test_overlaps_go_to_the_higher_score(refiner: SAMRefiner, image: np.ndarray) -> None:
    low, high, equal = (0, 0, 30, 30), (20, 20, 50, 50), (45, 45, 70, 55)
    answers = {low: 0.3, high: 0.8, equal: 0.8}
    masks = np.stack([filled(low), filled(high), filled(equal)])
    recorder = Recorder(refiner, lambda box: (filled(box), answers[box]))
    out, scores = recorder.redraw(image, masks)
    assert np.array_equal(out[1], masks[1])
    assert np.array_equal(out[0], masks[0] & ~masks[1])
    assert np.array_equal(out[2], masks[2] & ~masks[1])
    assert_close(scores, [0.3, 0.8, 0.8], 2)
    kept, _ = recorder.redraw(image, masks, exclusive=False)
    assert np.array_equal(kept, masks)


def test_refines_with_the_model_itself(refiner: SAMRefiner, image: np.ndarray) -> None:
    masks = np.stack([filled((0, 0, 40, 59)), np.zeros((60, 90), bool), filled((89, 59, 89, 59))])
    out, scores = refiner.redraw(Image.fromarray(image), masks)
    again, _ = refiner.redraw(refiner.encode(image), masks)
    assert out.shape == masks.shape
    assert out.dtype == bool
    assert out.sum(0).max() <= 1
    assert out[0].any()
    assert not out[1].any()
    assert scores[1] == 0
    assert np.array_equal(out, again)  # the same model asked the same


def test_no_masks_and_one_pixel_images(refiner: SAMRefiner) -> None:
    image = np.zeros((1, 1, 3), np.uint8)
    out, scores = refiner.redraw(image, np.ones((1, 1, 1), bool))
    assert out.shape == (1, 1, 1)
    assert np.isfinite(scores).all()
    out, scores = refiner.redraw(image, np.zeros((0, 1, 1), bool))
    assert out.shape == (0, 1, 1)
    assert scores.shape == (0,)


def test_connected_parts_join_diagonals_and_cover_the_mask() -> None:
    mask = np.random.default_rng(3).random((20, 30)) > 0.8
    parts = list(connected_parts(mask))
    assert np.array_equal(np.sum([part for _, part in parts], axis=0), mask.astype(int))
    for (left, top, right, bottom), part in parts:
        rows, columns = np.nonzero(part)
        assert (left, top, right, bottom) == (columns.min(), rows.min(), columns.max(), rows.max())
    assert len(list(connected_parts(np.eye(5, dtype=bool)))) == 1
    assert not list(connected_parts(np.zeros((4, 4), bool)))


def test_loads_a_folder_and_answers_alike(
    refiner: SAMRefiner, noisy: list[SAMRefiner], image: np.ndarray, tmp_path: Path
) -> None:
    refiner.model.save_pretrained(tmp_path)
    loaded = SAMRefiner.from_pretrained(tmp_path, device="cpu")
    box = [5, 10, 50, 40]
    got, wanted = (model.predict(model.encode(image), boxes=box) for model in (loaded, refiner))
    ask = lambda model: model.predict(model.encode(image), boxes=box)  # noqa: E731
    assert_same_answers(got, wanted.logits, wanted.scores, noisy, ask)


def test_refuses_what_is_no_sam_hq(refiner: SAMRefiner, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file
    from transformers import CLIPConfig

    with pytest.raises(ModelError, match="folder"):
        SAMRefiner.from_pretrained(tmp_path / "nothing")
    CLIPConfig().save_pretrained(tmp_path / "clip")
    with pytest.raises(ModelError, match="'clip' model"):
        SAMRefiner.from_pretrained(tmp_path / "clip")
    refiner.model.save_pretrained(tmp_path / "holes")
    weights = tmp_path / "holes/model.safetensors"
    tensors = load_file(weights)
    save_file({k: v for k, v in tensors.items() if "hq_token" not in k}, weights, {"format": "pt"})
    with pytest.raises(ModelError, match="lacks"):
        SAMRefiner.from_pretrained(tmp_path / "holes")
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"model\.safetensors is damaged or cut off"):
        SAMRefiner.from_pretrained(tmp_path / "holes")
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with pytest.raises(ModelError, match="git lfs pull"):
        SAMRefiner.from_pretrained(tmp_path / "holes")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, r"a quantised model \(gptq\)"),
        ({"vision_config": "large"}, "config.json cannot be used .*vision_config"),
    ],
)
def test_whatever_transformers_raises_is_one_sentence(
    refiner: SAMRefiner, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    refiner.model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelError, match=said) as error:
        SAMRefiner.from_pretrained(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "prompts",
    [
        {},
        {"labels": [1]},
        {"points": [[1, 2, 3]]},
        {"points": [[1, 2]], "labels": [2]},
        {"points": [[1, 2]], "labels": [1, 0]},
        {"points": np.zeros((1, 0, 2))},
        {"boxes": [[1, 2, 3, float("nan")]]},
        {"boxes": np.zeros((0, 4))},
        {"boxes": [[1, 2, 3, 4], [1, 2, 3, 4]], "points": [[[1, 2]]]},
        {"mask": np.zeros((60, 90))},
    ],
)
def test_refuses_bad_prompts(refiner: SAMRefiner, prompts: dict[str, Any]) -> None:
    embedding = refiner.encode(np.zeros((60, 90, 3), np.uint8))
    with pytest.raises(InputError):
        refiner.predict(embedding, **prompts)


@pytest.mark.parametrize("masks", [np.zeros((1, 60, 90)), np.zeros((60, 90), bool), np.zeros((1, 90, 60), bool)])
def test_refuses_bad_masks(refiner: SAMRefiner, image: np.ndarray, masks: np.ndarray) -> None:
    with pytest.raises(InputError):
        refiner.redraw(image, masks)


def test_refuses_bad_images_and_shares(refiner: SAMRefiner, image: np.ndarray) -> None:
    for bad in (np.zeros((4, 5, 3)), np.zeros((4, 5), np.uint8), np.zeros((0, 5, 3), np.uint8)):
        with pytest.raises(InputError):
            refiner.encode(bad)
    with pytest.raises(InputError):
        refiner.redraw(image, filled((0, 0, 5, 5))[None], min_part=1.5)
