"""Large data: seconds and peak memory of each stage, each in a process of its own, by /usr/bin/time -v.

`python -m benchmarks large --rows 1000000` writes a CSV of so many rows into a fresh clone and runs the
stages there. It needs four times the size of the CSV on the disk: the CSV, the tensors, DVC's copies.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cgan.errors import CganError
from cgan.params.editing import set_params

from .machine import ROOT
from .synthetic_csv import write_csv
from .tables import Check, Result, Table

STAGES = (
    "download",
    "validate",
    "preprocess",
    "train_judge",
    "train",
    "evaluate",
    "render",
    "page",
    "record",
)
DVC = "DVC: hash and keep all of it"
PEAK_MB = 2500  # promised of a million rows
TIME = "/usr/bin/time"


def measure(rows: list[int], folder: Path | None = None) -> Result:
    """`folder`: where the clones are made, and removed again."""
    if not Path(TIME).is_file():
        raise CganError(f"{TIME}: not found. Install it: `apt-get install time`.")
    result = Result()
    found = {}
    for count in rows:
        with tempfile.TemporaryDirectory(prefix="cgan-large-", dir=folder) as place:
            found[count] = stages_of(Path(place), count)
    result.figures["rows"] = {str(count): each for count, each in found.items()}
    table = Table(
        "Large data: seconds and peak MB of each stage",
        ["stage", *(f"{count:,} rows, {unit}" for count in rows for unit in ("s", "CPU s", "MB"))],
        note="Digits of the embedded sample, shifted and noisy, 28 × 28; each stage as a process of its "
        "own by `/usr/bin/time -v`, in a fresh clone; preset `default`. Peak: the maximum resident set "
        "size, which counts the pages of memory-mapped files, too.",
    )
    for name in (*STAGES, DVC):
        cells = [f"{found[count][name][key]:{form}}" for count in rows
                 for key, form in (("seconds", ".0f"), ("cpu_s", ".0f"), ("peak_mb", ",.0f"))]  # fmt: skip
        table.add(name, *cells)
    result.tables.append(table)
    worst = max(
        (each["peak_mb"], name, count)
        for count, stages in found.items()
        for name, each in stages.items()
    )
    result.checks.append(
        Check(
            f"no stage takes more than {PEAK_MB:,} MB",
            f"{worst[0]:,.0f} MB ({worst[1]}, {worst[2]:,} rows)",
            worst[0] <= PEAK_MB,
        )
    )
    return result


def stages_of(place: Path, rows: int) -> dict[str, dict[str, float]]:
    """Seconds and peak MB of each stage on a CSV of so many rows."""
    clone = place / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    csv = write_csv(place / "large.csv", rows)
    megabytes = csv.stat().st_size / 1e6
    print(f"{rows:,} rows, {megabytes:,.0f} MB", flush=True)
    changes = {"source": "file", "path": str(csv), "max_megabytes": int(megabytes) + 1}
    set_params({"data": changes}, clone / "params.yaml")
    dvc = shutil.which("dvc", path=str(Path(sys.executable).parent)) or "dvc"
    commands = {name: [sys.executable, "-m", f"cgan.stages.{name}"] for name in STAGES}
    found = {}
    for name, command in (commands | {DVC: [dvc, "commit", "--force"]}).items():
        found[name] = now = timed(command, clone)
        print(f"{name}: {now['cpu_s']:.1f} s of CPU, {now['peak_mb']:,.0f} MB", flush=True)
    return found


def timed(command: list[str], folder: Path) -> dict[str, float]:
    """Run → seconds, CPU seconds, and the peak MB of its largest process. Raises CganError with its last
    lines."""
    began = time.perf_counter()
    done = subprocess.run(
        [TIME, "-v", *command],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(folder)},
    )
    seconds = time.perf_counter() - began
    peak = re.search(r"Maximum resident set size \(kbytes\): (\d+)", done.stderr)
    cpu = re.findall(r"(?:User|System) time \(seconds\): ([\d.]+)", done.stderr)
    if done.returncode or not peak:
        said = (done.stdout + done.stderr.partition("\tCommand being timed")[0]).strip()
        raise CganError(f"{' '.join(command[1:])} failed:\n{said[-2000:]}")
    return {
        "seconds": seconds,
        "cpu_s": sum(map(float, cpu)),
        "peak_mb": int(peak[1]) * 1024 / 1e6,
    }
