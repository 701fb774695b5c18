from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from tests.colour_encoder import ColourEncoder
from tests.tiny_models import random_pixels, tiny_clip, tiny_siglip, tiny_tcl
from tests.tolerance import TINY_IMAGE, TINY_TCL, TINY_TEXT, assert_close
from ttd.encoders.base import TEXTS_PER_CHUNK, Encoder
from ttd.encoders.calibration import Calibration
from ttd.encoders.clip import CLIPEncoder
from ttd.encoders.features import ImageFeatures, cosine_maps
from ttd.errors import InputError

TEMPLATES = ("a photo of a {}.", "{} {}", "art")


@torch.no_grad()
def test_templates_are_normalised_averaged_normalised() -> None:
    encoder = tiny_clip()
    rows = []
    for word in ("dog", "a cat"):
        texts = [f"a photo of a {word}.", f"{word} {word}"]
        each = [encoder.embed_tokens(encoder.tokenize([text])[0])[0] for text in texts]
        rows.append(normalize(sum(normalize(e, dim=0) for e in each), dim=0))
    assert_close(encoder.encode_text(["dog", "a cat"], TEMPLATES[:2]), torch.stack(rows), TINY_TEXT)


@torch.no_grad()
def test_distinct_strings_are_encoded_once_in_bounded_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = tiny_clip()
    words = ["dog", "grass", "dog", "a very long string of many words", "dog", "cat"]
    words += [f"{a} {b}" for a in "abcdefghijklmnop" for b in "abcdefghijklmnop"]
    expected = torch.cat([encoder.encode_text([word]) for word in words])
    batches = []
    embed = CLIPEncoder.embed_tokens
    monkeypatch.setattr(CLIPEncoder, "embed_tokens", lambda self, ids: batches.append(ids.shape) or embed(self, ids))
    found = encoder.encode_text(words)
    assert_close(found, expected, TINY_TEXT)
    assert batches == [(TEXTS_PER_CHUNK, 4), (4, 9)]
    assert torch.equal(found[0], found[2])
    assert not torch.allclose(found[0], found[1])


def test_no_texts_give_no_rows() -> None:
    encoder = tiny_clip()
    text = encoder.encode_text([])
    assert text.shape == (0, 48)
    assert encoder.similarity(encoder.encode_image(random_pixels()), text).shape == (2, 0, 4, 4)


@pytest.mark.parametrize(
    ("texts", "templates"), [("dog", ("{}",)), (["dog"], "{}"), (["dog"], ()), (["dog"], TEMPLATES)]
)
def test_wrong_templates_are_refused(texts: object, templates: object) -> None:
    with pytest.raises(InputError):
        tiny_clip().encode_text(texts, templates)  # type: ignore[arg-type]


def test_cosines_are_those_of_numpy_for_shared_and_own_texts() -> None:
    dense = normalize(torch.randn(2, 7, 3, 4), dim=1)
    shared, own = torch.randn(5, 7), torch.randn(2, 5, 7)
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
    # Each cosine adds seven products of two vectors, one of which was normalised before.
    assert_close(cosine_maps(dense, shared), np.einsum("bchw,nc->bnhw", dense, unit(shared.numpy())), 7 + 7)
    assert_close(cosine_maps(dense, own), np.einsum("bchw,bnc->bnhw", dense, unit(own.numpy())), 7 + 7)


def test_cosines_ignore_autocast() -> None:
    dense, text = normalize(torch.randn(1, 64, 8, 8), dim=1), torch.randn(3, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = cosine_maps(dense, text)
    assert_close(inside, cosine_maps(dense, text), 64 + 64)  # bfloat16 would be 1e-2 away


@torch.no_grad()
def test_maps_are_calibrated_cosines() -> None:
    encoder = tiny_clip()
    features, text = encoder.encode_image(random_pixels()), encoder.encode_text(["dog", "cat"])
    sim = encoder.similarity(features, text).double().numpy()
    assert_close(encoder.maps(features, text), 1 / (1 + np.exp(-10 * (sim - 0.25))), 48, scale=10 / 4)
    encoder.calibration = Calibration(40.0, 0.1)
    assert_close(encoder.maps(features, text), 1 / (1 + np.exp(-40 * (sim - 0.1))), 48, scale=40 / 4)


def test_features_of_some_images() -> None:
    features = tiny_clip().encode_image(random_pixels(3))
    assert torch.equal(features.select(slice(1, 3)).pooled, features.pooled[1:])
    assert torch.equal(features.select([2, 2, 0]).dense, features.dense[[2, 2, 0]])
    assert features.to(torch.float64).dense.dtype == torch.float64
    assert features.select([0]).size == (64, 64)


def test_padding_is_cropped_and_known_per_cell() -> None:
    nothing = torch.zeros(1, 1, 1, 1)
    features = ImageFeatures(nothing, nothing, size=(10, 8), offset=(3, 4), padded=(16, 16))
    maps = torch.arange(256.0).view(1, 1, 16, 16)
    assert torch.equal(features.crop(maps), maps[..., 3:13, 4:12])
    assert torch.equal(features.enlarge(maps), maps[..., 3:13, 4:12])
    inside = features.inside((4, 4))  # cell centres at 2, 6, 10, 14
    assert inside.tolist() == [[i in (1, 2) and j in (1, 2) for j in range(4)] for i in range(4)]
    assert features.inside((16, 16)).sum() == 80


@pytest.mark.parametrize(
    "encoder", [tiny_clip(method="naclip"), tiny_siglip(), tiny_tcl(), tiny_tcl(first_trained=1), ColourEncoder()]
)
@torch.no_grad()
def test_the_pooled_embedding_alone_is_the_same(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = random_pixels(2, 64, 96)
    expected = encoder.encode_image(pixels).pooled
    if encoder.kind in ("clip", "siglip", "tcl") and not isinstance(encoder, ColourEncoder):
        name = {"clip": "_patches", "siglip": "_dense", "tcl": "_decode"}[encoder.kind]
        monkeypatch.setattr(encoder, name, lambda *_: pytest.fail("the dense branch was computed"))
    assert_close(encoder.encode_pooled(pixels), expected, TINY_TCL if encoder.kind == "tcl" else TINY_IMAGE)


def test_fingerprint_is_of_the_values() -> None:
    encoder = tiny_clip()
    fingerprint = encoder.fingerprint()
    assert fingerprint == tiny_clip().half().fingerprint()
    with torch.no_grad():
        encoder.backbone.visual_projection.weight[0, 0] += 1
    assert encoder.fingerprint() != fingerprint


def test_importing_the_package_does_not_import_transformers() -> None:
    code = "import sys, ttd.encoders; sys.exit('transformers' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_names_of_the_package() -> None:
    import ttd.encoders

    with pytest.raises(AttributeError, match="nothing"):
        _ = ttd.encoders.nothing
    assert "TCLEncoder" in dir(ttd.encoders)
