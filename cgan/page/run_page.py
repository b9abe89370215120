"""The page of a run, out of what the stages left: the generator to play with, and all there is to believe."""

import itertools
from pathlib import Path
from typing import Any

from cgan.drawing.generator import Generator
from cgan.errors import ModelError
from cgan.evaluation import Evaluation
from cgan.files import read_json, sha256_of
from cgan.images import Images
from cgan.page.assemble import (
    EVIDENCE,
    GALLERY,
    PLAY,
    document,
    examples,
    play_data,
    runs_in_page,
)
from cgan.page.charts import bundle
from cgan.page.class_states import (
    DOUBTFUL,
    FEW_HELD_OUT,
    GOOD,
    LESS_DIVERSE,
    POOR,
    UNLIKE,
    VERY_UNLIKE,
    add_states,
)
from cgan.page.data_facts import VALUES, data_facts, whole_data
from cgan.page.drawn_facts import CARDS, drawn_facts
from cgan.page.run_facts import (
    class_facts,
    confusion_facts,
    curve,
    lineage_facts,
    metrics_facts,
    params_facts,
)
from cgan.page.tiles import film
from cgan.params.sections import Params
from cgan.project import (
    EVALUATION,
    GENERATOR,
    JUDGE,
    LOSSES,
    PREVIEWS,
    PROBES,
    RUN_REFERENCE,
    TRAIN_DATA,
    VALIDATION,
)
from cgan.quality.comparison import LEAST_FOR_DISTANCE
from cgan.quality.diversity import OTHERS
from cgan.quality.judge import load_judge
from cgan.quality.table import fewer_judged, quality_line

STATES = (POOR, DOUBTFUL, GOOD)
# Of the gate, in dvc.yaml too.
LIMITS = {"min_worst_class_accuracy", "min_worst_class_diversity", "min_judge_accuracy"}
# What the scripts show; the template has the rest.
SCRIPTED = ("previews", "losses", "probes", "classes", "confusion")


def run_page(params: Params, cache: Path) -> str:
    """HTML. `cache`: a folder for the chart library. Raises CganError for what doesn't belong together."""
    generator = Generator.load(GENERATOR)
    run = run_facts(generator, params)
    data = play_data(generator, run["drawn"]["first_seed"]) | {key: run[key] for key in SCRIPTED}
    data["charts"] = bundle(cache)
    scripts = (PLAY if runs_in_page(generator) else GALLERY) + EVIDENCE
    return document("run.html", scripts, data, run=run, names=generator.class_names)


def run_facts(generator: Generator, params: Params) -> dict[str, Any]:
    """All that the page shows, as plain JSON."""
    evaluation, validation = Evaluation.read(EVALUATION), read_json(VALIDATION)
    judge, _ = load_judge(JUDGE)
    data = whole_data()
    require_one_origin(generator, evaluation, data)
    reference = read_json(RUN_REFERENCE)
    previews, smaller = film(PREVIEWS)
    seed = evaluation.context["seed"]
    first = generator.labels(examples(generator)[0])
    classes = class_facts(evaluation, validation["class_counts"])
    trained = not generator.holds_training_images
    judge_accuracy = evaluation.score("conditional_accuracy").real
    add_states(classes, not evaluation.not_measurable, judge_accuracy, params.gate, trained=trained)
    by_state = {state: [row for row in classes if row["state"] == state] for state in STATES}
    in_order = list(itertools.chain(*by_state.values()))  # what needs a look comes first
    cards = in_order[:CARDS]
    advice: dict[str, list[int]] = {}
    for row in in_order:
        advice.setdefault(row["advice"], []).append(row["label"])
    advice.pop("", None)
    settings = params_facts(params, generator.facts.get("params") or {})
    advised = [row for row in settings["rows"] if f"`{row['key']}`" in " ".join(advice)]
    facts = {
        "title": str(reference.get("run_name") or "cgan"),
        "verdict": quality_line(evaluation, reference.get("training_s")),
        "caution": generator.caution,
        "plays": runs_in_page(generator),
        "previews": previews,
        "losses": curve(LOSSES),
        "probes": curve(PROBES),
        "metrics": metrics_facts(evaluation),
        "measurement_context": evaluation.context,
        "usual_distance": evaluation.score("copies").details["heldout_nearest_median"],
        "classes": classes,
        "states": {state: len(group) for state, group in by_state.items()},
        "cards": cards,
        "advice": advice,
        "advised": [row for row in advised if row["key"].startswith("train.")],
        "few_held_out": FEW_HELD_OUT,
        "less_diverse": LESS_DIVERSE,
        "unlike": (UNLIKE, VERY_UNLIKE),
        "others": OTHERS,
        "judge": judge_accuracy,
        "judge_on_test_set": evaluation.judge_on_test_set and vars(evaluation.judge_on_test_set),
        "limits": params.gate.model_dump(include=LIMITS),
        "least_images": LEAST_FOR_DISTANCE,
        "confusion": confusion_facts(evaluation),
        "drawn": drawn_facts(
            generator.model, judge, data, seed, first, [row["label"] for row in cards]
        ),
        "data": data_facts(data, judge, validation),
        "params": settings,
        "lineage": lineage_facts(reference, data.source_sha256, sha256_of(GENERATOR)),
    }
    return facts | {
        "left_out": [
            text
            for text in [smaller, *left_out(facts, evaluation, params.evaluate.samples)]
            if text
        ]
    }


def require_one_origin(generator: Generator, evaluation: Evaluation, data: Images) -> None:
    """Are the generator, its evaluation and the data of one run? Raises ModelError."""
    again = "Run `dvc repro`, or restore all files with `dvc checkout`."
    if evaluation.generator_digest != generator.facts["digest"]:
        raise ModelError(f"{EVALUATION} is about another generator, not {GENERATOR}. {again}")
    if generator.facts.get("data_sha256") != data.source_sha256:
        raise ModelError(f"{GENERATOR} was trained on other data, not {TRAIN_DATA}. {again}")


def left_out(facts: dict[str, Any], evaluation: Evaluation, samples: int) -> list[str]:
    """What a page of this run does not show, in sentences."""
    data, sentences = facts["data"], list[str]()
    if facts["losses"]["every"] > 1:
        sentences.append(f"The curves show only one in {facts['losses']['every']} records.")
    if (looked_at := data["suspects"]["looked_at"]) < data["rows"]:
        sentences.append(
            f"Looking for wrong labels, the judge saw {looked_at:,} of {data['rows']:,} rows, the "
            f"held-out ones first ({VALUES:,} pixels are the limit)."
        )
    if fewer := fewer_judged(evaluation, samples):
        sentences.append(fewer)
    if facts["confusion"]["matrix"] is None:
        sentences.append(
            "With this many classes, only the most frequent mistakes are shown, not the confusion matrix."
        )
    return sentences
