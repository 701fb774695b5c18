"""Single tag bias: numbers computed by hand, properties, an oracle and a constant model through the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy.stats import entropy as scipy_entropy
from torch import Tensor

import ttd
from tests.evaluation.oracle import Oracle, blocks, painted, save
from tests.tolerance import assert_close
from ttd.cli import cli
from ttd.encoders.features import ImageFeatures
from ttd.errors import InputError
from ttd.evaluation.datasets.tagmask import read_tagmask
from ttd.evaluation.tasks.bias import SingleTagBias, bias, entropy, lit, of_record, shares, top_share
from ttd.inference.options import Options
from ttd.model import TTD

TITLES = ["grass", "dog", "cat", "tree", "car", "boat"]
MASKS = st.tuples(st.integers(2, 4), st.integers(1, 5), st.integers(1, 5)).flatmap(
    lambda s: st.tuples(arrays(bool, s[1:]), arrays(bool, s))
)


def test_by_hand() -> None:
    """Three words of 4, 2 and 2 cells; the mask has 3, 1 and 0 of them and two cells outside."""
    regions = np.zeros((3, 2, 6), bool)
    regions[0, :, :2], regions[1, 0, 2:4], regions[2, 1, 2:4] = True, True, True
    mask = np.array([[1, 1, 1, 0, 1, 0], [1, 0, 0, 0, 0, 1]], bool)
    found = lit(mask, regions)
    assert found.coverage.tolist() == [0.75, 0.5, 0.0]
    assert (found.mask, found.inside, found.union, found.pixels) == (6, 4, 8, 12)
    numbers = bias(found, np.array([0.5, 0.25, 0.25]))
    assert numbers["map entropy"] == pytest.approx(-(0.6 * np.log(0.6) + 0.4 * np.log(0.4)) / np.log(3))
    assert numbers["map top share"] == pytest.approx(0.6)
    assert numbers["covered"] == pytest.approx(1 / 3)  # exactly half is not covered
    assert numbers["all covered"] == 0.0
    assert numbers["outside"] == pytest.approx(2 / 6)
    assert found.outside_of_all == pytest.approx(4 / 12)
    assert numbers["score entropy"] == pytest.approx(1.5 * np.log(2) / np.log(3))
    assert numbers["score top share"] == 0.5


def test_perfect_biased_and_whole() -> None:
    regions = np.zeros((2, 4, 4), bool)
    regions[0, 0, 0], regions[1, 2:] = True, True  # sizes that differ eightfold do not count as bias
    even = np.array([0.5, 0.5])
    perfect = bias(lit(regions.any(0), regions), even)
    assert [perfect[k] for k in ("map entropy", "map top share", "covered", "outside")] == [1, 0.5, 1, 0]
    one = bias(lit(regions[0], regions), np.array([1.0, 0.0]))
    assert [one[k] for k in ("map entropy", "map top share", "covered", "outside")] == [0, 1, 0.5, 0]
    assert (one["score entropy"], one["score top share"]) == (0, 1)
    whole = bias(lit(np.ones((4, 4), bool), regions), even)
    assert [whole[k] for k in ("map entropy", "map top share", "covered", "outside")] == [1, 0.5, 1, 7 / 16]
    dark = bias(lit(np.zeros((4, 4), bool), regions), even)
    assert np.isnan([dark[k] for k in ("map entropy", "map top share", "outside")]).all()
    assert dark["covered"] == 0


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_entropy_agrees_with_scipy(values: list[float]) -> None:
    portions = shares(np.array(values))
    if not sum(values):
        assert np.isnan(entropy(portions))
        return
    assert entropy(portions) == pytest.approx(scipy_entropy(values, base=len(values)), abs=1e-9)
    assert 0 <= entropy(portions) <= 1 + 1e-12
    assert 1 / len(values) - 1e-12 <= top_share(portions) <= 1 + 1e-12


@given(MASKS, st.randoms(use_true_random=False))
def test_ranges_order_and_size_do_not_matter(drawn: tuple[np.ndarray, np.ndarray], random: object) -> None:
    mask, regions = drawn
    even = np.full(len(regions), 1 / len(regions))
    numbers = bias(lit(mask, regions), even)
    assert all(np.isnan(value) or -1e-12 <= value <= 1 + 1e-12 for value in numbers.values())
    turned = bias(lit(mask, regions[::-1]), even)
    larger = bias(lit(np.kron(mask, np.ones((2, 3), bool)), np.kron(regions, np.ones((1, 2, 3), bool))), even)
    for name, value in numbers.items():
        assert turned[name] == pytest.approx(value, nan_ok=True)
        assert larger[name] == pytest.approx(value, nan_ok=True)


class Biased(Oracle):
    """Hears only the first thing that a caption names."""

    def encode_text(self, texts: list[str], templates: tuple[str, ...] = ("{}",)) -> Tensor:  # type: ignore[override]
        firsts = [next((word for word in text.lower().split() if word in self.titles), text) for text in texts]
        return super().encode_text(firsts, templates)


class Constant(Oracle):
    """Sees the same everywhere, nothing of what it is asked for."""

    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        found = super().encode_image(pixels)
        dense = torch.nn.functional.normalize(-torch.ones_like(found.dense), dim=1)
        return ImageFeatures(dense, dense.mean((-2, -1)), found.size, found.offset, found.padded)


def write_set(root: Path, count: int = 5, masks: bool = True) -> None:
    """Images of three things; the caption names two of them, or one in the last row."""
    rng = np.random.default_rng(1)
    rows = []
    for number in range(count):
        there = [int(k) for k in rng.permutation(6)[:3]]
        labels = blocks(rng, there)
        labels[:8, :24] = np.repeat(there, 8)  # each thing has a block at least
        named = there[: 1 if number == count - 1 else 2]
        name = f"{number:03d}"
        save(painted(labels, 6), root / "images" / f"{name}.png")
        for k in named if masks else []:
            save((labels == k).astype(np.uint8) * 255, root / "masks" / name / f"{TITLES[k]}.png")
        caption = " and ".join(TITLES[k] for k in named)
        rows.append({"id": name, "caption": caption, "words": caption.split(), "true": [TITLES[k] for k in named]})
    (root / "tags.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def command(monkeypatch: pytest.MonkeyPatch, root: Path, *more: object) -> Result:
    """`ttd bias` with a model that is biased, and perfect with an adapter."""

    def load(name: str, **options: object) -> TTD:
        kind = Constant if name == "constant" else Oracle if options["adapter"] else Biased
        return TTD(kind(TITLES))

    monkeypatch.setitem(ttd.__dict__, "load", load)
    arguments = ["bias", "--data", str(root / "data"), "--protocol", "default", "--out", str(root / "out"), *more]
    return CliRunner().invoke(cli, [str(part) for part in arguments], prog_name="ttd")


@pytest.mark.parametrize("masks", [True, False])
def test_before_is_biased_and_after_perfect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, masks: bool) -> None:
    write_set(tmp_path / "data", masks=masks)
    done = command(monkeypatch, tmp_path, "--model", "m", "--adapter", "a", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    for name, expected in (("before", (0, 1, 0.5, 0, 0)), ("after", (1, 0.5, 1, 1, 0))):
        columns = ("map entropy", "map top share", "covered", "all covered", "outside")
        assert [found[name][column] for column in columns] == pytest.approx(expected)
    assert 0 < found["after"]["whole image: outside"] < 1
    table = (tmp_path / "out" / "bias.md").read_text()
    assert "| before | 0.000 | 1.000 | 0.500 | 0.000 | 0.000 |" in table
    assert "| after | 1.000 | 0.500 | 1.000 | 1.000 | 0.000 |" in table
    assert "1 captions with fewer than two true words" in table
    assert ("their masks in the set" if masks else "the model's own masks") in table
    drawn = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert drawn == ["bias-biased-1.png", "bias-even-1.png", "bias-median-1.png"]
    assert all(Image.open(tmp_path / "out" / name).width > 800 for name in drawn)


def test_the_score_is_a_softmax_over_the_true_words(tmp_path: Path) -> None:
    write_set(tmp_path / "data")
    model = TTD(Oracle(TITLES))
    benchmark = SingleTagBias(read_tagmask(tmp_path / "data"), Options(), Options())
    record = benchmark.measure(model, 0)
    _, score = of_record(record)
    # The oracle's mean feature is the share of each class; its cosines, times the logit scale of 100.
    mean = model.encode(tmp_path / "data" / "images" / "000.png").views[0].features.dense.mean((-2, -1))[0].numpy()
    cosines = np.array([mean[TITLES.index(word)] for word in record["words"]]) / np.linalg.norm(mean)
    expected = np.exp(100 * (cosines - cosines.max()))
    # A mean over the cells and a product of the classes, then a softmax: steepest with a quarter of its scale of 100.
    assert_close(score, expected / expected.sum(), 24 * 32 + 2 * len(TITLES), scale=100 / 4)


def test_a_flat_map_lights_nothing_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(tmp_path / "data")
    done = command(monkeypatch, tmp_path, "--model", "constant")
    assert done.exit_code == 0, done.output
    assert "The masks of 4 captions meet none of their words" in done.stdout
    numbers = json.loads((tmp_path / "out" / "before" / "results.json").read_text())["numbers"]
    assert numbers["map entropy"] is None
    assert (numbers["covered"], numbers["score entropy"]) == (0.0, pytest.approx(1.0))
    assert not list((tmp_path / "out").glob("*.png"))


def test_wrong_sets_and_faulty_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(tmp_path / "data")
    (tmp_path / "data" / "images" / "001.png").write_bytes(b"no image")
    name = next((tmp_path / "data" / "masks" / "002").iterdir())
    save(np.zeros((3, 3), np.uint8), name)
    done = command(monkeypatch, tmp_path, "--model", "m")
    assert done.exit_code == 1
    assert "skipped 001" in done.stderr
    assert "skipped 002: a word's mask is 3x3 pixels" in done.stderr
    name.unlink()
    refused = command(monkeypatch, tmp_path, "--model", "m", "--regions", "truth")
    assert refused.exit_code == 2
    assert "every true word needs its mask" in refused.stderr
    other = command(monkeypatch, tmp_path, "--model", "m")  # now "own": another question than before
    assert other.exit_code == 2
    assert "holds results of another run" in other.stderr
    (tmp_path / "data" / "tags.jsonl").write_text(
        json.dumps({"id": "000", "caption": "a dog", "words": ["a", "dog"], "true": ["dog"]}) + "\n"
    )
    with pytest.raises(InputError, match="bias needs at least two"):
        SingleTagBias(read_tagmask(tmp_path / "data"), Options(), Options())
