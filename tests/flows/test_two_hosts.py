"""Two machines, played by two network namespaces with homes, clones, environments and disks of their own.

Host a has Prefect, MLflow, a worker, the DVC remote and the git repository, these two behind ssh; host b only
a worker, made by `make worker`, and sees nothing of a's files.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from ssh_server import SETTINGS, make_key

A, B = "10.77.19.1", "10.77.19.2"
API, STORE = f"http://{A}:4200/api", f"http://{A}:5000"
# Real stages, as short as they can be; bars that such a generator passes.
SHORT = {
    "train_judge.total_kimg": 4.0,
    "train.total_kimg": 4.0,
    "evaluate.samples": 1000,
    "evaluate.gan_train_kimg": 0,
    "gate.min_conditional_accuracy": 0.0,
    "gate.min_worst_class_accuracy": 0.0,
    "gate.max_fid_over_floor": 1e6,
    "gate.min_coverage_of_floor": 0.0,
    "gate.min_different_drawings": 0,
    "gate.min_judge_accuracy": 0.0,
}
PRODUCTION = [sys.executable, "-m", "flows.production"]
JOIN = ["make", "worker", f"PREFECT_API_URL={API}", f"MLFLOW_TRACKING_URI={STORE}", "RUNS=1"]
# The last where the other host promoted the same weights a moment before.
VERDICTS = ("Promoted", "Passed", "Blocked", "Completed")
ENDED = ("FAILED", "COMPLETED", "CANCELLED")
UP_TO_DATE = "Data and pipelines are up to date."
REGISTRY = """
import json
from cgan.registry.client import open_registry
with open_registry("cgan") as registry:
    print(json.dumps({
        "versions": sorted(version.number for version in registry.versions()),
        "champion": registry.champion(),
        "instead_of": {v.number: v.tags.get("champion.instead_of") for v in registry.versions()},
    }))
"""
SWEEP = """
import collections, json
from mlflow import MlflowClient
client = MlflowClient()
experiment = client.get_experiment_by_name("cgan")  # none yet, in the sweep's first moment
known = [experiment.experiment_id] if experiment else []
trials, twice = collections.Counter(), []
for run in known and client.search_runs(known, "tags.`cgan.sweep.role` = 'trial'"):
    trials[run.data.tags["cgan.sweep.job"], run.info.status] += 1
    for key in ("loss/generator", "probe/fid_judge"):
        steps = [point.step for point in client.get_metric_history(run.info.run_id, key)]
        if len(steps) != len(set(steps)):
            twice.append([run.info.run_name, key])
print(json.dumps({"trials": [[*key, count] for key, count in trials.items()], "twice": twice}))
"""
ENTER = """
hostname host-$1; mount --make-rprivate /
mkdir -p /root/.ssh; mount --bind {folder}/$1/home/.ssh /root/.ssh; mount -t tmpfs none {folder}/$2
cd {folder}/$1; shift 2; exec "$@"
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(os.getuid() != 0, reason="needs root: network namespaces"),
    pytest.mark.skipif(
        not all(map(shutil.which, ("ip", "unshare", "ssh"))) or not Path("/usr/sbin/sshd").exists(),
        reason="needs ip, unshare, ssh and sshd (Debian's iproute2, util-linux, openssh-server)",
    ),
]


class Hosts:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def command(self, host: str, *command: str | Path) -> list[str]:
        enter = ENTER.format(folder=self.folder)
        other = "b" if host == "a" else "a"
        into = ["ip", "netns", "exec", f"cgan-{host}", "unshare", "-m", "-u"]
        return [*into, "sh", "-ec", enter, "sh", host, other, *map(str, command)]

    def environment(self, host: str) -> dict[str, str]:
        named = ("MLFLOW_", "PREFECT_", "DVC_", "CGAN_", "PYTHONPATH", "VIRTUAL_ENV", "MAKE")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(named)}
        bin = Path(sys.executable).parent
        paths = [path for path in os.environ["PATH"].split(":") if Path(path) != bin]
        if host == "a":  # b has an environment of its own, which make finds
            kept = {**kept, "PYTHONPATH": str(self.project(host))}
            paths = [str(bin), *paths]
        return {
            **kept,
            "HOME": str(self.folder / host / "home"),
            "TMPDIR": str(self.folder / host / "tmp"),
            "PATH": ":".join(paths),
            "OMP_NUM_THREADS": "1",
        }

    def project(self, host: str) -> Path:
        return self.folder / host / "project"

    def run(self, host: str, *command: str | Path, **more: str) -> str:
        """What a command in the host's project says."""
        inside = ["sh", "-ec", 'cd project 2> /dev/null || true; exec "$@"', "sh", *command]
        done = subprocess.run(
            self.command(host, *inside),
            env={**self.environment(host), **more},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout.strip()

    def ask(self, code: str, *arguments: str) -> Any:
        """What a program on host a prints last, as JSON."""
        said = self.run("a", sys.executable, "-c", code, *arguments, MLFLOW_TRACKING_URI=STORE)
        return json.loads(said.splitlines()[-1])

    def api(self, method: str, path: str, content: Any = None) -> Any:
        code = (
            "import json, sys; from flows.servers import ask_prefect; "
            "print(json.dumps(ask_prefect(*sys.argv[1:4], json.loads(sys.argv[4]))))"
        )
        return self.ask(code, API, method, path, json.dumps(content))

    def deploy_run(self, deployment: str, **parameters: Any) -> dict[str, Any]:
        found = self.api("GET", f"/deployments/name/cgan/{deployment}")
        path = f"/deployments/{found['id']}/create_flow_run"
        return dict(self.api("POST", path, {"parameters": parameters}))

    def wait_for(self, run: dict[str, Any], *names: str, seconds: float = 600) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found: dict[str, Any] = self.api("GET", f"/flow_runs/{run['id']}")
            if found["state_name"] in names:
                return found
            assert found["state_type"] not in ENDED, found["state"]["message"]
            time.sleep(2)
        raise AssertionError(f"{found['name']} is {found['state_name']}, not {names}")

    def worker(self, host: str) -> int:
        """The number of its process, once it runs."""
        code = (
            "from pathlib import Path; from cgan.processes import running; "
            "print(running(Path.cwd()).get('worker', 0))"
        )
        while not (pid := int(self.run(host, self.python(host), "-c", code))):
            time.sleep(0.5)
        return pid

    def python(self, host: str) -> Path:
        return self.project(host) / ".venv/bin/python" if host == "b" else Path(sys.executable)


def copy_environment(project: Path) -> None:
    """An environment of the clone's own, as `make env` leaves it, without a network."""
    here, there = Path(sys.prefix), project / ".venv"
    subprocess.run(["cp", "-a", here, there], check=True)
    names_itself = [there / "pyvenv.cfg", *(there / "bin").iterdir()]
    finders = list(there.glob("lib/python*/site-packages/__editable__*cgan*"))
    assert finders
    for file in [*names_itself, *finders]:
        if file.is_file() and not file.is_symlink() and b"\0" not in file.read_bytes()[:1000]:
            text = file.read_text().replace(str(here), str(there))
            file.write_text(text.replace(str(ROOT), str(project)))
    (there / ".ready").touch()


def set_up(hosts: Hosts) -> Callable[[], None]:
    """Network, homes, keys, sshd and the repository. Returns what ends them."""
    folder = hosts.folder
    ends = contextlib.ExitStack()

    def ip(words: str) -> None:
        subprocess.run(["ip", *words.split()], check=True)

    for host in "ab":
        ip(f"netns add cgan-{host}")
        ends.callback(ip, f"netns del cgan-{host}")
        ip(f"-n cgan-{host} link set lo up")
        (folder / host / "home/.ssh").mkdir(parents=True, mode=0o700)
        (folder / host / "tmp").mkdir()
    ip("link add cg-a netns cgan-a type veth peer name cg-b netns cgan-b")
    for host, address in {"a": A, "b": B}.items():
        ip(f"-n cgan-{host} addr add {address}/24 dev cg-{host}")
        ip(f"-n cgan-{host} link set cg-{host} up")

    sshd = folder / "a/sshd"
    sshd.mkdir()
    Path("/run/sshd").mkdir(exist_ok=True)
    kind, key = make_key(sshd / "host_key").with_suffix(".pub").read_text().split()[:2]
    for host in "ab":
        home = folder / host / "home/.ssh"
        with (sshd / "authorized_keys").open("a") as file:
            file.write(make_key(home / "id_ed25519").with_suffix(".pub").read_text())
        (home / "known_hosts").write_text(f"{A} {kind} {key}\n")
    (sshd / "config").write_text(SETTINGS.format(address=A, folder=sshd))
    server = subprocess.Popen(
        hosts.command("a", "/usr/sbin/sshd", "-D", "-f", sshd / "config", "-E", sshd / "log")
    )
    ends.callback(server.wait)
    ends.callback(server.terminate)

    origin = folder / "a/origin.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", ROOT, origin], check=True)
    for host in "ab":
        hosts.run(host, "git", "clone", "--quiet", f"ssh://{A}{origin}", "project")
        for key, value in {"user.name": "t", "user.email": "t@t"}.items():
            hosts.run(host, "git", "config", key, value)
    return ends.close


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    folder = Path(tempfile.mkdtemp(prefix="cgan-hosts-"))  # not pytest's, which is root's alone
    folder.chmod(0o755)
    hosts = Hosts(folder)
    with contextlib.ExitStack() as ends:
        ends.callback(shutil.rmtree, folder, ignore_errors=True)
        ends.callback(set_up(hosts))
        hosts.run(
            "a", "dvc", "remote", "add", "--default", "storage", f"ssh://{A}{folder}/a/storage"
        )
        hosts.run("a", "git", "commit", "--quiet", "--all", "-m", "Shared storage")
        hosts.run("a", "git", "push", "--quiet")
        hosts.run("b", "git", "pull", "--quiet")
        copy_environment(hosts.project("b"))
        ends.callback(hosts.run, "a", *PRODUCTION, "down")
        ends.callback(hosts.run, "b", "make", "down")
        hosts.run("a", *PRODUCTION, "up", "--host", A, "--allow-remote")
        hosts.run("a", *PRODUCTION, "deploy")
        told = hosts.run("b", *JOIN, "LABELS=cuda")
        assert re.search(r"host-b-[0-9a-f]{4} \(cuda\), in the pool cgan of", told)
        program = Path(f"/proc/{hosts.worker('b')}/cmdline").read_text()
        assert str(hosts.project("b") / ".venv") in program
        yield hosts


def test_a_run_on_the_second_host_leaves_its_results_where_the_first_finds_them(
    hosts: Hosts,
) -> None:
    """Both hosts train the same at once, and both want to promote."""
    runs = {
        "a": hosts.deploy_run("train", overrides=SHORT, gate=True),
        "b": hosts.deploy_run("train-cuda", overrides=SHORT, gate=True),
    }
    ended = {host: hosts.wait_for(run, *VERDICTS) for host, run in runs.items()}
    assert "trained a new generator" in ended["b"]["state"]["message"].lower()
    status = hosts.run("a", "cgan", "status", PREFECT_API_URL=API, MLFLOW_TRACKING_URI=STORE)
    assert re.search(r"host-b-[0-9a-f]{4} \(cuda\) · online", status) and "cgan · online" in status

    hosts.run("a", "git", "fetch", "--quiet")
    listed = hosts.run("a", "git", "branch", "--remote", "--list", "origin/runs/*").split()
    branches = {
        host: branch.removeprefix("origin/")
        for branch in listed
        for host, run in runs.items()
        if branch.endswith(run["id"][:8])
    }
    found = {}
    names = ("models/generator.safetensors", "models/mlflow_run.json", "data/raw/train.csv")
    for host, branch in branches.items():  # a's own, too, comes out of the remote
        clone = f"{hosts.folder}/a/fresh-{host}"
        hosts.run("a", "git", "clone", "--quiet", "--branch", branch, "../origin.git", clone)
        pulled = hosts.run("a", "sh", "-c", f"cd {clone} && dvc pull 2>&1")
        assert re.search(r"\d+ files fetched", pulled)
        assert hosts.run("a", "sh", "-c", f"cd {clone} && dvc status") == UP_TO_DATE
        repro = hosts.run("a", "sh", "-c", f"cd {clone} && PYTHONPATH=. dvc repro 2>&1")
        assert "Running stage" not in repro
        found[host] = {name: (Path(clone) / name).read_bytes() for name in names}
    assert found["a"]["models/generator.safetensors"] == found["b"]["models/generator.safetensors"]
    assert found["a"]["data/raw/train.csv"] == found["b"]["data/raw/train.csv"]
    told = json.loads(found["b"]["models/mlflow_run.json"])
    assert told["tracking_uri"] == STORE

    failed = hosts.wait_for(hosts.deploy_run("train-cuda", overrides={"train.lr": -1}), "Failed")
    assert "train.lr" in failed["state"]["message"]
    log = hosts.project("b") / ".cgan/production/worker.log"
    assert "Traceback" not in log.read_text(), "a user's mistake is one message"

    # Of two that promote at once one is champion, and the history says how it came to that.
    registry = hosts.ask(REGISTRY)
    assert registry["versions"] in ([1], [1, 2])
    assert registry["champion"] in (1, 2)
    loser = 3 - registry["champion"]
    assert registry["instead_of"][str(registry["champion"])] in ("none", str(loser))


def test_a_sweep_on_both_hosts_outlives_a_worker_and_itself(hosts: Hosts) -> None:
    hosts.run("b", "make", "down")
    hosts.run("b", *JOIN, "LABELS=cpu")
    short = json.dumps({key: value for key, value in SHORT.items() if not key.startswith("gate")})
    code = "import json, sys; from cgan.params.editing import set_params; "
    hosts.run("a", sys.executable, "-c", f"{code}set_params(json.loads(sys.argv[1]))", short)
    options = "--trials 6 --parallel 3 --no-confirm"
    command = [sys.executable, "-m", "flows.sweep", *options.split()]
    there = {"PREFECT_API_URL": API, "MLFLOW_TRACKING_URI": STORE}
    began = time.monotonic()

    def results() -> list[list[Any]]:
        return [trial for trial in hosts.ask(SWEEP)["trials"] if trial[1] == "FINISHED"]

    inside = ["sh", "-ec", 'cd project; exec "$@"', "sh", *command]
    with (hosts.folder / "sweep.log").open("w") as log:
        driver = subprocess.Popen(
            hosts.command("a", *inside),
            env={**hosts.environment("a"), **there},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        while len(results()) < 2:
            assert driver.poll() is None, (hosts.folder / "sweep.log").read_text()
            assert time.monotonic() - began < 900
            time.sleep(3)
        os.kill(hosts.worker("b"), signal.SIGKILL)
        time.sleep(10)
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    hosts.run("b", *JOIN, "LABELS=cpu")
    said = hosts.run("a", *command, **there)
    seconds = time.monotonic() - began
    found = hosts.ask(SWEEP)
    assert all(count == 1 for *_, state, count in found["trials"] if state == "FINISHED"), found
    assert found["twice"] == []
    shown = hosts.run("a", "cgan", "sweep", "show", MLFLOW_TRACKING_URI=STORE)
    assert sum(map(int, re.findall(r"(\d+) (?:complete|stopped)", shown))) == 6, (found, shown)
    sys.stdout.write(f"6 trials on two hosts: {seconds:.0f} s\n{said}\n")
