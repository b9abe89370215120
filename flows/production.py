"""The servers of production on this machine, and what runs on them: `make up`, `make deploy`, `make down`.

    python -m flows.production up [--prefect-port 4200] [--mlflow-port 5000]
    python -m flows.production deploy
    python -m flows.production down

A supervisor keeps the servers of Prefect and MLflow and a worker running, by supervisord.conf; their state is
under `.cgan/production`. It is safe to repeat every command. See docs/production.md.
"""

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from xmlrpc.client import Fault  # nosec B411: our own supervisor answers

import psutil

from cgan import git
from cgan.errors import CganError
from cgan.files import locked, read_json, write_json
from cgan.hosts import (
    LOOPBACK,
    answers,
    is_server,
    no_proxy_variables,
    require_free,
    site_of,
    without_credentials,
)
from cgan.pipeline.tracking.store import BACKEND_VARIABLE, STORE_VARIABLE, store_uri
from cgan.project import PRODUCTION, home, require_project
from flows.checkout import PROJECT_VARIABLE, clone
from flows.repro import output_of, say
from flows.supervisor import SOCKET, STATE, running, supervisor

CONFIGURATION = Path(__file__).with_name("supervisord.conf")
SETTINGS = Path(__file__).parents[1] / "deploy/servers.env"
WORK_POOL = "cgan"  # of supervisord.conf and prefect.yaml
PORTS = {"mlflow": 5000, "prefect": 4200}
LINE_EVERY_S = 15.0  # while a program starts
MAX_END_S = 60.0  # of a worker whose run saves a checkpoint


def up(root: Path, ports: dict[str, int]) -> Iterator[str]:
    """Start what does not run yet; what runs keeps its ports. Yields a line as each answers, and at times
    while one does not. Raises CganError if a port is taken or a program ends."""
    folder, servers = root / PRODUCTION, dict(ports)
    if is_server(store_uri(root)):
        del servers["mlflow"]
    with locked(folder / "lock"):
        folder.chmod(0o700)  # flow parameters, and logs
        if running(root):
            servers = read_json(folder / STATE)
        else:
            # A supervisor without programs would still have the environment of an earlier `up`.
            if ended := _stop_programs(root):
                yield f"ended    {ended}, left by an earlier `make up`"
            for name, port in servers.items():
                require_free(LOOPBACK, port, f"{name.upper()}_PORT=")
            write_json(folder / STATE, servers)
            command = (sys.executable, "-m", "supervisor.supervisord", "-c", str(CONFIGURATION))
            output_of(*command, folder=root, environment=_environment(root, ports))
        for name, port in servers.items():
            yield from _start(root, name, port)
            yield f"{name:8} {site_of(LOOPBACK, port)}"
        yield from _start(root, "worker")
        yield f"worker   each run in a checkout in {home(root)}"
    yield f"logs     {folder}/*.log"
    yield f"export PREFECT_API_URL={site_of(LOOPBACK, servers['prefect'])}/api"


def settings() -> dict[str, str]:
    """The variables of deploy/servers.env, for the servers, the worker and its runs."""
    lines = SETTINGS.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def _environment(root: Path, ports: dict[str, int]) -> dict[str, str]:
    """The environment of all processes: deploy/servers.env, the user's, and what supervisord.conf needs."""
    mlflow = site_of(LOOPBACK, ports["mlflow"])
    environment = {key: value for key, value in os.environ.items() if key != "PREFECT_PROFILE"}
    environment |= no_proxy_variables(environment)
    if is_server(uri := store_uri(root)):
        mlflow = uri
    elif environment.get(
        BACKEND_VARIABLE
    ):  # the database is for MLflow's server alone: runs write to that
        environment[STORE_VARIABLE] = mlflow
    # A socket's path has 107 bytes at most, and the supervisor makes it absolute.
    here = "/proc/self/cwd/" if Path("/proc/self").exists() else ""
    return {
        **settings(),
        **environment,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]]),
        "PYTHONPATH": str(root),
        "PREFECT_HOME": str(root / PRODUCTION / "prefect"),
        "CGAN_MLFLOW_PAGE": without_credentials(mlflow),
        PROJECT_VARIABLE: str(root),
        "CGAN_SOCKET": f"{here}{PRODUCTION / SOCKET}",
        **{f"CGAN_{name.upper()}_PORT": str(port) for name, port in ports.items()},
    }


def _start(root: Path, name: str, port: int = 0) -> Iterator[str]:
    """Start a program if it does not run. Wait, however long a busy machine takes, until it has lived for a
    while and, a server, answers; yield a line now and then. Raises CganError if it ends."""
    log = root / PRODUCTION / f"{name}.log"
    length = log.stat().st_size if log.is_file() else 0  # of what earlier ones wrote
    began = last_line_at = time.monotonic()
    with supervisor(root) as rpc:
        # An `up` that was killed may have left a program that is stopping, or one that fails at each restart.
        while (state := rpc.getProcessInfo(name)["statename"]) == "STOPPING":
            time.sleep(0.2)
        if state == "BACKOFF":
            rpc.stopProcess(name)
        with contextlib.suppress(Fault):  # it runs already, or cannot
            rpc.startProcess(name, False)
        first = info = rpc.getProcessInfo(name)
        while info["statename"] in ("STARTING", "RUNNING") and info["pid"] == first["pid"]:
            if info["statename"] == "RUNNING" and (not port or answers(port)):
                return
            if time.monotonic() - last_line_at > LINE_EVERY_S:
                last_line_at = time.monotonic()
                wanted = f"{site_of(LOOPBACK, port)} answers" if port else "it stays up"
                yield f"{name:8} waiting until {wanted}, {last_line_at - began:.0f} s; its log: {log}"
            time.sleep(0.2)
            info = rpc.getProcessInfo(name)
        with contextlib.suppress(Fault):  # it has ended
            rpc.stopProcess(name)
    words = log.read_bytes()[length:] if log.is_file() else b""
    last = words.decode(errors="replace").splitlines()[-10:] or [info["spawnerr"] or "(nothing)"]
    raise CganError("\n".join([f"{name} did not start. The end of what it said in {log}:", *last]))


def down(root: Path) -> Iterator[str]:
    """Stop what `up` started: a run saves a checkpoint and ends as Crashed."""
    with locked(root / PRODUCTION / "lock"):
        ended = _stop_programs(root)
        (root / PRODUCTION / STATE).unlink(missing_ok=True)
    yield f"Stopped: {ended}." if ended else "Nothing was running."


def _stop_programs(root: Path) -> str:
    """End the supervisor and its programs, and programs that outlived a killed one. Returns their names,
    for a sentence."""
    programs, ended = running(root), []
    if programs is not None:
        ended = list(programs) or ["a supervisor without programs"]
        with contextlib.suppress(OSError), supervisor(root) as rpc:
            process = psutil.Process(rpc.getPID())
            rpc.shutdown()  # the last in its configuration ends first
            process.wait()
    for name, process in _orphans(root):
        children = process.children(recursive=True)
        process.terminate()
        _, living = psutil.wait_procs([process, *children], timeout=MAX_END_S)
        for each in living:
            with contextlib.suppress(psutil.Error):
                each.kill()
        ended.append(f"{name} (process {process.pid}, without its supervisor)")
    return ", ".join(ended)


def _orphans(root: Path) -> list[tuple[str, psutil.Process]]:
    """Processes that a supervisor of this project started and that have another parent now, the worker first.
    What they started has their environment, too."""
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            env = process.environ()
            if env.get(PROJECT_VARIABLE) == str(root) and (
                name := env.get("SUPERVISOR_PROCESS_NAME")
            ):
                found[process.pid] = name, process
    tops = [each for each in found.values() if each[1].ppid() not in found]
    return sorted(tops, key=lambda each: each[0] != "worker")


def deploy(root: Path) -> Iterator[str]:
    """Register the deployments of the prefect.yaml of HEAD, for runs at that commit, and the automation."""
    with locked(root / PRODUCTION / "lock"):
        if "prefect" not in (running(root) or ()):
            raise CganError(
                "this project's Prefect server is not running. Start it: make up. For a server elsewhere: "
                "prefect deploy --all, see docs/workers.md."
            )
        site = site_of(LOOPBACK, read_json(root / PRODUCTION / STATE)["prefect"])
        with clone(root, "HEAD") as folder:
            variables = {**os.environ, **no_proxy_variables(os.environ)}
            variables |= {"PREFECT_API_URL": f"{site}/api", "PYTHONPATH": str(folder)}

            def prefect(*module: str) -> None:
                output_of(sys.executable, "-m", *module, folder=folder, environment=variables)

            # A slow machine's worker may not have made the pool yet, and without it nothing is deployed.
            try:
                prefect("prefect", "--no-prompt", "work-pool", "inspect", WORK_POOL)
            except CganError:
                prefect(
                    "prefect", "--no-prompt", "work-pool", "create", WORK_POOL, "--type", "process"
                )
            prefect("flows.automations")
            prefect("prefect", "--no-prompt", "deploy", "--all")
    commit = git.git("rev-parse", "--short", "HEAD", folder=root).decode().strip()
    yield f"Deployed {commit}: {site}/deployments"
    if edits := git.git("diff", "--name-only", "HEAD", folder=root).decode().splitlines():
        yield f"Not deployed, because they are not committed: {', '.join(edits)}."


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m flows.production", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("command", choices=("up", "deploy", "down"))
    for name, port in PORTS.items():
        add(f"--{name}-port", type=int, default=port, help=f"the port for `up`; default {port}")
    args = parser.parse_args(arguments)
    if password := os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):  # clients must send it too
        os.environ.setdefault("PREFECT_API_AUTH_STRING", password)
    try:
        root = require_project()
        if args.command == "up":
            lines = up(root, {name: getattr(args, f"{name}_port") for name in PORTS})
        else:
            lines = deploy(root) if args.command == "deploy" else down(root)
        for line in lines:
            say(line)
    except CganError as error:
        sys.stderr.write(f"Error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted. Run the same command again to complete it.\n")
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main())
