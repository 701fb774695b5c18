from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ttd.data.pruning import Pruned, Spread, prune, score_histogram, spread_of
from ttd.data.tables import SCORES
from ttd.errors import InputError

scores = arrays(np.float32, st.integers(1, 60), elements=st.floats(-1, 1, width=32))


@given(values=scores, cuts=st.lists(st.integers(0, 60), max_size=6))
def test_pieces_in_any_sizes_give_the_spread_of_all(values: np.ndarray, cuts: list[int]) -> None:
    spread = Spread()
    for piece in np.split(values, sorted(min(cut, len(values)) for cut in cuts)):
        spread.add(piece)
    exact = values.astype(np.float64)
    assert spread.count == len(values)
    assert spread.mean == pytest.approx(exact.mean(), abs=1e-12)
    assert spread.deviation == pytest.approx(exact.std(), abs=1e-9)
    assert spread.bins.sum() == len(values)


def test_no_digits_are_lost_far_from_zero() -> None:
    """Where the sum of squares minus the squared sum would give nonsense."""
    values = 1e8 + np.random.default_rng(0).standard_normal(10_000)
    spread = Spread()
    for piece in np.array_split(values, 17):
        spread.add(piece)
    assert spread.deviation == pytest.approx(values.std(), rel=1e-9)


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(InputError, match="not finite"):
        Spread().add(np.array([0.1, np.nan], np.float32))


def write_scores(folder: Path, sets: dict[str, list[np.ndarray]]) -> list[Path]:
    paths = []
    for name, shards in sets.items():
        for i, values in enumerate(shards):
            shard = f"{name}/{i:05d}.tar"
            rows = [[shard] * len(values), [f"{n:09d}" for n in range(len(values))], values]
            path = folder / f"{shard}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table(rows, schema=SCORES), path)
            paths.append(path)
    return paths


@pytest.fixture
def sets() -> dict[str, list[np.ndarray]]:
    draws = np.random.default_rng(1)
    return {
        name: [draws.normal(mean, 0.05, n).astype(np.float32) for n in (300, 0, 211)]
        for name, mean in (("cc3m", 0.2), ("cc12m", 0.3))
    }


@pytest.mark.parametrize("per_set", [False, True])
@pytest.mark.parametrize("k", [1.0, -0.5])
def test_keeps_what_a_plain_computation_keeps(
    tmp_path: Path, sets: dict[str, list[np.ndarray]], k: float, per_set: bool
) -> None:
    pruned = prune(write_scores(tmp_path, sets), tmp_path / "keep.parquet", k, per_set=per_set)
    wanted = []
    for name, shards in sets.items():
        every = np.concatenate(shards if per_set else [*sets["cc3m"], *sets["cc12m"]]).astype(np.float64)
        cut = every.mean() + k * every.std()
        for i, values in enumerate(shards):
            rows = np.flatnonzero(values > cut)
            wanted += [(f"{name}/{i:05d}.tar", f"{row:09d}", values[row]) for row in rows]
    kept = pq.read_table(tmp_path / "keep.parquet")
    assert kept.schema.names == ["shard", "key", "score"]
    assert list(zip(*(kept[name].to_pylist() for name in kept.schema.names), strict=True)) == wanted
    result = pruned.to_dict()
    assert (result["pairs"], result["kept"]) == (1022, len(wanted))
    assert set(result["sets"]) == ({"cc3m", "cc12m"} if per_set else {"all"})
    assert sum(one["kept"] for one in result["sets"].values()) == len(wanted)


def test_nothing_is_left_of_a_pruning_that_fails(tmp_path: Path) -> None:
    equal = write_scores(tmp_path / "a", {"x": [np.full(5, 0.25, np.float32)]})
    empty = write_scores(tmp_path / "b", {"x": [np.zeros(0, np.float32)]})
    for files, k, message in ((equal, 1.0, "lower k"), (empty, 1.0, "no scores"), (equal, np.inf, "k must")):
        with pytest.raises(InputError, match=message):
            prune(files, tmp_path / "keep.parquet", k)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        prune([tmp_path / "broken.parquet"], tmp_path / "keep.parquet")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "broken.parquet"]


def test_the_histogram_shows_where_the_cut_is(tmp_path: Path, sets: dict[str, list[np.ndarray]]) -> None:
    spreads = spread_of(write_scores(tmp_path, sets), per_set=True)
    kept = dict.fromkeys(spreads, 80)
    page = np.asarray(score_histogram(Pruned(spreads, kept, 1.0))).astype(int)
    assert page.shape == (2 * 260, 800, 3)
    for panel in (page[:260], page[260:]):
        red = ((panel[..., 0] > 150) & (panel[..., 1] < 80)).any(0).nonzero()[0]
        blue = ((panel[..., 2] > 190) & (panel[..., 0] < 60)).any(0).nonzero()[0]
        grey = ((panel == (190, 196, 204)).all(-1)).any(0).nonzero()[0]
        assert grey.max() <= red.max()
        assert red.min() <= blue.min() + 4
        assert blue.max() > red.max() > grey.min()
