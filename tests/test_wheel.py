"""The built wheel in an empty environment, with no clone and no package but those that it names."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx
import pytest
from conftest import ROOT, free_port, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def ended(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    outer = ("PYTHONPATH", "PYTHONHOME")
    kept = {key: value for key, value in os.environ.items() if key not in outer}
    words = [str(part) for part in command]
    return subprocess.run(words, cwd=cwd, env=kept, capture_output=True, text=True)


def run(*command: object, cwd: Path) -> str:
    done = ended(*command, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def answers(address: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{address}/healthz").is_success
    return False


def test_the_wheel_holds_the_package_alone_and_serves_with_the_extra_serve(tmp_path: Path) -> None:
    # What git knows, so that nothing else in the folder can get in.
    run("git", "checkout-index", "--all", f"--prefix={tmp_path}/source/", cwd=ROOT)
    pip = [sys.executable, "-m", "pip"]
    run(*pip, "wheel", "-q", "--no-deps", "-w", ".", "./source", cwd=tmp_path)
    (wheel,) = tmp_path.glob("cgan-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"cgan/py.typed", "cgan/drawing/digits.safetensors"} <= set(names)
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"cgan"}
    assert wheel.stat().st_size < 1_500_000

    run(sys.executable, "-m", "venv", "env", cwd=tmp_path)
    programs = tmp_path / "env/bin"
    run(programs / "python", "-m", "pip", "install", "-q", f"{wheel}[serve]", cwd=tmp_path)
    program = [programs / "cgan", "serve", "--port", str(free_port())]
    with subprocess.Popen(program, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            words = server.stdout.readline()
            assert " serves digits " in words
            wait_until(lambda: answers(words.split()[0]), 60)
            drawn = httpx.get(f"{words.split()[0]}/draw?text=2024", timeout=60)
            assert (drawn.status_code, drawn.headers["content-type"]) == (200, "image/png")
        finally:
            server.kill()
    refused = ended(programs / "cgan", "serve", "--model", "champion", cwd=tmp_path)
    assert refused.returncode == 1 and "`pip install 'cgan[pipeline]'`" in refused.stderr
