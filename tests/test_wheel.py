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
    """The folder of the programs of an environment in which the wheel is installed, to serve."""
    run(sys.executable, "-m", "venv", "env", cwd=wheel.parent)
    programs = wheel.parent / "env" / "bin"
    run(programs / "python", "-m", "pip", "install", "-q", f"{wheel}[serve]", cwd=wheel.parent)
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


def test_it_holds_the_package_and_its_generator_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {"cgan/py.typed", "cgan/serving/digits.safetensors"} <= set(names)
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"cgan"}
    assert wheel.stat().st_size < 1_500_000


def test_it_serves_over_http_with_the_extra_serve(installed: Path, tmp_path: Path) -> None:
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
