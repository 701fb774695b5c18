"""Write the fingerprint in `ttd.json` again after the rule of fingerprints has changed.

    python tools/restamp.py                          # the package's own model and adapters
    python tools/restamp.py FOLDER --base NAME       # an adapter of yours, and the model that it was trained on

The fingerprints of the rule before covered the parameters alone. A folder is stamped again only where these are the
base's; whether the base still has the tokenizer and the settings that it was trained with, only you know.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from ttd.encoders.identity import is_outdated, parameters_digest
from ttd.encoders.loading.catalogue import IN_PACKAGE
from ttd.encoders.loading.formats import read_card, write_card
from ttd.encoders.registry import MINI, find_adapter, known_models, load_encoder


def restamp(folder: Path, base: str | Path) -> str:
    """Stamps one folder; says what became of it, or exits where it belongs to another base."""
    card = read_card(folder)
    if card is None or not is_outdated(card.fingerprint):
        return f"{folder}: nothing to do"
    encoder = load_encoder(base, device="cpu")
    if card.fingerprint != parameters_digest(encoder).hex():
        raise SystemExit(f"{folder} belongs to another base than {base}: its parameters have another fingerprint")
    write_card(folder, replace(card, fingerprint=encoder.fingerprint()))
    return f"{folder}: {encoder.fingerprint()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--base", help="short name, folder, file or hub id of the model")
    asked = parser.parse_args()
    if (asked.folder is None) != (asked.base is None):
        parser.error("give a folder and its --base, or neither")
    folders = [(asked.folder, asked.base)]
    if asked.folder is None:
        own = [entry.name for entry in known_models() if entry.what == "adapter" and entry.source == IN_PACKAGE]
        folders = [(MINI, MINI), *((find_adapter(name), MINI) for name in own)]
    for folder, base in folders:
        print(restamp(folder, base))


if __name__ == "__main__":
    main()
