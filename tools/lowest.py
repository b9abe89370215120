"""Prints each direct dependency at its lower bound, as arguments of `pip install` (`make test-lowest`)."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
LEFT_OUT = {"torch"}  # see the Makefile

for requirement in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["kaggle"]]:
    name, version = re.fullmatch(r"([\w.-]+)>=([\d.]+)(,.*)?", requirement).group(1, 2)
    if name not in LEFT_OUT:
        print(f"{name}=={version}")
