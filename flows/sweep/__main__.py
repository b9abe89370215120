"""Search for better params: many trainings, Optuna proposes, MLflow shows.

    python -m flows.sweep --trials 20 --parallel 4

With a Prefect server (PREFECT_API_URL) the trainings are runs of the deployment `train` on the pool's
workers, without one they are processes of this machine. The same command goes on with a sweep that was cut
off, or makes one longer. The space and the objective are in params.yaml, `sweep:`. See docs/sweeps.md.
"""

from __future__ import annotations

import os

# Read by Prefect when it is imported: nothing leaves this machine; a server may be away for eight minutes.
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", "8")

import argparse
import fcntl
import importlib.util
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

if importlib.util.find_spec("optuna") is None:
    sys.exit(
        "Error: a sweep needs the extra `sweep`; there is no package optuna here. Install it: "
        "`pip install -e '.[pipeline,sweep]'`, or `make env`."
    )

import httpx
import optuna
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from prefect.settings import get_current_settings
from rich.console import Console
from rich.markdown import Markdown

from cgan import git
from cgan.errors import CganError
from cgan.params.reading import load_params
from cgan.params.sections import Params
from cgan.reports.sweeps import NAME, ROLE
from cgan.run.lifecycle import user
from cgan.store.address import (
    client_settings,
    experiment_name,
    open_store,
    reason_of,
    store_uri,
    without_credentials,
)
from cgan.store.pages import run_page
from flows.servers import top_folder
from flows.sweep import report
from flows.sweep.here import SWEEPS, train_here
from flows.sweep.jobs import Pool
from flows.sweep.search import Results, Sweep, say
from flows.sweep.study import best_of, check_combinations, facts_of, open_study, present

A_NAME = re.compile(r"[A-Za-z0-9][\w-]{0,59}", re.ASCII)
NOT_SET = ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "OMP_NUM_THREADS")  # trainings here inherit the rest


def sweep(base: Path, params: Params, asked: argparse.Namespace) -> None:
    """Search and confirm; the report goes to the page of the sweep's run in MLflow."""
    check_combinations(params)
    with _alone(base):
        pool = None
        if get_current_settings().api.url:
            pool = Pool("train-cuda" if params.train.device == "cuda" else "train")
        commit = pool.commit(base) if pool else git.git("rev-parse", "HEAD", folder=base).decode()
        facts = facts_of(base, params, commit.strip())
        study = open_study(base, asked.name or f"sweep-{facts['digest'][:8]}", params, facts)
        # MLflow's client asks a server that went away again, for four minutes.
        os.environ.update({k: v for k, v in client_settings().items() if k not in NOT_SET})
        uri, name = store_uri(base), experiment_name(params.tracking.experiment)
        client, experiment = open_store(uri, base, name)
        parent = _begin(client, experiment, study, params)
        page = f"run {study.study_name} in MLflow, which `make ui` shows"
        if uri.startswith("http"):
            page = run_page(without_credentials(uri), experiment, parent)
        where = "on the pool" if pool else "on this machine"
        say(
            f"{study.study_name}: {asked.trials} trials, {asked.parallel} at a time, {where}\n{page}"
        )
        train = pool.train if pool else partial(train_here, base, study.user_attrs["commit"])
        sweep = Sweep(study, params, client, experiment, train)
        sweep.lay_ground()
        sweep.search(asked.trials, asked.parallel)
        best = best_of(study)
        confirmed: Results = {}
        if best and asked.confirm and best.params != present(params):
            confirmed = sweep.confirm(best, asked.parallel)
        text = report.publish(client, study, params, confirmed)
        Console(width=100).print(Markdown(text))
        say(page)


def _begin(client: MlflowClient, experiment: str, study: optuna.Study, params: Params) -> str:
    """The id of the parent run, which is made once."""
    if "parent" not in study.user_attrs:
        tags = {NAME: study.study_name, ROLE: "parent", "mlflow.user": user()}
        made = client.create_run(experiment, tags=tags, run_name=study.study_name)
        study.set_user_attr("parent", made.info.run_id)
        for key, value in {"objective": params.sweep.objective, **params.sweep.space}.items():
            client.log_param(made.info.run_id, key, str(value)[:6000])
    parent = str(study.user_attrs["parent"])
    client.update_run(parent, "RUNNING")
    return parent


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


def _end(number: int, _: Any) -> None:
    """As abrupt as a kill, which a sweep survives; its threads would be waited for otherwise. Processes of
    this machine end with us, and their trainings save a checkpoint first."""
    sys.stderr.write("\nInterrupted. The same command goes on: what is finished is kept.\n")
    sys.stderr.flush()
    os._exit(128 + number)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code: 0, 1 after a failure; 130 after Ctrl-C."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
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
        params = load_params()
        for option in ("trials", "parallel"):
            if getattr(asked, option) is None:
                setattr(asked, option, getattr(params.sweep, option))
            if (count := getattr(asked, option)) < 1:
                raise CganError(f"--{option}: expected 1 or more, got {count}.")
        if asked.name is not None and not A_NAME.fullmatch(asked.name):
            raise CganError(
                f"--name {asked.name!r}: expected letters, digits, - and _, 60 at most. Folders and runs "
                "are named after it."
            )
        sweep(base, params, asked)
    except CganError as error:
        sys.stderr.write(f"Error: {error}\n")
        return error.exit_code
    except (MlflowException, httpx.HTTPError) as error:
        why = reason_of(error)
        if isinstance(error, httpx.HTTPStatusError):
            why = error.response.text[:500]
        sys.stderr.write(
            f"Error: MLflow or Prefect cannot be used ({why}). Start it, or `make deploy` if it "
            "refused; then run the same command again: it goes on.\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
