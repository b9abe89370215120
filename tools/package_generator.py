"""`python tools/package_generator.py`: the trained generator of this project → the one of the package.

Run it where `dvc repro` has ended, with the preset `best` on Kaggle's full CSV (see CONTRIBUTING.md). Beside
what every generator's file says, this one says how good it was found to be and what it was trained on.
"""

import json
import sys
from pathlib import Path

from cgan.files import sha256_of
from cgan.metric import METRICS
from cgan.model.model_file import load_generator, save_network
from cgan.params.editing import recipe_in_words
from cgan.params.reading import load_params
from cgan.project import EVALUATION, GENERATOR
from cgan.quality.table import headline

TARGET = Path(__file__).parents[1] / "cgan" / "drawing" / "digits.safetensors"
MAX_BYTES = 600_000
DATA = (
    "42,000 training images of MNIST, by Yann LeCun, Corinna Cortes and Christopher J. C. Burges, in the "
    "form of Kaggle's Digit Recognizer (train.csv)"
)


def main() -> None:
    network, facts = load_generator(GENERATOR)
    report = json.loads(EVALUATION.read_text(encoding="utf-8"))
    if report["measurement_context"]["generator_digest"] != facts["digest"]:
        sys.exit(f"{EVALUATION} is of another generator than {GENERATOR}. Run `dvc repro`.")
    floors = {key: metric.floor(report) for key, metric in METRICS.items()}
    quality = {
        "metrics": headline(report),
        "floors": {key: round(floor, 5) for key, floor in floors.items() if floor is not None},
        "conditional_accuracy_interval_95": report["conditional_accuracy"]["interval_95"],
        "fid_judge_deviation": report["fid_judge"]["deviation"],
        "measurement_context": report["measurement_context"],
    }
    recipe = recipe_in_words(load_params().train)
    save_network(TARGET, network, {**facts, "recipe": recipe, "data": DATA, "quality": quality})
    size = TARGET.stat().st_size
    print(f"{TARGET}: preset {recipe}, {size:,} bytes, sha256 {sha256_of(TARGET)}")
    if size > MAX_BYTES:
        sys.exit(f"expected at most {MAX_BYTES:,} bytes.")


if __name__ == "__main__":
    main()
