"""Where a project keeps its files: each artefact that more than one module reads or writes.

Paths are relative to the project's top folder, in which everything runs. dvc.yaml names the stages'
outputs too; a test compares.
"""

import os
from pathlib import Path

from cgan.errors import CganError

PACKAGE = Path(__file__).resolve().parent
# For PYTHONPATH: a child runs this code, whatever package is installed.
PACKAGE_PARENT = str(PACKAGE.parent)

# A training anew, and what follows from it; --force alone would fetch the data again.
TRAIN_AGAIN = "`dvc repro --force --downstream train`"

PARAMS_CHECKED = Path("reports/params.json")
CSV = Path("data/raw/train.csv")
PICTURES = Path("data/raw/pictures.safetensors")  # in place of the CSV
CSV_SOURCE = Path("data/raw/source.json")  # where either came from
TRAIN_DATA = Path("data/processed/train.safetensors")
HOLDOUT_DATA = Path("data/processed/holdout.safetensors")
TEST_DATA = Path("data/processed/test.safetensors")  # no images where the source names none
JUDGE = Path("models/judge.safetensors")
GENERATOR = Path("models/generator.safetensors")
DISCRIMINATOR = Path("models/discriminator.safetensors")
BLOCKED = 3  # exit code of `cgan gate`
LOCK = Path("dvc.lock")
TRAINING = Path("models/training.json")  # what its run is called, and what it was made from
SOURCE = Path(
    "models/source"
)  # of a training: params.yaml, dvc.yaml, dvc.lock, uncommitted changes
BEGUN = "run.json"  # in the folder of a training in progress: what TRAINING is going to say
RUN_REFERENCE = Path("models/mlflow_run.json")  # where MLflow has the run
CARD = Path("models/README.md")  # the generator's model card
EVALUATION = Path("reports/evaluation.json")
METRICS_FILE = Path("reports/metrics.json")
DVC_METRICS = Path("reports/headline.json")  # of `dvc metrics`, `dvc exp show`
RECORDED = Path("reports/recorded.json")  # the numbers on the page of the run
JUDGE_METRICS = Path("reports/judge.json")
VALIDATION = Path("reports/validation.json")
GATE_REPORT, GATE_TEXT = Path("reports/gate.json"), Path("reports/gate.md")
EVIDENCE, EVIDENCE_TEXT = Path("reports/evidence.json"), Path("reports/evidence.md")
SHARING, SHARING_TEXT = Path("reports/sharing.json"), Path("reports/sharing.md")
GIVES_AWAY = "gives away"  # the verdict of `cgan sharing` that forbids
SHARING_PAGE = Path("reports/sharing.html")
EVIDENCE_PAGE = Path("reports/evidence.html")  # the run's page with the evidence in it
CONFUSION = Path("reports/confusion_matrix.png")
GRID, NINE = Path("samples/grid.png"), Path("samples/grid_3x3.png")
STRIP = Path("samples/strip.png")
REAL_SAMPLES, BESIDE_REAL = Path("reports/real_samples.png"), Path("samples/beside_real.png")
LATENT_INTERPOLATION = Path("samples/latent_interpolation.png")
CLASS_INTERPOLATION = Path("samples/class_interpolation.png")
FILM = Path("samples/training.gif")
LOSSES = Path("reports/losses.csv")
PROBES = Path("reports/probes.csv")  # quality during the training
CURVES = Path("reports/losses.png"), Path("reports/logits.png")
DIAGRAMS = Path("reports/generator.png"), Path("reports/discriminator.png")
PREVIEWS = Path("samples/previews")  # of a training
RUN_PAGE = Path("reports/run.html")
TRAIN_LOCK = Path(".cgan/train.lock")  # held by a training in this folder
PRODUCTION = Path(".cgan/production")  # of `make up` and `make deploy`


def project_root() -> Path:
    """The project's folder; of the parent project inside `dvc exp run --queue` and `--temp`."""
    return Path(os.environ.get("DVC_ROOT") or Path.cwd()).resolve()


def require_project() -> Path:
    """The project's folder. Raises CganError where there is none: what works on a project makes nothing
    elsewhere."""
    if not ((root := project_root()) / "dvc.yaml").is_file():
        raise CganError(
            f"{root} is no project: there is no dvc.yaml. Run it in a project's top folder: a clone of the "
            "repository, or what `cgan init FOLDER` makes."
        )
    return root


def home(root: Path | None = None) -> Path:
    """What outlives a checkout: trainings in progress, the chart library, locks, and DVC's cache of
    checkouts. CGAN_HOME, by default `.cgan` in the project's folder."""
    return Path(os.environ.get("CGAN_HOME") or (root or project_root()) / ".cgan").resolve()


def training_folder(fingerprint: str) -> Path:
    """The folder of a training in progress: its checkpoints, previews, and what its run is called."""
    return home() / "runs" / fingerprint


def training_lock(folder: Path) -> Path:
    """Held by the training of that folder, in whichever checkout it works."""
    return folder.with_suffix(".lock")
