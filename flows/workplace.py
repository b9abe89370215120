"""Where a run works: in a tree of its own, at the commit that its deployment names.

`enter` is the pull step of prefect.yaml: Prefect calls it in the run's process before it loads the flow. The
tree is a git worktree of the worker's clone and shares the clone's DVC cache, so that runs beside each other
neither wait for nor see each other, and nothing is trained twice on one machine. A run that is taken up again
finds its tree, and a training in it resumes. Imports no Prefect.
"""

from __future__ import annotations

import configparser
import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from cgan import git
from cgan.errors import CganError
from cgan.files import write_bytes, write_json, write_text
from cgan.params.reading import load_params
from cgan.processes import find_process, started_at
from cgan.tracking.records import RECORDS, runs

TREE = "CGAN_TREE"  # in the environment of a run that works in a tree of its own: that tree
TREES = Path(".cgan/work")  # in the clone
RUNS = Path(".cgan/runs")  # in the clone: a file for each run that was taken up here
KEPT_S = 14 * 24 * 3600.0  # a tree whose run failed, for whoever looks into it or takes it up again
CODE = ("cgan", "flows")
STARTERS = {"worker", "flow-run"}  # as in `prefect worker start`, `prefect flow-run execute`


def base() -> Path:
    """The clone that this code lies in."""
    return Path(__file__).resolve().parents[1]


def enter(commit: str, clone: str = "") -> dict[str, str]:
    """Prepare where this run works, and have the rest of its process use the code there.

    Args:
        commit: What to check out.
        clone: A run of a worker in this clone works in it, with what the last run left, if the clone is at
            that commit; DVC then says *unchanged* where nothing changed. Every other run gets a tree of its
            own: another machine may have a clone in a folder of the same name.

    Raises CganError when the commit is nowhere to be had.
    """
    home, run = base(), os.environ.get("PREFECT__FLOW_RUN_ID", "by-hand")
    note(home, run)
    with contextlib.suppress(CganError, OSError):  # no reason for a run to fail
        tidy(home)
    with one_at_a_time(home):  # `make deploy` may be at work
        if clone and Path(clone).resolve() == home and git.is_at(home, commit):
            git.git("checkout", "--quiet", "HEAD", "--", "params.yaml", folder=home)
            return {"directory": str(home)}
    tree = prepare(home, commit, run)
    os.environ[TREE] = os.environ["PYTHONPATH"] = str(tree)
    sys.path.insert(0, str(tree))
    # The worker's code is that of its own commit: the flow is to import that of the run's.
    for name in [name for name in sys.modules if name.split(".")[0] in CODE]:
        del sys.modules[name]
    return {"directory": str(tree)}


def prepare(clone: Path, commit: str, name: str) -> Path:
    """The tree `name` at `commit`: a new one, or the one of that name as it was left, params.yaml aside."""
    tree = clone / TREES / name
    with one_at_a_time(clone):
        _bring(clone, commit)
        if not (tree / ".git").is_file():
            shutil.rmtree(tree, ignore_errors=True)
            git.git("worktree", "prune", folder=clone)
            _git_quietly(clone, "worktree", "add", "--detach", "--quiet", tree, commit)
        git.git("checkout", "--quiet", "HEAD", "--", "params.yaml", folder=tree)
        _share_cache(clone, tree)
        share_charts(clone, tree)
        share_data(clone, tree)
    return tree


def remove(clone: Path, name: str) -> None:
    """Remove a tree; what DVC knows of it stays in the cache."""
    with one_at_a_time(clone):
        _remove(clone, name)


def _remove(clone: Path, name: str) -> None:
    shutil.rmtree(clone / TREES / name, ignore_errors=True)
    git.git("worktree", "prune", folder=clone)


def note(clone: Path, run: str) -> None:
    """Write down that a run was taken up here: a worker that starts later can see to its end."""
    started = started_at(psutil.Process())
    write_json(clone / RUNS / f"{run}.json", {"pid": os.getpid(), "started": started})


def noted(clone: Path) -> dict[str, psutil.Process | None]:
    """The runs that were taken up here, and the process of each that still lives."""
    found: dict[str, psutil.Process | None] = {}
    for path in (clone / RUNS).glob("*.json"):
        found[path.stem] = None
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(path.read_text(encoding="utf-8"))
            found[path.stem] = find_process(int(known["pid"]), float(known["started"]))
    return found


def number_of(clone: Path, run: str) -> str:
    """Of the process in which a run was taken up here last; empty if it was not."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads((clone / RUNS / f"{run}.json").read_text(encoding="utf-8"))["pid"])
    return ""


def forget(clone: Path, run: str) -> None:
    (clone / RUNS / f"{run}.json").unlink(missing_ok=True)


def leave() -> None:
    """A run is done and its results are away: its tree may go, once its process has left it.

    One in which records wait for MLflow stays, like that of a run that failed: nobody else has them.
    """
    if TREE in os.environ:
        tree = Path(os.environ[TREE])
        share_charts(tree, tree.parents[len(TREES.parts)])
        if not any(runs(tree).glob(f"*/{RECORDS}")):
            write_text(tree / ".cgan" / "done", "")


def end_with_worker() -> None:
    """End as Crashed when what started this run is gone: it could no longer be cancelled.

    That is a worker, or `prefect flow-run execute` where each run has a container of its own.
    """
    worker = os.getppid()
    if (
        "PREFECT__WORKER_NAME" not in os.environ or not worker
    ):  # a container's first process has no parent
        return
    # Already orphaned? Then the parent is init, or what takes its place.
    alive = _is_worker(worker)

    def watch() -> None:
        while alive and os.getppid() == worker:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _is_worker(pid: int) -> bool:
    """Asked once, at the start: of a process that died meanwhile nothing can be asked."""
    try:
        return not STARTERS.isdisjoint(psutil.Process(pid).cmdline())
    except psutil.AccessDenied:
        return True
    except psutil.Error:
        return False


def tidy(clone: Path) -> None:
    """Remove the trees of runs that are done, and of those that failed long ago; forget old runs."""
    for tree in (clone / TREES).glob("*"):
        # Under the lock: a run that is taken up again has noted that before it makes or finds its tree.
        with one_at_a_time(clone):
            over = (tree / ".cgan" / "done").exists() or _is_old(tree)
            if over and noted(clone).get(tree.name) is None:
                _remove(clone, tree.name)
                forget(clone, tree.name)
    for run, process in noted(clone).items():  # those that worked in the clone itself have no tree
        if process is None and _is_old(clone / RUNS / f"{run}.json"):
            forget(clone, run)


def _is_old(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):  # another run removed it meanwhile
        return time.time() - path.stat().st_mtime > KEPT_S
    return False


@contextlib.contextmanager
def one_at_a_time(clone: Path) -> Iterator[None]:
    """One that changes what is in the clone: a deployment, a run that begins or is tidied away."""
    path = clone / ".cgan" / "work.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _git_quietly(folder: Path, *arguments: str | Path) -> None:
    git.git("-c", "core.hooksPath=/dev/null", *arguments, folder=folder)


def _bring(clone: Path, commit: str) -> None:
    """Fetch the commit if the clone doesn't have it. Raises CganError when it is not to be had."""
    if git.has_commit(clone, commit):
        return
    why = "no branch or tag there has it"
    try:
        git.git_remote("fetch", "--quiet", "--tags", "--force", "origin", folder=clone)
    except git.GitError as error:
        why = str(error)
    if not git.has_commit(clone, commit):
        raise CganError(
            f"commit {commit} of the deployment is neither in {clone} nor to be had from its origin ({why}). "
            "Push it (`git push`), or deploy a commit that is there."
        )


def _share_cache(clone: Path, tree: Path) -> None:
    """The clone's own DVC settings for the tree: the same cache, the same remote."""
    here, there = (folder / ".dvc" / "config.local" for folder in (clone, tree))
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(here)
    if not settings.has_section("cache"):
        settings.add_section("cache")
    if not settings.has_option("cache", "dir"):
        settings.set("cache", "dir", str(clone / ".dvc" / "cache"))
    with there.open("w", encoding="utf-8") as file:
        settings.write(file)
    _anchor_remotes(clone, tree)


def _anchor_remotes(source: Path, tree: Path) -> None:
    """Make relative addresses of DVC remotes in the tree mean what they mean in `source`.

    DVC takes them from the .dvc folder that they stand in. Absolute ones stand in config.local then, which
    goes before what is committed.
    """
    local, both = (
        configparser.ConfigParser(interpolation=None),
        configparser.ConfigParser(interpolation=None),
    )
    local.read(tree / ".dvc/config.local")
    both.read([tree / ".dvc/config", tree / ".dvc/config.local"])
    relative = [
        (section, url)
        for section in both.sections()
        if section.startswith("'remote ")
        and (url := both.get(section, "url", fallback=""))
        and "://" not in url
        and not Path(url).is_absolute()
    ]
    if not relative:
        return
    for section, url in relative:
        if not local.has_section(section):
            local.add_section(section)
        local.set(section, "url", os.path.normpath(source / ".dvc" / url))
    with (tree / ".dvc/config.local").open("w", encoding="utf-8") as file:
        local.write(file)


def share_charts(there: Path, here: Path) -> None:
    """The library of the page's charts, which takes seconds to put together."""
    for kept in (there / ".cgan").glob("charts-*.js.gz"):
        if not (target := here / ".cgan" / kept.name).exists():
            write_bytes(target, kept.read_bytes())


def share_data(source: Path, tree: Path) -> str:
    """Make a relative `data.path` in the tree mean that of `source`, so that a file put there is seen.

    A link, not an absolute path in params.yaml: DVC's hashes and git's status stay those of the commit. None
    where git has the file, or a DVC pointer for it: then it comes from the remote. Returns the path that
    is linked, or nothing.
    """
    path = load_params(tree / "params.yaml").data.path
    if Path(path).is_absolute() or (tree / path).is_symlink():
        return ""
    tracked = [
        name
        for name in git.git("ls-files", "-z", "--", path, f"{path}.dvc", folder=tree)
        .decode()
        .split("\0")
        if name
    ]
    if path in tracked or any(name.endswith(".dvc") for name in tracked):
        return ""
    if tracked:
        git.git("update-index", "--skip-worktree", "--", *tracked, folder=tree)
        shutil.rmtree(tree / path)
    (tree / path).parent.mkdir(parents=True, exist_ok=True)
    (tree / path).symlink_to(source / path)
    exclude = tree / os.fsdecode(
        git.git("rev-parse", "--git-path", "info/exclude", folder=tree).strip()
    )
    exclude.parent.mkdir(exist_ok=True)  # which git takes from its template, where that has one
    if not exclude.is_file() or f"/{path}" not in exclude.read_text(encoding="utf-8").splitlines():
        with exclude.open("a", encoding="utf-8") as file:
            file.write(f"/{path}\n")
    return path


# -- The clone ---------------------------------------------------------------------------------------


def update_clone(root: Path, work: Path) -> str:
    """Bring the clone `work` to the commit of HEAD in `root`; returns it, short.

    What runs wrote there beside is kept. It fetches from, and pushes to, where `root` does.
    """
    if not (work / ".git" / "HEAD").is_file():
        shutil.rmtree(work, ignore_errors=True)
        git.git("clone", "--quiet", "--no-checkout", root, work)
    team = "."  # a project that is nowhere else is its own origin
    with contextlib.suppress(git.GitError):
        team = git.git("remote", "get-url", "origin", folder=root).decode().strip()
    git.git("remote", "set-url", "origin", _absolute(team, root), folder=work)
    git.git("fetch", "--quiet", root, "HEAD", folder=work)
    _unshare_inbox(work)
    git.git("checkout", "--quiet", "--force", "--detach", "FETCH_HEAD", folder=work)
    settings = root / ".dvc" / "config.local"  # a remote of this machine's
    if settings.is_file():
        shutil.copy(settings, work / ".dvc" / "config.local")
    _anchor_remotes(root, work)
    dvc_in(work, "config", "--local", "cache.dir", dvc_in(root, "cache", "dir"))
    if path := share_data(root, work):
        git.git("config", "cgan.inbox", path, folder=work)
    return git.git("rev-parse", "--short", "HEAD", folder=work).decode().strip()


def _absolute(address: str, root: Path) -> str:
    """A relative path of a remote is meant from `root`."""
    return str((root / address).resolve()) if (root / address).is_dir() else address


def _unshare_inbox(work: Path) -> None:
    path = git.git("config", "--default", "", "cgan.inbox", folder=work).decode().strip()
    if path and (work / path).is_symlink():
        (work / path).unlink()
        if tracked := git.git("ls-files", "--", path, folder=work).decode().splitlines():
            git.git("update-index", "--no-skip-worktree", "--", *tracked, folder=work)


def run_in(folder: Path, *command: str, environment: dict[str, str] | None = None) -> str:
    """What a command says. Raises CganError with its complaint."""
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, encoding="utf-8"
    )
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise CganError(f"{' '.join(command)}, in {folder}, failed:\n{said}")
    return done.stdout.rstrip()


def dvc_in(folder: Path, *arguments: str) -> str:
    return run_in(folder, sys.executable, "-m", "dvc", *arguments)
