"""How a challenger is judged: both generators before one judge, if today's data are like the champion's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from torch import Tensor

from cgan.attacks.attacker import Attacker, drawings_to_attack
from cgan.attacks.membership import AttackResult
from cgan.errors import ModelError
from cgan.evaluation import Evaluation
from cgan.markdown import table
from cgan.model.file_facts import Facts
from cgan.model.generative import GenerativeModel
from cgan.model.hardware import compute_deterministically
from cgan.model.model_file import load_generator
from cgan.params.sections import Params
from cgan.pipeline.inputs import Inputs
from cgan.pipeline.registry.client import Registry, generator_file
from cgan.pipeline.registry.data_checks import data_checks
from cgan.pipeline.registry.decision import Appearance, decide
from cgan.pipeline.registry.kept_data import CHAMPION_ADVICE, KeptData
from cgan.pipeline.registry.version import Version
from cgan.project import GENERATOR
from cgan.quality.class_shift import Moments, largest_shifts
from cgan.quality.conditions import Conditions
from cgan.quality.estimates import REPLICATES
from cgan.quality.judge import predict
from cgan.quality.outliers import Samples, outliers
from cgan.verdict import Check, Report, table_of


@dataclass(frozen=True)
class GateSetup:
    """The inputs of both generators, and the conditions under which they are measured. `champion`: None where
    there is none yet."""

    inputs: Inputs
    conditions: Conditions
    champion: GenerativeModel | None = None
    data_checks: Sequence[Check] = ()  # of today's data, where the champion was trained on others
    data_warning: str = ""  # why today's data may be wrong
    note: str = ""  # for the report, where the champion was trained on other data


def prepare(registry: Registry, champion: Version | None, params: Params) -> GateSetup:
    """Load what the gate needs, and compare today's data with the champion's.

    Raises DataError or ModelError for a file that is damaged or of another training, and for a champion that
    cannot be read, or draws something else than what was trained now.
    """
    compute_deterministically()
    inputs = Inputs.load(params.train.device)
    if champion is None:
        return GateSetup(inputs, _conditions(inputs, params))
    model, facts = _load_champion(registry, champion)
    has_other_data = facts.get("data_digest") != inputs.facts["data_digest"]
    drawn = _classes_in_words(inputs.model, inputs.facts, named=has_other_data)
    drawn_by_champion = _classes_in_words(model, facts, named=has_other_data)
    if drawn != drawn_by_champion:
        raise ModelError(
            f"{GENERATOR} draws {drawn}, but {_champion_in_words(registry, champion)} draws "
            f"{drawn_by_champion}. Generators of different classes or sizes cannot share a model's name: set "
            "`gate.model` in params.yaml to another name."
        )
    model = model.to(inputs.model.device)
    conditions = _conditions(inputs, params, model)
    if not has_other_data:
        return GateSetup(inputs, conditions, model)
    note = (
        f"the champion, version {champion.number}, was trained on other data; both were judged with today's "
        "judge and hold-out, part of which the champion may have been trained on"
    )
    return GateSetup(
        inputs, conditions, model, *_check_data(registry, champion, inputs, params), note
    )


def _champion_in_words(registry: Registry, champion: Version) -> str:
    return f"the champion of `{registry.model}`, version {champion.number},"


def _load_champion(registry: Registry, champion: Version) -> tuple[GenerativeModel, Facts]:
    try:
        with generator_file(f"models:/{registry.model}/{champion.number}") as path:
            return load_generator(path)
    except ModelError as error:
        raise ModelError(
            f"{_champion_in_words(registry, champion)} cannot be read, so nothing was promoted in its place: "
            f"{error} If its file is lost, {CHAMPION_ADVICE}."
        ) from None


def _check_data(
    registry: Registry, champion: Version, inputs: Inputs, params: Params
) -> tuple[list[Check], str]:
    """The checks of today's data; and why they are unlike those with which they are compared, empty where
    they are not."""
    all_checks, warnings = list[Check](), list[str]()
    for version, owner in _compared_versions(registry, champion):
        try:
            kept = KeptData.load(registry, version)
        except ModelError as error:
            raise ModelError(f"cannot tell whether the data are like {owner}: {error}") from None
        checks = data_checks(kept, inputs, params.gate, owner)
        if version is not champion:  # its checks have the same names
            checks = [
                replace(each, name=f"version_{version.number}.{each.name}") for each in checks
            ]
        all_checks += checks
        if failures := [check.in_words() for check in checks if not check.passed]:
            warnings.append(f"the images or labels are unlike {owner} ({'; '.join(failures)})")
    return all_checks, next(iter(warnings), "")


def _conditions(
    inputs: Inputs, params: Params, champion: GenerativeModel | None = None
) -> Conditions:
    """As the stage `evaluate` has them for its first set of drawings; fewer where a drawing takes long."""
    once = params.evaluate.model_copy(update={"draws": 1, "gan_train_kimg": 0.0})
    models = [inputs.model, champion] if champion else [inputs.model]
    return Conditions.of(inputs.judge, inputs.train, inputs.held_out, once, models)


def _compared_versions(registry: Registry, champion: Version) -> list[tuple[Version, str]]:
    """The versions with whose data today's are compared, each with its name for a sentence: the champion, so
    that data cannot change much in one night; and the version that a person accepted last, so that they
    cannot drift as far over many nights."""
    compared, accepted = [(champion, "the champion's")], champion.accepted_data
    versions = {version.number: version for version in registry.versions()}
    if accepted != champion.number and accepted in versions:
        compared.append((versions[accepted], f"version {accepted}'s"))
    return compared


def _classes_in_words(model: GenerativeModel, facts: Facts, *, named: bool) -> str:
    (channels, height, width), names = model.shape, facts.get("class_names") if named else None
    words = f"{model.classes} classes of {height} × {width} × {channels}"
    return f"{words} ({', '.join(names)})" if names else words


def evaluate_and_decide(report: Report, setup: GateSetup, params: Params) -> str:
    """Evaluate both generators under the same conditions: the verdict, `passed` or `blocked`. Reasons,
    numbers and tables go into the report."""
    conditions = setup.conditions
    drawings = setup.inputs.model.draw(conditions.drawn_labels, conditions.params.seed)
    predictions = predict(conditions.judge, drawings)
    challenger = conditions.measure([drawings], predictions=[predictions])
    champion = None
    if setup.champion:
        drawn_by_champion = setup.champion.draw(conditions.drawn_labels, conditions.params.seed)
        champion = conditions.measure([drawn_by_champion])
        report.facts["champion_measured"] = _values(champion)
    appearance = appearance_of(drawings, predictions.features, conditions)
    attack = _attack(setup.inputs, params) if params.gate.max_membership_auc else None
    decision = decide(challenger, champion, appearance, params.gate, attack)
    context = conditions.context(str(setup.inputs.facts["digest"])) | {"replicates": REPLICATES}
    report.facts |= {
        "checks": [asdict(check) for check in (*setup.data_checks, *decision.checks)],
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


def _attack(inputs: Inputs, params: Params) -> AttackResult:
    """A membership inference attack by the pixels of the drawings alone."""
    train, seed = inputs.train, params.evaluate.seed
    drawn = drawings_to_attack(inputs.model, train, seed)
    attacker = Attacker.of(train, inputs.held_out, seed)
    return attacker.on_drawings(attacker.drawing_scores(drawn, pretrained=False))[0]


def _values(evaluation: Evaluation) -> dict[str, float]:
    return {
        key: score.value for key, score in evaluation.metrics.items() if score.value is not None
    }


def appearance_of(drawings: Tensor, features: Tensor, conditions: Conditions) -> Appearance:
    """How drawings uint8 [N, C, H, W] of the conditions' classes look beside real images; `features`
    [N, 128]: in the judge's eyes."""
    shape, classes = drawings.shape[1:], conditions.train.classes
    train, held_out = conditions.train.tensors, conditions.held_out.tensors
    evaluation_set = conditions.evaluation_set
    drawn = Samples.of(drawings, features, conditions.drawn_labels)
    trained_on = Samples.of(train.pixels, evaluation_set.training_features, train.labels)
    unseen = Samples.of(held_out.pixels, evaluation_set.heldout.features, held_out.labels)
    looks_of_drawn, looks_of_real = (
        Moments.of([samples.descriptors], samples.labels, classes)
        for samples in (drawn, trained_on)
    )
    return Appearance(
        largest_shifts(looks_of_drawn, looks_of_real, shape),
        outliers(drawn, trained_on, evaluation_set.training_labels, unseen, shape, classes),
    )
