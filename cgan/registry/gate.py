"""`cgan gate`: register the trained generator, judge it beside the champion, promote or block it.

It is not a DVC stage: the answer depends on the champion, which no file of the project names. It can be
killed at any moment and started again: a run has one version, a version is promoted once, and a verdict
that still holds is repeated ("unchanged").
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cgan.data import csv_report
from cgan.data.dataset import Dataset
from cgan.errors import DataError
from cgan.files import write_json, write_text
from cgan.model.file_facts import UnreadableError
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
from cgan.quality.comparison import REPLICATES, ground_of
from cgan.quality.evaluation import COPIES_SAMPLE, Inputs, near_copies, passport
from cgan.quality.judge import Progress, silent
from cgan.quality.likeness import different
from cgan.registry.archive import file_of_run, keep_at_run, last_training, run_of
from cgan.registry.champion import Champion, read_champion
from cgan.registry.client import Registry, open_registry
from cgan.registry.decision import (
    Report,
    Share,
    decide,
    headline,
    history_reason,
    to_markdown,
    version_note,
)
from cgan.registry.history import (
    COMMIT,
    DATA,
    DIGEST,
    GATE_FOLDER,
    ROLLED_BACK,
    SUMMARY,
    VERDICT,
    Version,
    now,
)
from cgan.registry.load_check import drawing_apart, labels_for, load_result
from cgan.run.follower import flush_one
from cgan.run.records import count_waiting, folder_of, runs, waiting

DELIVERY_S = 60
AGAINST = "gate.against"

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Inputs(Inputs):
    """With the validation report of the same CSV, by which drift is found."""

    validation: Report

    @classmethod
    def load(cls) -> _Inputs:
        inputs = Inputs.load()
        return cls(**vars(inputs), validation=_validation(inputs.training, inputs.heldout))


def _validation(training: Dataset, heldout: Dataset) -> Report:
    """The stage validate's report. Raises DataError when it is damaged or of another CSV."""
    again = "Restore it with `dvc checkout`, or make it again: `dvc repro --force validate`."
    try:
        report = csv_report.load_report(VALIDATION)
    except DataError as error:
        raise DataError(f"{error} {again}") from None
    expected = str(training.metadata.get("csv_sha256")), len(training) + len(heldout)
    found = report["csv"]["sha256"], report["rows"]
    if found != expected:
        raise DataError(
            f"{VALIDATION}: of another CSV than {TRAIN_DATA} and {HOLDOUT_DATA}: expected sha256 "
            f"{expected[0][:12]} and {expected[1]:,} images, found {found[0][:12]} and {found[1]:,}. "
            f"{again}"
        )
    return report


def gate(params: Params, say: Say, progress: Progress = silent) -> Report:
    """Judge what the stages made; returns the report, also in reports/gate.json and .md.

    Raises CganError when nothing could be decided: nothing trained, the store away, another promotion in
    between. Then nothing is promoted, and a second call goes on from there.
    """
    compute_deterministically()
    inputs, reference = _Inputs.load(), last_training()
    _deliver(reference, say)
    with open_registry(params.gate.model) as registry:
        run = run_of(registry, reference)
        if champion := registry.champion_version():
            registry.settle()
            same = champion.tags.get(DIGEST) == str(inputs.facts["digest"])
            if same and champion.run_id != run.info.run_id:  # another run trained its very weights
                why = "the weights are the champion's, bit by bit"
                return _publish(_standing_report(registry, champion, why), say)
        version, new = registry.register(run.info.run_id, _facts_of(run, inputs))
        state = "registered" if new else "is registered"
        say(f"Version {version.number} of `{registry.model}` {state}: {run.info.run_name}.")
        circumstances = _circumstances(params, inputs)
        if why := _why_it_stands(version, champion, circumstances, params):
            return _publish(_standing_report(registry, version, why), say)
        former = None
        if champion:
            say(f"Reading the champion, version {champion.number}.")
            try:
                former = read_champion(registry, champion, inputs, inputs.validation, params)
            except UnreadableError as error:
                # Nobody is promoted past a champion that may be better. It is no verdict that stands.
                why = (
                    f"the champion, version {champion.number}, cannot be read now, so that nothing was "
                    f"judged: {error} `cgan gate` then judges it afresh"
                )
                report = _report(version, "blocked", [why], champion=champion.for_report())
                _record(registry, version, report, {AGAINST: "nobody: the champion was not read"})
                return _publish(report, say)
            for objection in former.objections:
                say(f"  - {objection}")
        report = _judge(registry, version, former, inputs, params, say, progress)
        tags = {AGAINST: _against(champion, circumstances)}
        _record(registry, version, report, tags)
        if report["verdict"] == "passed" and params.gate.promote:
            number = champion.number if champion else None
            registry.promote(version.number, instead_of=number, why=history_reason(report))
            _record_promotion(registry, version, report, number, tags)
        return _publish(report, say)


def _write(report: Report) -> None:
    write_json(GATE_REPORT, report)
    write_text(GATE_TEXT, to_markdown(report))


def _publish(report: Report, say: Say) -> Report:
    _write(report)
    say("")
    say(f"{report['verdict'].upper()}: {report['summary']}")
    for reason in report["reasons"]:
        say(f"  - {reason}")
    say(f"  {GATE_TEXT} has every number.")
    return report


def _deliver(reference: dict[str, str], say: Say) -> None:
    """Send what this training recorded, or wait while another process does. Others are only mentioned."""
    root = project_root()
    own = folder_of(reference["run_key"])
    for _ in range(DELIVERY_S):
        if own not in waiting(root):
            break
        line = flush_one(root, own)
        if not count_waiting(own):
            say(line)
            break
        time.sleep(1)
    if others := [folder for folder in waiting(root) if folder != own]:
        say(
            f"Records of {len(others)} other run{'s' * (len(others) > 1)} wait in {runs(root)}: "
            "`cgan track flush` delivers them, or says what is in the way."
        )


def _facts_of(run: Any, inputs: _Inputs) -> dict[str, str]:
    """Tags that say how a version was made."""
    tags = {
        DIGEST: inputs.facts["digest"],
        DATA: str(inputs.facts["data_sha256"]),
        COMMIT: run.data.tags.get("mlflow.source.git.commit", ""),
        "run.name": run.info.run_name,
        "prefect.flow_run_id": run.data.tags.get("prefect.flow_run_id", ""),
    }
    return {key: value for key, value in tags.items() if value}


def _circumstances(params: Params, inputs: _Inputs) -> str:
    """A hash of all that a verdict depends on besides the two generators."""
    facts = {
        "bars": params.gate.model_dump(exclude={"model", "promote"}),
        "judge": inputs.judge_digest,
        "reference": inputs.heldout.metadata["digest"],
        "training": inputs.training.metadata["digest"],
        "samples": params.evaluate.samples,
        "seed": params.evaluate.seed,
        "agreement": params.reevaluate.max_agreement_drop,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _against(champion: Version | None, circumstances: str) -> str:
    """What a verdict holds for: this champion, these circumstances."""
    return f"{'none' if champion is None else f'version {champion.number}'} · {circumstances}"


def _why_it_stands(
    version: Version, champion: Version | None, circumstances: str, params: Params
) -> str:
    """Why an earlier verdict still holds; empty when the version has to be judged."""
    if champion and champion.number == version.number:
        return "it is the champion already"
    if ROLLED_BACK in version.tags:
        return (
            f"it was rolled back ({version.tags[ROLLED_BACK]}); only `cgan registry promote "
            f"{version.number} --why …` makes it champion again"
        )
    same = version.tags.get(AGAINST) == _against(champion, circumstances)
    decided = version.verdict == "blocked" or (
        version.verdict == "passed" and not params.gate.promote
    )
    if same and decided:
        return f"it was judged before: {version.tags.get(SUMMARY, version.verdict)}"
    return ""


def _report(version: Version, verdict: str, reasons: list[str], **found: Any) -> Report:
    report = {
        "verdict": verdict,
        "reasons": reasons,
        "checks": [],
        "comparison": [],
        "measured": {},
        "challenger": version.for_report(),
        "champion": None,
        "promoted_from": None,
        "passport": {},
        **found,
        "time": now(),
    }
    return report | {"summary": headline(report)}


def _standing_report(registry: Registry, version: Version, why: str) -> Report:
    """The report of a verdict that still holds, with its numbers where the store has them."""
    report, kept = _report(version, "unchanged", [why]), {}
    with (
        contextlib.suppress(Exception),
        file_of_run(version, GATE_FOLDER, GATE_REPORT.name) as path,
    ):
        found = json.loads(path.read_text(encoding="utf-8"))
        to_markdown(found | {"measured": dict(found["measured"])})  # raises if it cannot be shown
        kept = found
    if (
        version.verdict == "passed" and "champion" in version.aliases
    ):  # killed before it was recorded
        if kept:
            moves = [move for move in registry.history() if move.target == version.number]
            _record_promotion(registry, version, kept, moves[-1].source if moves else None, {})
        registry.tag(version.number, {VERDICT: "promoted"})
    return report | kept | {key: report[key] for key in ("verdict", "reasons", "summary", "time")}


def _judge(
    registry: Registry,
    version: Version,
    champion: Champion | None,
    inputs: _Inputs,
    params: Params,
    say: Say,
    progress: Progress,
) -> Report:
    """Judge both generators with one judge on the same images, check the load meanwhile, decide."""
    seed = params.evaluate.seed
    labels = labels_for(inputs.training.classes)
    address = f"models:/{registry.model}/{version.number}"
    say(f"Loading {address} in a process of its own, which has to draw {len(labels)} images.")
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
        if champion:
            say(f"The same with the champion, version {champion.version.number}.")
            judged = champion.judged(ground, challenger)
        loaded = load_result(drawn_apart(), inputs.network, inputs.judge, labels, seed)
    decision = decide(
        params.gate,
        challenger,
        Share(round(near.closer * looked_at), looked_at),
        Share(ground.agreed, len(inputs.heldout)),
        loaded,
        judged,
        champion.objections if champion else (),
        list(zip(*numbers, strict=True)),
    )
    return _report(
        version,
        "passed" if decision.passed else "blocked",
        [*decision.reasons, *(champion.notes if champion else ())],
        **decision.to_json(),
        measured={name: each.value for name, each in challenger.metrics.items()},
        champion=champion.for_report() if champion else None,
        passport={
            **passport(inputs, params.evaluate),
            "training_digest": inputs.training.metadata["digest"],
            "fid_judge_floor": ground.fid_floor.value,
            "coverage_floor": ground.coverage_floor.value,
            "covered_images": ground.covered_images,
            "replicates": REPLICATES,
        },
    )


def _record(registry: Registry, version: Version, report: Report, tags: dict[str, str]) -> None:
    """The verdict where MLflow shows it: the version's tags and page, the runs' numbers, the reports.

    The champion's run gets its numbers of today, so that the two runs compare on one passport.
    """
    from mlflow.entities import RunTag

    own = {VERDICT: report["verdict"], SUMMARY: report["summary"]}
    run_id, champion = report["challenger"]["run_id"], report["champion"]
    _write(report)
    if report["measured"]:
        for path in (GATE_REPORT, GATE_TEXT):
            registry.client.log_artifact(run_id, str(path), GATE_FOLDER)
    measured = {f"gate/{name}": value for name, value in report["measured"].items()}
    registry.log_once(run_id, measured, 0)  # and beside later versions at their numbers
    if report["comparison"]:
        theirs = {f"gate/{row['metric']}": row["champion"] for row in report["comparison"]}
        registry.log_once(champion["run_id"], theirs, version.number)
    run_tags = [RunTag(key, value[:5000]) for key, value in own.items()]
    run_tags.append(RunTag("gate.version", str(version.number)))
    registry.client.log_batch(run_id, tags=run_tags)
    registry.client.update_model_version(registry.model, str(version.number), version_note(report))
    registry.tag(version.number, {**tags, **own})


def _record_promotion(
    registry: Registry, version: Version, report: Report, before: int | None, tags: dict[str, str]
) -> None:
    report |= {"verdict": "promoted", "promoted_from": before}
    report["summary"] = headline(report)
    _record(registry, version, report, tags)
