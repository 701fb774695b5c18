"""The page's data set, one file of another package: prepared, measured and reported like ours."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import ttd
from tests.installed import install, run_with
from ttd.errors import InputError
from ttd.registry import DATASETS

PAGE = Path(__file__).resolve().parents[3] / "docs" / "adding-a-data-set.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)

MEASURED = """
import json
from click.testing import CliRunner
from ttd.cli import cli
from ttd.evaluation.datasets.labels import read_labels

def ttd_command(*arguments):
    return CliRunner().invoke(cli, list(arguments), prog_name="ttd")

Path("letters").mkdir()
for name in ("a", "b"):
    Path(f"letters/{name}.txt").write_text("\\n".join(["l" * 4 + "p" * 4] * 3 + ["f" * 8] * 2 + ["." * 8]), "utf-8")
    Path(f"garden/truth/{name}.png").unlink()
Path("letters/c.txt").write_text("lll\\nx", "utf-8")
done = ttd_command("data", "prepare", "garden", "--annotations", "letters", "--out", "garden/truth")
assert done.exit_code == 1 and "letters/c.txt is not a table of the letters" in done.output, done.output
assert read_labels(Path("garden/truth/a.png"))[0].tolist() == [10] * 4 + [30] * 4
for protocol, threshold in (("default", False), ("paper", 0.3)):
    arguments = ["--model", "mini", "--protocol", protocol, "--size", "64", "--out", protocol, "--json"]
    done = ttd_command("eval", "garden", "--data", "garden", *arguments)
    assert done.exit_code == 0, done.output
    results = json.loads(Path(protocol, "results.json").read_text("utf-8"))
    assert results["settings"]["options"]["masks"]["background"] == threshold
    (total,) = [sum(int(row["true pixels"]) for row in rows) for rows in [
        [dict(zip(lines[0].split(","), line.split(","))) for line in lines[1:]]
        for lines in [Path(protocol, "per_class.csv").read_text("utf-8").splitlines()]
    ]]
    assert total == 2 * 40  # the last row of letters does not count
    assert not any("sample" in note for note in results["notes"]), results["notes"]
assert "garden" in ttd_command("eval", "--help").output
Image.fromarray(np.full((6, 8), 11, np.uint8)).save("garden/truth/a.png")
done = ttd_command("eval", "garden", "--data", "garden", "--model", "mini", "--protocol", "default", "--out", "again")
assert done.exit_code == 1 and "the label 11, which is outside the class list" in done.output, done.output
done = ttd_command("report", "default", "--out", "report")
assert done.exit_code == 0 and "garden" in Path("report/report.md").read_text("utf-8"), done.output
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("site"), "garden_dataset", BLOCKS[0], "ttd.datasets", "garden")


@pytest.mark.slow
def test_the_pages_examples_run(site: Path, tmp_path: Path) -> None:
    assert len(BLOCKS) == 2
    code = "import numpy as np\nimport ttd\n" + BLOCKS[1]  # a reader has both from the block above
    done = run_with(site, code + MEASURED, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    (tmp_path / "alone").mkdir()
    alone = run_with(tmp_path, code, tmp_path / "alone")
    assert "InputError: unknown data set 'garden': choose from voc, voc20" in alone.stderr


@pytest.mark.parametrize("name", ["voc", "tagmask", "No"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(InputError):
        ttd.register_dataset(ttd.DataSet(name, "a test", (ttd.Layout("a", "b"),)))


def test_the_page_of_benchmarks_names_every_data_set() -> None:
    text = PAGE.with_name("benchmarks.md").read_text("utf-8")
    assert [name for name in DATASETS.names() if f"`{name}`" not in text] == []
