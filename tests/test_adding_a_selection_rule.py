"""The page's selection rule, one file of another package: in tags, in a benchmark's rows and in training like ours."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import ttd
from tests.installed import install, run_with
from ttd.errors import InputError
from ttd.training.config import read_config

PAGE = Path(__file__).resolve().parents[1] / "docs" / "adding-a-selection-rule.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)

USED = """
import json
from pathlib import Path
from click.testing import CliRunner
from jsonschema import Draft202012Validator
from PIL import Image
from tests.installed import ROOT
from tests.data.samples import write_shards
from tests.evaluation.tasks.test_tagmask import write_set
from tests.tiny_models import write_tiny_clip
from tests.training.conftest import tiny_config
from ttd.cli import cli
from ttd.training.logging import read_log
from ttd.training.trainer import train

def ttd_command(*arguments):
    done = CliRunner().invoke(cli, list(map(str, arguments)), prog_name="ttd")
    assert done.exit_code == 0, done.output
    return done

write_tiny_clip(Path("base"))
Image.effect_noise((80, 64), 90).convert("RGB").save("a.png")
for threshold in (-9, 9):
    rule = ttd.Selection(rule="above-mean", threshold=threshold)
    assert len(ttd.load("base").tag("a.png", "a dog on grass", selection=rule).selected) == (2 if threshold < 0 else 0)
told = json.loads(ttd_command("tag", "a.png", "a dog on grass", "--model", "base", "--selection", "above-mean",
                              "--threshold", 0.25, "--json").stdout)
assert (told["selection"], told["threshold"]) == ("above-mean", 0.25)
schema = json.loads((ROOT / "docs/results.schema.json").read_text("utf-8"))
Draft202012Validator({"$defs": schema["$defs"], "$ref": "#/$defs/tag"}).validate(told)
ttd.register_rule(ttd.SelectionRule("worst", lambda s, t, v: s == s.amin(-1, keepdim=True)))
shown = ttd_command("tag", "a.png", "a dog on grass", "--model", "base", "--selection", "worst").stdout
assert shown.count("*") == 1 and "----" not in shown  # what is selected is not what lies above a cut
rows = write_set(Path("set"), 3)
ttd_command("eval", "tagmask", "--data", "set", "--model", "base", "--protocol", "default", "--part", "tags", "--score",
            "s_pixel", "--selection", "above-mean", "--images", 0, "--out", "out")
assert 0 < json.loads(Path("out/results.json").read_text())["numbers"]["s_pixel, above-mean: F1"] <= 1
write_shards(Path("shards"), [8])
counts = {}
for rule in ("gap", "above-mean"):
    train(tiny_config("base", "shards", "optimiser.steps=1", f"choice.rule={rule}"), rule, quiet=True)
    counts[rule] = read_log(Path(rule))[0]["selected"]
assert counts["gap"] != counts["above-mean"]
assert 'choice.rule = "above-mean"' in Path("above-mean/README.md").read_text("utf-8")
"""


@pytest.mark.slow
def test_the_pages_examples_run(tmp_path: Path) -> None:
    site = install(tmp_path / "site", "above_mean_rule", BLOCKS[0], "ttd.rules", "above-mean")
    assert len(BLOCKS) == 2
    done = run_with(site, BLOCKS[1] + USED, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    alone = run_with(tmp_path, BLOCKS[1], tmp_path)
    assert "unknown selection 'above-mean'" in alone.stderr


def test_a_rule_that_gives_something_else_is_named() -> None:
    ttd.register_rule(ttd.SelectionRule("as-numbers", lambda scores, threshold, valid: scores))
    with pytest.raises(InputError, match=r"'as-numbers' must give bool \[2\], not torch.float32"):
        ttd.select_tags([0.1, 0.2], "as-numbers")


def test_a_rule_gets_finite_scores_and_words_that_are_not_there_are_never_selected() -> None:
    seen = []

    def every(scores: torch.Tensor, threshold: float, valid: torch.Tensor | None) -> torch.Tensor:
        seen.append(scores)
        return torch.ones_like(scores, dtype=torch.bool)

    ttd.register_rule(ttd.SelectionRule("every", every))
    valid = torch.tensor([[True, False]])
    found = ttd.select_tags(torch.tensor([[0.5, float("nan")]], dtype=torch.bfloat16), "every", valid=valid)
    assert found.tolist() == [[True, False]]
    assert seen[0].tolist() == [[0.5, 0.0]]
    assert seen[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        ({"name": "gap"}, "registered already"),
        ({"name": "Mine"}, "cannot name"),
        ({"name": "mine", "scores": ("s_best",)}, "unknown score"),
        ({"name": "mine", "negatives": True}, "s_pixel"),
    ],
)
def test_rules_that_cannot_be(given: dict[str, object], cause: str) -> None:
    with pytest.raises(InputError, match=cause):
        ttd.register_rule(ttd.SelectionRule(**{"select": lambda scores, threshold, valid: scores > 0, **given}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        (["choice.rule=best"], "unknown selection 'best'"),
        (["choice.rule=negatives"], 'choice.by = "negatives"'),
        (["choice.rule=softmax", "choice.by=s_image"], "is not a rule for"),
    ],
)
def test_rules_of_a_training_that_cannot_be(given: list[str], cause: str) -> None:
    with pytest.raises(InputError, match=cause):
        read_config("paper", given)
