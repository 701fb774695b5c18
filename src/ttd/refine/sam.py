"""SAM-HQ ("Segment Anything in High Quality") asked with our own masks, as in the paper's appendix B.5.

Every connected part of a mask becomes a box and a mask prompt; what SAM-HQ draws for the parts of a class is
united. The appendix leaves open how the mask is fed and who gets a pixel that two classes claim: here the
mask is fed as constant logits, and the pixel goes to the prediction with the higher score. The image is
encoded once for all prompts. Coordinates are (x, y) in pixels of the image, counted from the top-left
pixel's centre.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor

from ttd.errors import InputError
from ttd.inference.device import find_device
from ttd.refine.base import Refiner, register_refiner, working_image

if TYPE_CHECKING:
    from ttd.encoders.base import Encoder
    from ttd.inference.options import Options

# SAM and SAM-HQ normalise with ImageNet's statistics, on the 0..255 scale.
_MEAN = np.array([123.675, 116.28, 103.53], dtype=np.float32)
_STD = np.array([58.395, 57.12, 57.375], dtype=np.float32)
# SAM-HQ's own logits lie within about -20..20; a mask prompt stands for a firm but not final opinion.
_PROMPT_LOGIT = 10.0
_PROMPTS_AT_ONCE = 8


@dataclass(frozen=True)
class SAMEmbedding:
    """An image as SAM-HQ sees it; made by `SAMRefiner.encode`, asked by `SAMRefiner.predict`."""

    size: tuple[int, int]  # H, W of the image
    resized: tuple[int, int]  # its height and width in the top-left corner of the model's square input
    features: Tensor  # [1,C,g,g]
    early: Tensor  # [1,g,g,D], first block with global attention: the detail that the HQ token uses


@dataclass(frozen=True)
class SAMPrediction:
    """Answers to P prompts."""

    masks: NDArray[np.bool_]  # [P,H,W] at the image's size
    scores: NDArray[np.float32]  # [P], the model's own estimate of each mask's IoU
    logits: NDArray[np.float32]  # [P,4g,4g] of the square input: a mask prompt for the next question


@register_refiner("sam")
class SAMRefiner(Refiner):
    """Refines maps and masks with a `transformers.SamHQModel`, and answers points, boxes and masks one by one."""

    def __init__(self, model: Any) -> None:
        """Takes a `SamHQModel` as it is (device, dtype) and sets it to evaluation."""
        self.model = model.eval()
        self.side = int(model.config.vision_config.image_size)
        self.low_side = 4 * (self.side // int(model.config.vision_config.patch_size))

    @classmethod
    def create(cls, encoder: Encoder, options: Options) -> SAMRefiner:
        """The SAM-HQ model that the options name, on the encoder's device."""
        return cls.from_pretrained(options.sam_model or "sam-hq", encoder.device)

    def refine(self, image: Image.Image, maps: Tensor, background: float | None) -> Tensor:
        """See `Refiner`: masks of 0 and 1 at the working size.

        Pixels that SAM-HQ gives to nobody become background; without a background they keep their label.
        """
        from ttd.inference.masks import pixel_labels

        small = working_image(image)
        labels = pixel_labels(maps, (small.height, small.width), background)
        first = 0 if background is None else 1
        numbers = np.arange(first, first + len(maps), dtype=np.uint16)
        before = labels == numbers[:, None, None]
        drawn, _ = self.redraw(small, before)
        if background is None:
            drawn |= before & ~drawn.any(0)
        return torch.from_numpy(drawn).float()

    def refine_each(self, image: Image.Image, maps: Tensor, background: float) -> Tensor:
        """See `Refiner`; the image is encoded once for all maps."""
        from ttd.inference.masks import pixel_values

        small = working_image(image)
        masks = pixel_values(maps, (small.height, small.width)) >= background
        return torch.from_numpy(self.redraw(small, masks, exclusive=False)[0]).float()

    @classmethod
    def from_pretrained(cls, name: str | Path = "sam-hq", device: str | torch.device | None = None) -> SAMRefiner:
        """Loads a SAM-HQ model, in float32.

        Args:
            name: a short name, hub id, or a folder in the format of `SamHQModel.save_pretrained`.
            device: where it runs; None takes CUDA if there is one, else the CPU.

        Raises:
            ModelError: nothing there, another kind of model, or parameters missing.
        """
        from transformers import SamHQConfig, SamHQModel

        from ttd.encoders.loading.pretrained import SAM_ANCHOR, load_pretrained, read_config
        from ttd.encoders.registry import find_folder

        folder = find_folder(name, "refiner", [SamHQConfig.model_type])
        model = load_pretrained(SamHQModel, folder, read_config(folder, SamHQConfig), anchor=SAM_ANCHOR)
        return cls(model.to(find_device(device)))

    @torch.inference_mode()
    def encode(self, image: Image.Image | NDArray[np.uint8]) -> SAMEmbedding:
        """Encodes an image (PIL, or uint8 [H,W,3]) once for any number of prompts."""
        rgb = _image(image)
        width, height = rgb.size
        scale = self.side / max(height, width)
        resized = (max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5)))
        pixels = np.asarray(rgb.resize(resized[::-1], Image.Resampling.BILINEAR), dtype=np.float32)
        pixels = (pixels - _MEAN) / _STD
        square = F.pad(
            torch.from_numpy(pixels).permute(2, 0, 1)[None],
            (0, self.side - resized[1], 0, self.side - resized[0]),
        )
        features, early = self.model.get_image_embeddings(square.to(self.model.device, self.model.dtype))
        return SAMEmbedding((height, width), resized, features, early[0])

    @torch.inference_mode()
    def predict(
        self,
        embedding: SAMEmbedding,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        boxes: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        multimask: bool = False,
    ) -> SAMPrediction:
        """One mask for each of P prompts; a prompt is any combination of points, a box and a mask.

        Args:
            embedding: from `encode`.
            points: [P,K,2], or [K,2] for one prompt; (x, y) in pixels of the image.
            labels: [P,K] or [K]: 1 inside the object, 0 outside; all 1 when left out.
            boxes: [P,4] or [4]: left, top, right, bottom in pixels of the image.
            mask: [P,4g,4g] or [4g,4g]: logits as in `SAMPrediction.logits`.
            multimask: let the model draw three masks and keep the one with the highest score: for a single
                point, which often leaves open whether a part or the whole is meant.

        Raises:
            InputError: no prompt, shapes that do not fit together, values that are not finite.
        """
        prompts = self._prompts(embedding, points, labels, boxes, mask)
        answers = []
        for start in range(0, len(next(iter(prompts.values()))), _PROMPTS_AT_ONCE):
            chunk = {name: value[start : start + _PROMPTS_AT_ONCE] for name, value in prompts.items()}
            count = len(next(iter(chunk.values())))
            # Prompts go along the batch: along SamHQModel's own prompt axis they could not have a mask each.
            answer = self.model(
                image_embeddings=embedding.features.expand(count, -1, -1, -1),
                intermediate_embeddings=[embedding.early.expand(count, -1, -1, -1)],
                multimask_output=multimask,
                **chunk,
            )
            answers.append((answer.pred_masks[:, 0, 0].float(), answer.iou_scores[:, 0, 0].float()))
        logits = torch.cat([low for low, _ in answers])
        scores = torch.cat([score for _, score in answers])
        masks = np.stack([self._at_image_size(low, embedding) for low in logits])
        return SAMPrediction(masks, scores.cpu().numpy(), logits.cpu().numpy())

    def redraw(
        self,
        image: Image.Image | NDArray[np.uint8] | SAMEmbedding,
        masks: NDArray[np.bool_],
        *,
        min_part: float = 0.05,
        exclusive: bool = True,
    ) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Redraws masks along the objects that SAM-HQ sees (appendix B.5, Fig. 10).

        Args:
            image: the image (PIL, uint8 [H,W,3]) or its embedding.
            masks: bool [N,H,W], one per class.
            min_part: connected parts (diagonals connect) with less than this share of their class's pixels
                are dropped, 0..1; the largest part always stays.
            exclusive: a pixel in several classes goes to the one whose prediction scores highest (equal
                scores: the first); False keeps overlaps.

        Returns:
            masks bool [N,H,W], and scores float32 [N]: each class's best part. An empty mask stays empty and
            scores 0; a mask may come back empty where SAM-HQ sees nothing.

        Raises:
            InputError: masks that are not boolean or not of the image's size.
        """
        embedding = image if isinstance(image, SAMEmbedding) else self.encode(image)
        if masks.dtype != np.bool_ or masks.ndim != 3 or masks.shape[1:] != embedding.size:
            size = "x".join(map(str, embedding.size))
            raise InputError(
                f"SAM-HQ needs boolean masks [N,H,W] for its {size} image, not {masks.dtype} {list(masks.shape)}."
            )
        if not 0 <= min_part <= 1:
            raise InputError(f"The smallest part's share must be between 0 and 1, not {min_part}.")
        out, scores = np.zeros_like(masks), np.zeros(len(masks), np.float32)
        best, owner = np.full(embedding.size, -np.inf, np.float32), np.full(embedding.size, -1, np.int32)
        for number, class_mask in enumerate(masks):
            found = []
            for drawn, score in self._redraw(embedding, class_mask, min_part):
                found.append(score)
                out[number] |= drawn
                higher = drawn & (score > best)
                best[higher], owner[higher] = score, number
            scores[number] = max(found, default=0.0)
        if exclusive:
            for number in range(len(masks)):
                out[number] = owner == number
        return out, scores

    def _redraw(
        self, embedding: SAMEmbedding, mask: NDArray[np.bool_], min_part: float
    ) -> Iterator[tuple[NDArray[np.bool_], float]]:
        """What SAM-HQ draws for each part of one class's mask [H,W], and its score."""
        parts = list(connected_parts(mask, min_part))
        for start in range(0, len(parts), _PROMPTS_AT_ONCE):
            chunk = parts[start : start + _PROMPTS_AT_ONCE]
            boxes = np.array([box for box, _ in chunk])
            prompts = torch.cat([self._mask_prompt(part, embedding) for _, part in chunk])
            answer = self.predict(embedding, boxes=boxes, mask=prompts.numpy())
            yield from zip(answer.masks, answer.scores.tolist(), strict=True)

    def _mask_prompt(self, part: NDArray[np.bool_], embedding: SAMEmbedding) -> Tensor:
        """Logits [1,4g,4g]: how much of each cell of the low-resolution square the part [H,W] covers."""
        cover = torch.from_numpy(part)[None, None].float()
        cover = F.interpolate(cover, embedding.resized, mode="bilinear", antialias=True)
        cover = F.pad(cover, (0, self.side - embedding.resized[1], 0, self.side - embedding.resized[0]))
        cover = F.adaptive_avg_pool2d(cover, self.low_side)[0]
        return (2 * cover - 1) * _PROMPT_LOGIT

    def _prompts(
        self,
        embedding: SAMEmbedding,
        points: ArrayLike | None,
        labels: ArrayLike | None,
        boxes: ArrayLike | None,
        mask: ArrayLike | None,
    ) -> dict[str, Tensor]:
        """SamHQModel's arguments, prompts along the batch, coordinates in its square input."""
        scale = np.array([embedding.resized[1] / embedding.size[1], embedding.resized[0] / embedding.size[0]])
        prompts: dict[str, NDArray[Any]] = {}
        if points is not None:
            spots = _shaped("points", points, (None, None, 2))
            inside = np.ones(spots.shape[:2]) if labels is None else _shaped("labels", labels, (None, None))
            if inside.shape != spots.shape[:2] or not np.isin(inside, (0, 1)).all():
                raise InputError("SAM-HQ needs one label per point: 1 inside the object, 0 outside.")
            prompts["input_points"] = (spots * scale)[:, None]
            prompts["input_labels"] = inside[:, None]
        elif labels is not None:
            raise InputError("SAM-HQ got labels without points: give both.")
        if boxes is not None:
            prompts["input_boxes"] = (_shaped("boxes", boxes, (None, 4)) * np.tile(scale, 2))[:, None]
        if mask is not None:
            prompts["input_masks"] = _shaped("mask", mask, (None, self.low_side, self.low_side))[:, None]
        if len({len(value) for value in prompts.values()}) != 1 or 0 in next(iter(prompts.values())).shape:
            raise InputError("SAM-HQ needs points, boxes or masks, as many of each kind as of the others.")
        device, dtype = self.model.device, self.model.dtype
        return {name: torch.from_numpy(value).to(device, dtype) for name, value in prompts.items()}

    def _at_image_size(self, logits: Tensor, embedding: SAMEmbedding) -> NDArray[np.bool_]:
        square = F.interpolate(logits[None, None], (self.side, self.side), mode="bilinear")
        inner = square[..., : embedding.resized[0], : embedding.resized[1]]
        full = F.interpolate(inner, embedding.size, mode="bilinear")[0, 0]
        mask: NDArray[np.bool_] = (full > 0).cpu().numpy()
        return mask


def connected_parts(
    mask: NDArray[np.bool_], min_share: float = 0.0
) -> Iterator[tuple[tuple[int, int, int, int], NDArray[np.bool_]]]:
    """The connected parts of a mask [H,W], diagonals included, in the order of their first pixel.

    Parts with less than `min_share` of the mask's pixels are left out, the largest never. Yields for each
    part its box (left, top, right, bottom: its outermost pixels) and its own mask [H,W].
    """
    from scipy import ndimage

    numbers, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    sizes = np.bincount(numbers.ravel())[1:]
    for number, (rows, columns) in enumerate(ndimage.find_objects(numbers), start=1):
        size = sizes[number - 1]
        if size < sizes.max() and size < min_share * sizes.sum():
            continue
        yield (columns.start, rows.start, columns.stop - 1, rows.stop - 1), numbers == number


def _image(image: Image.Image | NDArray[np.uint8]) -> Image.Image:
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise InputError(f"SAM-HQ needs a uint8 image [H,W,3], not {image.dtype} {list(image.shape)}.")
    return Image.fromarray(image)


def _shaped(name: str, values: ArrayLike, shape: tuple[int | None, ...]) -> NDArray[np.float64]:
    """`values` as an array of `shape` (None: any length); a missing first axis (prompts) is added."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == len(shape) - 1:
        array = array[None]
    fits = array.ndim == len(shape) and all(
        want is None or have == want for have, want in zip(array.shape, shape, strict=True)
    )
    if not fits or not np.isfinite(array).all():
        wanted = ",".join("*" if want is None else str(want) for want in shape)
        raise InputError(f"SAM-HQ needs finite {name} of shape [{wanted}], not {list(array.shape)}.")
    return array
