"""Versions of the generator in MLflow's registry, and who of them is served.

The alias `champion` is the whole truth of who is served, and one call sets it: a promotion has happened
or it hasn't. `previous` follows, and can be told from the history: a promotion first writes down what it
is about to do, as a tag of its own at the registered model, so that two writers overwrite nothing of each
other. An entry whose alias call never came is passed over. See
docs/adr/0015-one-alias-says-who-is-served.md.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import hashlib
import io
import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

from cgan.errors import CganError, ModelError, TrackingError
from cgan.markdown import in_markdown, spaced
from cgan.tracking.delivery import MODEL_NAME, client_settings, store_uri, without_credentials
from cgan.tracking.journal import project_root

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

T = TypeVar("T")

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
ALIASES = (CHAMPION, CHALLENGER, PREVIOUS)
HISTORY = "history."
VERDICT, SUMMARY = "gate.verdict", "gate.summary"
ROLLED_BACK = "registry.rolled_back"
MAX_WHY = 500
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)


class PromotionConflictError(CganError):
    """Another promotion came first."""


@dataclass(frozen=True)
class Version:
    """A model version: one trained generator."""

    number: int
    run_id: str
    created_ms: int
    tags: dict[str, str]
    aliases: tuple[str, ...]

    @property
    def verdict(self) -> str:
        return self.tags.get(VERDICT, "")


@dataclass(frozen=True)
class Move:
    """A line of the history: who made whom champion, in whose place, when and why."""

    action: str  # promote | rollback
    source: int | None  # the champion before
    target: int
    when: str  # ISO, UTC
    why: str
    user: str = ""
    flow_run_id: str = ""
    commit: str = ""
    data_sha256: str = ""


def lineage(moves: list[Move], champion: int | None) -> list[int]:
    """The champions that a rollback goes back through, oldest first, the present one last.

    A rollback takes the last one away; a move whose alias call never came is passed over.
    """
    if champion is None:
        return []
    line: list[int] = []
    for move in _carried_out(moves, champion):
        if move.action == "rollback" and move.target in line:
            del line[len(line) - line[::-1].index(move.target) :]
            continue
        if move.source is not None and move.source not in line[-1:]:
            line.append(move.source)  # before the history began, or set by hand
        if move.target not in line[-1:]:
            line.append(move.target)
    return line if line[-1:] == [champion] else [*line, champion]


def _carried_out(moves: list[Move], champion: int) -> list[Move]:
    """Each one's target is where the next one starts, and the last one's the champion."""
    real: list[Move] = []
    wanted: int | None = champion
    for move in reversed(moves):
        if move.target == wanted:
            real.append(move)
            wanted = move.source
    return real[::-1]


class Registry:
    """The registered model `model` in the project's store; made by `open_registry`."""

    def __init__(self, model: str, uri: str) -> None:
        from mlflow import MlflowClient

        self.model, self.uri = model, uri
        self.shown = without_credentials(uri)
        self.client: MlflowClient = MlflowClient(uri)

    def versions(self) -> list[Version]:
        """Newest first."""
        found, token = [], None
        while True:
            page = self.client.search_model_versions(f"name = '{self.model}'", page_token=token)
            found += list(page)
            token = page.token
            if not token:
                break
        aliases = self.aliases()
        versions = [
            Version(
                number=int(each.version),
                run_id=each.run_id or "",
                created_ms=int(each.creation_timestamp),
                tags=dict(each.tags),
                aliases=tuple(a for a in ALIASES if aliases.get(a) == int(each.version)),
            )
            for each in found
        ]
        return sorted(versions, key=lambda version: -version.number)

    def version(self, number: int) -> Version:
        for version in self.versions():
            if version.number == number:
                return version
        raise ModelError(
            f"`{self.model}` has no version {number}. `cgan registry list` shows which there are."
        )

    def aliases(self) -> dict[str, int]:
        found = self._registered()
        return {alias: int(number) for alias, number in found.aliases.items()} if found else {}

    def champion(self) -> int | None:
        return self.aliases().get(CHAMPION)

    def history(self) -> list[Move]:
        """Oldest first, as written down; `lineage` tells which were carried out."""
        found = self._registered()
        moves = []
        for key, value in sorted(found.tags.items()) if found else []:
            if key.startswith(HISTORY):
                with contextlib.suppress(ValueError, TypeError):  # not ours
                    moves.append(Move(**json.loads(value)))
        return moves

    def register(self, run_id: str, tags: dict[str, str]) -> tuple[Version, bool]:
        """The version of the run's generator, and whether it is new. One run has one version.

        Raises ModelError when the run has no complete generator in the store.
        """
        import mlflow

        with self._alone():
            for version in self.versions():
                if version.run_id == run_id:
                    return version, False
            run = self.client.get_run(run_id)
            models = [
                model
                for model in self.client.search_logged_models(
                    [run.info.experiment_id], f"source_run_id = '{run_id}'"
                )
                if model.name == MODEL_NAME and model.status == "READY"
            ]
            if not models:
                raise ModelError(
                    f"run {run_id} has no complete generator in {self.shown}. "
                    "Deliver its records with `cgan track flush`, then try again."
                )
            newest = max(models, key=lambda model: model.creation_timestamp)
            with contextlib.redirect_stderr(io.StringIO()):  # MLflow tells it in its own words
                made = mlflow.register_model(f"models:/{newest.model_id}", self.model, tags=tags)
            number = int(made.version)
            self.client.set_registered_model_alias(self.model, CHALLENGER, str(number))
            return self.version(number), True

    def tag(self, number: int, tags: dict[str, str]) -> None:
        for key, value in tags.items():
            self.client.set_model_version_tag(self.model, str(number), key, value[:5000])

    def log_once(self, run_id: str, values: dict[str, float], step: int) -> None:
        """A run's metrics, but for those whose last value at this step is the same: they stand there.

        So a judgement that is told again, by the next process after a kill too, stands once; one that
        comes to other numbers stands after it, and MLflow shows the last.
        """
        from mlflow.entities import Metric

        with self._alone():
            now_ms = time.time_ns() // 1_000_000
            new = []
            for key, value in values.items():
                points = self.client.get_metric_history(run_id, key)
                there = [point for point in points if point.step == step]
                last = max(there, key=lambda point: point.timestamp, default=None)
                if last is None or last.value != value:
                    new.append(Metric(key, value, now_ms, step))
            self.client.log_batch(run_id, metrics=new)

    def promote(
        self, number: int, *, instead_of: int | None, why: str, action: str = "promote"
    ) -> Move | None:
        """Make a version the champion, if `instead_of` is it still (None: there is none).

        Returns None when it is champion already. Raises PromotionConflictError when another promotion
        came first; then nothing is changed.
        """
        with self._alone():
            if self.champion() == number:
                return None
            self._require_champion(instead_of, number)
            return self._move(action, instead_of, number, why)

    def rollback(self, why: str) -> Move:
        """Bring back the champion before this one. Twice goes back twice; never to the one left.

        Raises ModelError when there is none before.
        """
        with self._alone():
            champion = self.champion()
            line = lineage(self.history(), champion)
            if champion is None or len(line) < 2:
                raise ModelError(
                    f"`{self.model}` has no champion before "
                    f"{'this one' if champion is None else f'version {champion}'} to go back to. "
                    "`cgan registry promote VERSION --why …` makes any version the champion."
                )
            return self._move("rollback", champion, line[-2], why)

    def _move(self, action: str, source: int | None, target: int, why: str) -> Move:
        version = self.version(target)
        move = Move(
            action=action,
            source=source,
            target=target,
            when=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            why=" ".join(why.split())[:MAX_WHY],
            user=_user(),
            flow_run_id=_flow_run_id(),
            commit=version.tags.get("git.commit", ""),
            data_sha256=version.tags.get("data.sha256", ""),
        )
        # Later than all before, though the clock was set back: the order is the history.
        key = f"{HISTORY}{max(time.time_ns(), self._last_key() + 1):020d}"
        self.client.set_registered_model_tag(self.model, key, json.dumps(asdict(move)))
        if action == "rollback" and source is not None:
            # Before the alias: after a kill in between, the next gate would promote it again.
            self.tag(source, {ROLLED_BACK: f"{move.when}: {move.why}"})
        self.client.set_registered_model_alias(self.model, CHAMPION, str(target))
        self._require_champion(target, target)
        self._follow()
        if action == "promote" and ROLLED_BACK in version.tags:
            self.client.delete_model_version_tag(self.model, str(target), ROLLED_BACK)
        return move

    def _last_key(self) -> int:
        found = self._registered()
        keys = [key.removeprefix(HISTORY) for key in found.tags if key.startswith(HISTORY)]
        return max((int(key) for key in keys if key.isdecimal()), default=0)

    def _follow(self) -> None:
        """What follows from the alias `champion`: `previous`, `challenger`, the model's page."""
        aliases, moves = self.aliases(), self.history()
        line = lineage(moves, aliases.get(CHAMPION))
        if len(line) > 1:
            self.client.set_registered_model_alias(self.model, PREVIOUS, str(line[-2]))
        elif PREVIOUS in aliases:
            self.client.delete_registered_model_alias(self.model, PREVIOUS)
        if aliases.get(CHALLENGER) == aliases.get(CHAMPION) is not None:
            self.client.delete_registered_model_alias(self.model, CHALLENGER)
        page = spaced(described(moves, line))
        self.client.update_registered_model(self.model, page)

    def _require_champion(self, expected: int | None, wanted: int) -> None:
        found = self.champion()
        if found != expected:
            raise PromotionConflictError(
                f"version {wanted} of `{self.model}` is not the champion: another promotion came first. "
                f"The champion is {_numbered(found)} now, and was {_numbered(expected)} when this was "
                "decided. Run `cgan gate` again, or look with `cgan registry list`."
            )

    def _registered(self) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            return self.client.get_registered_model(self.model)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One promoter at a time on this machine; on others, `_require_champion` notices."""
        if self.uri.startswith("sqlite:///"):
            path = Path(self.uri.removeprefix("sqlite:///") + ".registry-lock")
        else:
            name = hashlib.sha256(f"{os.getuid()} {self.uri}".encode()).hexdigest()[:16]
            path = Path(tempfile.gettempdir()) / f"cgan-registry-{name}.lock"
        with path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def served(alias: str, load: Callable[[Path], T]) -> T:
    """What `load` makes of the generator that is champion, challenger or previous.

    When the champion's file is gone or damaged, the last champion that can be read is taken, with a
    warning. Raises ModelError when none can.
    """
    failures: list[str] = []
    with open_registry(model_name()) as registry:
        for number in _candidates(registry, alias):
            try:
                with generator_file(f"models:/{registry.model}/{number}") as path:
                    loaded = load(path)
            except ModelError as error:
                failures.append(f"version {number}: {error}")
                continue
            if failures:
                log.warning(
                    "WARNING: the champion cannot be read; version %d of `%s`, which was champion before "
                    "it, is served instead.\n  %s\n  `cgan registry rollback --why …` makes that lasting.",
                    number,
                    registry.model,
                    "\n  ".join(failures),
                )
            return loaded
    raise ModelError(
        f"no {alias} of `{registry.model}` can be read:\n  "
        + "\n  ".join(failures)
        + "\nTrain again "
        "(`dvc repro --force train`, `cgan gate`), or promote a version whose files are whole."
    )


def _candidates(registry: Registry, alias: str) -> list[int]:
    """The version with the alias; for the champion, also those before it, latest first."""
    number = registry.aliases().get(alias)
    if number is None:
        raise ModelError(
            f"`{registry.model}` has no {alias} in {registry.shown}. `cgan registry list` shows its "
            "versions; `cgan gate` makes the first champion."
        )
    if alias != CHAMPION:
        return [number]
    line = lineage(registry.history(), number)
    return list(dict.fromkeys(reversed(line)))


def model_name() -> str:
    """`gate.model` of params.yaml; outside a project `cgan`."""
    from cgan.params.reading import load_params

    return load_params().gate.model if Path("params.yaml").is_file() else "cgan"


def promote_by_hand(registry: Registry, number: int, why: str, force: bool) -> Move:
    """Raises CganError for a version that is champion already, or not blessed unless `force`."""
    version, champion = registry.version(number), registry.champion()
    if not why.strip():
        raise CganError("--why: say in a few words why; the history keeps it.")
    blessed = version.verdict in ("passed", "promoted") or number == champion
    if not blessed and not force:
        state = version.tags.get(SUMMARY) or "`cgan gate` has not judged it."
        raise ModelError(
            f"version {number} of `{registry.model}` has not passed the gate: {state} "
            "`--force` promotes it all the same."
        )
    move = registry.promote(number, instead_of=champion, why=why)
    if move is None:
        raise ModelError(f"version {number} of `{registry.model}` is the champion already.")
    return move


def told(move: Move) -> str:
    """A move in a sentence."""
    words = "brought back in place of" if move.action == "rollback" else "champion in place of"
    instead = "none" if move.source is None else f"version {move.source}"
    return f"Version {move.target} is {words} {instead}: {move.why}"


def listed(registry: Registry) -> str:
    """Versions and history as text for a terminal."""
    versions = registry.versions()
    if not versions:
        return f"`{registry.model}` has no versions yet: `dvc repro`, then `cgan gate`."
    rows = [("version", "alias", "verdict", "registered", "run")]
    rows += [
        (
            str(version.number),
            ", ".join(version.aliases),
            "rolled back" if ROLLED_BACK in version.tags else version.verdict or "not judged",
            _minute(version.created_ms),
            version.tags.get("run.name", version.run_id),
        )
        for version in versions
    ]
    champion, moves = registry.champion(), registry.history()
    line = lineage(moves, champion)
    lines = [f"Versions of `{registry.model}` in {registry.shown}:", *_table(rows)]
    if moves:
        lines += ["", f"Champions, latest last: {' → '.join(map(str, line)) or 'none'}"]
        lines += _table(
            [
                (
                    move.when,
                    move.action,
                    f"{_cell(move.source)} → {move.target}",
                    move.user + (f", flow run {move.flow_run_id}" if move.flow_run_id else ""),
                    move.why,
                )
                for move in reversed(moves)
            ]
        )
    return "\n".join(lines)


def shown(registry: Registry, number: int) -> str:
    """One version as text for a terminal."""
    version = registry.version(number)
    rows = [
        ("aliases", ", ".join(version.aliases) or "none"),
        ("registered", _minute(version.created_ms)),
        ("run", version.run_id),
        *sorted((key, value) for key, value in version.tags.items()),
    ]
    return "\n".join([f"Version {number} of `{registry.model}`:", *_table(rows)])


def _minute(time_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(time_ms / 1000))


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def described(moves: list[Move], line: list[int]) -> str:
    """The registered model's page: how to draw with it, who was champion when and why."""
    rows = [
        f"| {move.when.replace('T', ' ')} | {move.action} | {_cell(move.source)} → **{move.target}** | "
        f"{in_markdown(move.why)} | {in_markdown(move.user)} | {in_markdown(move.commit[:10])} |"
        for move in reversed(moves[-50:])
    ]
    return "\n".join(
        [
            "Class-conditional generators. The alias `champion` says which one is served.",
            "",
            "```bash",
            "cgan draw 2024 --model champion",
            "cgan registry list",
            "```",
            "",
            f"Champions so far, latest last: {' → '.join(map(str, line)) or 'none'}.",
            "",
            "| when | what | champion | why | who | commit |",
            "|---|---|---|---|---|---|",
            *rows,
        ]
    )


def _cell(number: int | None) -> str:
    return "none" if number is None else str(number)


def _numbered(number: int | None) -> str:
    return "none" if number is None else f"version {number}"


def _user() -> str:
    with contextlib.suppress(OSError, KeyError):  # no such user in the container's passwd
        return getpass.getuser()
    return ""


def _flow_run_id() -> str:
    with contextlib.suppress(ValueError, AttributeError):
        context = json.loads(os.environ.get("MLFLOW_RUN_CONTEXT") or "{}")
        return str(context.get("prefect.flow_run_id", ""))
    return ""


@contextlib.contextmanager
def open_registry(model: str) -> Iterator[Registry]:
    """The project's registry. Raises TrackingError when there is no store or it is away."""
    uri = store_uri(project_root())
    shown = without_credentials(uri)
    if _is_absent(uri):
        raise TrackingError(
            f"there is no MLflow store {shown} yet. Train first (`dvc repro`), or set "
            "MLFLOW_TRACKING_URI if the store is another."
        )
    if not NAME.fullmatch(model):
        raise ModelError(f"{model[:100]!r} is no model's name: letters, digits, `.`, `_` and `-`.")
    with _store(uri):
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError  # of a damaged or locked file, let through

        try:
            yield Registry(model, uri)
        except (MlflowException, SQLAlchemyError) as error:
            raise TrackingError(
                f"the MLflow store {shown} cannot be used: {_reason(error)}"
            ) from None


def _reason(error: Exception) -> str:
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    if "Max retries exceeded" in text or "NewConnectionError" in text:
        return "no connection. Start it, or set MLFLOW_TRACKING_URI to another; then try again."
    return text[:300]


def _is_absent(store: str) -> bool:
    """MLflow would make an empty one."""
    prefix = "sqlite:///"
    return store.startswith(prefix) and not Path(store.removeprefix(prefix)).is_file()


@contextlib.contextmanager
def generator_file(uri: str) -> Iterator[Path]:
    """A local copy, while the context lasts, of the generator that an MLflow URI leads to.

    `runs:/<run id>/generator`, `models:/<name>@champion`, `models:/<name>/3`, or an artifact's URI.
    The store is MLFLOW_TRACKING_URI, else the project's. Raises ModelError when the store has no such
    thing, it holds no generator, or the store is away.
    """
    store = store_uri(project_root())
    shown = without_credentials(store)
    advice = (
        "Expected `runs:/<run id>/generator` or `models:/<name>@<alias>`; set MLFLOW_TRACKING_URI if "
        "the store is another."
    )
    if ".." in re.split(r"[\\/]", unquote(unquote(uri))):
        raise ModelError(f"{uri[:200]}: leads outside. {advice}")
    if _is_absent(store):
        raise ModelError(f"{uri}: there is no MLflow store {shown}. {advice}")
    with _store(store), tempfile.TemporaryDirectory(prefix="cgan-") as folder:
        from mlflow.artifacts import download_artifacts

        try:
            found = Path(download_artifacts(artifact_uri=uri, dst_path=folder))
        except Exception as error:
            # Besides MlflowException the stores let through what their clients raise.
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            raise ModelError(
                f"{uri}: the MLflow store {shown} cannot give it ({reason}). {advice}"
            ) from None
        files = [found] if found.is_file() else sorted(found.rglob("generator.safetensors"))
        if not files:
            raise ModelError(f"{uri}: holds no generator.safetensors. {advice}")
        yield files[0]


@contextlib.contextmanager
def _store(uri: str) -> Iterator[None]:
    """MLflow set to a store, without long waits; models:/ addresses heed the global setting only."""
    added = {
        name: value
        for name, value in client_settings().items()
        if name.startswith("MLFLOW_") and name not in os.environ
    }
    os.environ.update(added)
    import mlflow

    logging.getLogger("mlflow").setLevel(
        logging.CRITICAL
    )  # downloads, and tracebacks of what we tell
    is_set = mlflow.is_tracking_uri_set()  # type: ignore[no-untyped-call]
    before = mlflow.get_tracking_uri() if is_set else None
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]
        for name in added:
            os.environ.pop(name, None)
