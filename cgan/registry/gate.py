"""`cgan gate`: register the trained generator, judge it beside the champion, promote or block it.

It is not a DVC stage: the answer depends on the champion, which no file of the project names. It can be
killed at any moment and started again: a generator has one version, a version is promoted once, and a
verdict that still holds is repeated ("unchanged").
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from typing import Any

import torch

from cgan.data import csv_report
from cgan.errors import DataError
from cgan.markdown import in_markdown, spaced, table
from cgan.model.hardware import compute_deterministically
from cgan.model.sampling import draw
from cgan.params.sections import Params
from cgan.project import (
    GATE_REPORT,
    GATE_TEXT,
    HOLDOUT_DATA,
    TRAIN_DATA,
    VALIDATION,
    project_root,
)
from cgan.quality.comparison import REPLICATES
from cgan.quality.evaluation import COPIES_SAMPLE, Inputs, ground_of, near_copies, passport
from cgan.quality.judge import Progress, silent
from cgan.quality.likeness import different
from cgan.registry.archive import keep_at_run, last_training, run_of
from cgan.registry.champion import Champion, read_champion
from cgan.registry.client import Registry, open_registry
from cgan.registry.decision import Share, comparison_table, decide
from cgan.registry.history import (
    COMMIT,
    DATA,
    DIGEST,
    GATE_FOLDER,
    ROLLED_BACK,
    RUN_NAME,
    SUMMARY,
    VERDICT,
    Version,
    now,
)
from cgan.registry.load_check import drawing_apart, load_problem
from cgan.run.follower import flush_one
from cgan.run.records import count_waiting, folder_of
from cgan.store.pages import STRIP, artifact
from cgan.verdict import Report, as_dicts, table_of

DELIVERY_S = 60
AGAINST = "gate.against"
SUMMARIES = {
    "unchanged": "needs no new verdict",
    "blocked": "is blocked",
    "passed": "is good enough to be champion",
    "promoted": "is the new champion",
}

Say = Callable[[str], None]


def gate(params: Params, say: Say, progress: Progress = silent) -> Report:
    """Judge what the stages made; returns the report, also in reports/gate.json and .md.

    Raises CganError when nothing could be decided: nothing trained, the store away or the champion in it
    not readable now, a champion of other images, another promotion in between. Then nothing is promoted,
    and a second call goes on from there.
    """
    compute_deterministically()
    inputs, reference = Inputs.load(), last_training()
    validation = _validation(inputs)
    _deliver(reference["run_key"], say)
    with open_registry(params.gate.model) as registry:
        run = run_of(registry, reference)
        registry.settle()
        champion = registry.champion_version()
        version = registry.find(run.info.run_id, str(inputs.facts["digest"]))
        against = _against(champion, params, inputs)
        if version and (why := _why_it_stands(version, champion, against, params)):
            return _publish(_report(version, "unchanged", [why]), say)
        former = None
        if champion:
            say(f"Reading the champion, version {champion.number}.")
            former = read_champion(registry, champion, inputs, validation, params)
        version = registry.register(run.info.run_id, _tags_of(run, inputs))
        say(f"Version {version.number} of `{registry.model}`: {run.info.run_name}.")
        if former and former.doubts and params.gate.on_drift == "block":
            known = {"champion": former.version.for_report()}
            report = _report(version, "blocked", [*former.doubts, *former.notes], known)
        else:
            report = _judge(registry, version, former, inputs, params, say, progress)
        _record(registry, version, report, against)
        if report.verdict == "passed" and params.gate.promote:
            why = f"passed the gate: {report.reasons[0]}"
            number = champion.number if champion else None
            registry.promote(version.number, instead_of=number, why=why)
            report.verdict, report.summary = "promoted", _summary(version, "promoted", report)
        return _publish(report, say)


def _publish(report: Report, say: Say) -> Report:
    report.write(GATE_REPORT, GATE_TEXT)
    report.say(say, GATE_TEXT)
    return report


def _validation(inputs: Inputs) -> dict[str, Any]:
    """The stage validate's report. Raises DataError when it is damaged or of another CSV."""
    again = "Restore it with `dvc checkout`, or make it again: `dvc repro --force validate`."
    try:
        report = csv_report.load_report(VALIDATION)
    except DataError as error:
        raise DataError(f"{error} {again}") from None
    images = len(inputs.training) + len(inputs.heldout)
    expected = str(inputs.training.metadata.get("csv_sha256")), images
    found = report["csv"]["sha256"], report["rows"]
    if found != expected:
        raise DataError(
            f"{VALIDATION}: of another CSV than {TRAIN_DATA} and {HOLDOUT_DATA}: expected sha256 "
            f"{expected[0][:12]} and {expected[1]:,} images, found {found[0][:12]} and {found[1]:,}. "
            f"{again}"
        )
    return report


def _deliver(run_key: str, say: Say) -> None:
    """Send what this training recorded, or wait while another process does."""
    folder = folder_of(run_key)
    for _ in range(DELIVERY_S):
        if not count_waiting(folder):
            return
        line = flush_one(project_root(), folder)
        if not count_waiting(folder):
            say(line)
            return
        time.sleep(1)


def _tags_of(run: Any, inputs: Inputs) -> dict[str, str]:
    """Tags that say how a version was made."""
    tags = {
        DIGEST: inputs.facts["digest"],
        DATA: str(inputs.facts["data_sha256"]),
        COMMIT: run.data.tags.get("mlflow.source.git.commit", ""),
        RUN_NAME: run.info.run_name,
        "prefect.flow_run_id": run.data.tags.get("prefect.flow_run_id", ""),
    }
    return {key: value for key, value in tags.items() if value}


def _against(champion: Version | None, params: Params, inputs: Inputs) -> str:
    """What a verdict holds for: this champion, and a hash of all else that it depends on."""
    facts = {
        "bars": params.gate.model_dump(exclude={"model", "promote"}),
        "judge": inputs.judge_digest,
        "reference": inputs.heldout.metadata["digest"],
        "training": inputs.training.metadata["digest"],
        "samples": params.evaluate.samples,
        "seed": params.evaluate.seed,
        "agreement": params.reevaluate.max_agreement_drop,
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    return f"{f'version {champion.number}' if champion else 'none'} · {digest}"


def _why_it_stands(version: Version, champion: Version | None, against: str, params: Params) -> str:
    """Why an earlier verdict still holds; empty when the version has to be judged."""
    if champion and champion.number == version.number:
        return "it is the champion already"
    if ROLLED_BACK in version.tags:
        return (
            f"it was rolled back ({version.tags[ROLLED_BACK]}); only `cgan registry promote "
            f"{version.number} --why …` makes it champion again"
        )
    waits = version.verdict == "passed" and not params.gate.promote
    if version.tags.get(AGAINST) == against and (version.verdict == "blocked" or waits):
        return f"it was judged before: {version.tags.get(SUMMARY, version.verdict)}"
    return ""


def _summary(version: Version, verdict: str, report: Report) -> str:
    return f"Version {version.number} {SUMMARIES[verdict]}: {report.reasons[0].rstrip('.')}."


def _report(
    version: Version, verdict: str, reasons: list[str], facts: dict[str, Any] | None = None
) -> Report:
    made = version.for_report()
    report = Report("Gate", verdict, "", reasons, now())
    report.summary = _summary(version, verdict, report)
    report.facts = {"challenger": made, "champion": None, "checks": [], "comparison": []}
    report.facts |= facts or {}
    report.footer = (
        f"Run `{made['run_id']}` ({in_markdown(made['run_name'])}), commit "
        f"`{in_markdown(made['commit'][:10])}`, data `{in_markdown(made['data_sha256'][:12])}`, "
        f"{report.time}."
    )
    return report


def _judge(
    registry: Registry,
    version: Version,
    champion: Champion | None,
    inputs: Inputs,
    params: Params,
    say: Say,
    progress: Progress,
) -> Report:
    """Judge both generators with one judge on the same images, check the load meanwhile, decide."""
    seed = params.evaluate.seed
    labels = list(range(inputs.training.classes))
    address = f"models:/{registry.model}/{version.number}"
    say(f"Loading {address} in a process of its own, which has to draw every class.")
    with drawing_apart(address, labels, seed) as drawn_apart:
        ground = ground_of(inputs, params.evaluate, progress)
        keep_at_run(registry, version, ground, inputs, say)
        samples = len(ground.asked)
        say(f"Drawing {samples:,} images, {samples // inputs.training.classes:,} of each class.")
        drawings = draw(inputs.network, ground.asked, seed)
        challenger = ground.judge_drawings(drawings)
        numbers = different(drawings, ground.asked, inputs.training)
        near = near_copies(drawings, ground.asked, inputs.training, inputs.heldout, seed)
        looked_at = min(COPIES_SAMPLE, samples)
        judged = None
        if champion and champion.network:
            say(f"The same with the champion, version {champion.version.number}.")
            judged = ground.judge_drawings(draw(champion.network, ground.asked, seed))
        expected = draw(inputs.network, torch.tensor(labels), seed)
        problem = load_problem(drawn_apart(), expected)
    decision = decide(
        params.gate,
        challenger,
        Share(round(near.closer * looked_at), looked_at),
        Share(ground.agreed, len(inputs.heldout)),
        problem,
        judged,
        list(zip(*numbers, strict=True)),
    )
    reasons, notes = decision.reasons, [*champion.doubts, *champion.notes] if champion else []
    is_lost = champion is not None and champion.network is None
    reasons = [*notes, *reasons] if decision.passed and is_lost else [*reasons, *notes]
    context = {
        **passport(inputs, params.evaluate),
        "training_digest": inputs.training.metadata["digest"],
        "fid_judge_floor": ground.fid_floor.value,
        "coverage_floor": ground.coverage_floor.value,
        "covered_images": ground.covered_images,
        "replicates": REPLICATES,
    }
    facts = {
        "checks": as_dicts(decision.checks),
        "comparison": as_dicts(decision.comparison),
        "measured": {name: each.value for name, each in challenger.metrics.items()},
        "champion": champion.version.for_report() if champion else None,
        "passport": context,
    }
    report = _report(version, "passed" if decision.passed else "blocked", reasons, facts)
    if champion and decision.comparison:
        heading = f"Beside the champion, version {champion.version.number}"
        report.sections[heading] = comparison_table(decision.comparison, version.number)
    report.sections["Bars"] = table_of(decision.checks)
    context_rows = [(key.replace("_", " "), value) for key, value in context.items()]
    report.sections["Measured with"] = table(("", ""), context_rows)
    return report


def _record(registry: Registry, version: Version, report: Report, against: str) -> None:
    """The verdict where MLflow shows it: the version's tags and page, the runs' numbers, the reports.

    The champion's run gets its numbers of today, so that the two runs compare in one measurement context.
    """
    from mlflow.entities import RunTag

    client, run_id, facts = registry.client, version.run_id, report.facts
    tags = {VERDICT: report.verdict, SUMMARY: report.summary}
    report.write(GATE_REPORT, GATE_TEXT)
    for path in (GATE_REPORT, GATE_TEXT):
        client.log_artifact(run_id, str(path), GATE_FOLDER)
    measured = facts.get("measured", {})
    registry.log_once(run_id, {f"gate/{name}": value for name, value in measured.items()}, 0)
    if rows := facts["comparison"]:  # beside later versions at their numbers
        theirs = {f"gate/{row['metric']}": row["champion"] for row in rows}
        registry.log_once(facts["champion"]["run_id"], theirs, version.number)
    run_tags = [RunTag(key, value[:5000]) for key, value in tags.items()]
    client.log_batch(run_id, tags=[*run_tags, RunTag("gate.version", str(version.number))])
    drawings = f"![A drawing of each class]({artifact(run_id, STRIP)})"
    page = spaced(report.body(drawings))
    client.update_model_version(registry.model, str(version.number), page)
    registry.tag(version.number, {**tags, AGAINST: against})
