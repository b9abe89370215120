"""Facts of what a figure was measured on: machine, versions, commit."""

import importlib.metadata
import os
import platform
import re
from datetime import date
from pathlib import Path
from typing import Any

import psutil
import torch

from cgan.base.commands import CommandError
from cgan.base.git import git

ROOT = Path(__file__).resolve().parent.parent
BUSY = 0.15  # part of the CPU that others may take before figures are marked
MEASURED = ("cgan", "benchmarks", "params.yaml")


def facts(device: str = "cpu") -> dict[str, Any]:
    """Plain JSON. `busy` is the part of the CPU that other processes take in a second in
    which this one sleeps."""
    found = {
        "date": date.today().isoformat(),
        "machine": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("torch", "numpy", "mlflow")},
        "commit": _commit(),
        "busy": round(psutil.cpu_percent(1) / 100, 2),
    }
    if device == "cuda":
        found |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
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
    path = Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if model := re.search(r"model name\s*: (.*)", text):
        return model[1] + (" with AMX" if "amx_tile" in text else "")
    return platform.processor() or platform.machine()


def _commit() -> str:
    try:
        commit = git("rev-parse", "--short", "HEAD", folder=ROOT).decode().strip()
        changed = git("status", "--porcelain", "--", *MEASURED, folder=ROOT)
    except CommandError:
        return "unknown"
    return commit + (" and changes" if changed else "")
