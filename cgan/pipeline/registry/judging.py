"""How a challenger is judged: both generators before one judge, if today's data are like the champion's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from torch import Tensor

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
from cgan.pipeline.registry.data_checks import CHAMPION_ADVICE, KeptData, data_checks
from cgan.pipeline.registry.decision import Drawings, decide
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
    # As the stage `evaluate` has them; fewer where a drawing takes long.
    once = params.evaluate.model_copy(update={"gan_train_kimg": 0.0})
    measured = (inputs.judge, inputs.train, inputs.held_out, once)
    if champion is None:
        return GateSetup(inputs, Conditions.of(*measured, [inputs.model]))
    model, facts = _load_champion(registry, champion)
    has_other_data = facts.get("data_digest") != inputs.facts["data_digest"]
    drawn = _classes_in_words(inputs.model, inputs.facts, named=has_other_data)
    drawn_by_champion = _classes_in_words(model, facts, named=has_other_data)
    if drawn != drawn_by_champion:
        raise ModelError(
            f"{GENERATOR} draws {drawn}, but the champion of `{registry.model}`, version {champion.number}, "
            f"draws {drawn_by_champion}. Generators of different classes or sizes cannot share a model's "
            "name: set `gate.model` in params.yaml to another name."
        )
    model = model.to(inputs.model.device)
    conditions = Conditions.of(*measured, [inputs.model, model])
    if not has_other_data:
        return GateSetup(inputs, conditions, model)
    note = (
        f"the champion, version {champion.number}, was trained on other data; both were judged with today's "
        "judge and hold-out, part of which the champion may have been trained on"
    )
    checks, warning = _check_data(registry, champion, inputs, params)
    return GateSetup(inputs, conditions, model, checks, warning, note)


def _load_champion(registry: Registry, champion: Version) -> tuple[GenerativeModel, Facts]:
    try:
        with generator_file(f"models:/{registry.model}/{champion.number}") as path:
            return load_generator(path)
    except ModelError as error:
        raise ModelError(
            f"the champion of `{registry.model}`, version {champion.number}, cannot be read, so nothing was "
            f"promoted in its place: {error} If its file is lost, {CHAMPION_ADVICE}."
        ) from None


def _classes_in_words(model: GenerativeModel, facts: Facts, *, named: bool) -> str:
    (channels, height, width), names = model.shape, facts.get("class_names") if named else None
    words = f"{model.classes} classes of {height} × {width} × {channels}"
    return f"{words} ({', '.join(names)})" if names else words


def _check_data(
    registry: Registry, champion: Version, inputs: Inputs, params: Params
) -> tuple[list[Check], str]:
    """The checks of today's data; and why they are unlike those with which they are compared, empty where
    they are not."""
    all_checks, warning = list[Check](), ""
    for version in _compared_versions(registry, champion):
        is_champion = version is champion
        owner = "the champion's" if is_champion else f"version {version.number}'s"
        try:
            kept = KeptData.load(registry, version)
        except ModelError as error:
            raise ModelError(f"cannot tell whether the data are like {owner}: {error}") from None
        checks = data_checks(kept, inputs, params.gate, owner)
        failures = [check.in_words() for check in checks if not check.passed]
        if failures and not warning:
            warning = f"the images or labels are unlike {owner} ({'; '.join(failures)})"
        prefix = "" if is_champion else f"version_{version.number}."
        all_checks += [replace(check, name=prefix + check.name) for check in checks]
    return all_checks, warning


def _compared_versions(registry: Registry, champion: Version) -> list[Version]:
    """The versions with whose data today's are compared: the champion, so that data cannot change much in one
    night; and the version that a person accepted last, so that they cannot drift as far over many nights."""
    accepted = champion.accepted_data
    others = [version for version in registry.versions() if version.number == accepted]
    return [champion, *(version for version in others if version.number != champion.number)]


def evaluate_and_decide(report: Report, setup: GateSetup, params: Params) -> str:
    """Evaluate both generators under the same conditions: the verdict, `passed` or `blocked`. Reasons,
    numbers and tables go into the report."""
    conditions = setup.conditions
    labels, seed = conditions.drawn_labels, conditions.params.seed
    challenger = measure(setup.inputs.model.draw(labels, seed), conditions)
    champion = None
    if setup.champion:
        champion = conditions.measure(setup.champion.draw(labels, seed))
        report.facts["champion_measured"] = _values(champion)
    decision = decide(challenger, champion, params.gate)
    context = conditions.context(str(setup.inputs.facts["digest"])) | {"replicates": REPLICATES}
    report.facts |= {
        "checks": [asdict(check) for check in (*setup.data_checks, *decision.checks)],
        "comparison": [asdict(check) for check in decision.comparison],
        "measured": _values(challenger.evaluation),
        "measurement_context": context,
    }
    if champion:
        report.sections["Beside the champion"] = table_of(decision.comparison)
    report.sections["Limits"] = table_of(decision.checks)
    report.sections["Measured with"] = table(("", ""), context.items())
    report.reasons = [*decision.reasons, *report.reasons]
    return decision.verdict


def _values(evaluation: Evaluation) -> dict[str, float]:
    return {
        key: score.value for key, score in evaluation.metrics.items() if score.value is not None
    }


def measure(drawings: Tensor, conditions: Conditions) -> Drawings:
    """The measurements of drawings uint8 [N, C, H, W] of the conditions' classes, by the judge and by how
    they look beside real images, whatever the judge sees."""
    shape, classes = drawings.shape[1:], conditions.train.classes
    train, held_out = conditions.train.tensors, conditions.held_out.tensors
    predictions = predict(conditions.judge, drawings)
    drawn = Samples.of(drawings, predictions.features, conditions.drawn_labels)
    trained_on = Samples.of(train.pixels, conditions.training_features, train.labels)
    unseen = Samples.of(held_out.pixels, conditions.heldout.features, held_out.labels)
    looks_of_drawn, looks_of_real = (
        Moments.of([samples.descriptors], samples.labels, classes)
        for samples in (drawn, trained_on)
    )
    return Drawings(
        conditions.measure(drawings, prediction=predictions),
        largest_shifts(looks_of_drawn, looks_of_real, shape),
        outliers(drawn, trained_on, conditions.training_labels, unseen, shape, classes),
    )
