"""Both generators before one judge; and today's data beside those that the champion learnt from.

Today's judge learnt from today's data: it finds the drawings of spoilt data good and those of a good
champion bad. So data are measured by what was kept when the champion was registered: how the images of each
class looked, its own judge, and what that saw in its hold-out.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cgan.downstream.attacker import Attacker, drawings_to_attack
from cgan.downstream.membership import Attack
from cgan.errors import CganError, ModelError
from cgan.evaluation import Evaluation
from cgan.markdown import table
from cgan.model.file_facts import Facts
from cgan.model.generative import GenerativeModel
from cgan.model.hardware import compute_deterministically
from cgan.model.model_file import load_generator, load_tensors, save_tensors
from cgan.params.sections import GateParams, Params
from cgan.pipeline.inputs import Inputs
from cgan.pipeline.registry.client import GATE_FOLDER, Registry, Version, downloaded, generator_file
from cgan.pipeline.registry.decision import (
    Appearance,
    agreement_checks,
    class_mix_check,
    decide,
    shift_check,
)
from cgan.project import GENERATOR, JUDGE
from cgan.quality.class_shift import Moments, largest_shifts
from cgan.quality.conditions import Conditions
from cgan.quality.estimates import REPLICATES
from cgan.quality.judge import Judge, load_judge, look
from cgan.quality.metrics import conditional_accuracy
from cgan.quality.outliers import Samples, outliers
from cgan.verdict import Check, Report, table_of

DATA = "training_data.safetensors"
CHAMPION_ADVICE = (
    "bring back the previous champion (`cgan registry rollback --why …`), or delete the alias `champion` in "
    "MLflow, so that the next `cgan gate` chooses a first champion"
)
MAX_JUDGED = 5000  # images, at most, that the champion's judge sees


@dataclass(frozen=True)
class GateSetup:
    """How a challenger is judged: its inputs, the champion, and the conditions under which both are
    measured."""

    inputs: Inputs
    conditions: Conditions
    champion: GenerativeModel | None = None
    data_warning: str = ""  # why today's data may be wrong
    note: str = ""  # for the report, where the champion was trained on other data


def prepare(registry: Registry, champion: Version | None, params: Params) -> GateSetup:
    """Raises DataError or ModelError for a file that is damaged or of another training, and for a champion
    that cannot be read, or draws something else than what was trained now."""
    compute_deterministically()
    inputs = Inputs.load(params.train.device)
    if champion is None:
        return GateSetup(inputs, _conditions(inputs, params))
    name = f"the champion of `{registry.model}`, version {champion.number},"
    try:
        with generator_file(f"models:/{registry.model}/{champion.number}") as path:
            model, facts = load_generator(path)
    except ModelError as error:
        raise ModelError(
            f"{name} cannot be read, so nothing was promoted in its place: {error} If its file is lost, "
            f"{CHAMPION_ADVICE}."
        ) from None
    other_data = facts.get("data_digest") != inputs.facts["data_digest"]
    drawn = _what_it_draws(inputs.model, inputs.facts, named=other_data)
    drawn_before = _what_it_draws(model, facts, named=other_data)
    if drawn != drawn_before:
        raise ModelError(
            f"{GENERATOR} draws {drawn}, but {name} draws {drawn_before}. Generators of different classes or "
            "sizes cannot share a model's name: set `gate.model` in params.yaml to another name."
        )
    model = model.to(inputs.model.device)
    conditions = _conditions(inputs, params, model)
    if not other_data:
        return GateSetup(inputs, conditions, model)
    note = (
        f"the champion, version {champion.number}, was trained on other data; both were judged with today's "
        "judge and hold-out, part of which the champion may have been trained on"
    )
    warnings = []
    for version, owner in _accepted_versions(registry, champion):
        try:
            reference = Reference.of(registry, version)
        except ModelError as error:
            raise ModelError(f"cannot tell whether the data are like {owner}: {error}") from None
        checks = data_checks(reference, inputs, params.gate, owner)
        if signs := "; ".join(check.in_words() for check in checks if not check.passed):
            warnings.append(f"the images or labels are unlike {owner} ({signs})")
    return GateSetup(inputs, conditions, model, warnings[0] if warnings else "", note)


def _conditions(
    inputs: Inputs, params: Params, champion: GenerativeModel | None = None
) -> Conditions:
    """Those of the stage `evaluate` for its first set of drawings; fewer are drawn where one takes long."""
    once = params.evaluate.model_copy(update={"draws": 1, "gan_train_kimg": 0.0})
    models = [inputs.model, champion] if champion else [inputs.model]
    return Conditions.of(inputs.judge, inputs.train, inputs.held_out, once, models)


def _accepted_versions(registry: Registry, champion: Version) -> list[tuple[Version, str]]:
    """The versions with whose data today's are compared, each with its name for a sentence: the champion, so
    that data cannot change much in one night; and the version that a person accepted last, so that they
    cannot drift as far over many nights."""
    found = [(champion, "the champion's")]
    known = {version.number: version for version in registry.versions()}
    if champion.data_accepted_in != champion.number and champion.data_accepted_in in known:
        found.append((known[champion.data_accepted_in], f"version {champion.data_accepted_in}'s"))
    return found


def _what_it_draws(model: GenerativeModel, facts: Facts, *, named: bool) -> str:
    (channels, height, width), names = model.shape, facts.get("class_names") if named else None
    words = f"{model.classes} classes of {height} × {width} × {channels}"
    return f"{words} ({', '.join(names)})" if names else words


def judge(report: Report, setup: GateSetup, params: Params) -> str:
    """Evaluate both generators under the same conditions: the verdict, `passed` or `blocked`. Reasons,
    numbers and tables go into the report."""
    conditions = setup.conditions
    drawn = setup.inputs.model.draw(conditions.asked, conditions.params.seed)
    seen = look(conditions.judge, drawn)
    challenger, champion = conditions.measure([drawn], predictions=[seen]), None
    if setup.champion:
        drawn_before = setup.champion.draw(conditions.asked, conditions.params.seed)
        champion = conditions.measure([drawn_before])
        report.facts["champion_measured"] = _values(champion)
    appearance = appearance_of(drawn, seen.features, conditions)
    attack = _attack(setup.inputs, params) if params.gate.max_membership_auc else None
    decision = decide(challenger, champion, appearance, params.gate, attack)
    context = conditions.context(str(setup.inputs.facts["digest"])) | {"replicates": REPLICATES}
    report.facts |= {
        "checks": [asdict(check) for check in decision.checks],
        "comparison": [asdict(check) for check in decision.comparison],
        "measured": _values(challenger),
        "measurement_context": context,
    }
    if champion:
        report.sections["Beside the champion"] = table_of(decision.comparison)
    report.sections["Limits"] = table_of(decision.checks)
    report.sections["Measured with"] = table(("", ""), context.items())
    report.reasons = [*decision.reasons, *report.reasons]
    return decision.verdict


def _attack(inputs: Inputs, params: Params) -> Attack:
    """A membership inference attack by the pixels of the drawings alone."""
    train, seed = inputs.train, params.evaluate.seed
    drawn = drawings_to_attack(inputs.model, train, seed)
    attacker = Attacker.of(train, inputs.held_out, seed)
    return attacker.on_drawings(attacker.by_pixels(drawn), drawn, pretrained=False)[0]


def _values(evaluation: Evaluation) -> dict[str, float]:
    return {
        key: score.value for key, score in evaluation.metrics.items() if score.value is not None
    }


def appearance_of(drawn: Tensor, features: Tensor, conditions: Conditions) -> Appearance:
    """How drawings uint8 [N, C, H, W] of the classes `asked` look beside real images; `features` [N, 128]: in
    the judge's eyes."""
    against, shape, classes = conditions.against, drawn.shape[1:], conditions.train.classes
    (pixels, labels, _), held_out = conditions.train.tensors, conditions.held_out.tensors
    drawings = Samples.of(drawn, features, conditions.asked)
    real = Samples.of(pixels, against.trained, labels)
    unseen = Samples.of(held_out.pixels, against.real.features, held_out.labels)
    of_drawn, of_real = (
        Moments.of([each.looks], each.labels, classes) for each in (drawings, real)
    )
    found = outliers(drawings, real, against.trained_labels, unseen, shape, classes)
    return Appearance(largest_shifts(of_drawn, of_real, shape), found)


# -- What is kept of a version to compare later data with ----------------------------------------------


@dataclass(frozen=True)
class Reference:
    """How the images of a version's CSV looked, its judge and what that saw in the hold-out, and the
    fingerprints int64 [N] of those images."""

    looks: Moments
    seen: Moments
    right: Tensor  # int64 [classes]: held-out images whose label the judge named
    fingerprints: Tensor
    judge: Judge

    @classmethod
    def of(cls, registry: Registry, version: Version) -> Reference:
        """Raises ModelError when it is gone, damaged or of an older cgan, or the store cannot give it."""
        address = f"runs:/{version.run_id}/{GATE_FOLDER}"
        advice = f"If the store's files are lost, {CHAMPION_ADVICE}."
        with downloaded(registry, address, advice) as folder:
            try:
                judge, _ = load_judge(folder / JUDGE.name)
                kept, _ = load_tensors(folder / DATA, "training_data")
                looks, seen = (
                    Moments(*(kept[f"{name}.{key}"] for key in ("counts", "means", "variances")))
                    for name in ("looks", "seen")
                )
                return cls(looks, seen, kept["right"], kept["fingerprints"], judge)
            except (CganError, KeyError) as error:  # its advice fits a file of the project only
                reason = str(error).replace(f"{folder}/", "").split(". ")[0].rstrip(".")
                raise ModelError(f"{address}: missing or damaged ({reason}). {advice}") from None


def keep_at_run(registry: Registry, version: Version, setup: GateSetup) -> None:
    """Store at the run what `Reference.of` reads."""
    (images, labels), heldout = _all_images(setup.inputs), setup.inputs.held_out
    against = setup.conditions.against
    real = against.real
    looks = Moments.of_images(images, labels, heldout.classes)
    seen = Moments.of([real.features], heldout.tensors.labels, heldout.classes)
    tensors = {
        **{f"looks.{key}": value for key, value in vars(looks).items()},
        **{f"seen.{key}": value for key, value in vars(seen).items()},
        "right": against.agreement.confusion.diagonal(),
        "fingerprints": _fingerprints(images, labels),
    }
    with tempfile.TemporaryDirectory(prefix="cgan-") as folder:
        save_tensors(Path(folder) / DATA, "training_data", tensors, {})
        for path in (JUDGE, Path(folder) / DATA):
            registry.client.log_artifact(version.run_id, str(path), GATE_FOLDER)


def data_checks(
    reference: Reference, inputs: Inputs, limits: GateParams, owner: str = "the champion's"
) -> list[Check]:
    """Today's images and labels beside those of the champion, or of the version that `owner` names, class by
    class.

    Images that it did not have under the same label are new. They are also checked by themselves, since a few
    would not show among many; and its judge sees only these."""
    images, labels = _all_images(inputs)
    shape, classes, names = images.shape[1:], inputs.held_out.classes, inputs.held_out.class_names
    new = (~torch.isin(_fingerprints(images, labels), reference.fingerprints)).nonzero()[:, 0]
    shifts = largest_shifts(Moments.of_images(images, labels, classes), reference.looks, shape)
    counts = labels.bincount(minlength=classes).double()
    checks = [class_mix_check(counts, reference.looks.counts, _images_of_a_group(inputs))]
    if len(new):
        fresh = Moments.of_images(images[new], labels[new], classes)
        new = new[torch.randperm(len(new), generator=torch.Generator().manual_seed(0))][:MAX_JUDGED]
        seen = look(reference.judge, images[new])
        shifts += largest_shifts(fresh, reference.looks, shape)
        shifts += largest_shifts(Moments.of([seen.features], labels[new], classes), reference.seen)
        confusion = conditional_accuracy(seen.classes, labels[new], classes).confusion
        total = reference.seen.counts.long()
        checks += agreement_checks(
            confusion, reference.right, total, limits.max_agreement_drop, names, owner
        )
    what = f"standard deviations by which a class's images differ from {owner}"
    return [shift_check("class_shift", what, shifts, limits.max_class_shift, names), *checks]


def _images_of_a_group(inputs: Inputs) -> float:
    """The size of an image's group, mean over the images; 1 without groups. A group is never split, so each
    part can be counted by itself."""
    groups = [part.groups for part in (inputs.train, inputs.held_out) if part.groups is not None]
    sizes = [np.unique(each, return_counts=True)[1] for each in groups]
    return float(np.square(np.concatenate(sizes)).sum() / sum(map(np.sum, sizes))) if sizes else 1.0


def _fingerprints(images: Tensor, labels: Tensor) -> Tensor:
    """A hash of each image with its label: int64 [N]. Equal images with equal labels have equal hashes."""
    pairs = zip(images.numpy(), labels.tolist(), strict=True)
    digests = (
        hashlib.blake2b(image.tobytes(), digest_size=8, salt=b"%d" % label).digest()
        for image, label in pairs
    )
    return torch.tensor([int.from_bytes(d, signed=True) for d in digests], dtype=torch.int64)


def _all_images(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """All images and labels of the CSV."""
    parts = (inputs.train, inputs.held_out)
    pixels, labels, _ = zip(*(part.tensors for part in parts), strict=True)
    return torch.cat(pixels), torch.cat(labels)
