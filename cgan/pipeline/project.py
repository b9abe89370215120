"""Where a project keeps its files, and a few constants that commands share.

Paths are relative to the project's top folder, in which everything runs. dvc.yaml names the stages'
outputs too; a test compares.
"""

import os
from pathlib import Path

from cgan.base.errors import CganError

PACKAGE = Path(__file__).resolve().parents[1]
PACKAGE_PARENT = str(PACKAGE.parent)  # the clone, or the installed packages

# In messages: train anew, with what follows from it; --force alone would fetch the data again.
TRAIN_AGAIN = "`dvc repro --force --downstream train`"
BLOCKED_EXIT_CODE = 3  # of `cgan gate`

# Data.
CSV = Path("data/raw/train.csv")
PICTURES = Path("data/raw/pictures.safetensors")  # in place of the CSV
DATA_SOURCE = Path("data/raw/source.json")  # where either came from
TRAIN_DATA = Path("data/processed/train.safetensors")
HOLDOUT_DATA = Path("data/processed/holdout.safetensors")
TEST_DATA = Path("data/processed/test.safetensors")  # no images where the source names none
VALIDATION = Path("reports/validation.json")
REAL_SAMPLES = Path("reports/real_samples.png")

# Models, and what a training was.
JUDGE = Path("models/judge.safetensors")
JUDGE_METRICS = Path("reports/judge.json")
GENERATOR = Path("models/generator.safetensors")
DISCRIMINATOR = Path("models/discriminator.safetensors")
TRAINING = Path("models/training.json")  # what its run is called, and what it was made from
SOURCE_FOLDER = Path("models/source")  # its params.yaml, dvc.yaml, dvc.lock, uncommitted changes
LOSSES = Path("reports/losses.csv")
PROBES = Path("reports/probes.csv")  # quality during the training
PREVIEWS = Path("samples/previews")  # drawings during the training

# Numbers.
PARAMS_CHECKED = Path("reports/params.json")
EVALUATION = Path("reports/evaluation.json")
METRICS_FILE = Path("reports/metrics.json")
HEADLINE_FILE = Path("reports/headline.json")  # for `dvc metrics`, `dvc exp show`
RUN_LOCATION = Path("models/mlflow_run.json")  # where MLflow has the run

# Pictures and pages.
GRID = Path("samples/grid.png")
STRIP = Path("samples/strip.png")
BESIDE_REAL = Path("samples/beside_real.png")
LATENT_INTERPOLATION = Path("samples/latent_interpolation.png")
CONFUSION_MATRIX = Path("reports/confusion_matrix.png")
CURVES = Path("reports/losses.png"), Path("reports/logits.png")
CURVES_HTML = Path("reports/curves.html")  # in SVG, for the page
DIAGRAMS = Path("reports/generator.png"), Path("reports/discriminator.png")
RUN_PAGE = Path("reports/run.html")
CARD = Path("models/README.md")  # the generator's model card

# Reports of commands.
GATE_REPORT, GATE_TEXT = Path("reports/gate.json"), Path("reports/gate.md")
EVIDENCE = Path("reports/evidence.json")  # with a .md of the same name
SHARING = Path("reports/sharing.json")

# State.
DVC_LOCK = Path("dvc.lock")
IN_PROGRESS_NAME = "run.json"  # in `training_folder`: what is known yet of TRAINING's content
TRAIN_LOCK = Path(".cgan/train.lock")  # held by a training in this folder
PRODUCTION = Path(".cgan/production")  # the folder of `make up` and `make deploy`


def project_root() -> Path:
    """The project's folder; of the parent project inside `dvc exp run --queue` and `--temp`."""
    return Path(os.environ.get("DVC_ROOT") or Path.cwd()).resolve()


def require_project() -> Path:
    """The project's folder. Raises CganError where there is none."""
    if not ((root := project_root()) / "dvc.yaml").is_file():
        raise CganError(
            f"{root} is no project: there is no dvc.yaml. Run it in a project's top folder: a clone of the "
            "repository, or what `cgan init FOLDER` makes."
        )
    return root


def home(root: Path | None = None) -> Path:
    """The folder of what outlives a checkout, such as trainings in progress and locks: CGAN_HOME, by default
    `.cgan` in the project's folder."""
    return Path(os.environ.get("CGAN_HOME") or (root or project_root()) / ".cgan").resolve()


def training_folder(fingerprint: str) -> Path:
    """The folder of a training in progress: its checkpoints, previews, and what its run is called."""
    return home() / "runs" / fingerprint


def training_lock(folder: Path) -> Path:
    """Held by the training of that folder, in whichever checkout it works."""
    return folder.with_suffix(".lock")
