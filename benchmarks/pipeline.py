"""`dvc repro` from a CSV to judged digits, in a fresh clone: seconds and peak memory of each stage.

`python -m benchmarks pipeline --against COMMIT` has that commit take turns with HEAD. `python -m benchmarks
large --rows 1000000` does it once with a CSV of so many rows. That needs four times the size of the CSV on
the disk: the CSV, the tensors, DVC's copies.
"""

import itertools
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cgan.base.errors import CganError
from cgan.base.git import clone_at
from cgan.params.presets import preset_params

from .evaluation_set import kaggle_zip
from .machine import ROOT
from .scale import Scale
from .synthetic_csv import write_csv
from .tables import Check, Result, Table

TIME = "/usr/bin/time"
RUNNING = re.compile(r"Running stage '(\w+)'")
TRAINED = re.compile(r"Trained [\d,]+ steps in ([\d.]+) s")
TOOK = re.compile(r"^took ([\d.]+) ([\d.]+) (\d+)$")
START, STEPS = "DVC's own, before the first", "of which training steps"
SETTINGS = {"sample": "the embedded 5,000, `default`", "full": "42,000 rows, `fast`"}
PEAK_MB = 2500  # promised of a million rows
Stages = dict[str, dict[str, float]]  # seconds, cpu_s and peak_mb of each


def measure(scale: Scale) -> Result:
    return compare(scale.pipeline_rounds, trial=scale.name == "tiny")


def compare(rounds: int, against: str = "", trial: bool = False) -> Result:
    """HEAD, and `against`, in turns. `trial`: trainings of a few steps, to see that it runs."""
    result, commits = Result(), ["HEAD", *([against] if against else [])]
    for setting in ["sample"] if trial else SETTINGS:
        if setting == "full" and not kaggle_zip().is_file():
            print(f"{SETTINGS[setting]}: left out, for there is no {kaggle_zip().name}")
            continue
        full: dict[str, Any] = {"source": "file", "path": kaggle_zip()} if setting == "full" else {}
        few = {"total_kimg": 1.0} if trial else {}
        changes: dict[str, dict[str, Any]] = {"data": full, "train_judge": few, "train": few}
        found: dict[str, list[Stages]] = {commit: [] for commit in commits}
        for _ in range(rounds):
            for commit in commits:
                found[commit].append(stages := repro(commit, changes, "fast" if full else ""))
                print(f"{SETTINGS[setting]}, {commit}: {_sum(stages):.1f} s", flush=True)
        result.figures[setting] = found
        result.tables.append(_table(setting, found))
        if against:
            pairs = zip(found["HEAD"], found[against], strict=True)
            ratios = [_sum(now) / _sum(then) for now, then in pairs]
            middle, each = statistics.median(ratios), ", ".join(f"{r:.2f}" for r in ratios)
            promise = f"`dvc repro`, {SETTINGS[setting]}, takes no longer than at {against}"
            result.checks.append(Check(promise, f"×{middle:.2f} (rounds: {each})", middle <= 1))
    return result


def _sum(stages: Stages) -> float:
    return sum(each["seconds"] for name, each in stages.items() if name != STEPS)


def _table(setting: str, found: dict[str, list[Stages]]) -> Table:
    table = Table(
        f"`dvc repro` in a fresh clone: {SETTINGS[setting]}",
        ["stage", *(f"{commit}, s" for commit in found)],
        note="Wall time with Python's start, DVC's hashing and the first contact with MLflow; medians. "
        "The training's steps are counted in its stage.",
    )
    for name in dict.fromkeys(name for runs in found.values() for run in runs for name in run):
        each = ([run[name]["seconds"] for run in runs if name in run] for runs in found.values())
        table.add(name, *(f"{statistics.median(one):.1f}" if one else "–" for one in each))
    table.add("all", *(f"{statistics.median(map(_sum, runs)):.1f}" for runs in found.values()))
    return table


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
            data = {"source": "file", "path": csv}
            stages = repro("HEAD", {"data": data}, timed=True, place=place)
            found[count] = {name: each for name, each in stages.items() if "peak_mb" in each}
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


def repro(
    commit: str,
    changes: dict[str, dict[str, Any]],
    preset: str = "",
    timed: bool = False,
    place: str | None = None,
) -> Stages:
    """One `dvc repro` of everything, in a clone that is removed afterwards. `timed`: with CPU and memory."""
    with tempfile.TemporaryDirectory(prefix="cgan-bench-", dir=place) as folder:
        clone = Path(folder) / "clone"
        clone_at(ROOT, commit, clone)
        if preset:
            changes = {**changes, "train": preset_params(preset)}
        change_params(clone / "params.yaml", changes)
        if timed:
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
            raise CganError(f"dvc repro at {commit} failed:\n{text[-2000:]}")
    return found


def follow(lines: Iterable[str]) -> tuple[Stages, str]:
    """DVC's output, read as it comes → the figures of each stage, and the text."""
    stages: Stages = {START: {"seconds": 0.0}}
    name, text, since = START, "", time.perf_counter()
    for line in itertools.chain(lines, [""]):
        now = time.perf_counter()
        stages[name]["seconds"] += now - since
        since, text = now, text + line
        if running := RUNNING.search(line):
            name = running[1]
            stages[name] = {"seconds": 0.0}
        if trained := TRAINED.search(line):
            stages[STEPS] = {"seconds": float(trained[1])}
        if took := TOOK.search(line):
            user, system, kilobytes = map(float, took.groups())
            stages[name] |= {"cpu_s": user + system, "peak_mb": kilobytes * 1024 / 1e6}
    return stages, text


def change_params(path: Path, changes: dict[str, dict[str, Any]]) -> None:
    """By the text: another commit's params.yaml has other keys."""
    text = path.read_text(encoding="utf-8")
    for section, values in changes.items():
        at = re.search(rf"(?m)^{section}:", text).start()  # type: ignore[union-attr]
        for key, value in values.items():
            text = text[:at] + re.sub(rf"(?m)^(  {key}:) \S+", rf"\1 {value}", text[at:], count=1)
    path.write_text(text, encoding="utf-8")
