"""`dvc repro` from a CSV to judged digits, in a fresh clone: the seconds of each stage.

`python -m benchmarks pipeline --against COMMIT` has that commit take turns with HEAD.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from cgan.errors import CganError

from .evaluation_set import kaggle_zip
from .machine import ROOT
from .scale import Scale
from .tables import Check, Result, Table

RUNNING = re.compile(r"Running stage '([\w]+)'")
TRAINED = re.compile(r"Trained [\d,]+ steps in ([\d.]+) s")
START, TRAINING = "DVC's own, before the first", "of which training steps"
SETTINGS = {"sample": "the embedded 5,000, `default`", "full": "42,000 rows, `fast`"}
Seconds = dict[str, float]


def measure(scale: Scale) -> Result:
    trial = scale.name == "tiny"
    return compare(scale.pipeline_rounds, settings=["sample"] if trial else SETTINGS, short=trial)


def compare(
    rounds: int, against: str | None = None, settings: Iterable[str] = SETTINGS, short: bool = False
) -> Result:
    """HEAD, and `against`, in turns. `short`: trainings of a few steps, to see that it runs."""
    result = Result()
    commits = ["HEAD", *([against] if against else [])]
    for setting in settings:
        if setting == "full" and not kaggle_zip().is_file():
            print(f"{SETTINGS[setting]}: left out, for there is no {kaggle_zip().name}")
            continue
        found: dict[str, list[Seconds]] = {commit: [] for commit in commits}
        for _ in range(rounds):
            for commit in commits:
                found[commit].append(seconds_of_stages(commit, setting, short))
                print(
                    f"{SETTINGS[setting]}, {commit}: {sum_of(found[commit][-1]):.1f} s", flush=True
                )
        result.figures[setting] = found
        result.tables.append(table(setting, found))
        if not against:
            continue
        ratios = [
            sum_of(now) / sum_of(then)
            for now, then in zip(found["HEAD"], found[against], strict=True)
        ]
        result.checks.append(
            Check(
                f"`dvc repro`, {SETTINGS[setting]}, takes no longer than at {against}",
                f"×{statistics.median(ratios):.2f} (rounds: "
                + ", ".join(f"{ratio:.2f}" for ratio in ratios)
                + ")",
                statistics.median(ratios) <= 1,
            )
        )
    return result


def sum_of(seconds: Seconds) -> float:
    """All but what is counted within a stage."""
    return sum(value for name, value in seconds.items() if name != TRAINING)


def table(setting: str, found: dict[str, list[Seconds]]) -> Table:
    table = Table(
        f"`dvc repro` in a fresh clone: {SETTINGS[setting]}",
        ["stage", *(f"{commit}, s" for commit in found)],
        note="Wall time with Python's start, DVC's hashing and the first contact with MLflow; medians. "
        "The training's steps are counted in its stage.",
    )
    names = dict.fromkeys(name for runs in found.values() for run in runs for name in run)

    def middle(runs: list[Seconds], name: str) -> str:
        values = [run[name] for run in runs if name in run]
        return f"{statistics.median(values):.1f}" if values else "–"

    for name in names:
        table.add(name, *(middle(runs, name) for runs in found.values()))
    totals = (f"{statistics.median(map(sum_of, runs)):.1f}" for runs in found.values())
    table.add("all", *totals)
    return table


def seconds_of_stages(commit: str, setting: str, short: bool) -> Seconds:
    """One `dvc repro` of everything, in a clone that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="cgan-bench-") as folder:
        clone = Path(folder) / "clone"
        for command in (["clone", "-q", str(ROOT), str(clone)], ["checkout", "-q", commit]):
            where = ROOT if command[0] == "clone" else clone
            done = subprocess.run(
                ["git", *command], cwd=where, capture_output=True, encoding="utf-8"
            )
            if done.returncode:
                raise CganError(f"git {' '.join(command)}: {done.stderr.strip()[:500]}")
        change_params(clone, setting, short)
        dvc = shutil.which("dvc", path=str(Path(sys.executable).parent)) or "dvc"
        began = time.perf_counter()
        with subprocess.Popen(
            [dvc, "repro", "--force"],
            cwd=clone,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        ) as process:
            assert process.stdout
            seconds, text = follow(process.stdout, began)
        if process.returncode:
            raise CganError(f"dvc repro at {commit} failed:\n{text[-2000:]}")
    return seconds


def follow(lines: Iterable[str], began: float) -> tuple[Seconds, str]:
    """DVC's output, read as it comes → seconds a stage, and the text."""
    seconds: Seconds = {}
    name, since, text = START, began, ""
    for line in lines:
        text += line
        now = time.perf_counter()
        if stage := RUNNING.search(line):
            seconds[name] = now - since
            name, since = stage[1], now
        if trained := TRAINED.search(line):
            seconds[TRAINING] = float(trained[1])
    inside = seconds.pop(TRAINING, None)
    seconds[name] = time.perf_counter() - since
    if inside is not None:
        seconds[TRAINING] = inside
    return seconds, text


def change_params(clone: Path, setting: str, short: bool) -> None:
    """By the text: another commit's params.yaml has other keys."""
    path = clone / "params.yaml"
    text = path.read_text(encoding="utf-8")
    if setting == "full":
        source = {"source": "file", "path": str(kaggle_zip())}
        for key, value in source.items():
            text = re.sub(rf"(?m)^(  {key}:) \S+", rf"\1 {value}", text, count=1)
        fast = (clone / "presets/fast.yaml").read_text(encoding="utf-8")
        for key, value in re.findall(r"(?m)^(\w+): *(\S+)", fast):
            at = text.index("\ntrain:")
            text = text[:at] + re.sub(rf"(?m)^(  {key}:) \S+", rf"\1 {value}", text[at:], count=1)
    if short:
        text = re.sub(r"(?m)^(  total_kimg:) \S+", r"\1 1.0", text)
    path.write_text(text, encoding="utf-8")
