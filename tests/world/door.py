"""How tests run commands, and wait for what they start."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def write_params(folder: Path, **changes: dict[str, Any]) -> None:
    """Write params.yaml with changes, `train={"seed": 2}`: of the one there, or of the repository's."""
    path = folder / "params.yaml"
    params = yaml.safe_load((path if path.exists() else ROOT / "params.yaml").read_text())
    for section, values in changes.items():
        params[section] |= values
    path.write_text(yaml.safe_dump(params, sort_keys=False, allow_unicode=True))


# --- commands -------------------------------------------------------------------------------------


def environment(**more: str) -> dict[str, str]:
    """Of a command that finds this Python and, behind the code of its folder, ours."""
    paths = {"PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    return {**os.environ, **paths, "PYTHONUNBUFFERED": "1", **more}


def ended(*command: object, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """A command whose exit code nobody has looked at yet."""
    words, known = [*map(str, command)], environment(**env)
    return subprocess.run(words, cwd=cwd, env=known, capture_output=True, text=True)


def run(*command: object, cwd: Path, code: int = 0, **env: str) -> str:
    """All that a command prints; it must end with this exit code, and never with a traceback."""
    done = ended(*command, cwd=cwd, **env)
    words = done.stdout + done.stderr
    assert done.returncode == code, f"{command}: {done.returncode}\n{words}"
    assert "Traceback" not in words, words
    return words


def run_python(code: str, folder: Path) -> str:
    """What a fresh process prints that runs this code in this folder."""
    return run(sys.executable, "-c", code, cwd=folder)


@contextlib.contextmanager
def started(
    *command: object, cwd: Path, **env: str
) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A command in a process group of its own, as a terminal starts it, and the file of its output. What is
    left of the group is killed in the end."""
    output = cwd / ".cgan" / f"output-{time.monotonic_ns()}.log"
    output.parent.mkdir(exist_ok=True)
    with output.open("w") as file:
        process = subprocess.Popen(
            [*map(str, command)],
            cwd=cwd,
            env=environment(**env),
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    try:
        yield process, output
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


MANY = """
import contextlib, io, json, os, sys
from cgan.cli import main
ended = []
for folder, arguments in json.load(sys.stdin):
    os.chdir(folder)
    sys.argv, words, code = ["cgan", *arguments], io.StringIO(), 0
    with contextlib.redirect_stdout(words), contextlib.redirect_stderr(words):
        try:
            main()
        except SystemExit as end:
            code = end.code
    ended.append([code, words.getvalue()])
json.dump(ended, sys.stdout)
"""


def many(calls: list[tuple[Path, list[str]]]) -> list[tuple[int, str]]:
    """Exit code and output of each `cgan …`, all in one process, as a start takes a second."""
    done = subprocess.run(
        [sys.executable, "-c", MANY],
        input=json.dumps([(str(folder), arguments) for folder, arguments in calls]),
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [(code, words) for code, words in json.loads(done.stdout)]


def peak_bytes(code: str, folder: Path, imports: str = "") -> int:
    """The most memory of a process that ran this code, beyond that of these imports (a parent's counts)."""
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is read from /proc")
    kilobytes = "int(open('/proc/self/status').read().split('{}:')[1].split()[0])".format
    before = kilobytes("VmRSS") if imports else "0"
    lines = [imports, f"before = {before}", code, f"print({kilobytes('VmHWM')} - before)"]
    return 1024 * int(
        ended(sys.executable, "-c", "\n".join(lines), cwd=folder).stdout.splitlines()[-1]
    )


def git(folder: Path, *arguments: str) -> str:
    return run("git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments, cwd=folder).strip()


def commit(folder: Path) -> None:
    """All that lies there, in a repository that is made where there is none."""
    git(folder, "init", "--quiet", "-b", "main")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "all of it")


def copy_code(folder: Path) -> None:
    """The packages of this repository."""
    ignored = shutil.ignore_patterns("__pycache__")
    for package in ("cgan", "flows", "deploy"):
        shutil.copytree(ROOT / package, folder / package, ignore=ignored, dirs_exist_ok=True)


# --- what was started -----------------------------------------------------------------------------


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


# --- what a module imports ------------------------------------------------------------------------


def source_of(module: str) -> Path:
    """Its file, relative to the top folder, unless it is a package."""
    return Path(*module.split(".")).with_suffix(".py")


def closure(module: str, without: Iterable[str] = ()) -> set[str]:
    """`module` and all that it imports, inside functions too, except `without`. Packages themselves are left
    out: they hold a docstring, and no code that a result hangs on."""
    import grimp

    graph = grimp.build_graph("cgan", cache_dir=None, exclude_type_checking_imports=True)
    # Methods that show, examine and divide images. Whoever calls them, and is a stage, imports these, too.
    for name in ("data.contact_sheet", "base.report", "data.validation", "data.splitting"):
        graph.remove_import(importer="cgan.data.images", imported=f"cgan.{name}")
    found, waiting = set[str](), {module}
    while waiting:
        name = waiting.pop()
        if (ROOT / source_of(name)).is_file() and name not in {*without} | found:
            found.add(name)
            waiting |= graph.find_modules_directly_imported_by(name)
    return found
