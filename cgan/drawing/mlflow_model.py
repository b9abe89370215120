"""The generator as an MLflow model: labels in, PNG pictures out. MLflow runs this file when the model is
loaded ("models from code"): nothing is unpickled."""

import base64
import math
from typing import Any

import mlflow.pyfunc
import pandas as pd
from mlflow.exceptions import MlflowException

MAX_IMAGES, MAX_BYTES = 10_000, 2**27  # of one answer; the latter of pixels


class GeneratorModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc,name-defined]
    """`predict(DataFrame({"label": [3, 1]}), params={"seed": 7})` → column `png_base64`."""

    def load_context(self, context: Any) -> None:
        from cgan.drawing.generator import Generator

        self.generator = Generator.load(context.artifacts["generator"])

    def predict(
        self, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        from cgan.base.errors import CganError
        from cgan.models.sampling import encode_png

        labels = model_input["label"].tolist()
        most = min(MAX_IMAGES, MAX_BYTES // math.prod(self.generator.shape))
        if not 1 <= len(labels) <= most:
            # MLflow's own error, since its server sends a traceback along with any other.
            raise MlflowException.invalid_parameter_value(
                f"expected 1 to {most:,} labels, found {len(labels):,}."
            )
        try:
            images = self.generator.draw(labels, seed=int((params or {}).get("seed", 0)))
        except CganError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None
        pngs = [base64.b64encode(encode_png(image)).decode() for image in images]
        return pd.DataFrame({"png_base64": pngs})


mlflow.models.set_model(GeneratorModel())
