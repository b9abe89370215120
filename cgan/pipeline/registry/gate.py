"""`cgan gate`: register the trained generator, judge it beside the champion, promote or block it.

It is not a DVC stage: the answer depends on the champion, which no file of the project names. It can be
killed at any moment and started again: a generator has one version, a version is promoted once, and a
verdict that still holds is repeated: "unchanged", or "blocked" again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgan import project
from cgan.errors import ModelError
from cgan.files import read_json, sha256_of
from cgan.markdown import spaced, table
from cgan.model.file_facts import Facts, read_facts
from cgan.params.sections import Params
from cgan.pipeline.registry.client import GATE_FOLDER, Registry, now, open_registry
from cgan.pipeline.registry.version import ROLLED_BACK, SUMMARY, VERDICT, Version, version_in_words
from cgan.pipeline.tracking.store import strip_markdown
from cgan.pipeline.tracking.tags import GENERATOR_SHA256_TAG, RUN_KEY_TAG
from cgan.verdict import Report, table_of

if TYPE_CHECKING:
    from mlflow.entities import Run

VERDICT_KEY = "gate.against"  # tag of a version: what its verdict holds for
DESCRIPTION_CHARACTERS = 5000  # of a version: SQLite takes more, PostgreSQL refuses it
SUMMARIES = {
    "unchanged": "needs no new verdict",
    "blocked": "is blocked",
    "passed": "is good enough to be champion",
    "promoted": "is the new champion",
}


def gate(params: Params, say: Callable[[str], None]) -> Report:
    """Judge what the stages made; returns the report, also in reports/gate.json and .md.

    Raises CganError when nothing could be decided: nothing trained, the store away, a champion that cannot be
    read or that draws something else, another promotion in between. Then nothing is promoted, and a second
    call goes on from there.
    """
    digest = str(read_facts(project.GENERATOR, "generator")["digest"])
    files = [read_facts(project.JUDGE, "judge")]
    files += [read_facts(path, "dataset") for path in (project.TRAIN_DATA, project.HOLDOUT_DATA)]
    trained = read_json(project.RUN_LOCATION)
    with open_registry(params.gate.model) as registry:
        run, champion_number = _run_of(registry, trained), registry.champion_number()
        champion = None if champion_number is None else registry.version(champion_number)
        version = registry.find(run.info.run_id, digest)
        verdict_key = _verdict_key(champion_number, params, files)
        if version and (earlier := _earlier_verdict(version, champion_number, verdict_key, params)):
            verdict, reason = earlier
            report = _report(version, champion, [reason])
            _conclude(report, version, verdict)
            where: Path | str = f"In MLflow, the page of version {version.number}"
        else:
            # Two seconds of imports, for which a night with nothing new does not wait.
            from cgan.pipeline.registry import judging
            from cgan.pipeline.registry.data_checks import keep_data

            beside = f" beside version {champion.number}, the champion" if champion else ""
            say(f"Judging the generator{beside}: half a minute for the sample …")
            setup = judging.prepare(registry, champion, params)
            version = registry.register(run, digest)
            say(f"Version {version.number} of `{registry.model}`: {run.info.run_name}.")
            keep_data(registry, version, setup.inputs, setup.conditions)
            report = _report(version, champion, [setup.note] if setup.note else [])
            if setup.data_checks:
                report.sections["Today's data"] = table_of(setup.data_checks)
            if setup.data_warning:
                verdict = "blocked"
                report.facts["checks"] = [asdict(check) for check in setup.data_checks]
                report.reasons = [
                    f"{setup.data_warning}. Check the data. If they are right, promote the version yourself: "
                    f"`cgan registry promote {version.number} --force --why …`. If they are another data "
                    "set, give its models their own name in `gate.model`"
                ]
            else:
                verdict = judging.evaluate_and_decide(report, setup, params)
            _conclude(report, version, verdict)
            where = project.GATE_TEXT
            _record(registry, version, report, verdict_key)
            if verdict == "passed" and params.gate.promote:
                why = f"passed the gate: {report.reasons[0]}"
                registry.promote(version.number, previous=champion_number, why=why)
                _conclude(report, version, "promoted")
    report.say(say, where)
    return report


def _run_of(registry: Registry, trained: dict[str, Any]) -> Run:
    """The run that trained what lies in models/. Raises ModelError when they don't belong together."""
    experiment = registry.client.get_experiment_by_name(trained["experiment"])
    wanted = f"tags.`{RUN_KEY_TAG}` = '{trained['run_key']}'"
    wanted += f" AND tags.`{GENERATOR_SHA256_TAG}` = '{sha256_of(project.GENERATOR)}'"
    places = [experiment.experiment_id] if experiment else []
    if runs := registry.client.search_runs(places, wanted, max_results=1):
        return runs[0]
    raise ModelError(
        f"the MLflow store {registry.address} has no run with the key {trained['run_key']} that trained "
        f"{project.GENERATOR}; the run was recorded in {trained['tracking_uri']}. Restore what belongs "
        "together (`dvc checkout`; the store from a backup; a deleted run with `mlflow runs restore`), set "
        f"MLFLOW_TRACKING_URI if the run is elsewhere, or train again: {project.TRAIN_AGAIN}."
    )


def _verdict_key(champion_number: int | None, params: Params, files: list[Facts]) -> str:
    """A text that is equal as long as a verdict holds: this champion, and a hash of all else that it depends
    on."""
    depends_on = (
        params.gate.model_dump(exclude={"model", "promote"}),
        params.evaluate.model_dump(),
        [facts["digest"] for facts in files],
    )
    digest = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:16]
    return f"{version_in_words(champion_number)} · {digest}"


def _earlier_verdict(
    version: Version, champion_number: int | None, verdict_key: str, params: Params
) -> tuple[str, str] | None:
    """The verdict that still holds, `unchanged`, or `blocked` again, and why; None when the version has to be
    judged."""
    if champion_number == version.number:
        return "unchanged", "it is the champion already"
    if ROLLED_BACK in version.tags:
        return "unchanged", (
            f"it was rolled back ({version.tags[ROLLED_BACK]}); only `cgan registry promote "
            f"{version.number} --why …` makes it champion again"
        )
    if version.tags.get(VERDICT_KEY) != verdict_key:
        return None
    summary = version.tags.get(SUMMARY, version.verdict)
    if version.verdict == "passed" and not params.gate.promote:
        return "unchanged", f"it was judged before: {summary}"
    if version.verdict == "blocked":
        start = f"Version {version.number} {SUMMARIES['blocked']}: "
        return "blocked", f"nothing has changed since it was judged: {summary.removeprefix(start)}"
    return None


def _report(version: Version, champion: Version | None, reasons: list[str]) -> Report:
    facts: Facts = {"challenger": version.facts, "champion": champion and champion.facts}
    facts |= {"checks": [], "comparison": []}
    tables = {"The version": table(("", ""), version.facts.items())}
    return Report("Gate", "", "", reasons, now(), facts, tables)


def _conclude(report: Report, version: Version, verdict: str) -> None:
    reason = report.reasons[0].rstrip(".")
    report.verdict = verdict
    report.summary = f"Version {version.number} {SUMMARIES[verdict]}: {reason}."
    report.write(project.GATE_REPORT, project.GATE_TEXT)


def _record(registry: Registry, version: Version, report: Report, verdict_key: str) -> None:
    """The verdict where MLflow shows it: the version's tags and page, the run's numbers, the reports."""
    client, run_id = registry.client, version.run_id
    for path in (project.GATE_REPORT, project.GATE_TEXT):
        client.log_artifact(run_id, str(path), GATE_FOLDER)
    metrics = client.get_run(run_id).data.metrics
    for name, value in report.facts.get("measured", {}).items():
        if metrics.get(f"gate/{name}") != value:  # else a judgement that is repeated after a kill
            client.log_metric(run_id, f"gate/{name}", value)
    page = spaced(report.body(strip_markdown(run_id)))
    client.update_model_version(registry.model, str(version.number), page[:DESCRIPTION_CHARACTERS])
    tags = {VERDICT: report.verdict, SUMMARY: report.summary, VERDICT_KEY: verdict_key}
    registry.tag(version.number, tags)
