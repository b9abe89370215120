"""`cgan status`: who is served, what was trained and judged last, and what runs, on one screen.

Three sources, asked at once: the project's files, its MLflow store, Prefect's API if `make up` runs it. A
server that is away or hangs costs seconds. What is missing is said in words. Nothing is written.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import textwrap
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from cgan import git
from cgan.errors import CganError
from cgan.params.reading import load_params
from cgan.params.sections import Params
from cgan.quality.report import LINES
from cgan.registry.client import SUMMARY, VERDICT, Version, open_registry
from cgan.tracking.delivery import store_uri, without_credentials
from cgan.tracking.journal import JOURNAL, count_waiting, journals

STORE_S = 30.0  # for importing MLflow, too: a second, on a busy machine ten; REQUEST_S holds before
REQUEST_S = 3
PREFECT_S = 1.0
PLAIN_WIDTH = 110
WORK = Path(".cgan/production/work")  # the clone in which scheduled runs work
PRODUCTION = Path(".cgan/production")
TRAINING = "tags.`mlflow.source.name` = 'cgan.stages.train'"
EVALUATED = "metrics.`quality/conditional_accuracy` >= 0"
SHOWN_RUNS, ASKED_RUNS = 3, 30
NAMES = {"fid_judge": "Fréchet distance", "gan_train_accuracy": "GAN-train accuracy"}
GOOD, BAD, QUIET = "green", "bold red", "dim"
STATES = {
    **dict.fromkeys(("promoted", "passed", "healthy", "completed", "finished"), GOOD),
    **dict.fromkeys(("blocked", "drifted", "degraded", "failed", "crashed", "killed"), BAD),
}

Json = dict[str, Any]


@dataclass
class Stored:
    """What the MLflow store says; `problem` instead when it could not be asked."""

    problem: str = "it gives no answer"
    champion: Version | None = None
    since: Json = field(default_factory=dict)  # the history's line that made it champion
    champion_run: Json = field(default_factory=dict)
    newest: Version | None = None
    report: Json = field(default_factory=dict)  # of the gate, on the newest version
    last_run: Json = field(default_factory=dict)
    evaluated: Json = field(default_factory=dict)  # the last run that has numbers on its quality


@dataclass
class Scheduled:
    """What Prefect's API says; `problem` instead when it could not be asked."""

    problem: str = "it gives no answer"
    runs: list[Json] = field(default_factory=list)
    following: Json = field(default_factory=dict)


def status(root: Path, console: Console) -> None:
    """Print the screen. Raises CganError outside of a project."""
    if not (root / "dvc.yaml").is_file():
        raise CganError(
            f"{root} is no cgan project: there is no dvc.yaml. Go to the project's top folder first."
        )
    params, problem = _params(root)
    stored, scheduled = Stored(), Scheduled()
    asking = [
        (_in_background(lambda: _ask_store(params, stored)), STORE_S),
        (_in_background(lambda: _ask_prefect(root, scheduled)), 3 * PREFECT_S),
    ]
    began = time.monotonic()
    title = _title(root)
    for thread, patience_s in asking:
        thread.join(max(0.0, patience_s - (time.monotonic() - began)))
    screen = Table.grid(padding=(0, 2))
    screen.add_column(style="bold cyan", no_wrap=True)
    screen.add_column()
    if problem:
        screen.add_row("Params", Text(problem, BAD))
    for name, show in {
        "Champion": lambda: _champion(stored),
        "Verdict": lambda: _verdict(root, stored),
        "Last training": lambda: _last_training(stored),
        "Quality": lambda: _quality(root, stored),
        "Data": lambda: _data(root, stored),
        "Waiting": lambda: _waiting(root),
        "Services": lambda: _services(root),
        "Scheduled": lambda: _scheduled(scheduled),
        "More": lambda: _more(stored),
    }.items():
        screen.add_row(name, _or_why_not(show))
    console.print(title)
    console.print()
    console.print(screen)


def make_console() -> Console:
    """The terminal's; a wide one without colours where output goes into a pipe."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PLAIN_WIDTH)


def _in_background(work: Callable[[], None]) -> threading.Thread:
    # A daemon: whoever hangs is left behind at the end.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


# --- asking -------------------------------------------------------------------------------------


def _params(root: Path) -> tuple[Params | None, str]:
    try:
        return load_params(root / "params.yaml"), ""
    except CganError as error:
        return None, str(error)


def _ask_store(params: Params | None, stored: Stored) -> None:
    model = params.gate.model if params else "cgan"
    experiment = params.tracking.experiment if params else "cgan"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(REQUEST_S))
    for talkative in ("mlflow", "alembic"):
        logging.getLogger(talkative).setLevel(logging.ERROR)
    try:
        with open_registry(model) as registry:
            versions = registry.versions()
            stored.newest = versions[0] if versions else None
            stored.champion = next((v for v in versions if "champion" in v.aliases), None)
            if stored.champion:
                number = stored.champion.number
                moves = [move for move in registry.history() if move.target == number]
                stored.since = vars(moves[-1]) if moves else {}
                stored.champion_run = _run(registry.client.get_run(stored.champion.run_id))
            if found := registry.client.get_experiment_by_name(experiment):

                def latest(condition: str) -> Json:
                    runs = registry.client.search_runs(
                        [found.experiment_id],
                        condition,
                        max_results=1,
                        order_by=["attributes.start_time DESC"],
                    )
                    return _run(runs[0]) if runs else {}

                stored.last_run = latest(TRAINING)
                stored.evaluated = latest(f"{TRAINING} and {EVALUATED}")
            stored.problem = ""
            if stored.newest and stored.newest.verdict:
                # Without it only the reasons are missing.
                with contextlib.suppress(Exception):
                    path = registry.client.download_artifacts(
                        stored.newest.run_id, "gate/gate.json"
                    )
                    stored.report = json.loads(Path(path).read_text())
    except CganError as error:
        stored.problem = str(error)
    except Exception as error:  # whatever a store's client raises: the screen says it in words
        stored.problem = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"


def _run(run: Any) -> Json:
    return {
        "id": run.info.run_id,
        "name": run.info.run_name,
        "status": run.info.status,
        "start_s": run.info.start_time / 1000,
        "metrics": dict(run.data.metrics),
        "tags": dict(run.data.tags),
    }


def _ask_prefect(root: Path, scheduled: Scheduled) -> None:
    url = os.environ.get("PREFECT_API_URL", "")
    if not url:
        server = _process(root, "prefect")
        if server is None:
            scheduled.problem = "Prefect does not run here: `make up` starts it"
            return
        url = f"http://127.0.0.1:{server['port']}/api"
    try:
        began = {"flow_runs": {"start_time": {"is_null_": False}}}
        scheduled.runs = _post(
            f"{url}/flow_runs/filter", {**began, "sort": "START_TIME_DESC", "limit": ASKED_RUNS}
        )
        waiting = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
        following = _post(
            f"{url}/flow_runs/filter",
            {**waiting, "sort": "EXPECTED_START_TIME_ASC", "limit": 1},
        )
        if following:
            scheduled.following = following[0]
            id_ = scheduled.following.get("deployment_id")
            question = {"deployments": {"id": {"any_": [id_]}}, "limit": 1}
            for deployment in _post(f"{url}/deployments/filter", question):
                scheduled.following["name"] = deployment["name"]
        scheduled.problem = ""
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "reason", None) or error
        scheduled.problem = f"Prefect at {without_credentials(url)} gives no answer ({reason})"


def _post(url: str, question: Json) -> list[Json]:
    if not url.startswith(("http://", "https://")):  # urlopen also opens files
        raise ValueError("not an http address")
    headers = {"Content-Type": "application/json"}
    if user := os.environ.get("PREFECT_API_AUTH_STRING"):
        headers["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
    if key := os.environ.get("PREFECT_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(url, json.dumps(question).encode(), headers)
    with urllib.request.urlopen(request, timeout=PREFECT_S) as answer:  # nosec B310
        return list(json.load(answer))


def _process(root: Path, name: str) -> Json | None:
    """What `make up` started under this name and still runs: its `pid` and `port`."""
    import psutil

    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, psutil.Error):
        known = json.loads((root / PRODUCTION / f"{name}.json").read_text())
        process = psutil.Process(int(known["pid"]))
        alive = process.status() != psutil.STATUS_ZOMBIE
        if alive and abs(process.create_time() - float(known["started"])) < 0.01:
            return dict(known)
    return None


def _read(*paths: Path) -> Json:
    """The newest readable JSON object of these files, by its own `time`."""
    found = []
    for path in paths:
        with contextlib.suppress(OSError, ValueError, TypeError):
            found.append(dict(json.loads(path.read_text(encoding="utf-8"))))
    return max(found, key=lambda document: str(document.get("time", "")), default={})


# --- showing ------------------------------------------------------------------------------------


def _clean(text: object) -> str:
    """Foreign text without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else " " for letter in str(text)).strip()


def _or_why_not(show: Callable[[], RenderableType]) -> RenderableType:
    """A part of the screen; files and stores of any shape cost that part only."""
    try:
        return show()
    except Exception as error:
        return Text(_clean(f"cannot be shown: {type(error).__name__}: {error}")[:200], BAD)


def _line(*parts: str | Text) -> Text:
    line = Text()
    for part in filter(None, parts):
        if line:
            line.append(" · ", QUIET)
        line.append(part if isinstance(part, Text) else _clean(part))
    return line


def _state(word: object, kind: object = "") -> Text:
    """A state's name; its colour is that of the name, else that of its kind."""
    style = STATES.get(str(word).lower()) or STATES.get(str(kind).lower(), "bold")
    return Text(_clean(word), style)


def _missing(text: str) -> Text:
    return Text(_clean(text), QUIET)


def _when(seconds: float) -> str:
    """`25 Nov 02:10 UTC (5 h ago)`."""
    then = datetime.fromtimestamp(seconds, UTC)
    away = time.time() - seconds
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if abs(away) >= 2 * length or (unit != "days" and abs(away) >= length):
            words = f"{abs(away) / length:.0f} {unit}"
            break
    else:
        words = f"{abs(away):.0f} s"
    relative = f"{words} ago" if away >= 0 else f"in {words}"
    return f"{then:%d %b %H:%M} UTC ({relative})"


def _at(iso: object) -> str:
    try:
        return _when(datetime.fromisoformat(str(iso)).timestamp())
    except ValueError:
        return ""


def _title(root: Path) -> Text:
    place = "not in git"
    with contextlib.suppress(git.GitError):
        source = git.source(root)
        place = f"{source.branch} {source.commit[:8]}"
        if source.changed:
            place += f", {len(source.changed)} changed file{'s' * (len(source.changed) > 1)}"
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return Text.assemble(("cgan", "bold"), "  ", _line(str(root), place, now))


def _headline(metrics: Mapping[str, float]) -> Text:
    parts = []
    for key, words in (
        ("conditional_accuracy", "accuracy"),
        ("worst_class_accuracy", "worst class"),
    ):
        if (value := metrics.get(f"quality/{key}")) is not None:
            parts.append(f"{words} {100 * value:.1f} %")
    if (value := metrics.get("quality/fid_judge")) is not None:
        parts.append(f"Fréchet distance {value:.3f}")
    return _line(*parts) if parts else _missing("not evaluated yet: `dvc repro` does it")


def _champion(stored: Stored) -> Group | Text:
    if stored.problem:
        return Text(f"unknown: {_clean(stored.problem)}", BAD)
    champion = stored.champion
    if champion is None:
        return _missing("no champion yet: `cgan gate` makes the first")
    since = f"since {when}" if (when := _at(stored.since.get("when"))) else ""
    run = stored.champion_run
    lines = [
        _line(
            Text(f"version {champion.number}", "bold green"),
            since,
            f"trained {_when(run['start_s'])}" if run else "",
        ),
        _headline(run.get("metrics", {})),
    ]
    if why := stored.since.get("why"):
        who = stored.since.get("user")
        did = {"rollback": "brought back"}.get(str(stored.since.get("action")), "promoted")
        lines.append(_missing(f"{did}{f' by {who}' if who else ''}: {why}"))
    if again := run.get("tags", {}).get("cgan.reproduced"):
        lines.append(_missing(f"repeated {again.splitlines()[0][:100]}"))
    return Group(*lines)


def _verdict(root: Path, stored: Stored) -> Group | Text:
    newest = stored.newest
    files = [folder / "reports/gate.json" for folder in (root, root / WORK)]
    report = stored.report or (_read(*files) if stored.problem else {})
    if newest and newest.verdict and not report:
        return Group(
            _line(f"version {newest.number}", _state(newest.verdict)),
            Text(_clean(newest.tags.get(SUMMARY, ""))),
        )
    if not report:
        waits = f"version {newest.number} waits for one" if newest else "none yet"
        return _missing(f"{waits}: `cgan gate` judges what was trained")
    word = newest.tags.get(VERDICT, report.get("verdict")) if newest else report.get("verdict")
    challenger = report.get("challenger") or {}
    head = _line(f"version {challenger.get('version', '?')}", _state(word), _at(report.get("time")))
    summary = _clean(report.get("summary", ""))
    reasons = [_clean(reason) for reason in report.get("reasons", [])]
    lines = [Text(summary)] if summary else []
    lines += [Text(f"- {reason}", QUIET) for reason in reasons[:4] if reason not in summary]
    if len(reasons) > 4:
        lines.append(_missing(f"- and {len(reasons) - 4} more: reports/gate.md"))
    return Group(head, *lines)


def _last_training(stored: Stored) -> Group | Text:
    run = stored.last_run
    if not run:
        return _missing(
            "none in MLflow yet: `make repro` trains" if not stored.problem else "unknown"
        )
    seconds = run["metrics"].get("time/training_s")
    dirty = run["tags"].get("git.dirty") == "true"
    commit = run["tags"].get("mlflow.source.git.commit", "")[:8]
    return Group(
        _line(run["name"], _state(run["status"])),
        _line(
            _when(run["start_s"]),
            f"{seconds:.0f} s" if seconds else "",
            f"commit {commit}{' with changes' if dirty else ''}" if commit else "",
            f"run {run['id']}",
        ),
    )


def _quality(root: Path, stored: Stored) -> Group | Text:
    """The last evaluated run's numbers; beside them the champion's, and the change if that was judged.

    The arrow says where better is; `cgan report` has each in plain words.
    """
    run, champion = stored.evaluated, stored.champion_run
    last = run.get("metrics", {})
    values = {key: last[f"quality/{key}"] for key in LINES if f"quality/{key}" in last}
    floors = {key: last.get(f"quality_floor/{key}") for key in LINES}
    floors["fid_judge"] = last.get("quality/fid_judge_floor")
    if not values:
        values = _read(root / "reports/metrics.json").get("quality", {})
    if not values:
        return _missing("nothing was evaluated yet: `make repro`")
    is_champion = bool(run) and champion.get("id") == run["id"]
    compared: Json = {}
    if run and (stored.report.get("challenger") or {}).get("run_id") == run["id"]:
        compared = {row["metric"]: row for row in stored.report.get("comparison", [])}
    columns = ["champion" if is_champion else "last"]
    if compared:
        columns += ["former" if is_champion else "champion", "change"]
    elif champion and not is_champion:
        columns += ["champion"]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style=QUIET)
    table.add_column("", no_wrap=True)
    for name in (*columns, "real"):
        table.add_column(name, justify="right", no_wrap=True)
    for key, (_, better) in LINES.items():
        if key not in values:
            continue
        words = f"{NAMES.get(key, key.replace('_', ' '))} {'↑' if better == 'higher' else '↓'}"
        row = compared.get(key) or {}
        cells = [Text(words), Text(f"{row.get('challenger', values[key]):.4g}", "bold")]
        if len(columns) > 1:
            theirs = champion.get("metrics", {}).get(f"quality/{key}")
            cells += _beside(row, None if is_champion else theirs)
        floor = floors.get(key)
        cells = [*cells[: 1 + len(columns)], _missing("" if floor is None else f"{floor:.4g}")]
        table.add_row(*cells)
    if len(columns) == 2:
        return Group(table, _missing("better or worse? `cgan gate` judges both on the same ground"))
    return Group(table)


def _beside(row: Json, champion: float | None) -> list[Text]:
    """The champion's value and the change: told only where one judge looked at both."""
    if row:
        style, sign = {True: (GOOD, " better"), False: (BAD, " worse"), None: (QUIET, " noise")}[
            row.get("better")
        ]
        return [Text(f"{row['champion']:.4g}"), Text(f"{row['difference']:+.4f}{sign}", style)]
    return [Text("" if champion is None else f"{champion:.4g}"), Text("")]


def _data(root: Path, stored: Stored) -> Group | Text:
    lines = []
    places = {"": root, "scheduled runs: ": root / WORK}
    known = {name: _read(folder / "data/raw/source.json") for name, folder in places.items()}
    for name, data in known.items():
        if not data or (name and data.get("sha256") == known[""].get("sha256")):
            continue
        with contextlib.suppress(ValueError, TypeError):
            rows = f"{int(data.get('rows', 0)):,}"
            lines.append(
                _line(
                    f"{name}{rows} rows of {data.get('source')}: {data.get('origin')}",
                    f"sha256 {str(data.get('sha256'))[:12]}",
                    f"fetched {_at(data.get('time'))}",
                )
            )
    if not lines:
        lines.append(_missing("not fetched yet: `make repro`"))
    drift = _drift(root, stored)
    if drift:
        lines.append(_line("drift", _state(drift.get("verdict")), _at(drift.get("time"))))
        if drift.get("verdict") != "healthy":
            lines.append(Text(_clean(drift.get("summary"))))
    else:
        lines.append(_missing("drift was never checked: `cgan reevaluate`"))
    return Group(*lines)


def _drift(root: Path, stored: Stored) -> Json:
    """The last re-evaluation: of the champion by its tags, else by the reports at hand."""
    tags = stored.champion.tags if stored.champion else {}
    if "reevaluation.verdict" in tags:
        return {key: tags.get(f"reevaluation.{key}") for key in ("verdict", "summary", "time")}
    if not stored.problem:
        return {}
    return _read(*(folder / "reports/reevaluation.json" for folder in (root, root / WORK)))


def _waiting(root: Path) -> Text:
    counts = [count_waiting(path.parent) for path in journals(root).glob(f"*/{JOURNAL}")]
    counts = [count for count in counts if count]
    if not counts:
        return _missing("nothing: all records are in MLflow")
    runs = f"{len(counts)} run{'s' * (len(counts) > 1)}"
    records = f"{sum(counts):,} record{'s' * (sum(counts) > 1)}"
    return Text(f"{records} of {runs} for MLflow: `cgan track flush`", "yellow")


def _services(root: Path) -> Group | Text:
    names = {"prefect": "Prefect", "worker": "worker", "mlflow": "MLflow"}
    found = {name: _process(root, name) for name in names}
    if not any(found.values()):
        return _missing("none runs: `make up` starts Prefect, a worker and MLflow")
    lines = []
    for name, words in names.items():
        if process := found[name]:
            port = process.get("port")
            where = f"http://127.0.0.1:{port}" if port else f"process {process['pid']}"
            lines.append(Text.assemble(f"{words:<8} ", ("runs", GOOD), f"  {where}"))
        else:
            lines.append(Text.assemble(f"{words:<8} ", ("does not run: `make up`", BAD)))
    return Group(*lines)


def _scheduled(scheduled: Scheduled) -> Group | Text:
    if scheduled.problem:
        return _missing(scheduled.problem)
    lines: list[Text] = []
    ran = [run for run in scheduled.runs if not _never_began(run)]
    for run in ran[:SHOWN_RUNS]:
        state = run.get("state") or {}
        message = textwrap.shorten(_clean(state.get("message") or ""), 160, placeholder=" …")
        lines.append(
            _line(
                str(run.get("name")),
                _state(state.get("name"), state.get("type")),
                _at(run.get("start_time")),
            )
        )
        if message and state.get("type") != "COMPLETED":
            lines.append(_missing(f"  {message}"))
    cut = scheduled.runs.index(ran[SHOWN_RUNS - 1]) if len(ran) >= SHOWN_RUNS else None
    if passed_over := sum(map(_never_began, scheduled.runs[:cut])):
        were = f"{passed_over} slots were" if passed_over > 1 else "1 slot was"
        lines.append(_missing(f"{were} cancelled meanwhile: a run was on"))
    if scheduled.following:
        at = _at(scheduled.following.get("expected_start_time"))
        lines.append(_line(f"next: {scheduled.following.get('name')}", at))
    else:
        lines.append(_missing("nothing is scheduled: `make deploy`"))
    return Group(*lines)


def _never_began(run: Json) -> bool:
    """Cancelled by the deployment's limit: another run was on."""
    return run.get("state_type") == "CANCELLED" and not run.get("run_count")


def _more(stored: Stored) -> Text:
    try:
        uri = without_credentials(store_uri(Path()))
    except CganError:
        uri = ""
    browse = f"runs: {uri}" if urlsplit(uri).scheme.startswith("http") else "runs: `make ui`"
    parts = [browse, "versions: `cgan registry list`"]
    if stored.champion:
        parts.append("draw: `cgan draw 2024 --model champion`")
        parts.append("repeat: `cgan reproduce champion`")
    return _missing(" · ".join(parts))
