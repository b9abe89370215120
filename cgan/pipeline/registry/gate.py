"""`cgan gate`: judge the trained generator beside the champion, register it, promote or block it.

It is not a DVC stage: the answer depends on the champion, which no file of the project names. It can be
killed at any moment and started again: a generator has one version, and a champion is not promoted again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cgan.base.errors import ModelError
from cgan.base.files import read_json, sha256_of
from cgan.base.report import Report
from cgan.models.file_facts import read_facts
from cgan.params.sections import Params
from cgan.pipeline import project
from cgan.pipeline.registry.client import (
    GATE_FOLDER,
    ROLLED_BACK,
    SUMMARY,
    VERDICT,
    Registry,
    Version,
    open_registry,
)
from cgan.pipeline.tracking.store import GENERATOR_SHA256_TAG, RUN_KEY_TAG, strip_markdown

if TYPE_CHECKING:
    from mlflow.entities import Run

DESCRIPTION_CHARACTERS = 5000  # of a version: SQLite takes more, PostgreSQL refuses it
SENTENCES = {
    "unchanged": "needs no new verdict",
    "blocked": "is blocked",
    "passed": "is good enough to be champion",
    "promoted": "is the new champion",
}


def judge_and_promote(params: Params, say: Callable[[str], None]) -> Report:
    """Judge what the stages made; returns the report, also in reports/gate.json and .md.

    Raises CganError when nothing could be decided: nothing trained, the store away, a champion that cannot be
    read or that draws something else, another promotion in between. Then nothing is promoted, and a second
    call goes on from there.
    """
    digest = str(read_facts(project.GENERATOR, "generator")["digest"])
    trained = read_json(project.RUN_LOCATION)
    with open_registry(params.gate.model) as registry:
        run, champion = _find_run(registry, trained), registry.champion()
        version = registry.find_version(run.info.run_id, digest)
        if version and (reason := _why_unchanged(version, champion)):
            report = Report(question="Gate", verdict="unchanged", sentence="", reasons=[reason])
            report = _write_report(report, version, champion)
        else:
            # Two seconds of imports, for which a night with nothing new does not wait.
            from cgan.pipeline.registry.assessment import assess
            from cgan.pipeline.registry.measurements import keep_data

            assessment = assess(registry, champion, params, say)
            version = registry.register(run, digest)
            keep_data(registry, version, assessment.inputs, assessment.models)
            report = _write_report(assessment.report, version, champion)
            _record(registry, version, report)
            if report.verdict == "passed" and params.gate.promote:
                if registry.champion() != champion:
                    raise ModelError("another became champion meanwhile: run `cgan gate` again.")
                registry.promote(version.number, why=f"passed the gate: {report.reasons[0]}")
                report = _write_report(replace(report, verdict="promoted"), version, champion)
    say(report.as_text())
    return report


def _find_run(registry: Registry, trained: dict[str, Any]) -> Run:
    """The run that trained what lies in models/. Raises ModelError when they don't belong together."""
    wanted = f"tags.`{RUN_KEY_TAG}` = '{trained['run_key']}'"
    wanted += f" AND tags.`{GENERATOR_SHA256_TAG}` = '{sha256_of(project.GENERATOR)}'"
    if run := registry.newest_run(trained["experiment"], wanted):
        return run
    raise ModelError(
        f"the MLflow store {registry.address} has no run with the key {trained['run_key']} that trained "
        f"{project.GENERATOR}; it was recorded in {trained['tracking_uri']}. Restore what belongs together "
        f"(`dvc checkout`, or MLFLOW_TRACKING_URI), or train again: {project.TRAIN_AGAIN}."
    )


def _why_unchanged(version: Version, champion: Version | None) -> str:
    """Why a version is not judged again; empty where it has to be."""
    if champion and champion.number == version.number:
        return "it is the champion already"
    if ROLLED_BACK in version.tags:
        advice = f"only `cgan registry promote {version.number} --why …` makes it champion again"
        return f"it was rolled back ({version.tags[ROLLED_BACK]}); {advice}"
    return ""


def _write_report(report: Report, version: Version, champion: Version | None) -> Report:
    """The report with its sentence and both versions, in reports/gate.json and gate.md."""
    words = f"{SENTENCES[report.verdict]}: {report.reasons[0].rstrip('.')}."
    facts = {
        "challenger": {"version": version.number, "run_id": version.run_id},
        "champion": champion and {"version": champion.number, "run_id": champion.run_id},
        "checks": report.facts.get("checks", []),
    }
    report = replace(report, sentence=f"Version {version.number} {words}", facts=facts)
    report.write(project.GATE_REPORT)
    return report


def _record(registry: Registry, version: Version, report: Report) -> None:
    """The verdict where MLflow shows it: the reports, the version's page and its tags."""
    for path in (project.GATE_REPORT, project.GATE_TEXT):
        registry.client.log_artifact(version.run_id, str(path), GATE_FOLDER)
    page = report.as_markdown(strip_markdown(version.run_id))[:DESCRIPTION_CHARACTERS]
    registry.client.update_model_version(registry.model, str(version.number), page)
    registry.tag(version.number, {VERDICT: report.verdict, SUMMARY: report.sentence})
