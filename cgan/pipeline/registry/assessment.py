"""The assessment of a challenger, beside the champion where today's data are like the champion's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cgan.base.errors import ModelError
from cgan.base.report import Report
from cgan.models.file_facts import Facts
from cgan.models.generative import GenerativeModel
from cgan.models.hardware import deterministic
from cgan.models.model_file import load_generator
from cgan.models.parallel import available_threads
from cgan.params.sections import EvaluateParams, GateParams, Params
from cgan.pipeline.inputs import Inputs
from cgan.pipeline.progress import lines_until_done
from cgan.pipeline.registry.checks import (
    CHAMPION_GROUP,
    DATA_GROUP,
    LIMITS_GROUP,
    Check,
    check_group,
    decide,
)
from cgan.pipeline.registry.client import Registry, Version
from cgan.pipeline.registry.measurements import DataComparison, DrawingMeasurements, KeptData
from cgan.pipeline.registry.runs import RecordedRun
from cgan.quality.conditions import Conditions, labels_to_draw
from cgan.quality.evaluate import measure
from cgan.quality.outliers import OutlierModels

OTHER_DATA = (
    "the champion was trained on other data; both were judged with today's judge and hold-out, part of which "
    "the champion may have been trained on"
)
DATA_ADVICE = (
    "check the data: if they are right, promote the version yourself (`cgan registry promote VERSION --force "
    "--why …`); if they are another data set, give its models their own name in `gate.model`"
)
# Seconds that judging takes, roughly: of a core, for each value of a drawing; and for everything else.
SECONDS_PER_VALUE, OTHER_SECONDS = 2e-6, 10.0


@dataclass(frozen=True)
class Assessment:
    """`models`: of the real images, to be kept. `report`: verdict and reasons, without a sentence."""

    inputs: Inputs
    models: OutlierModels
    report: Report


@deterministic()
def assess(
    registry: Registry, champion: Version | None, params: Params, say: Callable[[str], None]
) -> Assessment:
    """Compare today's data with the champion's; where they are alike, measure both generators under the same
    conditions.

    Raises DataError or ModelError for a file that is damaged or of another training, and for a champion that
    cannot be read, or draws something else than what was trained now.
    """
    inputs = Inputs.load(params.train.device)
    generators = [inputs.model]
    beside, has_other_data = "", False
    if champion:
        model, facts = _champion_model(registry, champion, inputs)
        generators.append(model)
        beside = f" beside version {champion.number}, the champion"
        has_other_data = facts.get("data_digest") != inputs.facts["data_digest"]
    seconds = _seconds_to_judge(generators, params.evaluate)
    with lines_until_done(f"Judging the generator{beside}", seconds, say):
        checks = list[Check]()
        if champion and has_other_data:
            checks += _data_checks(registry, champion, inputs, params.gate)
        real = inputs.judge, inputs.train, inputs.held_out
        outlier_models = OutlierModels.fit_images(*real)
        if not all(check.passed for check in checks):
            return Assessment(inputs, outlier_models, decide(checks, [DATA_ADVICE]))
        # As the stage `evaluate` has them; fewer where a drawing takes long.
        without_gan_train = params.evaluate.model_copy(update={"gan_train_kimg": 0.0})
        conditions = Conditions.prepare(*real, without_gan_train, generators)
        drawn = [each.draw(conditions.drawn_labels, params.evaluate.seed) for each in generators]
        of_champion = measure(conditions, drawn[1]) if champion else None
        accuracy = params.gate.min_judge_accuracy
        drawings = DrawingMeasurements.measure(
            drawn[0], conditions, outlier_models, of_champion, accuracy
        )
    for group in (LIMITS_GROUP, CHAMPION_GROUP):
        checks += check_group(group, drawings, params.gate)
    return Assessment(inputs, outlier_models, decide(checks, [OTHER_DATA] * has_other_data))


def _champion_model(
    registry: Registry, champion: Version, inputs: Inputs
) -> tuple[GenerativeModel, Facts]:
    """The champion's generator, and the facts of its file."""
    uri = f"models:/{registry.model}/{champion.number}"
    with RecordedRun(champion.run_id, uri).generator_file() as path:
        model, facts = load_generator(path)
    trained, of_champion = (
        (each.classes, *each.shape, about.get("class_names"))
        for each, about in ((inputs.model, inputs.facts), (model, facts))
    )
    if trained != of_champion:
        raise ModelError(
            f"the champion of `{registry.model}`, version {champion.number}, draws something else (classes, "
            f"channels, height, width, names): expected {trained}, found {of_champion}. Set `gate.model` in "
            "params.yaml to another name."
        )
    return model.to(inputs.model.device), facts


def _seconds_to_judge(generators: Sequence[GenerativeModel], params: EvaluateParams) -> float:
    slowest = max(each.seconds_per_drawing for each in generators)
    drawings = len(generators) * len(labels_to_draw(generators[0].classes, params, slowest))
    each = slowest + SECONDS_PER_VALUE * math.prod(generators[0].shape)
    return OTHER_SECONDS + drawings * each / available_threads()


def _data_checks(
    registry: Registry, champion: Version, inputs: Inputs, limits: GateParams
) -> list[Check]:
    """Today's data beside the champion's, so that they cannot change much in one night; and beside those of
    the version that a person accepted last, so that they cannot drift as far over many nights."""
    owners = {champion.accepted_version: f"version {champion.accepted_version}'s"}
    owners |= {champion.number: "the champion's"}
    checks = list[Check]()
    for version in registry.versions():
        if version.number in owners:
            kept = KeptData.load(registry, version, owners[version.number])
            comparison = DataComparison.measure(kept, inputs)
            heading = f"{DATA_GROUP} beside {kept.owner}"
            checks += check_group(DATA_GROUP, comparison, limits, heading)
    return checks
