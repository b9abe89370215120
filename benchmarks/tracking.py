"""What it costs a training to be tracked, whatever the tracking server does."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cgan.params.sections import Params
from cgan.run.lifecycle import training_run
from cgan.training.loop import train

from .ground import Ground, all_params, preset
from .scale import Scale
from .tables import Check, Result, Table

NONE = "no tracking"
LIMIT = 0.03
ENOUGH_KIMG = 100.0
START_S = 90


class Once(NamedTuple):
    """A training: seconds of its loop and around it (to open the run, to deliver the rest); CPU seconds
    of its process and of its children, the follower above all."""

    loop_s: float
    around_s: float
    own_cpu_s: float
    follower_cpu_s: float


def measure(ground: Ground, scale: Scale) -> Result:
    logging.getLogger("cgan.run.follower").setLevel(logging.ERROR)  # it says that servers are away
    params = _params(scale)
    found: dict[str, list[Once]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="cgan-bench-") as folder,
        contextlib.ExitStack() as stack,
    ):
        root = Path(folder)
        stores = {"tracked, MLflow on sqlite": f"sqlite:///{root / 'mlflow.db'}"}
        if scale.tracking_server:
            stores["tracked, MLflow server"] = stack.enter_context(_server(root))
        if scale.name != "tiny":
            stores["tracked, server is dead"] = f"http://127.0.0.1:{_free_port()}"
            stores["tracked, server hangs"] = stack.enter_context(_hanging())
        for name, uri in stores.items():
            if "sqlite" in name or "MLflow server" in name:
                # the first run makes the store's tables and the experiment: not every run's cost
                _once(ground, _shortened(params), root / _slug(name), uri)
        for _ in range(scale.tracking_rounds):
            for name, store in {NONE: None, **stores}.items():
                found.setdefault(name, []).append(_once(ground, params, root / _slug(name), store))
    return tell(found, params)


def _params(scale: Scale) -> Params:
    kimg = {"total_kimg": scale.tracking_kimg}
    if scale.name == "tiny":
        kimg |= {"log_every": 5, "save_every": 5}
    return all_params().model_copy(update={"train": preset("default", device="cpu", **kimg)})


def _shortened(params: Params) -> Params:
    short = params.train.model_copy(update={"total_kimg": params.train.batch_size * 20 / 1000})
    return params.model_copy(update={"train": short})


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name)


def _cpu_s(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def _once(ground: Ground, params: Params, root: Path, uri: str | None) -> Once:
    began = time.perf_counter()
    own, children = _cpu_s(resource.RUSAGE_SELF), _cpu_s(resource.RUSAGE_CHILDREN)
    if uri is None:
        trained = train(ground.training, params.train)
        return Once(trained.wall_time_s, 0.0, _cpu_s(resource.RUSAGE_SELF) - own, 0.0)
    root.mkdir(exist_ok=True)
    facts = {
        "name": "benchmark",
        "path": "train.csv",
        "sha256": ground.training.metadata["digest"],
        "rows": len(ground.training),
        "training_images": len(ground.training),
        "classes": ground.training.classes,
        "shape": list(ground.training.images.shape[1:]),
    }
    with (
        _environment(DVC_ROOT=str(root), MLFLOW_TRACKING_URI=uri),
        training_run(
            params,
            params.train,
            root / uuid.uuid4().hex,
            tags={},
            dataset=facts,
            reference=root / "run.json",
        ) as tracker,
    ):
        inside = time.perf_counter()
        trained = train(ground.training, params.train, tracker)
        inside = time.perf_counter() - inside
    return Once(
        trained.wall_time_s,
        time.perf_counter() - began - inside,
        _cpu_s(resource.RUSAGE_SELF) - own,
        _cpu_s(resource.RUSAGE_CHILDREN) - children,
    )


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _hanging() -> Iterator[str]:
    """A server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextlib.contextmanager
def _server(root: Path) -> Iterator[str]:
    address = f"http://127.0.0.1:{_free_port()}"
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--workers", "1",
         "--port", address.rpartition(":")[2],
         "--backend-store-uri", f"sqlite:///{root / 'server.db'}",
         "--artifacts-destination", str(root / "server-artifacts")],
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
             "MLFLOW_DISABLE_TELEMETRY": "true"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        until = time.monotonic() + START_S
        while not _is_up(address):
            if time.monotonic() > until or process.poll() is not None:
                raise RuntimeError(f"mlflow server at {address} did not start within {START_S} s")
            time.sleep(0.5)
        yield address
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _is_up(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def tell(found: dict[str, list[Once]], params: Params) -> Result:
    table = Table(
        "What tracking costs a training",
        [
            "tracking",
            "training loop, seconds",
            "to no tracking",
            "range",
            "follower, CPU seconds",
            "of the training's",
            "around it, seconds",
        ],
    )
    worst = 0.0
    for name, each in found.items():
        ratios = [a.loop_s / b.loop_s for a, b in zip(each, found[NONE], strict=True)]
        share = statistics.median(one.follower_cpu_s / one.own_cpu_s for one in each)
        worst = max(worst, share)
        table.add(
            name,
            f"{statistics.median(one.loop_s for one in each):.2f}",
            f"{statistics.median(ratios):.3f}",
            f"{min(ratios):.3f}–{max(ratios):.3f}",
            f"{statistics.median(one.follower_cpu_s for one in each):.2f}",
            f"{share:.1%}",
            f"{statistics.median(one.around_s for one in each):.1f}",
        )
    table.note = (
        f"Preset `default` for {params.train.total_steps:,} steps, with its previews and system metrics; "
        f"{len(found[NONE])} rounds, everyone in turn in each; medians, and medians of the ratios within a "
        "round. The ratio of the loops is what a user feels, and as noisy as the machine; the follower's CPU "
        "time is not, and its share of the training's is the most that it can take away where the "
        "training uses all cores. The follower is a process of its own, at low priority: most of its work "
        "is the import of MLflow and the first contact with the store, once, so a short training "
        "feels it and a long one doesn't. Around it: opening the run and waiting for the follower's last "
        "delivery, at most 20 s, when a server is away."
    )
    raw = {"trainings": found}
    if params.train.total_kimg < ENOUGH_KIMG:
        table.note += (
            " This training was too short to hold tracking to its promise: a full run does."
        )
        return Result([table], [], raw)
    check = Check(
        f"tracking takes at most {LIMIT:.0%} of a training's CPU time",
        f"at worst {worst:.1%}",
        worst <= LIMIT,
    )
    return Result([table], [check], raw)
