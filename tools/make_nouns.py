"""Writes the list of visible things with which `selection="negatives"` compares a caption's words.

python tools/make_nouns.py src/ttd/assets/nouns.txt

Taken from the package's own lists: the class names and synonyms of the benchmarks, the names of COCO's categories in
captions, and the nouns and backgrounds of the synthetic scenes. Single words only, since a caption's candidates are
single words; of a word and its plural the word.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

from ttd.evaluation.datasets.tagmask_from_coco import WordList
from ttd.scenes.nouns import BACKGROUNDS, NOUNS
from ttd.text.words import singulars

# No things: names of what is left over, adjectives, and what every image is.
LEFT_OUT = {"background", "solid", "structural", "military", "image", "base", "mount", "reflection", "remote"}
HEADER = """# Visible things, one per line: with which selection="negatives" compares words if it is given no others.
# Made by tools/make_nouns.py from assets/classes, assets/coco_words.txt and the nouns and backgrounds of ttd.scenes.
"""


def nouns() -> list[str]:
    """The list, sorted."""
    found = {*NOUNS, *BACKGROUNDS, *(name[0] for name in WordList.read().names if len(name) == 1)}
    for file in files("ttd").joinpath("assets/classes").iterdir():
        for line in file.read_text("utf-8").splitlines():
            if not line.startswith("#"):
                found.update(name.strip().lower() for name in line.split(";"))
    single = {word for word in found if word.isalpha()} - LEFT_OUT
    return sorted(word for word in single if not any(form in single for form in singulars(word)[1:]))


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(HEADER + "".join(f"{noun}\n" for noun in nouns()), "utf-8")
