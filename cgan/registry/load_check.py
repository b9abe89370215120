"""Does a registered model load and draw without anything of this project?

`load_problem` starts this file as a program: a fresh interpreter in isolated mode, an empty folder, an
environment with little more than PATH, no pickle, and a time limit. The package that draws comes with the
model. `mlflow models predict --env-manager local` does the same and takes twice as long (12 s against 6).
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # and in the function: the program must not find this package
    from torch import Tensor

    from cgan.registry.client import Registry

TIME_LIMIT_S = 180.0
PASSED_ON = ("PATH", "LANG", "LC_ALL", "OMP_NUM_THREADS")


def load_problem(
    registry: Registry, model: str, labels: list[int], seed: int, expected: Tensor
) -> str:
    """What is wrong with a model, in words; empty where it draws `expected`, uint8 [N, C, H, W].

    Raises ModelError when that says nothing of the model: its files are away, the process was killed or
    too slow.
    """
    from cgan.errors import ModelError
    from cgan.model.sampling import encode_png, picture_of
    from cgan.project import GENERATOR
    from cgan.registry.archive import downloaded
    from cgan.tracking.store import SETTINGS

    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    again = "Is the machine overloaded or out of memory? Run `cgan gate` again."
    with (
        downloaded(registry, model, "Train again: `dvc repro --force train`.") as folder,
        tempfile.TemporaryDirectory(prefix="cgan-load-") as work,
    ):
        asked = json.dumps([str(folder), labels, seed])
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-B", __file__, asked],
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=TIME_LIMIT_S,
                cwd=work,
                env={"OMP_NUM_THREADS": "1", **kept, **SETTINGS, "HOME": work, "TMPDIR": work},
            )
        except subprocess.TimeoutExpired:
            raise ModelError(f"{model}: not loaded in {TIME_LIMIT_S:g} s. {again}") from None
    if done.returncode < 0:
        raise ModelError(f"{model}: its process was killed (signal {-done.returncode}). {again}")
    if done.returncode:
        return (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1][:500]
    pictures = [encode_png(picture_of(image)) for image in expected.permute(0, 2, 3, 1)]
    if json.loads(done.stdout) == [base64.b64encode(png).decode() for png in pictures]:
        return ""
    return f"its drawings are not those of {GENERATOR}"


def _draw(folder: str, labels: list[int], seed: int) -> None:
    """Print the PNGs in base64."""
    import mlflow
    import pandas as pd

    stdout, sys.stdout = sys.stdout, sys.stderr
    model = mlflow.pyfunc.load_model(folder)
    drawn = model.predict(pd.DataFrame({"label": labels}), params={"seed": seed})
    package = Path(str(sys.modules["cgan"].__file__)).resolve()
    if not package.is_relative_to(Path(folder).resolve()):
        raise ImportError(
            "it drew with this project's package, not with the one that comes with it"
        )
    json.dump(list(drawn["png_base64"]), stdout)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    _draw(*json.loads(sys.argv[1]))
