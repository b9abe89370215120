"""A generator's model card: a README.md as Hugging Face reads it, YAML metadata and then Markdown.

It is made of facts alone, and equal facts give equal bytes.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from cgan import __version__
from cgan.drawing.class_names import names_in
from cgan.evaluation import METRICS, Evaluation
from cgan.markdown import in_markdown, table
from cgan.model.file_facts import CAUTION, LOCAL_SCORE, Facts
from cgan.quality.table import quality_line
from cgan.text import percent, printable

MAX_NAMES = 50  # of classes
# Params of a training that a card shows; the file's metadata has all.
SHOWN_PARAMS = (
    *("generator", "generator_width", "latent_dim", "updates"),
    *("lr", "batch_size", "total_kimg", "ema_half_life_kimg", "precision", "seed"),
)
# The Hub has no task for drawing a class. Its text-to-image would offer a field for a prompt, so this is the
# nearest; a tag says that there are classes. There is no license: it is the publisher's to choose.
METADATA = """\
library_name: cgan
pipeline_tag: unconditional-image-generation
tags: [{tags}class-conditional, image-generation, pytorch]
"""
GAN_TAGS = "conditional-gan, dcgan, gan, "
# The Hub's `fid` is in the features of Inception: a metric has our key for its type.
RESULTS = """\
model-index:
- name: {name}
  results:
  - task: {{type: unconditional-image-generation}}
    dataset: {{type: labelled-images, name: {data}, split: held-out}}
    metrics:
"""
BODY = """\
# {kind} that draws {classes} classes

![Drawings]({picture})

It draws an image of the class that you ask for: {pixels}. The classes: {names}.
{caution}
## Draw

```python
from cgan import Generator

generator = Generator.load("generator.safetensors")
images = generator.draw(range({classes}), seed=7)  # uint8, one of each class
```

`cgan` (version {version}, MIT license) is the Python package that made it. Install it from the wheel or
the repository of whoever gave you this file, not from a package index.

## How good it is

{quality}

## What it was made from

- Data: {data}. The sha256 of the CSV, or of the pictures' pixels, is `{sha256}`.
{training}
{run}
## Limits

- The numbers come from a single *judge*, a classifier trained on the same images. Compare them with those
  of the same judge and reference alone, and never with a Fréchet distance (FID) in Inception's features.
{one}- A class with few training images is drawn worse, and its numbers are less certain.{worst}
{privacy}{sharing}
- It knows these classes, in this size, and nothing else. Its drawings are no evidence, and no substitute for
  real images where a mistake does harm.
- No license is stated: which one is possible depends on the images.
"""


# What fills BODY for each kind of generator.
TRAINED = {
    "kind": "A conditional DCGAN",
    "caution": "",
    "training": "- Training: {steps} steps, torch {torch}; {params}. The file's metadata has\n"
    "  the other params.",
    "one": "- It is one training, of one seed.\n",
    "privacy": """\
- A generator can repeat images that it was trained on. The metric *copies* counts what comes near to one, and
  is no proof of privacy. If nobody may see the images, don't publish it.""",
}
SAMPLED = {
    "kind": "A local score sampler",
    "caution": f"\n**{CAUTION}**\n",
    "training": "- Training: none. Settings, torch {torch}: {params}.",
    "one": "",
    "privacy": """\
- Each drawing is made of pieces of training images. The metric *copies* counts those that come near to a
  whole one.""",
}


def model_card(
    facts: Facts,
    evaluation: Evaluation | None,
    training: Mapping[str, Any],
    picture: str,
    sharing: str = "",
) -> str:
    """The card of a generator, Markdown below metadata in YAML.

    `facts`: of the generator's file. `evaluation`: None where it is not known; `training`: the record of
    its training, empty where that is not known. `picture`: where its drawings are, seen from the
    card. `sharing`: the answer of `cgan sharing`, in a sentence.
    """
    architecture, params = facts["architecture"], facts.get("params", {})
    classes, colour = architecture["classes"], "grey" if architecture["channels"] == 1 else "colour"
    names = names_in(facts, classes) or list(map(str, range(classes)))
    data = facts.get("data") or training.get("origin", {}).get("data", "not known")
    data, name = printable(data), printable(training.get("run_name") or "conditional DCGAN")
    sampled = architecture.get("kind") == LOCAL_SCORE
    texts = SAMPLED if sampled else TRAINED
    shown = (
        architecture["settings"]
        if sampled
        else {key: params[key] for key in SHOWN_PARAMS if key in params}
    )
    recipe = texts["training"].format(
        steps=facts.get("steps"),
        torch=facts.get("torch"),
        params=", ".join(f"`{key}` {value}" for key, value in shown.items()),
    )
    body = BODY.format(
        **texts | {"training": recipe},
        sharing=f"\n- {in_markdown(sharing)}" if sharing else "",
        classes=classes,
        version=__version__,
        picture=picture,
        pixels=f"{architecture['width']}×{architecture['height']} pixels, {colour}",
        names=", ".join(map(in_markdown, names[:MAX_NAMES])) + ", …" * (classes > MAX_NAMES),
        quality=_quality(evaluation) if evaluation else "No evaluation of it is at hand.",
        data=in_markdown(data),
        sha256=facts.get("data_sha256"),
        run=_run(training, name),
        worst=_worst(evaluation, names) if evaluation else "",
    )
    metadata = METADATA.format(tags="" if sampled else GAN_TAGS)
    return f"---\n{metadata}{_results(evaluation, name, data) if evaluation else ''}---\n\n{body}"


def _results(evaluation: Evaluation, name: str, data: str) -> str:
    """The metrics for the Hub, what real images get in their names; without those that are no numbers."""
    lines = []
    for key, metric in METRICS.items():
        score = evaluation.score(key)
        if score.value is not None and math.isfinite(score.value):
            real = "" if score.real is None else f" (real images: {score.real:.4g})"
            words = _quoted(metric.name + real)
            lines.append(f"    - {{type: {key}, name: {words}, value: {score.value:.5f}}}\n")
    head = RESULTS.format(name=_quoted(name), data=_quoted(data))
    return head + "".join(lines) if lines else ""


def _quoted(text: str) -> str:
    """A string in YAML: of characters that can be printed it is as in JSON."""
    return json.dumps(text, ensure_ascii=False)


def _quality(evaluation: Evaluation) -> str:
    head, *rows = evaluation.table()
    context = [(key.replace("_", " "), value) for key, value in evaluation.context.items()]
    tables = table(head, rows, 3), table(("measured with", ""), context)
    return "\n\n".join((f"**{in_markdown(quality_line(evaluation))}**", *tables))


def _worst(evaluation: Evaluation, names: list[str]) -> str:
    pairs = zip(evaluation.classes, names, strict=False)
    known = [(row.accuracy, name) for row, name in pairs if row.accuracy is not None]
    worst = ", ".join(
        f"{in_markdown(name)} ({percent(value)})" for value, name in sorted(known)[:3]
    )
    return f" Least often recognized: {worst}." if worst else ""


def _run(training: Mapping[str, Any], name: str) -> str:
    if "commit" not in (origin := training.get("origin", {})):
        return ""
    run_id = training.get("run_id")  # none before MLflow has it
    again = f"; `cgan reproduce {run_id}` in its project repeats it" if run_id else ""
    if origin.get("dirty") == "true":
        again = ", with changes that are in no commit"
    return f"- Run: {in_markdown(name)}, at commit `{origin['commit']}`{again}.\n"
