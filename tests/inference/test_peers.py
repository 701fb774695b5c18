"""`TTD.segment` against the whole `predict` of the methods' public code, on the same small model.

The texts' embeddings are given; everything else is ours: resize, windows, features, logits on pixels, PAMR, softmax,
classes, thresholds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.methods.peer import Peer
from ttd.encoders.clip import CLIPEncoder
from ttd.encoders.methods import find_method
from ttd.images import opencv_resize
from ttd.inference import dense as dense_maps
from ttd.inference.dense import DenseMaps
from ttd.inference.options import Options
from ttd.inference.views import encode_views, prepare
from ttd.methods.second_backbone import SecondBackbone
from ttd.methods.trident import Backbones
from ttd.model import TTD

RUNS = {
    "naclip": ("a_slide", "b_slide", "b_whole"),
    "sclip": ("a_slide", "b_slide", "b_whole"),
    "clearclip": ("a_slide", "b_slide"),
    "sc-clip": ("a_slide", "c_slide"),
    "proxyclip": ("b_slide", "d_slide"),
    "trident": ("d",),
}
WITHOUT_PAMR = ("clearclip", "proxyclip")
PAD = {"clearclip": 16, "proxyclip": 56}
CASES = [
    (method, run, refined)
    for method, runs in RUNS.items()
    for run in runs
    for refined in (False, True)
    if not refined or (method not in WITHOUT_PAMR and (method, run) != ("sclip", "b_whole"))
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
        super().__init__(root, method.replace("sc-clip", "scclip"), "maskclip")
        self.method = method
        self.encoder = self.encoder.with_method(replace(find_method(method), second_backbone=self._backbones()))
        self.encoder.given = self.text
        # The texts are a tensor's rows here, so nothing is tokenised.
        self.encoder.max_tokens = 10**6

    def _backbones(self) -> Callable[[torch.device], Any] | None:
        if self.method not in ("proxyclip", "trident"):
            return None
        proxy = SecondBackbone(self.second_backbone())
        return lambda device: Backbones(proxy, self.given_sam()) if self.method == "trident" else proxy

    def options(self, run: str, refined: bool) -> Options:
        """The settings of a run as ours."""
        of = self.settings
        setting = {**of, **of.get("runs", {}).get(run, {})}
        # NACLIP's way with the whole image is that of one window, SCLIP's goes to the image's size in one step.
        crop = setting.get("slide_crop", 0) or (2048 if self.method == "naclip" else None)
        pixels = self.common[f"pixels_{run[0]}"]
        return Options(
            size=min(pixels.shape[:2]),
            window=crop,
            stride=setting.get("slide_stride"),
            resize="opencv-patches" if self.method == "trident" else "opencv",
            pad=PAD.get(self.method),
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

    def resized_from(self, run: str) -> Image.Image:
        """What is resized for the encoder: the image, but picture d is 421 pixels wide there where 422 would be due."""
        return Image.fromarray(self.common["pixels_d"].numpy()) if run[0] == "d" else self.image(run)

    def image(self, run: str) -> Image.Image:
        """The image at its own size."""
        return Image.fromarray(self.common[f"original_{run[0]}"].numpy())


def guide_pamr(monkeypatch: pytest.MonkeyPatch, peer: GivenPeer, run: str) -> None:
    """PAMR sees what their encoder sees, which is resized here from the image at its own size."""
    monkeypatch.setattr(dense_maps, "prepare", lambda image, *more: prepare(peer.resized_from(run), *more))


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
def test_logits(
    peers: dict[str, GivenPeer], method: str, run: str, refined: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = peers[method]
    guide_pamr(monkeypatch, peer, run)
    options, image = peer.options(run, refined), peer.image(run)
    dense = DenseMaps(peer.encoder)
    pixels = [scaled[None] for scaled in prepare(peer.resized_from(run), peer.encoder, options)]
    asked = dense.ask(encode_views(peer.encoder, pixels, options), peer.inputs["text_emb"], options)
    found = torch.full((len(peer.classes), image.height, image.width), torch.nan)
    for maps, rows, block in dense._blocks(asked, 0, image, options)():
        found[maps, rows] = block
    expected = peer.outputs[f"{run}.{'pamr_' if refined else ''}logits_s6"][0]
    difference = (found[:, ::6, ::6] - expected).abs()
    # What a patch weighs jumps in SC-CLIP and ProxyCLIP where a cosine meets a threshold.
    jumps = method in ("sc-clip", "proxyclip")
    apart = float(difference.quantile(0.999) if jumps else difference.max())
    print(f"{method}, {run}{', PAMR' * refined}: logits within {apart:.1e}")
    assert apart < LOGITS
    assert float(difference.max()) < 5 * LOGITS


@pytest.mark.parametrize(("method", "run", "refined"), CASES)
def test_labels(
    peers: dict[str, GivenPeer], method: str, run: str, refined: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Apart from at most one pixel in a thousand, and no two classes are confused but where these are too close."""
    peer = peers[method]
    guide_pamr(monkeypatch, peer, run)
    classes = [tuple(str(n) for n, c in enumerate(peer.classes) if c == one) for one in range(1, 1 + max(peer.classes))]
    options = peer.options(run, refined)
    model = TTD(peer.encoder)
    seen = replace(model.encode(peer.resized_from(run), options), image=peer.image(run))
    found = model.segment(seen, classes).label_map
    before = f"{run}.{'pamr_' if refined else ''}"
    expected = peer.outputs[before + "label_map"].numpy()
    assert len(np.unique(expected)) > 2
    print(f"{method}, {run}{', PAMR' * refined}: {(found != expected).sum()} of {found.size} labels differ")
    assert (found != expected).mean() <= 1e-3
    clear = (peer.outputs[before + "margin255"].numpy() > 1) & (found > 0) & (expected > 0)
    assert not (found != expected)[clear].any()
    if method == "sclip" and not refined:
        without = model.segment(peer.image(run), classes, replace(options, area_threshold=None)).label_map
        assert (without != peer.outputs[f"{run}.no_area_thd_label_map"].numpy()).mean() <= 1e-3
        assert (without != found).any()


@pytest.mark.parametrize("method", ["gem", "clip_surgery"])
def test_labels_of_maps_each_from_its_lowest_to_its_highest_value(shared: Path, method: str) -> None:
    """GEM scales maps at the image's size, CLIP Surgery their patches."""
    peer = Peer(shared / "reference" / "peers", method, method.replace("_", "-"))
    encoder = GivenTexts(peer.encoder.backbone, None, method=peer.encoder.method)
    encoder.given, encoder.max_tokens = peer.text, 10**6
    names = [str(number) for number in range(len(peer.text))]
    sizes = {"g": (240, 304), "h": (224, 224)} if method == "gem" else {"s": (150, 200), "t": (240, 181)}
    expected = "label_map_minmax" if method == "gem" else "surgery_label_map"
    scale: Any = "norm" if method == "gem" else "norm-patches"
    for name, (height, width) in sizes.items():
        pixels = peer.inputs[f"pixels_{name}"].numpy()
        options = Options(size=min(pixels.shape[:2]), templates="none", background=False, label_scale=scale)
        seen = replace(TTD(encoder).encode(pixels, options), image=Image.new("RGB", (width, height)))
        found = TTD(encoder).segment(seen, names).label_map
        assert (found != peer.outputs[f"{name}.{expected}"].numpy()).mean() <= 1e-3
        plain = TTD(encoder).segment(seen, names, replace(options, label_scale="calibrated")).label_map
        assert (found != plain).mean() > 0.01
