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
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in filter(None, listed.split("\0")):
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


def ended(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    outer = ("PYTHONPATH", "PYTHONHOME")
    kept = {key: value for key, value in os.environ.items() if key not in outer}
    words = [str(part) for part in command]
    return subprocess.run(words, cwd=cwd, env=kept, capture_output=True, text=True)


def run(*command: object, cwd: Path) -> str:
    done = ended(*command, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_draws_at_once_where_nothing_else_is_installed(
    wheel: Path, installed: Path, tmp_path: Path
) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {"cgan/py.typed", "cgan/serving/digits.safetensors"} <= set(names)
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"cgan"}
    assert wheel.stat().st_size < 1_500_000
    words = run(installed / "cgan", "draw", "2024", cwd=tmp_path)
    assert words.endswith("seed 0, by the generator of digits that comes with cgan\n")
    code = """
import importlib.util
import cgan
assert importlib.util.find_spec("torch") and cgan.Generator.load().draw("2024").shape == (4, 28, 28)
print(*[name for name in ("mlflow", "dvc", "prefect", "pandas", "flows") if importlib.util.find_spec(name)])
"""
    assert run(installed / "python", "-c", code, cwd=tmp_path) == "\n"


def test_a_command_says_which_extra_it_needs_and_validate_needs_none_or_a_small_one(
    wheel: Path, installed: Path, tmp_path: Path
) -> None:
    header = ",".join(["label", *(f"pixel{i}" for i in range(64))])
    rows = [",".join(map(str, [row % 2, *range(row, row + 64)])) for row in range(40)]
    (tmp_path / "good.csv").write_text("\n".join([header, *rows]))
    for words in ("gate", "status", "ui", "draw 1 --model champion"):
        refused = ended(installed / "cgan", *words.split(), cwd=tmp_path)
        assert refused.returncode == 1 and refused.stderr.count("\n") == 1
        assert "`pip install 'cgan[pipeline]'`" in refused.stderr
    validate = installed / "cgan", "validate", "good.csv"
    assert "is valid" in run(*validate, cwd=tmp_path)
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    assert "`pip install 'cgan[validate]'`" in ended(*validate, cwd=tmp_path).stderr
    run(installed / "python", "-m", "pip", "install", "-q", f"{wheel}[validate]", cwd=tmp_path)
    assert "is valid" in run(*validate, cwd=tmp_path)


def test_it_serves_over_http_with_the_extra_serve(
    wheel: Path, installed: Path, tmp_path: Path
) -> None:
    run(installed / "python", "-m", "pip", "install", "-q", f"{wheel}[serve]", cwd=tmp_path)
    program = [installed / "cgan", "serve", "--port", "0"]
    with subprocess.Popen(program, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            words = server.stdout.readline()
            assert " serves digits " in words
            drawn = httpx.get(f"{words.split()[0]}/draw?text=2024", timeout=60)
            assert (drawn.status_code, drawn.headers["content-type"]) == (200, "image/png")
        finally:
            server.kill()
    refused = ended(installed / "cgan", "serve", "--model", "champion", cwd=tmp_path)
    assert refused.returncode == 1 and "`pip install 'cgan[pipeline]'`" in refused.stderr
