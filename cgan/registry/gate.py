"""`cgan gate`: register the trained generator, judge it beside the champion, promote or block it.

It is not a DVC stage: the answer depends on the champion, which no file of the project names. It can be
killed at any moment and started again: a run has one version, a version is promoted once, and a verdict
that still holds is repeated ("unchanged").
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgan.data import csv_report
from cgan.data.dataset import Dataset
from cgan.errors import CganError, DataError
from cgan.files import write_json, write_text
from cgan.model.hardware import compute_deterministically
from cgan.model.model_file import load_generator
from cgan.model.sampling import draw
from cgan.params.sections import Params
from cgan.project import (
    EVALUATION,
    GATE_REPORT,
    GATE_TEXT,
    HOLDOUT_DATA,
    TRAIN_DATA,
    VALIDATION,
)
from cgan.quality.comparison import REPLICATES, Ground, Judged, ground_of
from cgan.quality.evaluation import COPIES_SAMPLE, Inputs, classes_asked, near_copies, passport
from cgan.quality.judge import Progress, silent
from cgan.quality.likeness import different
from cgan.registry.archive import (
    generator_file,
    images_seen_by,
    keep_at_run,
    kept_profile,
    last_training,
    run_of,
)
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
from cgan.tracking.journal import count_waiting, journals, project_root
from cgan.tracking.sender import flush_one, waiting_journals

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
            if _has_same_weights(champion, run, inputs):
                why = "the weights are the champion's, bit by bit"
                return _publish(_standing_report(registry, champion, why), say)
        version, new = registry.register(run.info.run_id, _facts_of(run, inputs))
        state = "registered" if new else "is registered"
        say(f"Version {version.number} of `{registry.model}` {state}: {run.info.run_name}.")
        circumstances = _circumstances(params, inputs)
        if why := _why_it_stands(version, champion, circumstances, params):
            return _publish(_standing_report(registry, version, why), say)
        report = _judge(registry, version, run, champion, inputs, params, say, progress)
        tags = {AGAINST: _against(champion, circumstances)}
        _record(registry, version, report, tags)
        if report["verdict"] == "passed" and params.gate.promote:
            before = champion.number if champion else None
            registry.promote(version.number, instead_of=before, why=history_reason(report))
            report |= {"verdict": "promoted", "promoted_from": before}
            report["summary"] = headline(report)
            _record(registry, version, report, tags)
        return _publish(report, say)


def _publish(report: Report, say: Say) -> Report:
    write_json(GATE_REPORT, report)
    write_text(GATE_TEXT, to_markdown(report))
    say("")
    say(f"{report['verdict'].upper()}: {report['summary']}")
    for reason in report["reasons"]:
        say(f"  - {reason}")
    say(f"  {GATE_TEXT} has every number.")
    return report


def _deliver(reference: dict[str, str], say: Say) -> None:
    """Deliver this training's journal, or wait while another process does. Others are only mentioned."""
    root = project_root()
    own = journals(root) / reference["run_key"]
    for _ in range(DELIVERY_S):
        if own not in waiting_journals(root):
            break
        line = flush_one(root, own)
        if not count_waiting(own):
            say(line)
            break
        time.sleep(1)
    if others := [f for f in waiting_journals(root) if f != own and count_waiting(f)]:
        say(
            f"Records of {len(others)} other run{'s' * (len(others) > 1)} wait in {journals(root)}: "
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


def _has_same_weights(champion: Version, run: Any, inputs: _Inputs) -> bool:
    """Did another run train the champion's very weights again?"""
    return champion.run_id != run.info.run_id and champion.tags.get(DIGEST) == str(
        inputs.facts["digest"]
    )


def _circumstances(params: Params, inputs: _Inputs) -> str:
    """A hash of all that a verdict depends on besides the two generators."""
    facts = {
        "bars": params.gate.model_dump(exclude={"model", "promote"}),
        "judge": inputs.judge_digest,
        "reference": inputs.heldout.metadata["digest"],
        "training": inputs.training.metadata["digest"],
        "samples": params.evaluate.samples,
        "seed": params.evaluate.seed,
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


def _standing_report(registry: Registry, version: Version, why: str) -> Report:
    """The report of a verdict that still holds, with its numbers where the store has them."""
    report: Report = {
        "checks": [],
        "comparison": [],
        "challenger": version.for_report(),
        "champion": None,
        "promoted_from": None,
        "passport": {},
    }
    with contextlib.suppress(Exception), tempfile.TemporaryDirectory() as folder:
        path = registry.client.download_artifacts(
            version.run_id, f"{GATE_FOLDER}/{GATE_REPORT.name}", folder
        )
        kept = json.loads(Path(path).read_text())
        to_markdown(
            report | kept | {"measured": dict(kept["measured"])}
        )  # raises if it cannot be shown
        report |= kept
    if (
        version.verdict == "passed" and "champion" in version.aliases
    ):  # killed before that was recorded
        if "measured" in report:
            moves = [move for move in registry.history() if move.target == version.number]
            before = moves[-1].source if moves else None
            report |= {"verdict": "promoted", "promoted_from": before}
            report["summary"] = headline(report)
            _record(registry, version, report, {})
        registry.tag(version.number, {VERDICT: "promoted"})
    return report | {
        "verdict": "unchanged",
        "summary": f"Version {version.number} needs no new verdict: {why}.",
        "reasons": [],
        "time": now(),
    }


def _judge(
    registry: Registry,
    version: Version,
    run: Any,
    champion: Version | None,
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
    with drawing_apart(registry.uri, address, labels, seed) as apart:
        ground = ground_of(inputs, params.evaluate, progress)
        keep_at_run(registry, version, ground, inputs, say)
        samples = len(ground.asked)
        say(f"Drawing {samples:,} images, {samples // inputs.training.classes:,} of each class.")
        drawings = draw(inputs.network, ground.asked, seed)
        challenger = ground.judge_drawings(drawings)
        numbers, _ = different(drawings, ground.asked, inputs.training)
        near = _copies(inputs, params, say)
        former = _ChampionToday()
        if champion:
            say(f"The same with the champion, version {champion.number}.")
            former = _judge_champion(registry, champion, ground, inputs, params.gate.on_drift)
        drawn = apart.drawings()
        loaded = load_result(drawn, inputs.network, inputs.judge, labels, seed)
    decision = decide(
        params.gate,
        challenger,
        near,
        Share(ground.agreed, len(inputs.heldout)),
        loaded,
        former.judged,
        former.objections,
        numbers,
    )
    report: Report = {
        "verdict": "passed" if decision.passed else "blocked",
        "summary": "",
        "reasons": [*decision.reasons, *former.notes],
        **decision.to_json(),
        "measured": {name: each.value for name, each in challenger.metrics.items()},
        "challenger": version.for_report(),
        "champion": champion.for_report() if champion else None,
        "promoted_from": None,
        "passport": _passport(ground, inputs, params),
        "time": now(),
    }
    report["summary"] = headline(report)
    return report


@dataclass(frozen=True)
class _ChampionToday:
    """The champion as judged today; `notes` for the report, `objections` that block the promotion."""

    judged: Judged | None = None
    notes: tuple[str, ...] = ()
    objections: tuple[str, ...] = ()


def _judge_champion(
    registry: Registry, champion: Version, ground: Ground, inputs: _Inputs, on_drift: str
) -> _ChampionToday:
    name = f"the champion, version {champion.number},"
    try:
        with generator_file(f"models:/{registry.model}/{champion.number}") as path:
            network, facts = load_generator(path)
    except CganError as error:
        return _ChampionToday(notes=(f"{name} cannot be read, so the bars alone decided: {error}",))
    ours, theirs = inputs.network.architecture, network.architecture
    kinds = [(a.classes, a.channels, a.height, a.width) for a in (ours, theirs)]
    if kinds[0] != kinds[1]:
        objection = (
            f"{name} draws {_kind(kinds[1])}, this one {_kind(kinds[0])}: they cannot be compared. "
            "If that is meant, promote it by hand with cgan registry promote"
        )
        return _ChampionToday(objections=(objection,))
    judged = ground.judge_drawings(draw(network, ground.asked, ground.seed))
    notes: list[str] = []
    objections: list[str] = []
    if facts.get("data_digest") != inputs.facts["data_digest"]:
        seen = images_seen_by(registry, champion, inputs.heldout)
        known = "an unknown part" if seen is None else f"{seen:,}"
        notes.append(
            f"{name} was trained on other data; both were judged with today's judge and hold-out, of "
            f"whose {len(inputs.heldout):,} images {known} were among its training images"
            f"{', which favours it' if seen is None or seen else ''}"
        )
        moved = _drift_from(registry, champion, inputs.validation)
        (objections if on_drift == "block" else notes).extend(moved)
    return _ChampionToday(judged, tuple(notes), tuple(objections))


def _drift_from(registry: Registry, champion: Version, validation: Report) -> list[str]:
    """How today's data differ from the champion's beyond what is usual, in a sentence, if they do.

    Today's judge learnt from today's data: it would find the drawings of spoilt data good, and the
    champion's poor.
    """
    try:
        found = csv_report.distances(validation, kept_profile(registry, champion))
    except CganError as error:
        return [
            f"whether the data are like the champion's is not known: {error} If they are right, "
            "`cgan registry promote`, or set `gate.on_drift: note`"
        ]
    moved = [
        f"{name} {value:.3f}, at most {csv_report.DRIFT_LIMITS[name]:.3g} is usual"
        for name, value in found.items()
        if value > csv_report.DRIFT_LIMITS[name]
    ]
    if not moved:
        return []
    return [
        f"the data are no longer like what the champion was trained on ({'; '.join(moved)}). Look at "
        "them; if they are right, `cgan registry promote`, or set `gate.on_drift: note`"
    ]


def _kind(kind: tuple[int, int, int, int]) -> str:
    classes, channels, height, width = kind
    return f"{classes} classes of {height} × {width} × {channels}"


def _copies(inputs: _Inputs, params: Params, say: Say) -> Share:
    """Of the drawings, those near a training image: evaluate's number where it is of this generator."""
    asked = classes_asked(inputs.training.classes, params.evaluate)[:COPIES_SAMPLE]
    count, seed = len(asked), params.evaluate.seed
    with contextlib.suppress(
        OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError
    ):
        report = json.loads(EVALUATION.read_text())
        wanted = passport(inputs, params.evaluate)
        closer = float(report["copies"]["closer_than_1_percent_of_heldout"])
        if wanted.items() <= report["passport"].items() and 0 <= closer <= 1:
            return Share(round(closer * count), count)
    say("Looking for the training image nearest to each drawing.")
    drawn = draw(inputs.network, asked, seed)
    found = near_copies(drawn, asked, inputs.training, inputs.heldout, seed)
    return Share(round(found.closer * count), count)


def _passport(ground: Ground, inputs: _Inputs, params: Params) -> dict[str, Any]:
    return {
        **passport(inputs, params.evaluate),
        "training_digest": inputs.training.metadata["digest"],
        "fid_judge_floor": ground.fid_floor.value,
        "coverage_floor": ground.coverage_floor.value,
        "covered_images": ground.covered_images,
        "replicates": REPLICATES,
    }


def _record(registry: Registry, version: Version, report: Report, tags: dict[str, str]) -> None:
    """The verdict where MLflow shows it: the version's tags and page, the runs' numbers, the reports.

    The champion's run gets its numbers of today, so that the two runs compare on one passport.
    """
    from mlflow.entities import RunTag

    own = {VERDICT: report["verdict"], SUMMARY: report["summary"]}
    run_id, champion = report["challenger"]["run_id"], report["champion"]
    with tempfile.TemporaryDirectory(prefix="cgan-") as folder:
        write_json(Path(folder) / GATE_REPORT.name, report)
        write_text(Path(folder) / GATE_TEXT.name, to_markdown(report))
        registry.client.log_artifacts(run_id, folder, GATE_FOLDER)
    measured = {f"gate/{name}": value for name, value in report["measured"].items()}
    registry.log_once(run_id, measured, 0)  # and beside later versions at their numbers
    if champion:
        theirs = {f"gate/{row['metric']}": row["champion"] for row in report["comparison"]}
        registry.log_once(champion["run_id"], theirs, version.number)
    run_tags = [RunTag(key, value[:5000]) for key, value in own.items()]
    run_tags.append(RunTag("gate.version", str(version.number)))
    registry.client.log_batch(run_id, tags=run_tags)
    registry.client.update_model_version(registry.model, str(version.number), version_note(report))
    registry.tag(version.number, {**tags, **own})
