"""Search for better params: many trainings, Optuna proposes, MLflow shows.

    python -m flows.sweep --trials 20 --parallel 4

With a Prefect server (PREFECT_API_URL) the trainings are runs of the deployment `train` on the pool's
workers, without one they are processes of this machine. The same command goes on with a sweep that was cut
off, or makes one longer. The space and the objective are in params.yaml, `sweep:`. See docs/sweeps.md.
"""

from __future__ import annotations

import os

# Read by Prefect when it is imported: nothing leaves this machine.
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")

import argparse
import fcntl
import importlib.util
import re
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

if importlib.util.find_spec("optuna") is None:
    sys.exit(
        "Error: a sweep needs the extra `sweep`; there is no package optuna here. Install it: "
        "`pip install -e '.[pipeline,sweep]'`, or `make env`."
    )

from cgan import git
from cgan.errors import CganError
from cgan.params.reading import load_params
from cgan.params.sections import Params
from cgan.store.address import store_uri
from flows.dvc import read_stages
from flows.servers import top_folder
from flows.sweep import report, space
from flows.sweep.confirm import Confirmation, best_of
from flows.sweep.here import SWEEPS, Here
from flows.sweep.jobs import Job, Place, Seen, State, work
from flows.sweep.pages import Pages
from flows.sweep.pool import Pool, is_configured
from flows.sweep.search import Search
from flows.sweep.study import VALUES, Counted, Facts, facts_of, open_study

NAME = re.compile(r"[A-Za-z0-9][\w-]{0,59}", re.ASCII)


@dataclass(frozen=True)
class Asked:
    trials: int
    parallel: int
    name: str | None
    confirm: bool


def sweep(base: Path, asked: Asked) -> str:
    """Search and confirm; write the report → its first sentences."""
    params = load_params()
    space.check_combinations(params)
    with _alone(base):
        pool = _pool(params)
        commit = (
            pool.commit(base)
            if pool
            else git.git("rev-parse", "HEAD", folder=base).decode().strip()
        )
        new = facts_of(base, params, commit)
        name = asked.name or f"sweep-{new.digest[:8]}"
        study, facts = open_study(base, name, params, new)
        uri = store_uri(base)
        pages = Pages(uri, base)
        place: Place = pool or Here(base, facts.commit)
        searched = {k: each.model_dump() for k, each in params.sweep.space.items()}
        parent = pages.parent(
            f"{name}-{facts.token}", name, {"objective": facts.objective, **searched}
        )
        _say(
            f"{name}: {asked.trials} trials, {asked.parallel} at a time, "
            f"{'on the pool' if pool else 'on this machine'}; run {parent} in MLflow"
        )
        common = (study, params, facts, place, pages, parent, _say)
        if "ground" not in study.user_attrs:
            _lay_ground(place, facts, f"{name}-{facts.token}-ground", Counted(study))
            study.set_user_attr("ground", True)
        Search(*common).run(asked.trials, asked.parallel)
        best = best_of(study)
        confirmed = None
        if best and asked.confirm and not space.is_present(params, best.user_attrs[VALUES]):
            confirmed = Confirmation(*common).run(best, asked.parallel)
        found = report.found(study, params, facts, best, confirmed)
        with tempfile.TemporaryDirectory(prefix="cgan-") as folder:
            text, plots = report.write(Path(folder), study, found)
            value = (
                {f"quality/{facts.objective}": best.value}
                if best and best.value is not None
                else {}
            )
            pages.publish(parent, Path(folder), text, plots, value)
            if pool and (why := report.to_prefect(Path(folder), study, text)):
                _say(f"No artifacts in Prefect ({why}). The same is on the run in MLflow.")
        pages.end(parent)
        return text


def _lay_ground(place: Place, facts: Facts, name: str, attempts: Counted) -> None:
    """What all trainings need, once: without it, each of the first would make the data and the judge."""
    names = [stage.name for stage in read_stages()]
    job = Job(name, facts.base, {}, names[: names.index("train")])

    def ended(job: Job, seen: Seen) -> None:
        if seen.state is not State.DONE:
            raise CganError(f"the stages before the training: {seen.words}")

    work(place, iter([job]), 1, attempts, lambda _: True, ended)


def _pool(params: Params) -> Pool | None:
    """The pool's deployment, where a server is configured."""

    if not is_configured():
        return None
    return Pool("train-cuda" if params.train.device == "cuda" else "train")


@contextmanager
def _alone(base: Path) -> Iterator[None]:
    """One sweep at a time in a clone: two drivers of one study would both start its trials."""
    path = base / SWEEPS / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CganError(
                "a sweep runs in this folder already. Wait until it ends, or stop it."
            ) from None
        yield


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code: 0, 1 after a failure, 130 after Ctrl-C."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    parser = argparse.ArgumentParser(prog="python -m flows.sweep", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--trials", type=int, help="results in all, those of former calls too")
    parser.add_argument("--parallel", type=int, help="trainings at a time")
    parser.add_argument("--name", help="default: by what is searched, so that the same goes on")
    parser.add_argument(
        "--no-confirm",
        dest="confirm",
        action="store_false",
        help="do not train the best and the present params with fresh seeds",
    )
    asked = parser.parse_args(arguments)
    try:
        base = top_folder()
        os.chdir(base)
        s = load_params().sweep
        trials = s.trials if asked.trials is None else asked.trials
        parallel = s.parallel if asked.parallel is None else asked.parallel
        for option, count in (("--trials", trials), ("--parallel", parallel)):
            if count < 1:
                raise CganError(f"{option}: expected 1 or more, got {count}.")
        if asked.name is not None and not NAME.fullmatch(asked.name):
            raise CganError(
                f"--name {asked.name!r}: expected letters, digits, - and _, 60 at most. Folders, runs and "
                "artifacts are named after it."
            )
        _say(sweep(base, Asked(trials, parallel, asked.name, asked.confirm)))
    except CganError as error:
        sys.stderr.write(f"Error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted. The same command goes on: what is finished is kept.\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
