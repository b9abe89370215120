"""Both generators before one judge."""

from __future__ import annotations

from dataclasses import dataclass

from cgan.errors import ModelError
from cgan.markdown import table
from cgan.model.file_facts import Facts
from cgan.model.hardware import compute_deterministically
from cgan.model.model_file import load_generator
from cgan.model.networks import GeneratorNetwork
from cgan.model.sampling import draw
from cgan.params.sections import Params
from cgan.project import GENERATOR
from cgan.quality.class_shift import Moments, furthest
from cgan.quality.comparison import REPLICATES, EvaluationSet
from cgan.quality.evaluation import Inputs, evaluation_set_of, measurement_context, near_copies
from cgan.quality.likeness import variety
from cgan.registry.client import Registry, Version, generator_file
from cgan.registry.decision import as_varied, bars, compare, decide, shifted
from cgan.registry.drift import ANOTHER_CHAMPION, doubts_about
from cgan.verdict import Check, Report, as_dicts, table_of


@dataclass(frozen=True)
class Match:
    """What is judged, and beside what."""

    inputs: Inputs
    evaluation_set: EvaluationSet
    former: GeneratorNetwork | None = None  # the champion's
    doubt: str = ""  # what speaks against today's data
    note: str = ""  # what a reader should know of a champion of other data


def prepare(registry: Registry, champion: Version | None, params: Params) -> Match:
    """Raises DataError or ModelError for a file that is damaged or of another training, and for a champion
    that cannot be read, or draws something else than what was trained now."""
    compute_deterministically()
    inputs = Inputs.load()
    evaluation_set = evaluation_set_of(inputs, params.evaluate)
    if champion is None:
        return Match(inputs, evaluation_set)
    name = f"the champion of `{registry.model}`, version {champion.number},"
    try:
        with generator_file(f"models:/{registry.model}/{champion.number}") as path:
            network, facts = load_generator(path)
    except ModelError as error:
        raise ModelError(
            f"{name} cannot be read, so nothing was promoted in its place: {error} If its file is lost, "
            f"{ANOTHER_CHAMPION}."
        ) from None
    other_data = facts.get("data_digest") != inputs.facts["data_digest"]
    ours, theirs = (
        _what_it_draws(*pair, named=other_data)
        for pair in ((inputs.network, inputs.facts), (network, facts))
    )
    if ours != theirs:
        raise ModelError(
            f"{GENERATOR} draws {ours}, but {name} draws {theirs}. Generators of different classes or sizes "
            "cannot share a model's name: set `gate.model` in params.yaml to another name."
        )
    if not other_data:
        return Match(inputs, evaluation_set, network)
    note = (
        f"the champion, version {champion.number}, was trained on other data; both were judged with today's "
        "judge and hold-out, part of which the champion may have been trained on"
    )
    doubt = doubts_about(registry, champion, inputs, params.gate)
    return Match(inputs, evaluation_set, network, doubt, note)


def _what_it_draws(network: GeneratorNetwork, facts: Facts, *, named: bool) -> str:
    kind, names = network.architecture, facts.get("class_names") if named else None
    words = f"{kind.classes} classes of {kind.height} × {kind.width} × {kind.channels}"
    return f"{words} ({', '.join(names)})" if names else words


def judge(report: Report, match: Match, params: Params) -> str:
    """Judge both generators with one judge on the same images: the verdict, `passed` or `blocked`. Reasons,
    numbers and tables go into the report."""
    inputs, limits, seed = match.inputs, params.gate, params.evaluate.seed
    training, names = inputs.training, inputs.training.class_names
    evaluation_set = match.evaluation_set
    labels = evaluation_set.asked
    drawings = draw(inputs.network, labels, seed)
    challenger = evaluation_set.judge_drawings(drawings)
    varied = variety(drawings, labels, training)
    near = near_copies(drawings, labels, training, inputs.heldout, seed)
    checks = bars(limits, challenger, near, evaluation_set.agreement, varied, names)
    shifts = furthest(
        Moments.of_images(drawings, labels, training.classes),
        Moments.of_images(training.images, training.labels, training.classes),
        drawings.shape[1:],
    )
    what = "standard deviations by which a class's drawings differ from its training images"
    checks.append(shifted("drawn_shift", what, shifts, limits.max_drawn_shift, names))
    comparison, praise = list[Check](), list[str]()
    if match.former:
        theirs = draw(match.former, labels, seed)
        champion, its = evaluation_set.judge_drawings(theirs), variety(theirs, labels, training)
        comparison, praise = compare(challenger, champion, limits.against_champion)
        comparison += as_varied(varied, its, limits.min_different_of_champion, names)
        report.sections["Beside the champion"] = table_of(comparison)
        report.facts["champion_measured"] = champion.values()
    context = {
        **measurement_context(inputs, params.evaluate, evaluation_set),
        "replicates": REPLICATES,
    }
    report.facts |= {
        "checks": as_dicts(checks),
        "comparison": as_dicts(comparison),
        "measured": challenger.values(),
        "measurement_context": context,
    }
    report.sections["Limits"] = table_of(checks)
    report.sections["Measured with"] = table(("", ""), context.items())
    verdict, reasons = decide([*checks, *comparison], praise)
    report.reasons = [*reasons, *report.reasons]
    return verdict
