"""`cgan status`: who is served, what was trained and judged last, and what runs, on one screen.

Three sources are asked at once: the project's files, its MLflow store, Prefect's API if `make up` runs it.
A server that is away or hangs delays the screen by seconds. What is missing is said in words. Nothing is
written.
"""

from __future__ import annotations

import contextlib
import textwrap
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from cgan import git
from cgan.errors import CganError
from cgan.project import CSV_SOURCE, GATE_REPORT, REEVALUATION_REPORT, SCHEDULED_WORK
from cgan.project import METRICS as METRICS_FILE
from cgan.quality.table import METRICS
from cgan.registry.history import SUMMARY, VERDICT
from cgan.runs.status_sources import (
    PREFECT_S,
    Json,
    Scheduled,
    Stored,
    ask_prefect,
    ask_store,
    find_process,
    mlflow_site,
    read_newest,
    read_params,
)
from cgan.tracking.pages import real_images, run_page, runs_page
from cgan.tracking.records import count_waiting, waiting

STORE_S = 30.0  # for importing MLflow, too: a second, on a busy machine ten; REQUEST_S holds before
PLAIN_WIDTH = 110
SHOWN_RUNS = 3
SHOWN_WORKERS = 8
GOOD, BAD, QUIET = "green", "bold red", "dim"
STATES = {
    **dict.fromkeys(("promoted", "passed", "healthy", "completed", "finished", "online"), GOOD),
    **dict.fromkeys(
        ("blocked", "drifted", "degraded", "failed", "crashed", "killed", "offline"), BAD
    ),
}


def status(root: Path, console: Console) -> None:
    """Print the screen. Raises CganError outside of a project."""
    if not (root / "dvc.yaml").is_file():
        raise CganError(
            f"{root} is no cgan project: there is no dvc.yaml. Go to the project's top folder first."
        )
    params, problem = read_params(root)
    stored, scheduled = Stored(), Scheduled()
    asking = [
        (_in_background(lambda: ask_store(params, stored)), STORE_S),
        (_in_background(lambda: ask_prefect(root, scheduled)), 3 * PREFECT_S),
    ]
    began = time.monotonic()
    title = _title(root)
    for thread, patience_s in asking:
        thread.join(max(0.0, patience_s - (time.monotonic() - began)))
    screen = Table.grid(padding=(0, 2))
    screen.add_column(style="bold cyan", no_wrap=True)
    screen.add_column(overflow="fold")  # an address that is cut leads nowhere
    if problem:
        screen.add_row("Params", Text(problem, BAD))
    rows: dict[str, Callable[[], RenderableType]] = {
        "Champion": lambda: _champion(stored),
        "Verdict": lambda: _verdict(root, stored),
        "Last training": lambda: _last_training(root, stored),
        "Quality": lambda: _quality(root, stored),
        "Data": lambda: _data(root, stored),
        "Waiting": lambda: _waiting(root),
        "Services": lambda: _services(root),
        "Workers": lambda: _workers(scheduled),
        "Scheduled": lambda: _scheduled(scheduled),
        "More": lambda: _more(root, stored),
    }
    if scheduled.problem:  # "Scheduled" says it
        del rows["Workers"]
    for name, show in rows.items():
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
    files = [folder / GATE_REPORT for folder in (root, root / SCHEDULED_WORK)]
    report = stored.report or (read_newest(*files) if stored.problem else {})
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


def _last_training(root: Path, stored: Stored) -> Group | Text:
    run, site = stored.last_run, mlflow_site(root)
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
            "" if site else f"run {run['id']}",
        ),
        *([Text(run_page(site, run["experiment_id"], run["id"]), QUIET)] if site else []),
    )


def _quality(root: Path, stored: Stored) -> Group | Text:
    """The last training's numbers, from its own run; beside them the champion's, and the change if that was
    judged.

    The arrow says where better is; `cgan report` has each in plain words.
    """
    run, champion = stored.last_run, stored.champion_run
    last = run.get("metrics", {})
    shown = [key for key, metric in METRICS.items() if metric.on_screen]
    values = {key: last[f"quality/{key}"] for key in shown if f"quality/{key}" in last}
    floors = real_images(run.get("tags", {}))
    if stored.problem:
        values = read_newest(root / METRICS_FILE).get("quality", {})
    if run and not values:
        return _missing("the last training is not evaluated yet: `dvc repro` does it")
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
    for key in (key for key in shown if key in values):
        words = f"{METRICS[key].name} {'↑' if METRICS[key].better == 'higher' else '↓'}"
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
    places = {"": root, "scheduled runs: ": root / SCHEDULED_WORK}
    known = {name: read_newest(folder / CSV_SOURCE) for name, folder in places.items()}
    for name, data in known.items():
        if not data or (name and data.get("sha256") == known[""].get("sha256")):
            continue
        with contextlib.suppress(ValueError, TypeError):
            rows = f"{int(data.get('rows', 0)):,}"
            lines.append(
                _line(
                    f"{name}{rows} rows of {data.get('source')}: {data.get('origin')}",
                    f"sha256 {str(data.get('sha256'))[:12]}",
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
    return read_newest(*(folder / REEVALUATION_REPORT for folder in (root, root / SCHEDULED_WORK)))


def _waiting(root: Path) -> Text:
    counts = [count_waiting(folder) for folder in waiting(root)]
    if not counts:
        return _missing("nothing: all records are in MLflow")
    runs = f"{len(counts)} run{'s' * (len(counts) > 1)}"
    records = f"{sum(counts):,} record{'s' * (sum(counts) > 1)}"
    return Text(f"{records} of {runs} for MLflow: `cgan track flush`", "yellow")


def _services(root: Path) -> Group | Text:
    names = {"prefect": "Prefect", "worker": "worker", "mlflow": "MLflow"}
    found = {name: find_process(root, name) for name in names}
    if not any(found.values()):
        return _missing("none runs: `make up` starts Prefect, a worker and MLflow")
    if not found["prefect"] and not found["mlflow"]:
        names = {"worker": "worker"}  # of a pool elsewhere
    lines = []
    for name, words in names.items():
        if process := found[name]:
            port = process.get("port")
            where = process["site"] if port else f"process {process['pid']}"
            lines.append(Text.assemble(f"{words:<8} ", ("runs", GOOD), f"  {where}"))
        else:
            lines.append(Text.assemble(f"{words:<8} ", ("does not run: `make up`", BAD)))
    return Group(*lines)


def _workers(scheduled: Scheduled) -> Group | Text:
    """Those of the pool, on whatever machine. One that is away was killed, or its machine is off."""
    lines = []
    for worker in scheduled.workers[:SHOWN_WORKERS]:
        online = worker.get("status") == "ONLINE"
        lines.append(
            _line(
                str(worker.get("name")),
                _state("online" if online else "offline"),
                "" if online else _at(worker.get("last_heartbeat_time")),
            )
        )
    if more := len(scheduled.workers) - SHOWN_WORKERS:
        lines += [_missing(f"and {more} more")] if more > 0 else []
    return Group(*lines) if lines else _missing("none was ever there: `make up`, `make worker`")


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
    if scheduled.resume:
        lines.append(Text(f"the pool is paused, no run starts: `{scheduled.resume}`", BAD))
    return Group(*lines)


def _never_began(run: Json) -> bool:
    """Cancelled by the deployment's limit: another run was on."""
    return run.get("state_type") == "CANCELLED" and not run.get("run_count")


def _more(root: Path, stored: Stored) -> Text:
    site = mlflow_site(root)
    if site and stored.last_run:
        ours = find_process(root, "mlflow") is not None
        site = runs_page(site, stored.last_run["experiment_id"], shared=not ours)
    parts = [f"runs: {site or '`make ui`'}", "versions: `cgan registry list`"]
    if stored.champion:
        parts.append("draw: `cgan draw 2024 --model champion`")
        parts.append("repeat: `cgan reproduce champion`")
    return _missing(" · ".join(parts))
