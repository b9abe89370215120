"""What a figure was measured on: machine, versions, commit."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import psutil
import torch

ROOT = Path(__file__).resolve().parent.parent
BUSY = 0.15  # part of the CPU that others may take before figures are marked
MEASURED = ("cgan", "benchmarks", "presets", "params.yaml")


def facts(device: str = "cpu") -> dict[str, Any]:
    """Plain JSON. `busy` is the part of the CPU that other processes take just now."""
    found = {
        "date": date.today().isoformat(),
        "machine": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("torch", "numpy", "mlflow")},
        "commit": _commit(),
        "busy": round(taken_by_others(), 2),
    }
    if device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
        found["cuda"] = torch.version.cuda
    return found


def sentence(found: dict[str, Any]) -> str:
    """The facts in a line of text."""
    gpu = f"{found['gpu']} (CUDA {found['cuda']}), " if "gpu" in found else ""
    text = (
        f"{found['date']}, {gpu}{found['machine']}, {found['cores']} cores, {found['memory_gb']} GB, "
        f"Python {found['python']}, torch {found['torch']}, numpy {found['numpy']}, "
        f"commit {found['commit']}"
    )
    if found["busy"] > BUSY:
        text += f". **Not for quoting**: other processes took {found['busy']:.0%} of the CPU when it began"
    return text


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                return name + (" with AMX" if _has_amx() else "")
    return platform.processor() or platform.machine()


def _has_amx() -> bool:
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments],
            cwd=ROOT,
            capture_output=True,
            encoding="utf-8",
            timeout=10,
            check=True,
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", *MEASURED)
        return git("rev-parse", "--short", "HEAD") + (" and changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def taken_by_others(seconds: float = 1.0) -> float:
    """Part of the CPU, 0–1, that processes other than this one take while it sleeps."""
    psutil.cpu_percent()
    time.sleep(seconds)
    return float(psutil.cpu_percent()) / 100


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
