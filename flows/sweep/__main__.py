"""Search for better params: many trainings, Optuna proposes, MLflow shows.

    python -m flows.sweep --trials 20 --parallel 4

With a Prefect server (PREFECT_API_URL) the trainings are runs of the deployment `train` on the pool's
workers, without one they are processes of this machine. The same command goes on with a sweep that was cut
off, or makes one longer. The space and the objective are in params.yaml, `sweep:`. See docs/sweeps.md.
"""

from __future__ import annotations

import os

# Read by Prefect and MLflow when they are imported: nothing leaves this machine; a server may be away for
# eight minutes.
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", "8")

import argparse
import importlib.util
import re
import signal
import sys
from collections.abc import Sequence
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
from optuna import TrialPruned
from optuna.exceptions import OptunaError
from prefect.settings import get_current_settings
from rich.console import Console
from rich.markdown import Markdown
from sqlalchemy.exc import SQLAlchemyError

from cgan import git
from cgan.errors import CganError
from cgan.files import locked
from cgan.params.reading import check_params, load_params
from cgan.params.sections import Params
from cgan.reports.sweeps import NAME, ROLE
from cgan.run.lifecycle import user
from cgan.store.address import (
    client_settings,
    experiment_name,
    open_store,
    store_uri,
    without_credentials,
)
from cgan.store.pages import run_page
from flows.servers import top_folder
from flows.sweep import study as studies
from flows.sweep.jobs import SWEEPS, JobError, Pool, train_here
from flows.sweep.report import publish
from flows.sweep.search import CONSOLE, Results, Sweep, say

NOT_SET = ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "OMP_NUM_THREADS")  # trainings here inherit the rest


def sweep(base: Path, params: Params, prefix: str, confirm: bool) -> None:
    """Search and confirm; the report goes to the page of the sweep's run in MLflow."""
    studies.check_combinations(params)
    pool = None
    if get_current_settings().api.url:
        pool = Pool("train-cuda" if params.train.device == "cuda" else "train")
    commit = (
        pool.commit(base) if pool else git.git("rev-parse", "HEAD", folder=base).decode().strip()
    )
    overrides = studies.uncommitted_params(base, params, commit)
    study = studies.open_study(base, studies.study_name(base, prefix, params, commit), params)
    # MLflow's client asks a server that went away again, for four minutes.
    os.environ.update({k: v for k, v in client_settings().items() if k not in NOT_SET})
    uri = store_uri(base)
    client, experiment = open_store(uri, base, experiment_name(params.tracking.experiment))
    parent = begin(client, experiment, study, params)
    page = f"run {study.study_name} in MLflow, which `make ui` shows"
    if uri.startswith("http"):
        page = run_page(without_credentials(uri), experiment, parent)
    trials, parallel = params.sweep.trials, params.sweep.parallel
    where = "on the pool" if pool else "on this machine"
    say(f"{study.study_name}: {trials} trials, {parallel} at a time, {where}\n{page}")
    train = pool.train if pool else partial(train_here, base, commit)
    driver = Sweep(study, params, client, experiment, overrides, train)
    driver.search(trials, parallel)
    best = studies.best_of(study)
    confirmed: Results | None = None
    present = studies.result_params(params)
    if best and confirm and not studies.trained(best).items() <= present.items():
        try:
            confirmed = driver.confirm(best, parallel)
        except (JobError, TrialPruned) as error:
            say(f"A training with a fresh seed failed: {error}. The same command tries it again.")
    Console(width=100).print(Markdown(publish(client, study, params, confirmed)))
    say(page)


def begin(client: MlflowClient, experiment: str, study: optuna.Study, params: Params) -> str:
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


def _end(number: int, _: Any) -> None:
    """As abrupt as a kill, which a sweep survives; its threads would be waited for otherwise. Processes of
    this machine end with us, and their trainings save a checkpoint first."""
    CONSOLE.show_cursor()
    sys.stderr.write("\nInterrupted. The same command goes on: what is finished is kept.\n")
    sys.stderr.flush()
    os._exit(128 + number)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code: 0, 1 after a failure; 130 after Ctrl-C."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    parser = argparse.ArgumentParser(prog="python -m flows.sweep", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--trials", type=int, help="results in all, those of former calls too")
    add("--parallel", type=int, help="trainings at a time")
    add("--name", default="sweep", help="begins the sweep's name; the rest says what is searched")
    words = "do not train the best and the present params with fresh seeds"
    add("--no-confirm", dest="confirm", action="store_false", help=words)
    asked = parser.parse_args(arguments)
    try:
        base = top_folder()
        os.chdir(base)
        document = load_params().model_dump(by_alias=True)
        options = {"trials": asked.trials, "parallel": asked.parallel}
        document["sweep"] |= {key: value for key, value in options.items() if value is not None}
        params = check_params(document, "the command line")
        with locked(base / SWEEPS / "lock", wait=False) as is_alone:
            if not is_alone:  # both would start the study's trials
                raise CganError(
                    "a sweep runs in this folder already. Wait until it ends, or stop it."
                )
            prefix = re.sub(r"[^A-Za-z0-9]+", "-", asked.name)[:60]  # of folders, too
            sweep(base, params, prefix, asked.confirm)
    except CganError as error:
        sys.stderr.write(f"Error: {error}\n")
        return error.exit_code
    except (MlflowException, httpx.HTTPError, OptunaError, SQLAlchemyError) as error:
        sys.stderr.write(
            f"Error: MLflow, Prefect or Optuna's storage cannot be used: {str(error)[:800]}\nStart it, or "
            "`make deploy` if it refused; then run the same command again: it goes on.\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
