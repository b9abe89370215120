"""The process of the load check: load a model of the registry, draw, write the answer into a file.

Run by its path with `python -I -B`, so that nothing of this project is on its path; see `load_check`.
The question comes as JSON on stdin: `store`, `model`, `labels`, `seed`, and `answer`, the file to write. In
it stand `pictures` (PNG in base64) and `own` (did the package come with the model?); or `away`, where
the store cannot give the model; or `problem`.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd


def main(question: dict[str, Any]) -> dict[str, Any]:
    mlflow.set_tracking_uri(question["store"])
    try:
        folder = mlflow.artifacts.download_artifacts(
            artifact_uri=question["model"], dst_path="model"
        )
    except Exception as error:
        return {"away": _in_words(error)}
    try:
        model = mlflow.pyfunc.load_model(folder)
        labels = pd.DataFrame({"label": question["labels"]})
        drawn = model.predict(labels, params={"seed": question["seed"]})
        package = Path(str(importlib.import_module("cgan").__file__)).resolve()
        own = package.is_relative_to(Path(folder).resolve())
        return {"pictures": list(drawn["png_base64"]), "own": own}
    except Exception as error:
        return {"problem": _in_words(error)}


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:500]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    asked = json.load(sys.stdin)
    Path(asked["answer"]).write_text(json.dumps(main(asked)), encoding="utf-8")
