"""Runs every measurement of this folder in turn: `python -m speed` from the repository's root."""

from __future__ import annotations

import importlib
import pkgutil

import speed


def main() -> None:
    for module in pkgutil.iter_modules(speed.__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"speed.{module.name}").main()


if __name__ == "__main__":
    main()
