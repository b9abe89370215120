"""Are today's data like those that the champion learnt from, and is it still good on them?

`cgan reevaluate` asks both, and the gate the first where the champion is of other data: today's judge learnt
from today's data, so it would find the drawings of spoilt data good. The measure is what was kept of the
champion when it was registered: its own judge and its training data. Noise raises no alarm: a bar is missed
when the whole 95 % interval is beyond it (the gate asks the reverse), and the limits of drift are far above
what two halves of one data set differ by.
"""

from __future__ import annotations

import functools
import hashlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cgan.data import csv_report, drift
from cgan.data.dataset import Dataset, LabelledImages
from cgan.data.raw import load_raw
from cgan.errors import CganError, DataError, ModelError
from cgan.markdown import table
from cgan.model.file_facts import Facts
from cgan.model.hardware import compute_deterministically
from cgan.model.model_file import load_generator, load_tensors, save_tensors
from cgan.model.sampling import draw
from cgan.params.sections import Params
from cgan.project import CSV, JUDGE, REEVALUATION_REPORT, REEVALUATION_TEXT, VALIDATION
from cgan.quality.comparison import EvaluationSet
from cgan.quality.evaluation import Inputs, classes_asked
from cgan.quality.judge import LOOK_AT, Judge, Progress, load_judge, look, silent
from cgan.quality.metrics import conditional_accuracy, frechet_distance, wilson_interval
from cgan.registry.archive import downloaded, generator_file
from cgan.registry.client import Registry, open_registry
from cgan.registry.decision import bars
from cgan.registry.history import GATE_FOLDER, REEVALUATION, Version, now
from cgan.verdict import Check, Report, as_dicts, table_of

FOLDER = "reevaluation"  # of the run's artifacts
TRAINING_DATA = "training_data.safetensors"
SUMMARIES = {
    "drifted": "The data is no longer like what version {} was trained on: ",
    "degraded": "Version {}, the champion, misses a bar on new data: ",
    "healthy": "Version {}, the champion, is as good as the gate asks, and the data is like its training "
    "data",
}
# Of a class's agreement: less comes by chance, or with a class that is hard to tell.
MAX_CLASS_LOSS = 0.5
KIND = "shape_and_classes"
WORDS = {
    KIND: "kind of image and classes",
    "class_mix": "images that would need another class",
    "pixel_values": "change of brightness, as a part of 0–255",
    "position": "distance that the ink moved, as a part of the image's side",
    "judge_features": "Fréchet distance to the training data, over its floor",
    "label_agreement": "labels that the judge no longer agrees with",
    "class_agreement": "labels of one class that the judge no longer agrees with",
}


def reevaluate(params: Params, say: Callable[[str], None], progress: Progress = silent) -> Report:
    """Judge the champion on data/raw/train.csv; the report, also in reports/reevaluation.json and .md.

    Raises CganError with the summary, when all is written, unless the champion is healthy; and when
    nothing could be judged: no CSV, no champion, its files gone, the store away.
    """
    compute_deterministically()
    csv = load_raw(params.validation)
    with open_registry(params.gate.model) as registry:
        champion = registry.champion_version()
        if champion is None:
            raise ModelError(
                f"`{registry.model}` has no champion yet: `cgan gate` makes the first."
            )
        name, images = f"models:/{registry.model}/{champion.number}", f"{len(csv.labels):,} images"
        say(f"Judging version {champion.number} of `{registry.model}` on {images} of {CSV}.")
        kept = kept_of(registry, champion)
        found = csv_report.report_on(csv, params.validation, str(CSV))
        moved, quality = drift_of_profile(found, kept.profile), list[Check]()
        if moved[0].name != KIND:
            with generator_file(name) as path:
                network, _ = load_generator(path)
            evaluation_set, seen = _evaluation_set_of(kept, csv, params, progress)
            judged = evaluation_set.judge_drawings(
                draw(network, evaluation_set.asked, evaluation_set.seed)
            )
            moved, quality = moved + seen, bars(params.gate, judged, benefit_of_doubt=True)
        report = _report(champion, csv, moved, quality)
        report.write(REEVALUATION_REPORT, REEVALUATION_TEXT)
        tags = {"verdict": report.verdict, "summary": report.summary, "time": report.time}
        registry.tag(champion.number, {REEVALUATION + key: value for key, value in tags.items()})
        for path in (REEVALUATION_REPORT, REEVALUATION_TEXT):
            registry.client.log_artifact(champion.run_id, str(path), FOLDER)
        values = {f"reevaluation/{check.name}": float(check.value) for check in moved + quality}
        registry.log_once(champion.run_id, values, int(time.time() // 86_400))
    report.say(say, REEVALUATION_TEXT)
    if report.verdict != "healthy":
        raise CganError(f"{report.summary} {REEVALUATION_TEXT} has every number.")
    return report


def _evaluation_set_of(
    kept: Kept, csv: LabelledImages, params: Params, progress: Progress
) -> tuple[EvaluationSet, list[Check]]:
    """What the champion is judged on, and what its judge sees in the data."""
    images, labels = torch.from_numpy(csv.images), torch.from_numpy(csv.labels)
    seed, count = params.evaluate.seed, int(kept.facts["heldout_images"])
    chosen = _chosen(images, kept.fingerprints, count, seed)
    bar = functools.partial(progress, "judging the data", images_a_step=LOOK_AT)
    real = look(kept.judge, images[chosen], progress=bar)
    asked = classes_asked(len(real.logits[0]), params.evaluate)
    evaluation_set = EvaluationSet(
        kept.judge, real, labels[chosen], kept.features, asked, seed, progress
    )
    distance = frechet_distance(real.features, kept.features) - float(kept.facts["fid_floor"])
    return evaluation_set, [
        _limit("judge_features", distance, params.reevaluate.max_feature_distance),
        *agreement(
            evaluation_set.agreement.confusion, kept.facts, params.reevaluate.max_agreement_drop
        ),
    ]


def _chosen(images: Tensor, seen_before: Tensor, count: int, seed: int) -> Tensor:
    """Indices of as many images as the floor was measured with: new to the champion where they suffice."""
    fresh = ~torch.isin(fingerprints(images), seen_before)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    if int(fresh.sum()) >= count:
        order = order[fresh[order]]
    return order[:count]


def _report(
    champion: Version, csv: LabelledImages, data: list[Check], quality: list[Check]
) -> Report:
    moved, missed = (
        [check.in_words() for check in checks if not check.passed] for checks in (data, quality)
    )
    verdict = "drifted" if moved else "degraded" if missed else "healthy"
    reasons = [*moved, *missed]
    summary = f"{SUMMARIES[verdict].format(champion.number)}{reasons[0] if reasons else ''}."
    judged = {"path": str(CSV), "sha256": csv.sha256, "images": len(csv.labels)}
    facts: Facts = {"champion": champion.for_report(), "data": judged}
    facts |= {"drift": as_dicts(data), "quality": as_dicts(quality)}
    tables = {"The data": table_of(data)}
    if quality:
        tables["The champion's drawings"] = table_of(quality)
    tables["Judged"] = table(("", ""), [*facts["champion"].items(), *judged.items()])
    return Report("Re-evaluation", verdict, summary, reasons, now(), facts, tables)


# --- for the gate too ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """What the gate kept of a version's training, to judge other data by: the validation report, the judge,
    its features of the training images float32 [N, 128], their fingerprints int64 [M], and facts."""

    profile: dict[str, Any]
    judge: Judge
    features: Tensor
    fingerprints: Tensor
    facts: Facts


def keep_at_run(
    registry: Registry, version: Version, evaluation_set: EvaluationSet, inputs: Inputs
) -> None:
    """Store at the run what `kept_of` reads."""
    tensors = {
        "features": evaluation_set.floor,
        "fingerprints": fingerprints(inputs.training.images),
    }
    facts = {
        "agreement": evaluation_set.agreement.overall,
        "agreement_by_class": evaluation_set.agreement.by_class,
        "fid_floor": evaluation_set.fid_floor.value,
        "heldout_images": len(inputs.heldout),
    }
    with tempfile.TemporaryDirectory(prefix="cgan-") as folder:
        save_tensors(Path(folder) / TRAINING_DATA, "training_data", tensors, facts)
        for path in (JUDGE, VALIDATION, Path(folder) / TRAINING_DATA):
            registry.client.log_artifact(version.run_id, str(path), GATE_FOLDER)


def kept_of(registry: Registry, version: Version) -> Kept:
    """Raises ModelError when it is gone or damaged, or the store cannot give it."""
    address = f"runs:/{version.run_id}/{GATE_FOLDER}"
    advice = (
        "Restore the store's files, or train again: `dvc repro --force train`, then `cgan gate`, which "
        "keeps them for each version that it registers."
    )
    with downloaded(registry, address, advice) as folder:
        try:
            judge, _ = load_judge(folder / JUDGE.name)
            tensors, facts = load_tensors(folder / TRAINING_DATA, "training_data")
            profile = drift.load_report(folder / VALIDATION.name)
        except CganError as error:  # its advice fits a file of the project only
            reason = str(error).replace(f"{folder}/", "").split(". ")[0].rstrip(".")
            raise ModelError(f"{address}: missing or damaged ({reason}). {advice}") from None
        return Kept(profile, judge, tensors["features"], tensors["fingerprints"], facts)


def fingerprints(images: Tensor) -> Tensor:
    """64 bits an image: int64 [N]. Equal images have equal ones."""
    hashes = [
        int.from_bytes(hashlib.blake2b(image.tobytes(), digest_size=8).digest(), signed=True)
        for image in images.numpy()
    ]
    return torch.tensor(hashes, dtype=torch.int64)


def about_other_data(
    registry: Registry,
    champion: Version,
    heldout: Dataset,
    validation: dict[str, Any],
    params: Params,
) -> tuple[list[str], list[str]]:
    """What speaks against today's data, and what a reader should know of a champion of other data."""
    doubts = []
    try:
        kept = kept_of(registry, champion)
    except ModelError as error:
        if params.gate.on_drift == "block":
            raise ModelError(
                f"whether the data are like the champion's is not known: {error} Or set `gate.on_drift: "
                "note`, if you know that they are right."
            ) from None
        known = f"an unknown part ({error})"
    else:
        seen = look(kept.judge, heldout.images).classes
        confusion = conditional_accuracy(seen, heldout.labels, heldout.classes).confusion
        checks = drift_of_profile(validation, kept.profile)
        checks += agreement(confusion, kept.facts, params.reevaluate.max_agreement_drop)
        if signs := "; ".join(check.in_words() for check in checks if not check.passed):
            doubts.append(
                "images or labels are no longer like what the champion was trained on "
                f"({signs}). Look at them. If they are right, set `gate.on_drift: note` and run `cgan gate` "
                "again; another data set needs a name of its own: `gate.model`"
            )
        known = f"{int(torch.isin(fingerprints(heldout.images), kept.fingerprints).sum()):,}"
    return doubts, [
        f"the champion, version {champion.number}, was trained on other data; both were judged with today's "
        f"judge and hold-out, of whose {len(heldout):,} images {known} were among its training images"
    ]


def drift_of_profile(found: dict[str, Any], known: dict[str, Any]) -> list[Check]:
    """The statistics of two validation reports; one check alone where they are of different kinds."""
    try:
        distances = drift.distances(found, known)
    except DataError as error:
        return [_limit(KIND, 1.0, 0.0, str(error))]
    return [_limit(name, value, drift.DRIFT_LIMITS[name]) for name, value in distances.items()]


def agreement(confusion: Tensor, known: Facts, max_drop: float) -> list[Check]:
    """How much less the champion's judge agrees with labels than with those of its own hold-out: in all, and
    in the class where it fell furthest, as a part of what it was. Today's agreement is taken at the upper
    end of its 95 % interval, so that a few images prove nothing.

    `confusion` int64 [classes, classes]: images by label and by what the judge sees. `known`: what was
    kept of it.
    """
    right, images = confusion.diagonal().tolist(), confusion.sum(dim=1).tolist()
    before = float(known["agreement"])
    drop = max(0.0, before - wilson_interval(sum(right), sum(images))[1])
    losses = {
        label: max(0.0, 1 - wilson_interval(right[label], images[label])[1] / was)
        for label, was in enumerate(known["agreement_by_class"])
        if images[label] and was
    }
    seen_as = []
    for label in sorted(losses, key=lambda label: -losses[label])[:5]:
        count, other = confusion[label].max(dim=0)
        if losses[label] > MAX_CLASS_LOSS:
            part = f"{100 * int(count) / images[label]:.0f} %"
            seen_as.append(
                f"{int(other)} in {part} of the {images[label]:,} images labelled {label}"
            )
    why = (
        f"the champion's judge agrees with {100 * sum(right) / sum(images):.1f} % of the labels, and did "
        f"with {100 * before:.1f} % of those of its own hold-out"
    )
    sees = f"the champion's judge sees {', '.join(seen_as)}"
    return [
        _limit("label_agreement", drop, max_drop, why),
        _limit("class_agreement", max(losses.values()), MAX_CLASS_LOSS, sees),
    ]


def _limit(name: str, value: float, limit: float, why: str = "") -> Check:
    """A measure of drift. `why` stands where the limit is passed."""
    passed = value <= limit
    return Check(name, WORDS[name], value, limit, passed, at_most=True, why="" if passed else why)
