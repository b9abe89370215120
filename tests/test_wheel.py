"""The built wheel in an empty environment, with no clone and no package but those that it names."""

import functools
import os
import re
import sys
import sysconfig
import zipfile
from pathlib import Path

import httpx
import pytest
from conftest import ROOT, answers, free_port, started, wait_until
from conftest import ended as ended_with_clone
from conftest import run as run_with_clone

from cgan import __version__

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
# Without the clone on the path.
ended = functools.partial(ended_with_clone, PYTHONPATH="")
run = functools.partial(run_with_clone, PYTHONPATH="")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # What git knows, so that nothing else in the folder can get in.
    run("git", "checkout-index", "--all", f"--prefix={folder}/source/", cwd=ROOT)
    pip = [sys.executable, "-m", "pip"]
    run(*pip, "wheel", "-q", "--no-deps", "-w", ".", "./source", cwd=folder)
    (wheel,) = folder.glob("cgan-*.whl")
    return wheel


def test_the_wheel_holds_the_package_alone_draws_and_serves(wheel: Path, tmp_path: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert wheel.name.split("-")[1] == __version__
    assert {"cgan/py.typed", "cgan/drawing/digits.safetensors"} <= set(names)
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"cgan"}
    promised = re.search(r"builds a ([\d.]+) MB wheel", (ROOT / "README.md").read_text())
    assert promised and abs(wheel.stat().st_size / 1e6 - float(promised[1])) < 0.1

    run(sys.executable, "-m", "venv", "env", cwd=tmp_path)
    programs = tmp_path / "env/bin"
    run(programs / "python", "-m", "pip", "install", "-q", f"{wheel}[serve]", cwd=tmp_path)
    address = f"http://127.0.0.1:{free_port()}"
    serve = [programs / "cgan", "serve", "--port", address.rpartition(":")[2]]
    with started(*serve, cwd=tmp_path, PYTHONPATH="") as (_, output):
        wait_until(lambda: answers(f"{address}/healthz"))
        assert " serves digits " in output.read_text()
        drawn = httpx.get(f"{address}/draw?text=2024&seed=7", timeout=60)
        assert (drawn.status_code, drawn.headers["content-type"]) == (200, "image/png")
    run(programs / "cgan", "draw", "2024", "--seed", "7", cwd=tmp_path)
    assert (tmp_path / "drawn/2024.png").read_bytes() == drawn.content
    for arguments in ("serve --model champion", "init new"):
        refused = ended(programs / "cgan", *arguments.split(), cwd=tmp_path)
        assert refused.returncode == 1 and "`pip install 'cgan[pipeline]'`" in refused.stderr
    assert not (tmp_path / "new").exists()


def test_cgan_init_of_the_wheel_makes_a_project_for_dvc(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", "env", cwd=tmp_path)
    python = tmp_path / "env/bin/python"
    run(python, "-m", "pip", "install", "-q", "--no-deps", wheel, cwd=tmp_path)
    # The packages of the extra `pipeline` come from this environment; the clone is not on the path.
    (purelib,) = (tmp_path / "env/lib").glob("python*/site-packages")
    (purelib / "others.pth").write_text(sysconfig.get_path("purelib"))
    path = f"PATH={python.parent}:{os.environ['PATH']}"
    run("env", path, "cgan", "init", "digits", cwd=tmp_path)
    project = tmp_path / "digits"
    assert str(tmp_path) in run(python, "-c", "import cgan; print(cgan.__file__)", cwd=project)
    run("env", path, python, "-m", "dvc", "repro", "preprocess", cwd=project)
    assert (project / "data/processed/train.safetensors").is_file()
    assert "up to date" in run(python, "-m", "dvc", "repro", "preprocess", cwd=project)
