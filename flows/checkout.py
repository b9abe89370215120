"""The checkout of a scheduled run: a fresh clone at a commit.

    python -m flows.checkout COMMIT

is what a worker starts, as prefect.yaml says, and becomes Prefect's engine in the checkout. The next one
removes what has ended. Results and checkpoints are in DVC's cache and in the Home of the project that it
belongs to, so a run that was cut off goes on in another checkout.
"""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from cgan.base import git
from cgan.base.errors import CganError
from cgan.base.files import locked
from cgan.pipeline.params_file import load_params
from cgan.pipeline.project import home
from cgan.pipeline.tracking.store import STORE_VARIABLE, store_uri
from flows.children import dvc_repo

# Environment variables of a run that works in a checkout: its folder, and the project that it is a clone of.
CHECKOUT_VARIABLE = "CGAN_CHECKOUT"
PROJECT_VARIABLE = "CGAN_SOURCE"
CHECKOUT_LOCK = Path(".cgan/checkout.lock")


def become_engine(commit: str) -> NoReturn:
    """Check out the commit and go on as Prefect's engine there, by `exec`: the process keeps its lock."""
    project = Path(os.environ.get(PROJECT_VARIABLE) or Path(__file__).parents[1]).resolve()
    with checkout(project, commit) as folder:
        os.chdir(folder)
        env = {**os.environ, **environment(project, folder)}
        os.execve(sys.executable, [sys.executable, "-m", "prefect.engine"], env)  # nosec B606


@contextlib.contextmanager
def checkout(project: Path, commit: str, params: Path | None = None) -> Iterator[Path]:
    """A clone of `project` at `commit` with its results and data, and with these params. Removed afterwards,
    and so is what killed processes left: who holds a clone holds its lock, and so does what it becomes, by
    `exec`, and what it starts. Raises CganError where the commit cannot be found.
    """
    folders = home(project) / "checkouts"
    with contextlib.ExitStack() as stack:
        with locked(folders / "lock"):
            for abandoned in folders.glob("*/"):
                with locked(abandoned / CHECKOUT_LOCK, wait=False) as is_dead:
                    if is_dead:
                        shutil.rmtree(abandoned, ignore_errors=True)
            folder = Path(tempfile.mkdtemp(dir=folders))
            stack.enter_context(locked(folder / CHECKOUT_LOCK, inherited=True))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        git.clone_at(project, commit, folder)
        _share_results(project, folder)
        if params:
            shutil.copy(params, folder)
        _share_data(project, folder)
        yield folder


def _share_results(project: Path, folder: Path) -> None:
    """Give a clone the project's settings and cache of DVC, and what they have of its results."""
    with contextlib.suppress(FileNotFoundError):  # the project's own settings, such as keys
        shutil.copy(project / ".dvc/config.local", folder / ".dvc")
    with dvc_repo(project) as repo:
        cache = repo.cache.local_cache_dir
    # With a committed dvc.lock, of another machine, DVC would not look into its run cache.
    (folder / "dvc.lock").unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        shutil.copy(home(project) / "dvc.lock", folder)
    with dvc_repo(folder) as repo, repo.config.edit("local") as own:
        own["cache"]["dir"] = cache
        # DVC's notes about a tree, which are removed with it.
        own["core"]["site_cache_dir"] = str(folder / ".dvc/tmp/site")
    with contextlib.suppress(CganError), dvc_repo(folder) as repo:  # some results may be gone
        if "remote" in repo.config["core"]:
            repo.pull()
        else:
            repo.checkout()


def environment(project: Path, folder: Path) -> dict[str, str]:
    """Variables for a process in the checkout and its children."""
    return {
        CHECKOUT_VARIABLE: str(folder),
        "CGAN_HOME": str(home(project)),
        "PYTHONPATH": str(folder),
        STORE_VARIABLE: store_uri(project),
    }


def _share_data(project: Path, folder: Path) -> None:
    """Link what lies at a relative `data.path` of the project and is not in the checkout."""
    data = load_params(folder / "params.yaml").data
    target = project / data.path
    if data.source != "file" or Path(data.path).is_absolute() or not target.exists():
        return
    for file in (target, *target.glob("*")):
        link = folder / file.relative_to(project)
        if not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)


if __name__ == "__main__":
    try:
        become_engine(sys.argv[1])
    except CganError as error:
        sys.exit(f"Error: {error}")
