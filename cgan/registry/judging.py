"""Both generators before one judge."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

from cgan.errors import ModelError
from cgan.markdown import table
from cgan.model.hardware import compute_deterministically
from cgan.model.model_file import load_generator
from cgan.model.networks import Generator
from cgan.model.sampling import draw
from cgan.params.sections import Params
from cgan.project import GENERATOR
from cgan.quality.comparison import REPLICATES
from cgan.quality.evaluation import COPIES_SAMPLE, Inputs, ground_of, near_copies, passport
from cgan.quality.judge import Progress
from cgan.quality.likeness import different
from cgan.registry.archive import generator_file, keep_at_run
from cgan.registry.client import Registry
from cgan.registry.decision import Share, comparison_table, decide
from cgan.registry.history import Version
from cgan.registry.load_check import load_problem
from cgan.verdict import Report, as_dicts, table_of


def load() -> Inputs:
    """What is judged. Raises DataError or ModelError for a file that is damaged or of another training."""
    compute_deterministically()
    return Inputs.load()


def read_champion(registry: Registry, champion: Version, inputs: Inputs) -> tuple[Generator, bool]:
    """Its generator; and was that trained on other data? Raises ModelError when it cannot be read, or draws
    something else than what was trained now."""
    name = f"the champion of `{registry.model}`, version {champion.number},"
    try:
        with generator_file(f"models:/{registry.model}/{champion.number}") as path:
            network, facts = load_generator(path)
    except ModelError as error:
        raise ModelError(
            f"{name} cannot be read, so nothing is promoted in its place: {error} If its file is lost, bring "
            "back an earlier champion (`cgan registry rollback --why …`), or delete the alias `champion` on "
            "the model's page in MLflow: the next `cgan gate` then makes a first one."
        ) from None
    is_of_other_data = facts.get("data_digest") != inputs.facts["data_digest"]
    drawn = []
    for kind, known in ((inputs.network.architecture, inputs.facts), (network.architecture, facts)):
        names = known.get("class_names") if is_of_other_data else None
        named = f" ({', '.join(names)})" if names else ""
        drawn.append(
            f"{kind.classes} classes of {kind.height} × {kind.width} × {kind.channels}{named}"
        )
    if drawn[0] != drawn[1]:
        raise ModelError(
            f"{GENERATOR} draws {drawn[0]}; {name} draws {drawn[1]}. Generators of different things cannot "
            "share a name: set `gate.model` in params.yaml to a name of its own."
        )
    return network, is_of_other_data


def judge(
    report: Report,
    registry: Registry,
    version: Version,
    former: Generator | None,
    inputs: Inputs,
    params: Params,
    say: Callable[[str], None],
    progress: Progress,
) -> None:
    """Judge both generators with one judge on the same images, check the load meanwhile, decide."""
    seed, classes = params.evaluate.seed, list(range(inputs.training.classes))
    address = f"models:/{registry.model}/{version.number}"
    say(f"Loading {address} in a process of its own, which has to draw every class.")
    with ThreadPoolExecutor(1) as apart:
        expected = draw(inputs.network, torch.tensor(classes), seed)
        loaded = apart.submit(load_problem, registry, address, classes, seed, expected)
        ground = ground_of(inputs, params.evaluate, progress)
        keep_at_run(registry, version, ground, inputs)
        samples = len(ground.asked)
        say(f"Drawing {samples:,} images, {samples // len(classes):,} of each class.")
        drawings = draw(inputs.network, ground.asked, seed)
        challenger = ground.judge_drawings(drawings)
        numbers = different(drawings, ground.asked, inputs.training)
        near = near_copies(drawings, ground.asked, inputs.training, inputs.heldout, seed)
        looked_at = min(COPIES_SAMPLE, samples)
        judged = None
        if former:
            say("The same with the champion.")
            judged = ground.judge_drawings(draw(former, ground.asked, seed))
        problem = loaded.result()
    decision = decide(
        params.gate,
        challenger,
        Share(round(near.closer * looked_at), looked_at),
        Share(ground.agreed, len(inputs.heldout)),
        problem,
        judged,
        list(zip(*numbers, strict=True)),
    )
    context = {
        **passport(inputs, params.evaluate),
        "training_digest": inputs.training.metadata["digest"],
        "fid_judge_floor": ground.fid_floor.value,
        "coverage_floor": ground.coverage_floor.value,
        "covered_images": ground.covered_images,
        "replicates": REPLICATES,
    }
    report.reasons = [*decision.reasons, *report.reasons]
    report.verdict = "passed" if decision.passed else "blocked"
    report.facts |= {
        "checks": as_dicts(decision.checks),
        "comparison": as_dicts(decision.comparison),
        "measured": {name: each.value for name, each in challenger.metrics.items()},
        "passport": context,
    }
    if judged:
        rows = comparison_table(decision.comparison, version.number)
        report.sections["Beside the champion"] = rows
    report.sections["Bars"] = table_of(decision.checks)
    report.sections["Measured with"] = table(("", ""), context.items())
