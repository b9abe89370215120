"""Where a run works that is not at the engineer's terminal: in a fresh clone at a commit, its checkout.

`enter` is the pull step of prefect.yaml: Prefect calls it in the run's process before it loads the flow. The
next one removes what has ended. Results and checkpoints are in DVC's cache and in the Home of
the project that it belongs to, so a run that was cut off goes on in another checkout.
"""

import configparser
import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from uuid import UUID

from prefect import runtime
from prefect.logging.loggers import flow_run_logger

from cgan import git
from cgan.errors import CganError
from cgan.files import locked
from cgan.pipeline.params_file import load_params
from cgan.pipeline.tracking.store import STORE_VARIABLE, store_uri
from cgan.project import home
from flows.repro import dvc

# Environment variables of a run that works in a checkout: its folder, and the project that it is a clone of.
CHECKOUT_VARIABLE, PROJECT_VARIABLE = "CGAN_CHECKOUT", "CGAN_SOURCE"
CHECKOUT_LOCK = Path(".cgan/checkout.lock")

checkout_stack = contextlib.ExitStack()  # holds the checkout of this process


def enter(commit: str) -> dict[str, str]:
    """Check out the commit for this process. Prefect then runs the flow in place of this program, by `exec`:
    the process keeps its environment and the lock."""
    project = Path(os.environ.get(PROJECT_VARIABLE) or Path(__file__).parents[1]).resolve()
    try:
        folder = checkout_stack.enter_context(checkout(project, commit))
    except CganError as error:
        if run := runtime.flow_run.id:  # Prefect shows no more than that its process ended
            flow_run_logger(flow_run_id=UUID(run)).error("%s", error)
        raise
    os.environ.update(environment(project, folder))
    return {"directory": str(folder)}


@contextlib.contextmanager
def checkout(project: Path, commit: str, params: Path | None = None) -> Iterator[Path]:
    """A clone of `project` at `commit` with its results and data, and with these params."""
    with clone(project, commit) as folder:
        _share_cache(project, folder)
        # With a committed dvc.lock, of another machine, DVC would not look into its run cache.
        (folder / "dvc.lock").unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            shutil.copy(home(project) / "dvc.lock", folder)
        with contextlib.suppress(CganError):  # some results may be gone
            dvc("checkout", "--quiet", folder=folder)
        if params:
            shutil.copy(params, folder)
        _share_data(project, folder)
        yield folder


@contextlib.contextmanager
def clone(project: Path, commit: str) -> Iterator[Path]:
    """A clone of the project at the commit. Removed afterwards, and so is what killed processes left: who
    holds a clone holds its lock, and so does what it becomes, by `exec`, and what it starts.

    Raises CganError where the commit cannot be found.
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
        yield folder


def tag_results(name: str) -> None:
    """Tag, in the project, a commit with the dvc.lock and params.yaml of this checkout: so its results
    have a name, for `dvc metrics diff` and `git checkout`, and `dvc gc --all-tags` keeps them."""
    head = git.git("rev-parse", "HEAD").decode().strip()
    with tempfile.TemporaryDirectory(prefix="cgan-") as temporary:
        # A push from a clone without history would be refused.
        index, project = f"{temporary}/index", Path(os.environ[PROJECT_VARIABLE])
        project_git = partial(git.git, folder=project, GIT_INDEX_FILE=index)
        project_git("read-tree", head)
        for file in ("dvc.lock", "params.yaml"):
            blob = project_git("hash-object", "-w", Path(file).resolve()).decode().strip()
            project_git("update-index", "--add", "--cacheinfo", f"100644,{blob},{file}")
        tree = project_git("write-tree").decode().strip()
        identity = ("-c", "user.name=cgan", "-c", "user.email=cgan@localhost")
        commit = (
            project_git(*identity, "commit-tree", tree, "-p", head, "-m", name).decode().strip()
        )
        project_git("update-ref", f"refs/tags/{name}", commit)


def environment(project: Path, folder: Path) -> dict[str, str]:
    """Variables for a process in the checkout and its children."""
    return {
        CHECKOUT_VARIABLE: str(folder),
        PROJECT_VARIABLE: str(project),
        "CGAN_HOME": str(home(project)),
        "PYTHONPATH": str(folder),
        STORE_VARIABLE: store_uri(project),
    }


def _share_cache(project: Path, folder: Path) -> None:
    """The project's cache and settings of DVC, with the addresses that are relative to its `.dvc` folder."""
    settings = configparser.ConfigParser(interpolation=None)
    settings.read([folder / ".dvc/config", project / ".dvc/config.local"])
    for section in settings.values():
        if (url := section.get("url")) and "://" not in url:
            section["url"] = os.path.normpath(project / ".dvc" / url)
    # DVC's notes about a tree: in the checkout, so that they are removed with it.
    notes = str(folder / ".dvc/tmp/site")
    cache = {"dir": dvc("cache", "dir", folder=project)}
    settings.read_dict({"cache": cache, "core": {"site_cache_dir": notes}})
    with (folder / ".dvc/config.local").open("w", encoding="utf-8") as file:
        settings.write(file)


def _share_data(project: Path, folder: Path) -> None:
    """Link what lies at a relative `data.path` of the project and is not in the commit. What the commit has a
    DVC pointer for is pulled if it is not in the cache: a stage that is forced to run pulls nothing."""
    data = load_params(folder / "params.yaml").data
    path = Path(data.path)
    if data.source != "file" or path.is_absolute():
        return
    for pointer in (Path(f"{folder / path}.dvc"), *(folder / path).glob("*.dvc")):
        if pointer.exists() and not pointer.with_suffix("").exists():
            dvc("pull", "--quiet", str(pointer), folder=folder)
    target = project / path
    is_in_both = (folder / path).is_dir() and target.is_dir()
    for file in target.iterdir() if is_in_both else [target]:
        link = folder / file.relative_to(project)
        if file.exists() and not link.exists() and not Path(f"{link}.dvc").exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)
