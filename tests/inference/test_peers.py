"""`TTD.segment` against the whole `predict` of the public code of NACLIP, SCLIP and ClearCLIP, on the same small model.

The texts' embeddings are given; everything else is ours: resize, windows, features, logits on pixels, PAMR, softmax,
classes, thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.methods.peer import Peer
from ttd.encoders.clip import CLIPEncoder
from ttd.images import opencv_resize
from ttd.inference.dense import DenseMaps
from ttd.inference.options import Options
from ttd.inference.views import encode_views, prepare
from ttd.model import TTD

RUNS = {
    "naclip": ("a_slide", "b_slide", "b_whole"),
    "sclip": ("a_slide", "b_slide", "b_whole"),
    "clearclip": ("a_slide", "b_slide"),
}
CASES = [
    (method, run, refined)
    for method, runs in RUNS.items()
    for run in runs
    for refined in (False, True)
    if not refined or (method != "clearclip" and (method, run) != ("sclip", "b_whole"))
]
LOGITS = 1e-4


class GivenTexts(CLIPEncoder):
    """Texts are numbers: rows of the given embeddings."""

    given: Tensor

    def encode_text(self, texts: Sequence[str], templates: Sequence[str] = ("{}",)) -> Tensor:
        return self.given[[int(text) for text in texts]]


class GivenPeer(Peer):
    """One folder of the reference; its texts are numbers."""

    encoder_class = GivenTexts
    encoder: GivenTexts

    def __init__(self, root: Path, method: str) -> None:
        super().__init__(root, method, method)
        self.method = method
        self.encoder.given = self.text
        # The texts are a tensor's rows here, so nothing is tokenised.
        self.encoder.max_tokens = 10**6

    def options(self, run: str, refined: bool) -> Options:
        """The settings of a run as ours."""
        setting, of = self.settings["runs"][run], self.settings
        # NACLIP's way with the whole image is that of one window, SCLIP's goes to the image's size in one step.
        crop = setting.get("slide_crop", 0) or (2048 if self.method == "naclip" else None)
        pixels = self.common[f"pixels_{run[0]}"]
        return Options(
            size=min(pixels.shape[:2]),
            window=crop,
            stride=setting.get("slide_stride"),
            resize="opencv",
            pad=16 if self.method == "clearclip" else None,
            templates="none",
            background=tuple(str(n) for n, c in enumerate(self.classes) if c == 0),
            logit_scale=of["logit_scale"],
            prob_threshold=of["prob_thd"],
            area_threshold=of.get("area_thd"),
            refine="pamr" if refined else "none",
            pamr_dilations=(8, 16),
            pamr_grid="image",
        )

    @property
    def classes(self) -> list[int]:
        """The class of each prompt; 0 is the background."""
        classes: list[int] = self.inputs["query_idx"].tolist()
        return classes

    def image(self, run: str) -> Image.Image:
        """The image at its own size."""
        return Image.fromarray(self.common[f"original_{run[0]}"].numpy())


@pytest.fixture(scope="module")
def peers(shared: Path) -> dict[str, GivenPeer]:
    return {method: GivenPeer(shared / "reference" / "peers", method) for method in RUNS}


@pytest.mark.parametrize("name", ["a", "b", "c", "d"])
def test_opencvs_resize(peers: dict[str, GivenPeer], name: str) -> None:
    """The images as their pipelines feed them, from the images themselves, to the last bit."""
    images = peers["naclip"].common
    resized = opencv_resize(images[f"original_{name}"].numpy(), tuple(images[f"pixels_{name}"].shape[:2]))
    assert np.array_equal(resized, images[f"pixels_{name}"].numpy())


@torch.no_grad()
def test_texts_in_templates_are_averaged_as_theirs(peers: dict[str, GivenPeer]) -> None:
    outputs, encoder = peers["naclip"].outputs, peers["naclip"].encoder
    tokens = outputs["template_tokens"].long()  # [texts, templates, 77]
    embedded = encoder.embed_tokens(tokens.flatten(0, 1)).view(*tokens.shape[:2], -1)
    assert float((encoder._average_templates(embedded) - outputs["template_text_emb"]).abs().max()) < LOGITS


@torch.no_grad()
@pytest.mark.parametrize(("method", "run", "refined"), CASES)
def test_logits(peers: dict[str, GivenPeer], method: str, run: str, refined: bool) -> None:
    peer = peers[method]
    options, image = peer.options(run, refined), peer.image(run)
    dense = DenseMaps(peer.encoder)
    pixels = [scaled[None] for scaled in prepare(image, peer.encoder, options)]
    asked = dense.ask(encode_views(peer.encoder, pixels, options), peer.inputs["text_emb"], options)
    found = torch.full((len(peer.classes), image.height, image.width), torch.nan)
    for maps, rows, block in dense._blocks(asked, 0, image, options)():
        found[maps, rows] = block
    expected = peer.outputs[f"{run}.{'pamr_' if refined else ''}logits_s6"][0]
    apart = float((found[:, ::6, ::6] - expected).abs().max())
    print(f"{method}, {run}{', PAMR' * refined}: logits within {apart:.1e}")
    assert apart < LOGITS


@pytest.mark.parametrize(("method", "run", "refined"), CASES)
def test_labels(peers: dict[str, GivenPeer], method: str, run: str, refined: bool) -> None:
    """Apart from at most one pixel in a thousand, and no two classes are confused but where these are too close."""
    peer = peers[method]
    classes = [tuple(str(n) for n, c in enumerate(peer.classes) if c == one) for one in range(1, 1 + max(peer.classes))]
    options = peer.options(run, refined)
    found = TTD(peer.encoder).segment(peer.image(run), classes, options).label_map
    before = f"{run}.{'pamr_' if refined else ''}"
    expected = peer.outputs[before + "label_map"].numpy()
    assert len(np.unique(expected)) > 2
    print(f"{method}, {run}{', PAMR' * refined}: {(found != expected).sum()} of {found.size} labels differ")
    assert (found != expected).mean() <= 1e-3
    clear = (peer.outputs[before + "margin255"].numpy() > 1) & (found > 0) & (expected > 0)
    assert not (found != expected)[clear].any()
    if method == "sclip" and not refined:
        without = TTD(peer.encoder).segment(peer.image(run), classes, replace(options, area_threshold=None)).label_map
        assert (without != peer.outputs[f"{run}.no_area_thd_label_map"].numpy()).mean() <= 1e-3
        assert (without != found).any()
