"""The generator as an MLflow model: labels in, PNG pictures out.

MLflow runs this file when the model is loaded ("models from code"): nothing is unpickled.
"""

from __future__ import annotations

import base64
import io
from typing import Any

import mlflow.pyfunc
import pandas as pd

MAX_IMAGES = 10_000


class GeneratorModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc,name-defined]
    """`predict(DataFrame({"label": [3, 1]}), params={"seed": 7})` → column `png_base64`."""

    def load_context(self, context: Any) -> None:
        from cgan.generator import Generator

        self.generator = Generator.load(context.artifacts["generator"])

    def predict(
        self, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        from PIL import Image

        labels = model_input["label"].tolist()
        if not 1 <= len(labels) <= MAX_IMAGES:
            raise ValueError(f"Expected 1 to {MAX_IMAGES} labels, got {len(labels)}.")
        images = self.generator.draw(labels, seed=int((params or {}).get("seed", 0)))
        pictures = []
        for image in images:
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, format="PNG")
            pictures.append(base64.b64encode(buffer.getvalue()).decode())
        return pd.DataFrame({"png_base64": pictures})


mlflow.models.set_model(GeneratorModel())
