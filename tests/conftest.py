"""Fixtures for all tests: a synthetic CSV, a small project to run stages in."""

import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
import torch
import yaml
from synthetic import make_images, write_csv
from uneven import PARAMS as UNEVEN
from uneven import uneven, write_uneven_csv

from cgan.files import write_bytes

# While modules are imported there is no garbage: looking for it takes a fifth of the time.
gc.disable()

# Tensors are tiny here: threads would only wait for one another, spinning beside other processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts jobs in the background with Ctrl-C ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Your production is not a test's to write to, nor your channel to post in.
for name in (
    *("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_SERVER_DATABASE_CONNECTION_URL"),
    *("CGAN_MLFLOW_PAGE", "MLFLOW_BACKEND_STORE_URI"),
):
    os.environ.pop(name, None)
# As the Makefile has it: what a test starts reports its use to nobody.
os.environ |= dict.fromkeys(("DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY"), "true")
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
# MLflow closes connections after use: the garbage collector warns in whichever test runs when it finds one.
os.environ["MLFLOW_SQLALCHEMYSTORE_POOLCLASS"] = "NullPool"

pytest_plugins = ["toy_project"]  # its fixtures
ROOT = Path(__file__).resolve().parent.parent

NETWORKS = {"latent_dim": 4, "generator_width": 4, "discriminator_width": 4}
PACE = {"batch_size": 8, "total_kimg": 0.08, "ema_half_life_kimg": 0.02}
TINY: dict[str, dict[str, Any]] = {
    "data": {"source": "file", "path": "inbox/digits.csv"},
    "preprocess": {"holdout_fraction": 0.25},
    "train_judge": {"total_kimg": 24.0},
    "train": {**NETWORKS, **PACE, "device": "cpu", "precision": "float32"},
    "evaluate": {"samples": 100, "gan_train_kimg": 0.2},
}
"""Changes to params.yaml with which every stage takes a moment."""


# Files that start before all others: else one process would be at them when the others are done.
LONGEST = ["production", "benchmarks", "interruptions", "kills", "resume", "limits"]
LONGEST += ["pipeline", "project", "runs"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem.removeprefix("test_") not in LONGEST)


@pytest.fixture(scope="session", autouse=True)
def short_intervals() -> Iterator[None]:
    """Trainings in tests have ten steps: a record every other one, a checkpoint every fourth."""
    with pytest.MonkeyPatch.context() as patch:
        for name, steps in (("LOG_EVERY", 2), ("SAVE_EVERY", 4), ("PREVIEWS", 2)):
            patch.setattr(f"cgan.training.loop.{name}", steps)
        yield


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """An untrained network has the same weights whatever tests ran before in this process."""
    torch.manual_seed(0)


def wait_until(condition: Callable[[], Any], seconds: float = 240) -> Any:
    """What the condition is worth, once it is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def answers(address: str) -> bool:
    """Does a server say anything?"""
    with contextlib.suppress(httpx.TransportError):
        return bool(httpx.get(address, timeout=60))
    return False


@contextlib.contextmanager
def on_a_thread(server: Any) -> Iterator[Any]:
    with server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def ended(*command: object, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """A command that finds our code, and whose exit code nobody has looked at yet."""
    known = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    return subprocess.run([*map(str, command)], cwd=cwd, env=known, capture_output=True, text=True)


def run(*command: object, cwd: Path, **env: str) -> str:
    """What a command prints that ends well."""
    done = ended(*command, cwd=cwd, **env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_python(code: str, folder: Path) -> str:
    """What a fresh process prints that runs this code in this folder."""
    return run(sys.executable, "-c", code, cwd=folder)


def peak_bytes(code: str, folder: Path, imports: str = "") -> int:
    """The most memory of a process that ran this code, beyond what it had after these imports. Its rusage
    has its parent's in it."""
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is read from /proc")
    kilobytes = "int(open('/proc/self/status').read().split('{}:')[1].split()[0])".format
    before = kilobytes("VmRSS") if imports else "0"
    lines = [imports, f"before = {before}", code, f"print({kilobytes('VmHWM')} - before)"]
    return 1024 * int(run_python("\n".join(lines), folder).splitlines()[-1])


def write_params(folder: Path, **changes: dict[str, Any]) -> None:
    """Write params.yaml with changes, `train={"seed": 2}`: of the one there, or of the repository's."""
    path = folder / "params.yaml"
    params = yaml.safe_load((path if path.exists() else ROOT / "params.yaml").read_text())
    for section, values in changes.items():
        params[section] |= values
    path.write_text(yaml.safe_dump(params, sort_keys=False, allow_unicode=True))


@pytest.fixture(autouse=True)
def no_store_of_another_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow writes the address that it was given last into the environment, for its children."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def digits_csv(tmp_path: Path) -> Path:
    """36 images of 8 × 8 in 3 classes."""
    return write_csv(tmp_path / "inbox" / "digits.csv", *make_images())


@pytest.fixture
def project(tmp_path: Path, digits_csv: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with tiny params and `inbox/digits.csv` as its data."""
    write_params(tmp_path, **TINY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def uneven_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with tiny params and the images of tests/uneven.py in `inbox/digits.csv`."""
    write_uneven_csv(tmp_path / "inbox/digits.csv", uneven())
    write_params(tmp_path, **TINY)
    write_params(tmp_path, **UNEVEN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's sqlite store with its tables, to copy. It takes seconds to make and is kept."""
    kept = ROOT / f".cgan/tests/mlflow-{version('mlflow')}.db"
    if not kept.exists():
        path = tmp_path_factory.mktemp("store") / "mlflow.db"
        make = "import sys; from mlflow import MlflowClient; MlflowClient(sys.argv[1])"
        subprocess.run([sys.executable, "-c", make, f"sqlite:///{path}"], check=True)
        write_bytes(kept, path.read_bytes())
    return kept
