"""The judgement of a challenger: both generators before one judge, if the data are like the champion's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cgan.base.errors import ModelError
from cgan.models.file_facts import Facts
from cgan.models.hardware import compute_deterministically
from cgan.models.model_file import load_generator
from cgan.params.sections import Params
from cgan.pipeline.inputs import Inputs
from cgan.pipeline.registry.checks import CHAMPION_GROUP, DATA_GROUP, LIMITS_GROUP, Check
from cgan.pipeline.registry.client import Registry, Version
from cgan.pipeline.registry.drawings import Drawings
from cgan.pipeline.registry.recorded_run import find
from cgan.pipeline.registry.rows import check_group
from cgan.pipeline.registry.todays_data import DataComparison, KeptData
from cgan.quality.conditions import Conditions
from cgan.quality.intervals import REPLICATES
from cgan.quality.outliers import OutlierModels

OTHER_DATA = (
    "the champion was trained on other data; both were judged with today's judge and hold-out, part of which "
    "the champion may have been trained on"
)
DATA_ADVICE = (
    "check the data: if they are right, promote the version yourself (`cgan registry promote VERSION --force "
    "--why …`); if they are another data set, give its models their own name in `gate.model`"
)


@dataclass(frozen=True)
class Judgement:
    """`models`: of the real images, to be kept. `checks`: of the data alone, where these fail. `notes` and
    `facts`: for the report."""

    inputs: Inputs
    models: OutlierModels
    checks: Sequence[Check]
    notes: Sequence[str] = ()
    facts: Facts = field(default_factory=dict)


def judge(registry: Registry, champion: Version | None, params: Params) -> Judgement:
    """Compare today's data with the champion's; where they are alike, measure both generators under the same
    conditions.

    Raises DataError or ModelError for a file that is damaged or of another training, and for a champion that
    cannot be read, or draws something else than what was trained now.
    """
    compute_deterministically()
    inputs = Inputs.load(params.train.device)
    limits = params.gate
    generators = [inputs.model]
    checks, notes = list[Check](), list[str]()
    if champion:
        with find(f"models:/{registry.model}/{champion.number}").generator_file() as path:
            model, facts = load_generator(path)
        trained, before = (
            (each.classes, *each.shape, about.get("class_names"))
            for each, about in ((inputs.model, inputs.facts), (model, facts))
        )
        if trained != before:
            raise ModelError(
                f"the champion of `{registry.model}`, version {champion.number}, draws something else "
                f"(classes, channels, height, width, names): expected {trained}, found {before}. Set "
                "`gate.model` in params.yaml to another name."
            )
        generators.append(model.to(inputs.model.device))
        if facts.get("data_digest") != inputs.facts["data_digest"]:
            notes.append(OTHER_DATA)
            for kept in _kept_data(registry, champion):
                comparison = DataComparison.measure(kept, inputs)
                heading = f"{DATA_GROUP} beside {kept.owner}"
                checks += check_group(DATA_GROUP, comparison, limits, heading)
    real = inputs.judge, inputs.train, inputs.held_out
    outlier_models = OutlierModels.fit_images(*real)
    if not all(check.passed for check in checks):
        return Judgement(inputs, outlier_models, checks, [DATA_ADVICE])
    # As the stage `evaluate` has them; fewer where a drawing takes long.
    once = params.evaluate.model_copy(update={"gan_train_kimg": 0.0})
    conditions = Conditions.of(*real, once, generators)
    drawn, *drawn_by_champion = (
        generator.draw(conditions.drawn_labels, conditions.params.seed) for generator in generators
    )
    measured = map(conditions.measure, drawn_by_champion)
    drawings = Drawings.measure(drawn, conditions, outlier_models, *measured)
    for group in (LIMITS_GROUP, CHAMPION_GROUP):
        checks += check_group(group, drawings, limits)
    context = conditions.context(str(inputs.facts["digest"])) | {"replicates": REPLICATES}
    facts = {"measured": drawings.evaluation.values(), "measurement_context": context}
    if drawings.champion:
        facts["champion_measured"] = drawings.champion.values()
    return Judgement(inputs, outlier_models, checks, notes, facts)


def _kept_data(registry: Registry, champion: Version) -> list[KeptData]:
    """The data of the champion, so that they cannot change much in one night; and those of the version that a
    person accepted last, so that they cannot drift as far over many nights."""
    owners = {champion.accepted_data: f"version {champion.accepted_data}'s"}
    owners |= {champion.number: "the champion's"}
    versions = [version for version in registry.versions() if version.number in owners]
    return [KeptData.load(registry, each, owners[each.number]) for each in versions]
