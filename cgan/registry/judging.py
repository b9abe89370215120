"""Both generators before one judge."""

from __future__ import annotations

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
from cgan.quality.comparison import REPLICATES
from cgan.quality.evaluation import (
    Inputs,
    evaluation_set_of,
    measurement_context,
    near_copies,
)
from cgan.quality.judge import Progress
from cgan.quality.likeness import variety
from cgan.registry.archive import generator_file
from cgan.registry.client import Registry
from cgan.registry.decision import WORDS, as_varied, bars, compare, decide, shifted
from cgan.registry.drift import about_other_data, keep_at_run
from cgan.registry.history import DIGEST, Version
from cgan.verdict import Check, Report, as_dicts, table_of


def prepare(
    registry: Registry, champion: Version | None, params: Params
) -> tuple[Inputs, GeneratorNetwork | None, list[str], list[str]]:
    """What is judged, and the champion's generator. Where that was trained on other data: what speaks against
    today's, and what a reader should know.

    Raises DataError or ModelError for a file that is damaged or of another training, and for a champion that
    cannot be read, or draws something else than what was trained now.
    """
    compute_deterministically()
    inputs = Inputs.load()
    if champion is None:
        return inputs, None, [], []
    name = f"the champion of `{registry.model}`, version {champion.number},"
    try:
        with generator_file(f"models:/{registry.model}/{champion.number}") as path:
            network, facts = load_generator(path)
        if (digest := champion.tags.get(DIGEST)) != facts["digest"]:
            raise ModelError(
                f"its file's digest is {facts['digest'][:12]}, and {str(digest)[:12]} was registered."
            )
    except ModelError as error:
        raise ModelError(
            f"{name} cannot be read, so nothing is promoted in its place: {error} If its file is lost, bring "
            "back the champion before (`cgan registry rollback --why …`), or delete the alias `champion` in "
            "MLflow: the next `cgan gate` then makes a first one."
        ) from None
    of_other_data = facts.get("data_digest") != inputs.facts["data_digest"]
    ours, theirs = (
        _what_it_draws(*each, named=of_other_data)
        for each in ((inputs.network, inputs.facts), (network, facts))
    )
    if ours != theirs:
        raise ModelError(
            f"{GENERATOR} draws {ours}; {name} draws {theirs}. Generators of different things cannot "
            "share a name: set `gate.model` in params.yaml to a name of its own."
        )
    if not of_other_data:
        return inputs, network, [], []
    return inputs, network, *about_other_data(registry, champion, inputs, params.gate)


def _what_it_draws(network: GeneratorNetwork, facts: Facts, *, named: bool) -> str:
    kind, names = network.architecture, facts.get("class_names") if named else None
    words = f"{kind.classes} classes of {kind.height} × {kind.width} × {kind.channels}"
    return f"{words} ({', '.join(names)})" if names else words


def judge(
    report: Report,
    registry: Registry,
    version: Version,
    former: GeneratorNetwork | None,
    inputs: Inputs,
    params: Params,
    progress: Progress,
) -> None:
    """Judge both generators with one judge on the same images, and decide."""
    seed, classes = params.evaluate.seed, inputs.training.classes
    names = inputs.training.class_names
    evaluation_set = evaluation_set_of(inputs, params.evaluate, progress)
    keep_at_run(registry, version, evaluation_set, inputs)
    drawings = draw(inputs.network, evaluation_set.asked, seed)
    challenger = evaluation_set.judge_drawings(drawings)
    varied = variety(drawings, evaluation_set.asked, inputs.training)
    near = near_copies(drawings, evaluation_set.asked, inputs.training, inputs.heldout, seed)
    comparison, praise = list[Check](), list[str]()
    if former:
        theirs = draw(former, evaluation_set.asked, seed)
        champion = evaluation_set.judge_drawings(theirs)
        comparison, praise = compare(challenger, champion, params.gate.against_champion)
        its = variety(theirs, evaluation_set.asked, inputs.training)
        comparison += as_varied(varied, its, params.gate.min_different_of_champion, names)
        report.sections["Beside the champion"] = table_of(comparison)
        report.facts["champion_measured"] = champion.values()
    checks = bars(params.gate, challenger, near, evaluation_set.agreement, varied, names)
    shifts = furthest(
        Moments.of_images(drawings, evaluation_set.asked, classes),
        Moments.of_images(inputs.training.images, inputs.training.labels, classes),
        drawings.shape[1:],
    )
    what, limit = WORDS["drawn_shift"], params.gate.max_drawn_shift
    checks.append(shifted("drawn_shift", what, shifts, limit, names))
    report.verdict, reasons = decide([*checks, *comparison], praise)
    report.reasons = [*reasons, *report.reasons]
    context = {
        **measurement_context(inputs, params.evaluate, evaluation_set),
        "training_digest": inputs.training.metadata["digest"],
        "fid_judge_floor": evaluation_set.floors.metrics["fid_judge"].value,
        "coverage_floor": evaluation_set.floors.metrics["coverage"].value,
        "replicates": REPLICATES,
    }
    report.facts |= {
        "checks": as_dicts(checks),
        "comparison": as_dicts(comparison),
        "measured": challenger.values(),
        "passport": context,
    }
    report.sections["Bars"] = table_of(checks)
    report.sections["Measured with"] = table(("", ""), context.items())
