"""Prints each direct dependency at its lower bound, as arguments of `pip install` (`make test-lowest`)."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]
EXTRAS = ("pipeline", "serve", "kaggle", "sweep")
LEFT_OUT = {"torch"}  # see the Makefile

extras = [PROJECT["optional-dependencies"][extra] for extra in EXTRAS]
for requirement in sum(extras, PROJECT["dependencies"]):
    name, version = re.fullmatch(r"([\w.-]+)>=([\d.]+)(,.*)?", requirement).group(1, 2)
    if name not in LEFT_OUT:
        print(f"{name}=={version}")
