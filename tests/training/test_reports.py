"""What people read of a run: log, card, images."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tests.tolerance import assert_close
from tests.training.conftest import tiny_config
from ttd.errors import InputError, MissingExtra
from ttd.training.checkpoint import settle_record
from ttd.training.export import write_model_card
from ttd.training.logging import Journal, read_log
from ttd.training.trainer import train


def entry(step: int) -> dict[str, float]:
    return {"step": step, "loss": 1.0 / step, "images_per_second": 2.0}


def test_the_log_goes_on_where_the_checkpoint_stands(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0, 5, quiet=True)
    for step in (1, 2, 3):
        journal.step(entry(step), write=step != 2)
    journal.close()
    with (tmp_path / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 4, "lo')  # killed while writing
    assert [e["step"] for e in read_log(tmp_path)] == [1, 3]
    again = Journal(tmp_path, 2, 5, quiet=True)
    again.step(entry(3), write=True)
    again.close()
    assert [e["step"] for e in read_log(tmp_path)] == [1, 3]


def test_tensorboard_or_a_sentence(tmp_path: Path) -> None:
    try:
        from torch.utils import tensorboard  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtra, match=r"pip install -e '\.\[tensorboard\]'"):
            Journal(tmp_path, 0, 5, tensorboard=True, quiet=True)
        return
    journal = Journal(tmp_path, 0, 5, tensorboard=True, quiet=True)
    journal.step(entry(1), write=True)
    journal.close()
    assert any((tmp_path / "tensorboard").iterdir())


class Events:
    """Stands for TensorBoard's writer: `scalars[step][name]`."""

    scalars: dict[int, dict[str, float]]

    def __init__(self, folder: str, purge_step: int) -> None:
        Events.scalars = {}

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.setdefault(step, {})[name] = value

    def close(self) -> None:
        pass


def test_every_trained_term_is_named_with_its_weight(
    base: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Events))
    options = ["loss.relative=true", "loss.rank=3", "loss.tag=0.5", "optimiser.steps=3", "run.tensorboard=true"]
    train(tiny_config(base, shards, *options), tmp_path, quiet=True)
    log = read_log(tmp_path)
    weights = {"distill": 1.0, "tag": 0.5, "rank": 3.0}
    for entry in log:
        assert {name: entry[f"{name}_weight"] for name in weights} == weights
        assert entry["rank"] > 0
        assert_close(entry["loss"], sum(entry[name] * weight for name, weight in weights.items()), 4)
        assert Events.scalars[entry["step"]] == {n: v for n, v in entry.items() if n not in ("step", "epoch")}
        assert {"lr", "grad_norm"} <= entry.keys()
    card = (tmp_path / "README.md").read_text("utf-8")
    assert "| step | loss | L_distill | L_tag (times 0.5) | L_rank (times 3) | words selected |" in card
    train(tiny_config(base, shards, "loss.tag=0", "optimiser.steps=1"), tmp_path / "one", quiet=True)
    assert not {"tag", "tag_weight", "rank", "rank_weight"} & read_log(tmp_path / "one")[0].keys()


def test_images_of_fixed_samples(base: Path, shards: Path, tmp_path: Path) -> None:
    config = tiny_config(base, shards, "run.watch_every=2", "run.watch_samples=3", "optimiser.steps=3")
    train(config, tmp_path, quiet=True)
    names = sorted(path.name for path in (tmp_path / "watch").iterdir())
    assert names == [f"step-{step:08d}.png" for step in (0, 2, 3)]
    first, last = (np.asarray(Image.open(tmp_path / "watch" / names[i])) for i in (0, -1))
    assert first.shape[1] == last.shape[1] >= 900
    assert not np.array_equal(first[: last.shape[0]], last[: first.shape[0]])


def test_watching_changes_nothing(base: Path, shards: Path, tmp_path: Path) -> None:
    for name, every in (("watched", 1), ("alone", 0)):
        options = [f"run.watch_every={every}", "optimiser.steps=2", "model.dropout=0.2"]
        train(tiny_config(base, shards, *options), tmp_path / name, quiet=True)
    watched, alone = ((tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("watched", "alone"))
    assert watched == alone


def test_the_card_says_what_was_done_and_what_was_not(base: Path, shards: Path, tmp_path: Path) -> None:
    config = tiny_config(base, shards, "optimiser.steps=2", "loss.similarity=calibrated")
    train(config, tmp_path, command="ttd train x --out y", quiet=True)
    text = (tmp_path / "README.md").read_text("utf-8")
    assert "Trained by `ttd train x --out y`." in text
    assert "The method's settings are the paper's." in text
    assert "22 image-text pairs" in text
    assert "rate = 0.01" in text
    assert "Not evaluated" in text
    assert "| 2 |" in text
    (tmp_path / "results.json").write_text(json.dumps({"F1": 0.8, "captions": {"CaptionIoU": 0.5}}), "utf-8")
    text = write_model_card(tmp_path).read_text("utf-8")
    assert "| F1 | 0.8 |" in text
    assert "| captions: CaptionIoU | 0.5 |" in text
    assert "Not evaluated" not in text


def test_the_card_names_what_is_not_the_papers(base: Path, shards: Path, tmp_path: Path) -> None:
    paper = ["optimiser.steps=1", "loss.similarity=calibrated"]
    options = [*paper, "model.kept=0.6", "choice.by=negatives", "loss.rank=50"]
    train(tiny_config(base, shards, *options), tmp_path, quiet=True)
    sentence = 'This is not the paper\'s recipe: model.kept = 0.6, choice.by = "negatives", loss.rank = 50.0.'
    assert sentence in (tmp_path / "README.md").read_text("utf-8")


@pytest.mark.parametrize("content", ["{", "[]", '{"config": 1}'])
def test_a_foreign_run_json_is_refused(base: Path, shards: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content, "utf-8")
    with pytest.raises(InputError, match=r"run\.json"):
        settle_record(tmp_path, tiny_config(base, shards), {"base": "", "data": ""}, write=True)
