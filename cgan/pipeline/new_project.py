"""`cgan init`: a project for whoever has the package alone, made of the files of the repository's root."""

import importlib.util
import itertools
import os
import shlex
import sys
from pathlib import Path

from cgan import __version__
from cgan.base.commands import CommandError, output_of
from cgan.base.errors import CganError
from cgan.base.files import write_text
from cgan.base.git import git
from cgan.drawing.drawings import new_folder
from cgan.pipeline.project import PACKAGE_PARENT

# The wheel holds them too: `data-files` in pyproject.toml.
TEMPLATE_FILES = ("params.yaml", "dvc.yaml", "data/inbox/README.md", ".gitignore", ".dvcignore")
DVC_SETTINGS = "[core]\n    analytics = false\n    check_update = false\n    autostage = true\n"
FIRST_COMMIT = "A cgan project"
HEADER = f"""\
# The pipeline of cgan {__version__}. Its code is in the installed package, which DVC does not watch: after an
# upgrade, `dvc repro --force` runs the stages again.
"""


README = """\
# {name}

A project of cgan. It trains a generator that draws images of the class you ask for.

```bash
dvc repro                   # run the stages that are stale, by params.yaml; commit dvc.lock then
cgan report                 # how good is the generator? Its page is reports/run.html
cgan draw 2024 --seed 7     # draw; the classes are those of your data
cgan validate my-pictures/  # what to set for your own data, in data/inbox/: pictures, or a CSV
cgan ui                     # every run, in MLflow; mlflow.db and mlartifacts/ have them: back them up
```
"""


def make_project(out: Path) -> str:
    """Make a project in `out`, all or nothing, with a first commit where git knows the user. Returns what to
    say about it.

    Raises CganError where `out` holds something, ModuleNotFoundError without DVC, which `cgan` reports with
    the extra that brings it.
    """
    if importlib.util.find_spec("dvc") is None:
        raise ModuleNotFoundError("No module named 'dvc'", name="dvc")
    if out.resolve() == Path.cwd():
        raise CganError(f"{out}: you are in that folder. Name a folder that does not exist yet.")
    clone, quoted = Path(PACKAGE_PARENT), shlex.quote(str(out))
    template = clone if (clone / "dvc.yaml").is_file() else Path(sys.prefix) / "share/cgan"
    with new_folder(out) as folder:
        for name in TEMPLATE_FILES:
            text = (template / name).read_text(encoding="utf-8")
            write_text(folder / name, without_code(text) if name == "dvc.yaml" else text)
        write_text(folder / "README.md", README.format(name=out.resolve().name))
        git("init", "--quiet", folder=folder)
        init = (sys.executable, "-m", "dvc", "init", "--quiet")
        silent = {**os.environ, "DVC_NO_ANALYTICS": "true"}  # the settings come after it
        output_of(*init, folder=folder, environment=silent)
        write_text(folder / ".dvc/config", DVC_SETTINGS)
        git("add", ".", folder=folder)
        committed = "with its first commit"
        try:
            git("commit", "--quiet", "-m", FIRST_COMMIT, folder=folder)
        except CommandError as error:
            committed = (
                f"but nothing is committed ({str(error).splitlines()[-1]}). Correct that (git "
                "needs your name: `git config --global user.name`, `user.email`), then run "
                f"`git -C {quoted} commit -m '{FIRST_COMMIT}'`"
            )
    return (
        f"{out}: a project, {committed}.\n"
        f"Next: `cd {quoted} && dvc repro` runs the sample, 5,000 digits. `cgan validate my-pictures/`, in "
        "that folder, says what to set for your own data."
    )


def without_code(dvc_yaml: str) -> str:
    """dvc.yaml without its dependencies on the package's code, which no project but a clone holds."""
    lines = dvc_yaml.splitlines(keepends=True)
    kept = [line for line in lines if not line.lstrip().startswith("- cgan/")]
    without_comment = itertools.dropwhile(lambda line: line.startswith("#"), kept)
    return HEADER + "".join(without_comment)
