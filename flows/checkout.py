"""Where a run works that is not at the engineer's terminal: in a fresh clone at a commit, its checkout.

`enter` is the pull step of prefect.yaml: Prefect calls it in the run's process before it loads the flow. A
checkout lives as long as its process. DVC's cache, checkpoints and unsent records are in the Home and the
cache of the project that it belongs to, so a run that was cut off goes on in another checkout.
"""

from __future__ import annotations

import atexit
import configparser
import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cgan import git
from cgan.errors import CganError
from cgan.files import locked, write_bytes
from cgan.params.reading import load_params
from cgan.project import home
from cgan.tracking.store import STORE, store_uri

CHECKOUT = "CGAN_CHECKOUT"  # in the environment of a run that works in a checkout: its folder
SOURCE = "CGAN_SOURCE"  # the project that the checkouts of a worker belong to
CODE = ("cgan", "flows")


def enter(commit: str) -> dict[str, str]:
    """Check out the commit for this process, and have the rest of the process use the code there.

    Prefect then replaces the process by that of the flow, by `exec`: its environment and the lock stay.
    """
    source = Path(os.environ.get(SOURCE) or Path(__file__).parents[1]).resolve()
    stack = contextlib.ExitStack()
    folder = stack.enter_context(checkout(source, commit))
    atexit.register(stack.close)
    os.environ.update(environment(source, folder))
    sys.path.insert(0, str(folder))
    # The worker's code is that of its own commit: the flow is to import that of the run's.
    for name in [name for name in sys.modules if name.split(".")[0] in CODE]:
        del sys.modules[name]
    return {"directory": str(folder)}


@contextlib.contextmanager
def checkout(source: Path, commit: str) -> Iterator[Path]:
    """A clone of `source` at `commit`, removed afterwards; what killed processes left is removed before.

    Who holds a checkout holds the lock beside it, and so does what it becomes, by `exec`, and what it starts.
    Raises CganError when the commit is nowhere to be found.
    """
    folders = home(source) / "checkouts"
    folders.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        with locked(home(source) / "checkouts.lock"):
            for left in folders.glob("*.lock"):
                with locked(left, wait=False) as is_dead:
                    if is_dead:
                        shutil.rmtree(left.with_suffix(""), ignore_errors=True)
                        left.unlink()
            folder = Path(tempfile.mkdtemp(dir=folders))
            lock = stack.enter_context(folder.with_suffix(".lock").open("w", encoding="utf-8"))
            os.set_inheritable(lock.fileno(), True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        git.clone_at(source, commit, folder)
        _share_cache(source, folder)
        # With a committed dvc.lock, of another machine, DVC would not look into its run cache.
        (folder / "dvc.lock").unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError, CganError):  # some results may be gone
            shutil.copy(home(source) / "dvc.lock", folder)
            dvc_in(folder, "checkout", "--quiet")
        share_data(source, folder)
        yield folder


def environment(source: Path, folder: Path) -> dict[str, str]:
    """What a process in the checkout needs, and its children: the project's Home and MLflow store."""
    return {
        CHECKOUT: str(folder),
        "CGAN_HOME": str(home(source)),
        "PYTHONPATH": str(folder),
        STORE: store_uri(source),
    }


def _share_cache(source: Path, folder: Path) -> None:
    """The project's cache and settings of DVC, with the addresses that are relative to its `.dvc` folder."""
    settings = configparser.ConfigParser(interpolation=None)
    settings.read([folder / ".dvc/config", source / ".dvc/config.local"])
    for section in settings.sections():
        url = settings.get(section, "url", fallback="")
        if section.startswith("'remote ") and url and "://" not in url:
            settings.set(section, "url", os.path.normpath(source / ".dvc" / url))
    cache = dvc_in(source, "cache", "dir")
    # DVC's notes about a tree: in the checkout, so that they are removed with it.
    settings.read_dict(
        {"cache": {"dir": cache}, "core": {"site_cache_dir": folder / ".dvc/tmp/site"}}
    )
    with (folder / ".dvc/config.local").open("w", encoding="utf-8") as file:
        settings.write(file)


def share_data(source: Path, folder: Path) -> None:
    """Link what lies at a relative `data.path` of the project and is not in the commit.

    Not where the commit has a DVC pointer for it: then it comes from the remote.
    """
    path = Path(load_params(folder / "params.yaml").data.path)
    there = source / path
    inside = (folder / path).is_dir() and there.is_dir()
    for file in [] if path.is_absolute() else there.iterdir() if inside else [there]:
        link = folder / file.relative_to(source)
        if file.exists() and not link.exists() and not Path(f"{link}.dvc").exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)


def begin() -> None:
    """In a flow: its checkout ends with this process."""
    if CHECKOUT in os.environ:
        atexit.register(shutil.rmtree, os.environ[CHECKOUT], ignore_errors=True)


def has_remote() -> bool:
    """Is this a checkout whose project has a default DVC remote?"""
    with contextlib.suppress(CganError):
        return CHECKOUT in os.environ and bool(dvc_in(Path(), "remote", "default"))
    return False


def keep_lock() -> None:
    """The next checkout begins with the results of this one."""
    if CHECKOUT in os.environ:
        write_bytes(home() / "dvc.lock", Path("dvc.lock").read_bytes())


def run_in(folder: Path, *command: str, environment: dict[str, str] | None = None) -> str:
    """The output of a command. Raises CganError with its error message."""
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, encoding="utf-8"
    )
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise CganError(f"{' '.join(command)}, in {folder}, failed:\n{said}")
    return done.stdout.rstrip()


def dvc_in(folder: Path, *arguments: str) -> str:
    return run_in(folder, sys.executable, "-m", "dvc", *arguments)
