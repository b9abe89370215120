"""`python tools/package_generator.py`: the trained generator of this project → the one of the package.

Run it where `dvc repro` has ended, with the preset `best` on Kaggle's full CSV (see CONTRIBUTING.md). Beside
what every generator's file says, this one says how good it was found to be and what it was trained on.
"""

import sys
from dataclasses import replace
from pathlib import Path

from cgan.base.files import sha256_of
from cgan.models.model_file import load_generator, save_generator
from cgan.pipeline.project import EVALUATION, GENERATOR
from cgan.quality.evaluation import Evaluation

TARGET = Path(__file__).parents[1] / "cgan" / "drawing" / "digits.safetensors"
MAX_BYTES = 600_000
DATA = (
    "42,000 training images of MNIST, by Yann LeCun, Corinna Cortes and Christopher J. C. Burges, in the "
    "form of Kaggle's Digit Recognizer (train.csv)"
)


def main() -> None:
    network, facts = load_generator(GENERATOR)
    evaluation = Evaluation.read(EVALUATION)
    if not evaluation.is_about(facts):
        sys.exit(f"{EVALUATION} is of another generator than {GENERATOR}. Run `dvc repro`.")
    metrics = {
        key: replace(score, deviations=(), real_deviations=())
        for key, score in evaluation.metrics.items()
    }
    stated = Evaluation(metrics=metrics, context=evaluation.context).report().as_json()
    save_generator(TARGET, network, {**facts, "data": DATA, "quality": stated})
    size = TARGET.stat().st_size
    print(f"{TARGET}: {size:,} bytes, sha256 {sha256_of(TARGET)}")
    if size > MAX_BYTES:
        sys.exit(f"expected at most {MAX_BYTES:,} bytes.")


if __name__ == "__main__":
    main()
