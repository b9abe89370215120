"""Seconds and peak memory of each stage on a large CSV of digits."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cgan.base.errors import CganError
from cgan.base.git import clone_at
from cgan.base.report import Cell, Report, Table
from cgan.pipeline.params_file import read_yaml, set_params

from .common import ROOT, report, sample_digits

BLOCK = 5_000  # rows that are made at once
SHIFT = 2  # pixels
PEAK_MB = 2500  # promised of a million rows
# A stage, which at last prints its peak in kB: `os.wait4` would count its parent's pages, too.
RUN = """
import re, runpy
runpy.run_module("cgan.stages.%s", run_name="__main__")
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""
Figures = tuple[float, float, float]  # seconds, CPU seconds, peak in MB


def measure(rows: Sequence[int], folder: Path | None = None) -> Report:
    """Of CSVs with so many rows. `folder`: where the clones are made, and removed again."""
    found = {}
    for count in rows:
        with tempfile.TemporaryDirectory(prefix="cgan-large-", dir=folder) as place:
            csv = write_csv(Path(place) / "large.csv", count)
            print(f"{count:,} rows, {csv.stat().st_size / 1e6:,.0f} MB", flush=True)
            found[count] = of_stages(csv, Path(place) / "clone")
    table: list[Sequence[Cell]] = [
        (name, *(f"{figure:,.0f}" for count in rows for figure in found[count][name]))
        for name in found[rows[0]]
    ]
    units = ("s", "CPU s", "MB")
    worst = max(peak for stages in found.values() for _, _, peak in stages.values())
    promise = f"no stage takes more than {PEAK_MB:,} MB: {worst:,.0f} MB"
    return report(
        Table(
            "Large data", ("stage", *(f"{n:,} rows, {unit}" for n in rows for unit in units)), table
        ),
        "Digits of the embedded sample, shifted and noisy, 28 × 28; each stage as dvc.yaml starts it, in a "
        "fresh clone; preset default. Peak: the maximum resident set size, which counts the pages of "
        "memory-mapped files, too.",
        {promise: worst <= PEAK_MB},
        rows=found,
    )


def of_stages(csv: Path, clone: Path) -> dict[str, Figures]:
    """The stages in a clone of HEAD, one after the other."""
    clone_at(ROOT, "HEAD", clone)
    set_params({"data.source": "file", "data.path": str(csv)}, clone / "params.yaml")
    environment = os.environ | {"PYTHONPATH": str(clone)}
    found = {}
    stages = read_yaml(clone / "dvc.yaml")["stages"]
    for name in stages:
        before, began = os.times(), time.perf_counter()
        ran = subprocess.run(
            [sys.executable, "-c", RUN % name], cwd=clone, env=environment, stdout=subprocess.PIPE
        )
        seconds, after = time.perf_counter() - began, os.times()
        if ran.returncode:
            raise CganError(f"the stage {name} failed.")
        cpu = sum(after[2:4]) - sum(before[2:4])  # of children
        found[name] = (seconds, cpu, int(ran.stdout.split()[-1]) * 1024 / 1e6)
    return found


def write_csv(path: Path, rows: int, seed: int = 0) -> Path:
    """A CSV of embedded digits: shifted, darkened and noisy, so that hardly two are equal. Memory is that of
    a block."""
    digits = sample_digits()
    random = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    names = ",".join(["label", *(f"pixel{n}" for n in range(784))])
    path.write_text(f"{names}\n", encoding="utf-8")
    for start in range(0, rows, BLOCK):
        chosen = random.integers(len(digits), size=min(BLOCK, rows - start))
        flat = _changed(digits.pixels[chosen][:, 0], random).reshape(len(chosen), -1)
        table = pd.DataFrame(np.column_stack([digits.labels[chosen], flat]))
        table.to_csv(path, mode="a", header=False, index=False)
    return path


def _changed(digits: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """uint8 [N, 28, 28]: shifted, of other strength, with noise in the ink."""
    shifts = random.integers(-SHIFT, SHIFT + 1, (len(digits), 2)).tolist()
    found = np.stack([np.roll(each, by, (0, 1)) for each, by in zip(digits, shifts, strict=True)])
    strength = random.uniform(0.7, 1.0, (len(found), 1, 1))
    ink = np.maximum(found * strength, random.integers(0, 24, found.shape))
    return np.where(found > 0, ink, 0).astype(np.uint8)
