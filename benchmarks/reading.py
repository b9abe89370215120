"""A CSV becomes tensors: seconds and peak memory, each reader in a fresh process.

`python -m benchmarks.reading READER CSV` is that process; it prints one line of JSON.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .ground import all_params, csv_file
from .machine import ROOT
from .scale import Scale
from .tables import Check, Result, Table

Read = Callable[[str], tuple[Any, Any]]  # CSV → (labels int64 [N], images uint8 [N, 784]), numpy


def _cgan() -> Read:
    from cgan.data import csv_reader

    params = all_params().validation

    def read(path: str) -> tuple[Any, Any]:
        table = csv_reader.read_csv(path, params)
        return table.labels, table.images.reshape(len(table.labels), -1)

    return read


def _numpy() -> Read:
    import numpy as np

    def read(path: str) -> tuple[Any, Any]:
        table = np.loadtxt(path, dtype=np.uint8, delimiter=",", skiprows=1)
        return table[:, 0].astype(np.int64), np.ascontiguousarray(table[:, 1:])

    return read


def _pandas(**options: Any) -> Read:
    import numpy as np
    import pandas as pd

    def read(path: str) -> tuple[Any, Any]:
        frame = pd.read_csv(path, **options)
        labels = frame.pop("label").to_numpy(np.int64, copy=True)
        return labels, np.require(frame.to_numpy(np.uint8), requirements=["C", "W"])

    return read


def _pyarrow() -> Read:
    import numpy as np
    import pyarrow as pa  # type: ignore[import-untyped]
    from pyarrow import csv

    def read(path: str) -> tuple[Any, Any]:
        with Path(path).open(encoding="utf-8") as file:
            columns = file.readline().strip().split(",")
        types = csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.uint8()))
        table = csv.read_csv(path, convert_options=types)
        labels = table.column(columns[0]).to_numpy().astype(np.int64)
        return labels, np.column_stack([table.column(name).to_numpy() for name in columns[1:]])

    return read


OURS = "cgan (checks every value, hashes)"
READERS: dict[str, tuple[str, Callable[[], Read]]] = {
    OURS: ("cgan", _cgan),
    "numpy.loadtxt, uint8": ("numpy", _numpy),
    "pandas, C engine": ("pandas", _pandas),
    "pandas, C engine, uint8": ("pandas", lambda: _pandas(dtype="uint8")),
    "pandas, pyarrow engine": ("pyarrow", lambda: _pandas(engine="pyarrow")),
    "pyarrow.csv, uint8": ("pyarrow", _pyarrow),
}


def in_this_process(reader: str, path: str) -> dict[str, float]:
    """Read once → seconds, peak MB of the process, MB that it had before (imports)."""
    import torch

    read = READERS[reader][1]()
    before = _peak_mb()
    began = time.perf_counter()
    labels, images = read(path)
    tensors = torch.from_numpy(labels), torch.from_numpy(images)
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "peak_mb": _peak_mb(),
        "before_mb": before,
        "images": len(tensors[0]),
        "checksum": int(tensors[0].sum()) + int(tensors[1].sum()),
    }


def _peak_mb() -> float:
    """Linux's own count, for `ru_maxrss` comes with the parent's peak; elsewhere there is only that."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


def measure(scale: Scale) -> Result:
    path, about = csv_file()
    if scale.limit:
        short = path.with_name("tiny.csv")
        with path.open(encoding="utf-8") as file:
            lines = [line for line, _ in zip(file, range(scale.limit + 1), strict=False)]
            short.write_text("".join(lines), encoding="utf-8")
        path = short
    there = [name for name, (module, _) in READERS.items() if importlib.util.find_spec(module)]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in there}
    for _ in range(scale.reader_rounds):
        for name in there:
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.reading", name, str(path)],
                cwd=ROOT,
                capture_output=True,
                encoding="utf-8",
                check=True,
            )
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
    return tell(found, f"{about} ({path.stat().st_size / 1e6:.0f} MB)")


def tell(found: dict[str, list[dict[str, float]]], about: str) -> Result:
    table = Table("CSV → tensors", ["reader", "seconds", "peak MB", "of these before it began"])
    for name, each in found.items():
        table.add(
            name,
            *(
                f"{statistics.median(one[key] for one in each):{form}}"
                for key, form in (("seconds", ".2f"), ("peak_mb", ",.0f"), ("before_mb", ",.0f"))
            ),
        )
    table.note = (
        f"{about}: labels int64 and pixels uint8 as torch tensors. Each time in a fresh process, in "
        "turns, file in the page cache; imports are not timed, and their memory is the last column. "
        "Medians. pandas without a dtype reads int64 and is converted."
    )
    same = len({one["checksum"] for each in found.values() for one in each}) == 1
    check = Check("all readers read the same values", "same sums" if same else "sums differ", same)
    return Result([table], [check], {"readers": found})


if __name__ == "__main__":
    print(json.dumps(in_this_process(*sys.argv[1:3])))
