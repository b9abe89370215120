"""`cgan gate`: register the trained generator, judge it beside the champion, promote or block it.

It is not a DVC stage: the answer depends on the champion, which no file of the project names. It can be
killed at any moment and started again: a generator has one version, a version is promoted once, and a
verdict that still holds is repeated ("unchanged").
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from cgan.errors import ModelError
from cgan.files import sha256_of
from cgan.markdown import spaced, table
from cgan.model import file_facts
from cgan.model.file_facts import Facts
from cgan.params.sections import Params
from cgan.project import (
    GATE_REPORT,
    GATE_TEXT,
    GENERATOR,
    HOLDOUT_DATA,
    JUDGE,
    RUN_REFERENCE,
    STRIP,
    TRAIN_AGAIN,
    TRAIN_DATA,
)
from cgan.registry import history
from cgan.registry.client import Registry, open_registry
from cgan.registry.history import Version
from cgan.tracking.delivery import RUN_KEY_TAG
from cgan.tracking.records import RunInfo, folder_of, read_info
from cgan.tracking.runs import send
from cgan.tracking.store import artifact
from cgan.verdict import Report

if TYPE_CHECKING:
    from mlflow.entities import Run

    from cgan.quality.judge import Progress

AGAINST = "gate.against"
SUMMARIES = {
    "unchanged": "needs no new verdict",
    "blocked": "is blocked",
    "passed": "is good enough to be champion",
    "promoted": "is the new champion",
}


def gate(params: Params, say: Callable[[str], None], progress: Progress) -> Report:
    """Judge what the stages made; returns the report, also in reports/gate.json and .md.

    Raises CganError when nothing could be decided: nothing trained, the store away, a champion that cannot be
    read or that draws something else, another promotion in between. Then nothing is promoted, and a second
    call goes on from there.
    """
    generator = file_facts.read_facts(GENERATOR, "generator")
    judge = file_facts.read_facts(JUDGE, "judge")
    training, heldout = (
        file_facts.read_facts(path, "dataset") for path in (TRAIN_DATA, HOLDOUT_DATA)
    )
    trained = read_info(RUN_REFERENCE)
    send(folder_of(trained["run_key"]))
    with open_registry(params.gate.model) as registry:
        run = _run_of(registry, trained)
        champion = registry.champion_version()
        version = registry.find(run.info.run_id, str(generator["digest"]))
        against = _against(champion, params, judge, training, heldout)
        if version and (why := _why_it_stands(version, champion, against, params)):
            report = _report(version, champion, "unchanged", [why])
            _write(report, version)
        else:
            # Two seconds of imports, for which a night with nothing new does not wait.
            from cgan.registry import judging

            inputs, former, doubts, notes = judging.prepare(registry, champion, params)
            version = registry.register(run.info.run_id, _tags_of(run, generator))
            say(f"Version {version.number} of `{registry.model}`: {run.info.run_name}.")
            report = _report(version, champion, "blocked", [*doubts, *notes])
            if not doubts or params.gate.on_drift == "note":
                judging.judge(report, registry, version, former, inputs, params, progress)
            _write(report, version)
            _record(registry, version, champion, report, against)
            if report.verdict == "passed" and params.gate.promote:
                why = f"passed the gate: {report.reasons[0]}"
                number = champion.number if champion else None
                registry.promote(version.number, instead_of=number, why=why)
                report.verdict = "promoted"
                _write(report, version)
    report.say(say, GATE_TEXT)
    return report


def _run_of(registry: Registry, trained: RunInfo) -> Run:
    """The run that trained what lies in models/. Raises ModelError when they don't belong together."""
    found = registry.client.get_experiment_by_name(trained["experiment"])
    wanted = f"tags.`{RUN_KEY_TAG}` = '{trained['run_key']}'"
    wanted += f" AND tags.`cgan.generator_sha256` = '{sha256_of(GENERATOR)}'"
    runs = registry.client.search_runs([found.experiment_id], wanted) if found else []
    if not runs:
        raise ModelError(
            f"the store {registry.shown} has no run with the key {trained['run_key']} that trained "
            f"{GENERATOR}; it was recorded in {trained['tracking_uri']}. Restore what belongs together "
            "(`dvc checkout`; the store from a backup), set MLFLOW_TRACKING_URI if the store is another, or "
            f"train again: {TRAIN_AGAIN}."
        )
    run: Run = runs[0]
    return run


def _tags_of(run: Run, generator: Facts) -> dict[str, str]:
    """Tags that say how a version was made."""
    tags = {
        history.DIGEST: str(generator["digest"]),
        history.DATA: str(generator["data_sha256"]),
        history.COMMIT: run.data.tags.get("mlflow.source.git.commit", ""),
        history.RUN_NAME: run.info.run_name,
        "prefect.flow_run_id": run.data.tags.get("prefect.flow_run_id", ""),
    }
    return {key: value for key, value in tags.items() if value}


def _against(champion: Version | None, params: Params, *files: Facts) -> str:
    """What a verdict holds for: this champion, and a hash of all else that it depends on."""
    depends_on = (
        params.gate.model_dump(exclude={"model", "promote"}),
        params.evaluate.model_dump(),
        [facts["digest"] for facts in files],
    )
    digest = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:16]
    return f"{history.numbered(champion.number if champion else None)} · {digest}"


def _why_it_stands(version: Version, champion: Version | None, against: str, params: Params) -> str:
    """Why an earlier verdict still holds; empty when the version has to be judged."""
    if champion and champion.number == version.number:
        return "it is the champion already"
    if history.ROLLED_BACK in version.tags:
        return (
            f"it was rolled back ({version.tags[history.ROLLED_BACK]}); only `cgan registry promote "
            f"{version.number} --why …` makes it champion again"
        )
    waits = version.verdict == "passed" and not params.gate.promote
    if version.tags.get(AGAINST) == against and (version.verdict == "blocked" or waits):
        return f"it was judged before: {version.tags.get(history.SUMMARY, version.verdict)}"
    return ""


def _report(version: Version, champion: Version | None, verdict: str, reasons: list[str]) -> Report:
    made, theirs = version.for_report(), champion.for_report() if champion else None
    facts: Facts = {"challenger": made, "champion": theirs, "checks": [], "comparison": []}
    tables = {"The version": table(("", ""), made.items())}
    return Report("Gate", verdict, "", reasons, history.now(), facts, tables)


def _write(report: Report, version: Version) -> None:
    reason = report.reasons[0].rstrip(".")
    report.summary = f"Version {version.number} {SUMMARIES[report.verdict]}: {reason}."
    report.write(GATE_REPORT, GATE_TEXT)


def _record(
    registry: Registry, version: Version, champion: Version | None, report: Report, against: str
) -> None:
    """The verdict where MLflow shows it: the version's tags and page, the runs' numbers, the reports.

    The champion's run gets its numbers of today, so that the two runs compare in one measurement context.
    """
    client, run_id = registry.client, version.run_id
    for path in (GATE_REPORT, GATE_TEXT):
        client.log_artifact(run_id, str(path), history.GATE_FOLDER)
    registry.log_once(run_id, _as_metrics(report.facts.get("measured", {})), 0)
    if champion:  # beside later versions at their numbers
        theirs = _as_metrics(report.facts.get("champion_measured", {}))
        registry.log_once(champion.run_id, theirs, version.number)
    page = spaced(report.body(f"![A drawing of each class]({artifact(run_id, STRIP.name)})"))
    client.update_model_version(registry.model, str(version.number), page)
    tags = {history.VERDICT: report.verdict, history.SUMMARY: report.summary, AGAINST: against}
    registry.tag(version.number, tags)


def _as_metrics(measured: dict[str, float]) -> dict[str, float]:
    return {f"gate/{name}": value for name, value in measured.items()}
