"""`ttd cite`, CITATION.cff and the README say the same."""

from __future__ import annotations

import re

import yaml

from tests.cli.test_eval import command
from tests.docs.pages import ROOT
from ttd import __version__


def entries(text: str) -> list[dict[str, str]]:
    """The fields of BibTeX entries without braces."""
    found = []
    for body in re.findall(r"^@\w+\{\w+,\n(.*?)^\}", text, re.M | re.S):
        pairs = re.findall(r"^  (\w+) = \{(.*)\},$", body, re.M)
        assert len(pairs) == len(body.splitlines())
        found.append({name: value.replace("{", "").replace("}", "") for name, value in pairs})
    return found


def test_the_paper_and_the_package_are_those_of_the_citation_file() -> None:
    printed = command("cite").stdout
    paper, package = entries(printed)
    card = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    cited = card["preferred-citation"]
    names = [f"{one['family-names']}, {one['given-names']}" for one in cited["authors"]]
    assert (paper["title"], paper["author"]) == (cited["title"], " and ".join(names))
    assert (paper["booktitle"], paper["year"]) == (cited["collection-title"], str(cited["year"]))
    assert (package["title"], package["author"]) == (card["title"], card["authors"][0]["name"])
    assert (package["version"], package["license"]) == (__version__, card["license"])
    assert printed in (ROOT / "README.md").read_text("utf-8")
