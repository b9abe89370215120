"""`cgan gate`: register the trained generator, judge it beside the champion, promote or block it.

No DVC stage: the answer depends on who is champion, which no file of the project says. It can be killed at
any moment and started again: one run has one version, one version is promoted once, and a verdict
that stands is told again ("unchanged").
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cgan.data import csv_report
from cgan.data.dataset import Dataset
from cgan.errors import CganError, DataError, ModelError
from cgan.files import sha256_of, write_json, write_text
from cgan.model.hardware import compute_deterministically
from cgan.model.model_file import load_generator, load_tensors, save_tensors
from cgan.model.sampling import draw
from cgan.params.sections import Params
from cgan.project import (
    EVALUATION,
    GENERATOR,
    HOLDOUT_DATA,
    JUDGE,
    RUN_REFERENCE,
    TRAIN_DATA,
    VALIDATION,
)
from cgan.quality.comparison import REPLICATES, Ground, Judged, ground_of
from cgan.quality.evaluation import COPIES_SAMPLE, Inputs, near_copies, passport
from cgan.quality.judge import look
from cgan.registry.client import (
    ROLLED_BACK,
    SUMMARY,
    VERDICT,
    Registry,
    Version,
    generator_file,
    open_registry,
)
from cgan.registry.decision import Loaded, Share, decide
from cgan.registry.gate_report import headline, history_reason, to_markdown, version_note
from cgan.registry.load_check import drawing_apart, labels_for
from cgan.tracking.delivery import RUN_KEY_TAG, flush_one, waiting_journals
from cgan.tracking.journal import count_waiting, journals, project_root

REPORT, REPORT_TEXT = Path("reports/gate.json"), Path("reports/gate.md")
FOLDER = "gate"  # of the run's artifacts
TRAINING_DATA = "training_data.safetensors"
DELIVERY_S = 60
AGAINST = "gate.against"
DIGEST, DATA, COMMIT = "generator.digest", "data.sha256", "git.commit"

Say = Callable[[str], None]
Report = dict[str, Any]


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


def gate(params: Params, say: Say) -> Report:
    """Judge what the stages made; returns the report, also in reports/gate.json and .md.

    Raises CganError when nothing could be decided: nothing trained, the store away, another promotion
    in between. Then nothing is promoted, and a second call goes on from there.
    """
    compute_deterministically()
    inputs = _Inputs.load()
    reference = _reference()
    _deliver(reference, say)
    with open_registry(params.gate.model) as registry:
        run = _run(registry, reference)
        twin = _twin(registry, run.info.run_id, inputs)
        if twin:
            return _tell(
                _standing(registry, twin, run, "the weights are the champion's, bit by bit"), say
            )
        version, new = registry.register(run.info.run_id, _facts_of(run, inputs))
        state = "registered" if new else "is registered"
        say(f"Version {version.number} of `{registry.model}` {state}: {run.info.run_name}.")
        champion = _champion(registry)
        circumstances = _circumstances(params, inputs)
        stands = _stands(version, champion, circumstances, params)
        if stands:
            return _tell(_standing(registry, version, run, stands), say)
        report = _judge(registry, version, run, champion, inputs, params, say)
        tags = {AGAINST: _against(champion, circumstances)}
        _record(registry, version, report, tags)
        if report["verdict"] == "passed" and params.gate.promote:
            before = champion.number if champion else None
            registry.promote(version.number, instead_of=before, why=history_reason(report))
            report |= {"verdict": "promoted", "promoted_from": before}
            report["summary"] = headline(report)
            _record(registry, version, report, tags)
        return _tell(report, say)


def _tell(report: Report, say: Say) -> Report:
    write_json(REPORT, report)
    write_text(REPORT_TEXT, to_markdown(report))
    say("")
    say(f"{report['verdict'].upper()}: {report['summary']}")
    for reason in report["reasons"]:
        say(f"  - {reason}")
    say(f"  {REPORT_TEXT} has every number.")
    return report


def _reference() -> dict[str, str]:
    """What the stage train wrote down of its run."""
    try:
        known = json.loads(RUN_REFERENCE.read_text())
        reference = {key: str(known[key]) for key in ("run_key", "experiment", "tracking_uri")}
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelError(
            f"{RUN_REFERENCE}: names no MLflow run. Train first: `dvc repro`."
        ) from None
    if not reference["run_key"].isalnum():
        raise ModelError(f"{RUN_REFERENCE}: its run key leads outside. Restore it: `dvc checkout`.")
    return reference


def _deliver(reference: dict[str, str], say: Say) -> None:
    """This training's journal, also while another process is at it. Others' are named, and no matter."""
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


def _run(registry: Registry, reference: dict[str, str]) -> Any:
    """The run that trained what lies in models/. Raises ModelError when they don't belong together."""
    run_key, experiment = reference["run_key"], reference["experiment"]
    found = registry.client.get_experiment_by_name(experiment)
    runs: list[Any] = []
    if found:
        runs = registry.client.search_runs(
            [found.experiment_id], f"tags.`{RUN_KEY_TAG}` = '{run_key}'", max_results=1
        )
    if not runs:
        raise ModelError(
            f"the store {registry.shown} has no run with the key {run_key}, which trained "
            f"{GENERATOR}; it was recorded in {reference['tracking_uri']}. Set MLFLOW_TRACKING_URI to "
            "that store, or train again: `dvc repro --force train`."
        )
    [run] = runs
    if run.data.tags.get("cgan.generator_sha256") != sha256_of(GENERATOR):
        raise ModelError(
            f"{GENERATOR} is not what run {run.info.run_id} trained. Restore both with `dvc checkout`, "
            "or train again: `dvc repro --force train`."
        )
    return run


def _facts_of(run: Any, inputs: _Inputs) -> dict[str, str]:
    """What a version says of its making."""
    tags = {
        DIGEST: inputs.facts["digest"],
        DATA: str(inputs.facts["data_sha256"]),
        COMMIT: run.data.tags.get("mlflow.source.git.commit", ""),
        "run.name": run.info.run_name,
        "prefect.flow_run_id": run.data.tags.get("prefect.flow_run_id", ""),
    }
    return {key: value for key, value in tags.items() if value}


def _champion(registry: Registry) -> Version | None:
    number = registry.champion()
    return None if number is None else registry.version(number)


def _twin(registry: Registry, run_id: str, inputs: _Inputs) -> Version | None:
    """The champion, when another run trained the very same weights."""
    champion = _champion(registry)
    if (
        champion
        and champion.run_id != run_id
        and champion.tags.get(DIGEST) == inputs.facts["digest"]
    ):
        return champion
    return None


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
    """What a verdict holds for: this champion, this ground."""
    return f"{'none' if champion is None else f'version {champion.number}'} · {circumstances}"


def _stands(version: Version, champion: Version | None, circumstances: str, params: Params) -> str:
    """Why the verdict of before stands; empty when the version has to be judged."""
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


def _standing(registry: Registry, version: Version, run: Any, why: str) -> Report:
    """The report of a verdict that stands, with the numbers of then where the store has them."""
    report: Report = {
        "checks": [],
        "comparison": [],
        "challenger": named(version),
        "champion": None,
        "promoted_from": None,
        "passport": {},
    }
    with contextlib.suppress(Exception), tempfile.TemporaryDirectory() as folder:
        path = registry.client.download_artifacts(version.run_id, f"{FOLDER}/{REPORT.name}", folder)
        kept = json.loads(Path(path).read_text())
        to_markdown(report | kept | {"measured": dict(kept["measured"])})  # can it be told?
        report |= kept
    if version.verdict == "passed" and "champion" in version.aliases:  # killed before it was told
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
) -> Report:
    """Both generators on one ground, the load check beside it, the decision."""
    seed, samples = params.evaluate.seed, params.evaluate.samples
    labels = labels_for(inputs.training.classes)
    address = f"models:/{registry.model}/{version.number}"
    say(f"Loading {address} in a process of its own, which has to draw {len(labels)} images.")
    with drawing_apart(registry.uri, address, labels, seed) as apart:
        ground = ground_of(inputs, params.evaluate)
        _keep(registry, version, ground, inputs, say)
        say(f"Drawing {samples:,} images, {samples // inputs.training.classes:,} of each class.")
        challenger = ground.judge_drawings(draw(inputs.network, ground.asked, seed))
        near = _copies(inputs, params, say)
        former = _Former()
        if champion:
            say(f"The same with the champion, version {champion.number}.")
            former = _judge_champion(registry, champion, ground, inputs, params.gate.on_drift)
        loaded = _loaded(apart.drawings(), inputs, labels, seed)
    decision = decide(
        params.gate,
        challenger,
        near,
        Share(ground.agreed, len(inputs.heldout)),
        loaded,
        former.judged,
        former.objections,
    )
    report: Report = {
        "verdict": "passed" if decision.passed else "blocked",
        "summary": "",
        "reasons": [*decision.reasons, *former.notes],
        **decision.to_json(),
        "measured": {name: each.value for name, each in challenger.metrics.items()},
        "challenger": named(version),
        "champion": named(champion) if champion else None,
        "promoted_from": None,
        "passport": _passport(ground, inputs, params),
        "time": now(),
    }
    report["summary"] = headline(report)
    return report


@dataclass(frozen=True)
class _Former:
    """What the champion gets today; `notes` to know, `objections` that stand in the way."""

    judged: Judged | None = None
    notes: tuple[str, ...] = ()
    objections: tuple[str, ...] = ()


def _judge_champion(
    registry: Registry, champion: Version, ground: Ground, inputs: _Inputs, on_drift: str
) -> _Former:
    name = f"the champion, version {champion.number},"
    try:
        with generator_file(f"models:/{registry.model}/{champion.number}") as path:
            network, facts = load_generator(path)
    except CganError as error:
        return _Former(notes=(f"{name} cannot be read, so the bars alone decided: {error}",))
    ours, theirs = inputs.network.architecture, network.architecture
    kinds = [(a.classes, a.channels, a.height, a.width) for a in (ours, theirs)]
    if kinds[0] != kinds[1]:
        objection = (
            f"{name} draws {_kind(kinds[1])}, this one {_kind(kinds[0])}: they cannot be compared. "
            "If that is meant, promote it by hand with cgan registry promote"
        )
        return _Former(objections=(objection,))
    judged = ground.judge_drawings(draw(network, ground.asked, ground.seed))
    notes: list[str] = []
    objections: list[str] = []
    if facts.get("data_digest") != inputs.facts["data_digest"]:
        seen = _seen_by(registry, champion, inputs.heldout)
        known = "an unknown part" if seen is None else f"{seen:,}"
        notes.append(
            f"{name} was trained on other data; both were judged with today's judge and hold-out, of "
            f"whose {len(inputs.heldout):,} images {known} were among its training images"
            f"{', which favours it' if seen is None or seen else ''}"
        )
        moved = _drift_from(registry, champion, inputs.validation)
        (objections if on_drift == "block" else notes).extend(moved)
    return _Former(judged, tuple(notes), tuple(objections))


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


def _seen_by(registry: Registry, champion: Version, heldout: Dataset) -> int | None:
    """How many of the held-out images the champion was trained with; None where its run doesn't say."""
    try:
        _, known = training_data_of(registry, champion)
    except CganError:
        return None
    return int(torch.isin(fingerprints(heldout.images), known).sum())


def training_data_of(registry: Registry, version: Version) -> tuple[Tensor, Tensor]:
    """What was kept of a version's training data: features float32 [N, 128], fingerprints int64 [M]."""
    with kept_file(registry, version, TRAINING_DATA) as path:
        tensors, _ = load_tensors(path, "training_data")
    return tensors["features"], tensors["fingerprints"]


def kept_profile(registry: Registry, version: Version) -> Report:
    """The validation report of a version's data, as it was kept."""
    with kept_file(registry, version, VALIDATION.name) as path:
        return csv_report.load_report(path)


@contextlib.contextmanager
def kept_file(registry: Registry, version: Version, name: str) -> Iterator[Path]:
    """A file that `cgan gate` kept at the version's run. Raises ModelError when it is gone or damaged."""
    shown = f"{FOLDER}/{name} of run {version.run_id}"
    with tempfile.TemporaryDirectory(prefix="cgan-") as folder:
        try:
            yield Path(
                registry.client.download_artifacts(version.run_id, f"{FOLDER}/{name}", folder)
            )
        except CganError as error:  # of the reader, whose advice is for a file of the project
            reason = str(error).replace(f"{folder}/", "").split(". ")[0].rstrip(".")
            raise ModelError(
                f"{shown} is damaged ({reason}). Restore the store's files from a backup, or train again: "
                "`dvc repro --force train`, `cgan gate`."
            ) from None
        except Exception as error:  # the stores let through what their clients raise
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise ModelError(
                f"{shown} cannot be read ({reason}): version {version.number} was registered "
                "without `cgan gate`, or its files are gone."
            ) from None


def fingerprints(images: Tensor) -> Tensor:
    """64 bits an image: int64 [N]. Equal images have equal ones."""
    hashes = [
        int.from_bytes(hashlib.blake2b(image.tobytes(), digest_size=8).digest(), signed=True)
        for image in images.numpy()
    ]
    return torch.tensor(hashes, dtype=torch.int64)


def _keep(registry: Registry, version: Version, ground: Ground, inputs: _Inputs, say: Say) -> None:
    """What a later re-evaluation needs, at the run: judge, data profile, features of the training data."""
    kept = {file.path for file in registry.client.list_artifacts(version.run_id, FOLDER)}
    if f"{FOLDER}/{TRAINING_DATA}" in kept:  # the last one of them; a kill may have cut it off
        with contextlib.suppress(CganError):
            training_data_of(registry, version)
            return
    say("Keeping the judge and a profile of the training data at the run.")
    with tempfile.TemporaryDirectory(prefix="cgan-") as folder:
        tensors = {
            "features": ground.floor,
            "fingerprints": fingerprints(inputs.training.images),
        }
        facts = {
            "judge_digest": inputs.judge_digest,
            "data_digest": inputs.training.metadata["digest"],
            "agreement": ground.agreed / len(inputs.heldout),
            "fid_floor": ground.fid_floor.value,
            "heldout_images": len(inputs.heldout),
        }
        save_tensors(Path(folder) / TRAINING_DATA, "training_data", tensors, facts)
        for path in (JUDGE, VALIDATION, Path(folder) / TRAINING_DATA):
            registry.client.log_artifact(version.run_id, str(path), FOLDER)


def _copies(inputs: _Inputs, params: Params, say: Say) -> Share:
    """Of the drawings, those near a training image: evaluate's number where it is of this generator."""
    count = min(COPIES_SAMPLE, params.evaluate.samples)
    seed = params.evaluate.seed
    with contextlib.suppress(
        OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError
    ):
        report = json.loads(EVALUATION.read_text())
        wanted = {
            "generator_digest": inputs.facts["digest"],
            "reference_digest": inputs.heldout.metadata["digest"],
            "drawn_images": params.evaluate.samples,
            "seed": seed,
        }
        closer = float(report["copies"]["closer_than_1_percent_of_heldout"])
        if wanted.items() <= report["passport"].items() and 0 <= closer <= 1:
            return Share(round(closer * count), count)
    say("Looking for the training image nearest to each drawing.")
    asked = torch.arange(count) % inputs.training.classes
    drawn = draw(inputs.network, asked, seed)
    found = near_copies(drawn, inputs.training, inputs.heldout, seed)
    return Share(round(found.closer * count), count)


def _loaded(drawn: Tensor | str, inputs: _Inputs, labels: list[int], seed: int) -> Loaded:
    """Was it what the file draws, and of the classes asked for?"""
    if isinstance(drawn, str):
        return Loaded(problem=drawn)
    asked = torch.tensor(labels)
    expected = draw(inputs.network, asked, seed)
    if drawn.shape != expected.shape or not torch.equal(drawn, expected):
        return Loaded(problem=f"its drawings are not those of {GENERATOR}")
    right = look(inputs.judge, drawn).classes == asked
    return Loaded(right=Share(int(right.sum()), len(labels)))


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
        write_json(Path(folder) / REPORT.name, report)
        write_text(Path(folder) / REPORT_TEXT.name, to_markdown(report))
        registry.client.log_artifacts(run_id, folder, FOLDER)
    measured = {f"gate/{name}": value for name, value in report["measured"].items()}
    registry.log_once(run_id, measured, version.number)
    if champion:
        theirs = {f"gate/{row['metric']}": row["champion"] for row in report["comparison"]}
        registry.log_once(champion["run_id"], theirs, version.number)
    run_tags = [RunTag(key, value[:5000]) for key, value in own.items()]
    run_tags.append(RunTag("gate.version", str(version.number)))
    registry.client.log_batch(run_id, tags=run_tags)
    registry.client.update_model_version(registry.model, str(version.number), version_note(report))
    registry.tag(version.number, {**tags, **own})


def named(version: Version) -> dict[str, Any]:
    """A version, as the reports name it."""
    return {
        "version": version.number,
        "run_id": version.run_id,
        "run_name": version.tags.get("run.name", ""),
        "digest": version.tags.get(DIGEST, ""),
        "data_sha256": version.tags.get(DATA, ""),
        "commit": version.tags.get(COMMIT, ""),
    }


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
