"""Does a registered model load and draw without anything of this project?

A fresh interpreter in isolated mode, an empty working directory, an environment with little more than
PATH, pickle off, and a time limit. The package that draws comes with the model.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cgan.errors import ModelError
from cgan.project import GENERATOR
from cgan.store.address import client_settings, reason_of

TIME_LIMIT_S = 180.0
PASSED_ON = ("PATH", "LANG", "LC_ALL", "OMP_NUM_THREADS")
PROGRAM = Path(__file__).with_name("load_check_program.py")


@contextlib.contextmanager
def drawing_apart(model: str, labels: list[int], seed: int) -> Iterator[Callable[[], Tensor | str]]:
    """The process, at work from here on; it is ended when the context is left. The function waits for it.

    Raises ModelError when the store that MLflow is set to cannot give the model's files.
    """
    from mlflow.artifacts import download_artifacts

    with tempfile.TemporaryDirectory(prefix="cgan-load-") as folder:
        work = Path(folder) / "work"
        (work / "model").mkdir(parents=True)
        try:
            path = download_artifacts(artifact_uri=model, dst_path=str(work / "model"))
        except Exception as error:  # the stores let through what their clients raise
            raise ModelError(
                f"{model}: the MLflow store cannot give its files ({reason_of(error)}). "
                "If they were deleted, train again: `dvc repro --force train`."
            ) from None
        kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        with subprocess.Popen(
            [sys.executable, "-I", "-B", str(PROGRAM), json.dumps([path, labels, seed])],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=work,
            env={**kept, **client_settings(), "HOME": folder, "TMPDIR": folder},
            start_new_session=True,
        ) as process:
            try:
                yield functools.partial(_drawings, process, model)
            finally:
                process.kill()


def _drawings(process: subprocess.Popen[bytes], model: str) -> Tensor | str:
    """uint8 [N, C, H, W], or what is wrong with the model, in words.

    Raises ModelError when that says nothing of the model: the process was killed or too slow.
    """
    try:
        said, _ = process.communicate(timeout=TIME_LIMIT_S)
    except subprocess.TimeoutExpired:
        raise ModelError(
            f"{model}: not loaded and drawn with in {TIME_LIMIT_S:g} s. Is the machine "
            "overloaded? Run `cgan gate` again."
        ) from None
    if process.returncode:
        raise ModelError(
            f"{model}: the process that loads it ended with exit code {process.returncode}. Out of "
            "memory? Run `cgan gate` again."
        )
    answer = json.loads(said)
    return (
        answer if isinstance(answer, str) else torch.from_numpy(np.stack([*map(_decoded, answer)]))
    )


def load_problem(drawn: Tensor | str, expected: Tensor) -> str:
    """In words; empty where the model drew what the generator's file draws, pixel for pixel."""
    if isinstance(drawn, str):
        return drawn
    same = drawn.shape == expected.shape and torch.equal(drawn, expected)
    return "" if same else f"its drawings are not those of {GENERATOR}"


def _decoded(text: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A PNG in base64 → uint8 [C, H, W]."""
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
