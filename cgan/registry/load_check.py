"""Does a registered model load and draw without anything of this project?

A fresh interpreter in isolated mode, an empty working directory, an environment with little more than
PATH and the store's address, pickle off, and a time limit. The package that draws comes with the model.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cgan.errors import ModelError
from cgan.model.networks import Generator
from cgan.model.sampling import draw
from cgan.project import GENERATOR
from cgan.quality.judge import Judge, look
from cgan.registry.decision import Loaded, Share
from cgan.tracking.store import client_settings

TIME_LIMIT_S = 180.0
PER_CLASS = 10
MAX_DRAWN = 1000
# What a store, a proxy or a bucket may need.
PASSED_ON = (
    "MLFLOW_TRACKING_",
    "MLFLOW_S3_",
    "AWS_",
    "AZURE_",
    "GOOGLE_",
    "SSL_CERT_",
    "REQUESTS_",
)
ALSO = ("PATH", "LANG", "LC_ALL", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "OMP_NUM_THREADS")
PROGRAM = Path(__file__).with_name("load_check_program.py")


def labels_for(classes: int) -> list[int]:
    """Every class, several times where that is not too much."""
    return list(range(classes)) * max(1, min(PER_CLASS, MAX_DRAWN // classes))


@contextlib.contextmanager
def drawing_apart(store: str, model: str, labels: list[int], seed: int) -> Iterator[ApartProcess]:
    """The process, at work from here on; it is ended when the context is left."""
    with tempfile.TemporaryDirectory(prefix="cgan-load-") as folder:
        process = ApartProcess(Path(folder), store, model, labels, seed)
        try:
            yield process
        finally:
            process.end()


class ApartProcess:
    """Loads a model of the registry, draws and answers; see the module's head."""

    def __init__(self, folder: Path, store: str, model: str, labels: list[int], seed: int) -> None:
        self._model, self._answer = model, folder / "answer.json"
        work = folder / "work"
        work.mkdir()
        kept = {k: v for k, v in os.environ.items() if k in ALSO or k.startswith(PASSED_ON)}
        self._errors = (folder / "errors.txt").open("w+b")
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-B", str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            cwd=work,
            env={**kept, **client_settings(), "HOME": str(folder), "TMPDIR": str(folder)},
            start_new_session=True,
        )
        question = {
            "store": store,
            "model": model,
            "labels": labels,
            "seed": seed,
            "answer": str(self._answer),
        }
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
            stdin.write(json.dumps(question).encode())

    def drawings(self) -> Tensor | str:
        """uint8 [N, C, H, W], or what is wrong with the model, in words.

        Raises ModelError when that says nothing of the model: the store could not give it, or the
        process was killed or too slow.
        """
        try:
            self._process.wait(TIME_LIMIT_S)
        except subprocess.TimeoutExpired:
            raise ModelError(
                f"{self._model}: not loaded and drawn with in {TIME_LIMIT_S:g} s. Is the machine "
                "overloaded? Run `cgan gate` again."
            ) from None
        answer = self._heard()
        if "away" in answer:
            raise ModelError(
                f"{self._model}: the MLflow store cannot give its files ({answer['away']}). "
                "If they were deleted, train again: `dvc repro --force train`."
            )
        if "problem" in answer:
            return str(answer["problem"])
        if not answer["own"]:
            return "it was drawn with this project's package, not with the one that comes with it"
        return torch.from_numpy(np.stack([_decoded(text) for text in answer["pictures"]]))

    def _heard(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self._answer.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            self._errors.seek(0)
            said = self._errors.read()[-2000:].decode(errors="replace").strip().splitlines()
            raise ModelError(
                f"{self._model}: the process that loads it ended with exit code "
                f"{self._process.returncode} ({said[-1] if said else 'no words'}). Out of memory? "
                "Run `cgan gate` again."
            ) from None

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._errors.close()


def load_result(
    drawn: Tensor | str, network: Generator, judge: Judge, labels: list[int], seed: int
) -> Loaded:
    """Was it what the generator's file draws, and of the classes asked for?"""
    if isinstance(drawn, str):
        return Loaded(problem=drawn)
    asked = torch.tensor(labels)
    expected = draw(network, asked, seed)
    if drawn.shape != expected.shape or not torch.equal(drawn, expected):
        return Loaded(problem=f"its drawings are not those of {GENERATOR}")
    right = look(judge, drawn).classes == asked
    return Loaded(right=Share(int(right.sum()), len(labels)))


def _decoded(text: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A PNG in base64 → uint8 [C, H, W]."""
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
