"""A generator's model card: a README.md as Hugging Face reads it, metadata in YAML and then Markdown."""

from cgan.base.report import in_markdown
from cgan.base.text import printable
from cgan.drawing.class_names import names_in
from cgan.models.file_facts import Facts
from cgan.models.kinds import KINDS
from cgan.quality.evaluation import Evaluation

MAX_NAMES = 50  # of classes
# The Hub has no task for drawing a class, so it is a tag. The license is the publisher's to choose.
CARD = """\
---
library_name: cgan
tags: [conditional-image-generation, class-conditional, pytorch]
---

# {kind} that draws {classes} classes

![Drawings]({picture})

It draws an image of the class that you ask for, {width}×{height} pixels: {names}.

```python
from cgan import Generator

generator = Generator.load("generator.safetensors")
images = generator.draw(range({classes}), seed=7)  # uint8, one of each class
```

`cgan` is the Python package that made it. Install it from whoever gave you this file, not from a package
index.

## How good it is

{quality}

The numbers come from one judge, a classifier trained on the same images: compare them with others of this
judge alone.

## What it was made from

Data: {data} (sha256 `{sha256}`). {privacy}
"""
NEAR_COPIES = (
    "A generator can repeat images that it was trained on: the metric *copies* counts what comes near to "
    "one, and is no proof of privacy."
)


def model_card(facts: Facts, evaluation: Evaluation | None, picture: str, sharing: str = "") -> str:
    """The card of a generator by the `facts` of its file. `picture`: where its drawings are, seen from the
    card. `sharing`: the answer of `cgan sharing`, in a sentence."""
    architecture = facts["architecture"]
    kind, classes = KINDS[architecture["kind"]], architecture["classes"]
    names = names_in(facts, classes) or list(map(str, range(classes)))
    quality = "No evaluation of it is at hand."
    if evaluation:
        quality = evaluation.report().as_markdown(level=3).rstrip()
    return CARD.format(
        kind=kind.title,
        classes=classes,
        picture=picture,
        width=architecture["width"],
        height=architecture["height"],
        names=", ".join(map(in_markdown, names[:MAX_NAMES])) + ", …" * (classes > MAX_NAMES),
        quality=quality,
        data=in_markdown(printable(facts.get("data") or "labelled images")),
        sha256=facts.get("data_sha256"),
        privacy=f"{kind.caution or NEAR_COPIES} {in_markdown(sharing)}".strip(),
    )
