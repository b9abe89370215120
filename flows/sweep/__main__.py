"""Search for better params: many trainings, Optuna proposes, MLflow shows. Or are the present ones better?

    python -m flows.sweep --trials 20 --parallel 4
    python -m flows.sweep --seeds 5 --against HEAD

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
from typing import Any

if importlib.util.find_spec("optuna") is None:
    sys.exit(
        "Error: a sweep needs the extra `sweep`; there is no package optuna here. Install it: "
        "`pip install -e '.[pipeline,sweep]'`, or `make env`."
    )

import httpx
from mlflow.exceptions import MlflowException
from optuna.exceptions import OptunaError
from sqlalchemy.exc import SQLAlchemyError

from cgan.errors import CganError
from cgan.files import locked
from cgan.params.reading import check_params, load_params
from cgan.store.address import reason_of
from flows.production import top_folder
from flows.sweep.jobs import SWEEPS, JobError
from flows.sweep.report import publish, publish_seeds
from flows.sweep.search import CONSOLE, Sweep, say
from flows.sweep.study import best_of, check_combinations, other_params, result_params, trained


def run(sweep: Sweep, confirm: bool) -> None:
    """Search and confirm."""
    params = sweep.params
    trials, parallel = params.sweep.trials, params.sweep.parallel
    say(f"{sweep.study.study_name}: {trials} trials, {parallel} at a time\n{sweep.page}")
    sweep.search(trials, parallel)
    best, confirmed = best_of(sweep.study), None
    if best and confirm and not trained(best).items() <= result_params(params).items():
        try:
            say(f"trial {best.number} and params.yaml, each with {params.sweep.seeds} fresh seeds")
            roles = {f"trial-{best.number}": trained(best), "present": {}}
            confirmed = sweep.train_seeds(roles)
        except JobError as error:
            say(str(error))
    publish(sweep, confirmed)


def compare(sweep: Sweep, name: str, others: dict[str, Any]) -> None:
    """The present params with several seeds, and against them what `name` has otherwise."""
    say(f"{sweep.study.study_name}: {sweep.params.sweep.seeds} fresh seeds\n{sweep.page}")
    roles = {"present": {}, "against": others} if others else {"present": {}}
    publish_seeds(sweep, name, others, sweep.train_seeds(roles))


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
    either = parser.add_mutually_exclusive_group().add_argument
    either("--trials", type=int, help="results in all, those of former calls too")
    words = "search nothing: train the present params with so many seeds, those of former calls too"
    either("--seeds", type=int, help=words)
    words = (
        "the same, and `train` of this preset, commit or branch where it is other (default: HEAD)"
    )
    add("--against", metavar="NAME", help=words)
    add("--parallel", type=int, help="trainings at a time")
    add("--name", help="begins the name of the study; the rest says what is searched or compared")
    words = "do not train the best and the present params with fresh seeds"
    add("--no-confirm", dest="confirm", action="store_false", help=words)
    asked = parser.parse_args(arguments)
    is_sweep = asked.seeds is None and asked.against is None
    try:
        base = top_folder()
        os.chdir(base)
        document = load_params().model_dump(by_alias=True)
        options = {key: getattr(asked, key) for key in ("trials", "parallel", "seeds")}
        document["sweep"] |= {key: value for key, value in options.items() if value is not None}
        params = check_params(document, "the command line")
        with locked(base / SWEEPS / "lock", wait=False) as is_alone:
            if not is_alone:  # both would start the study's trials
                raise CganError(
                    "a sweep runs in this folder already. Wait until it ends, or stop it."
                )
            name = asked.name or ("sweep" if is_sweep else "seeds")
            prefix = re.sub(r"[^A-Za-z0-9]+", "-", name)[:60]  # of folders, too
            if is_sweep:
                check_combinations(params)
                run(Sweep(base, params, prefix, params.sweep.space), asked.confirm)
            else:
                against = asked.against or "HEAD"
                others = other_params(base, params, against)
                compare(Sweep(base, params, prefix, {"against": others}), against, others)
    except CganError as error:
        sys.stderr.write(f"Error: {error}\n")
        return error.exit_code
    except (MlflowException, httpx.HTTPError, OptunaError, SQLAlchemyError) as error:
        why = reason_of(error)
        if isinstance(error, httpx.HTTPStatusError):
            why = error.response.text[:500]
        sys.stderr.write(
            f"Error: MLflow, Prefect or Optuna's storage cannot be used ({why}). Start it, or `make deploy` "
            "if it refused; then run the same command again: it goes on.\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
