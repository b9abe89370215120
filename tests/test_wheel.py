"""The built wheel in an empty environment, with no clone and no package but those that it names."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx
import pytest
from conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from what git knows, so that nothing else in the folder can get in."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "source" / name).write_bytes((ROOT / name).read_bytes())
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", ".", "./source", cwd=folder)
    (built,) = folder.glob("cgan-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """The folder of the programs of an environment in which the wheel is installed."""
    run(sys.executable, "-m", "venv", "env", cwd=wheel.parent)
    programs = wheel.parent / "env" / "bin"
    run(programs / "python", "-m", "pip", "install", "-q", wheel, cwd=wheel.parent)
    return programs


def run(*command: object, cwd: Path, **environment: str) -> str:
    kept = {
        key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")
    }
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**kept, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_draws_at_once_where_nothing_else_is_installed(
    wheel: Path, installed: Path, tmp_path: Path
) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {"cgan/py.typed", "cgan/serving/digits.safetensors"} <= set(names)
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"cgan"}
    assert wheel.stat().st_size < 1_500_000
    told = run(installed / "cgan", "draw", "2024", cwd=tmp_path)
    assert told.endswith("seed 0, by the generator of digits that comes with cgan\n")
    code = """
import importlib.util
import cgan
assert importlib.util.find_spec("torch") and cgan.Generator.load().draw("2024").shape == (4, 28, 28)
print(*[name for name in ("mlflow", "dvc", "prefect", "pandas", "flows") if importlib.util.find_spec(name)])
"""
    assert run(installed / "python", "-c", code, cwd=tmp_path) == "\n"


def test_a_command_of_the_pipeline_says_how_to_install_what_it_needs(
    installed: Path, tmp_path: Path
) -> None:
    for words in ("gate", "status", "ui", "validate x.csv", "draw 1 --model champion"):
        done = subprocess.run(
            [installed / "cgan", *words.split()], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 1 and done.stderr.startswith(
            "Error: this needs the extra `pipeline`"
        )
        assert done.stderr.count("\n") == 1 and "`pip install 'cgan[pipeline]'`" in done.stderr


def test_it_serves_over_http_with_the_extra_serve(
    wheel: Path, installed: Path, tmp_path: Path
) -> None:
    run(installed / "python", "-m", "pip", "install", "-q", f"{wheel}[serve]", cwd=tmp_path)
    program = [installed / "cgan", "serve", "--port", "0"]
    with subprocess.Popen(program, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            told = server.stdout.readline()
            assert " serves digits " in told
            drawn = httpx.post(
                f"{told.split()[0]}/draw",
                json={"text": "2024"},
                headers={"Accept": "application/json"},
                timeout=60,
            )
            assert drawn.status_code == 200 and drawn.json()["labels"] == [2, 0, 2, 4]
        finally:
            server.kill()
