"""The folder that MLflow keeps as a run's model: the generator's file, and the code that draws with it."""

import importlib.metadata
import logging
import shutil
import tempfile
import warnings
from pathlib import Path

from cgan.base import git
from cgan.pipeline.project import PACKAGE

log = logging.getLogger(__name__)

# `mlflow_model` and all that it imports, except the registry. A test compares.
DRAWING_CODE = (
    *("__init__.py", "base/*.py", "models/*.py", "drawing/*.py"),
    *("data/__init__.py", "data/arrays.py", "data/contact_sheet.py", "data/images.py"),
)
REQUIRED = "torch", "numpy", "pandas", "pillow", "safetensors"
NOTE = """\
The trained generator. It draws the classes that it is asked for:

```python
import mlflow, pandas as pd
model = mlflow.pyfunc.load_model("runs:/RUN_ID/generator")
drawn = model.predict(pd.DataFrame({"label": [2, 0, 2, 4]}), params={"seed": 7})
```

Column `png_base64` holds a PNG a row. Same labels and seed: same pictures.
"""


def model_note(run_id: str) -> str:
    """What a run's model is, on MLflow's page."""
    return NOTE.replace("RUN_ID", run_id)


def save_mlflow_model(generator: Path, to: Path) -> None:
    """The model of a generator's file, with the code as it is now; without files in which a secret's value
    stands."""
    # Of one library about another; and that there is no example: with one MLflow would load torch, and draw.
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
        import mlflow.pyfunc
        from mlflow.models import ModelSignature
        from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

        code = Path(folder, "cgan")
        for path in [path for name in DRAWING_CODE for path in PACKAGE.glob(name)]:
            if named := git.secrets_in(path.read_bytes()):
                message = "%s is left out of the model in MLflow: it contains the value of %s."
                log.warning(message, path, named)
                continue
            copied = code / path.relative_to(PACKAGE)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copied)
        mlflow.pyfunc.save_model(
            str(to),
            python_model=str(code / "drawing/mlflow_model.py"),
            artifacts={"generator": str(generator)},
            code_paths=[str(code)],
            signature=ModelSignature(
                inputs=Schema([ColSpec("long", "label")]),
                outputs=Schema([ColSpec("string", "png_base64")]),
                params=ParamSchema([ParamSpec("seed", "long", 0)]),
            ),
            pip_requirements=[
                f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in REQUIRED
            ],
        )
