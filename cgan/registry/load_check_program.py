"""The process of the load check: load a model's folder, draw, print PNGs in base64, or what is wrong.

Run by its path with `python -I -B`, so that nothing of this project is on its path; see `load_check`.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
import warnings
from pathlib import Path

import mlflow
import pandas as pd


def answer(folder: str, labels: list[int], seed: int) -> list[str] | str:
    try:
        model = mlflow.pyfunc.load_model(folder)
        drawn = model.predict(pd.DataFrame({"label": labels}), params={"seed": seed})
        package = Path(str(importlib.import_module("cgan").__file__)).resolve()
        if package.is_relative_to(Path(folder).resolve()):
            return list(drawn["png_base64"])
        return "it was drawn with this project's package, not with the one that comes with it"
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:500]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    stdout, sys.stdout = sys.stdout, sys.stderr
    json.dump(answer(*json.loads(sys.argv[1])), stdout)
