"""Seconds and peak memory of each stage of `dvc repro` from a large CSV, in a fresh clone. That needs four
times the size of the CSV on the disk: the CSV, the tensors, DVC's copies.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from cgan.base.errors import CganError
from cgan.base.git import clone_at
from cgan.pipeline.params_file import set_params

from .machine import ROOT
from .synthetic_csv import write_csv
from .tables import Check, Result, Table

TIME = "/usr/bin/time"
RUNNING = re.compile(r"Running stage '(\w+)'")
TOOK = re.compile(r"^took ([\d.]+) ([\d.]+) (\d+)$")
PEAK_MB = 2500  # promised of a million rows
Stages = dict[str, dict[str, float]]  # seconds, cpu_s and peak_mb of each


def large(rows: list[int], folder: Path | None = None) -> Result:
    """`folder`: where the clones are made, and removed again."""
    if not Path(TIME).is_file():
        raise CganError(f"{TIME}: not found. Install it: `apt-get install time`.")
    found: dict[int, Stages] = {}
    for count in rows:
        with tempfile.TemporaryDirectory(prefix="cgan-large-", dir=folder) as place:
            csv = write_csv(Path(place) / "large.csv", count)
            megabytes = csv.stat().st_size // 10**6
            print(f"{count:,} rows, {megabytes:,} MB", flush=True)
            found[count] = repro(csv, place)
    columns = {"s": ("seconds", ".0f"), "CPU s": ("cpu_s", ".0f"), "MB": ("peak_mb", ",.0f")}
    table = Table(
        "Large data: seconds and peak MB of each stage",
        ["stage", *(f"{count:,} rows, {unit}" for count in rows for unit in columns)],
        note="Digits of the embedded sample, shifted and noisy, 28 × 28; `dvc repro` in a fresh clone, with "
        "DVC's hashing and copies; preset `default`. CPU and peak are the stage's own, by `/usr/bin/time`. "
        "Peak: the maximum resident set size, which counts the pages of memory-mapped files, too.",
    )
    for name in found[rows[0]]:
        each = [found[count][name] for count in rows]
        table.add(name, *(f"{one[key]:{form}}" for one in each for key, form in columns.values()))
    worst, name, count = max(
        (each["peak_mb"], name, count) for count in rows for name, each in found[count].items()
    )
    promise = f"no stage takes more than {PEAK_MB:,} MB"
    check = Check(promise, f"{worst:,.0f} MB ({name}, {count:,} rows)", worst <= PEAK_MB)
    return Result([table], [check], {"rows": {str(count): found[count] for count in rows}})


def repro(csv: Path, place: str) -> Stages:
    """One `dvc repro` of everything, in a clone that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="cgan-bench-", dir=place) as folder:
        clone = Path(folder) / "clone"
        clone_at(ROOT, "HEAD", clone)
        set_params(clone / "params.yaml", {"data.source": "file", "data.path": str(csv)})
        stages = clone / "dvc.yaml"
        text = stages.read_text(encoding="utf-8")
        command = f'cmd: {TIME} -f "took %U %S %M" python'
        stages.write_text(text.replace("cmd: python", command), encoding="utf-8")
        # The stages start `python` by the PATH.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        with subprocess.Popen(
            [shutil.which("dvc", path=path) or "dvc", "repro", "--force"],
            cwd=clone,
            env={**os.environ, "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        ) as process:
            assert process.stdout
            found, text = follow(process.stdout)
        if process.returncode:
            raise CganError(f"dvc repro failed:\n{text[-2000:]}")
    return found


def follow(lines: Iterable[str]) -> tuple[Stages, str]:
    """The figures of each stage, and the text, of DVC's output, read as it comes."""
    stages: Stages = {}
    name = text = ""
    since = time.perf_counter()
    for line in lines:
        text += line
        if running := RUNNING.search(line):
            name = running[1]
            since = time.perf_counter()
        if took := TOOK.search(line):
            user, system, kilobytes = map(float, took.groups())
            stages[name] = {
                "seconds": time.perf_counter() - since,
                "cpu_s": user + system,
                "peak_mb": kilobytes * 1024 / 1e6,
            }
    return stages, text
