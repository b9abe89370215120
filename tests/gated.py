"""What `cgan gate` finds in a project: a CSV, its parts, a judge, a trained generator and its run."""

import contextlib
import functools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from conftest import write_params
from synthetic import write_csv

from cgan.files import sha256_of, write_json
from cgan.images import load_images
from cgan.model.model_file import load_tensors, save_generator
from cgan.model.networks import Architecture, GeneratorNetwork, build_generator
from cgan.pipeline.params_file import load_params
from cgan.pipeline.registry.gate import gate
from cgan.pipeline.tracking.logged_model import save_mlflow_model
from cgan.pipeline.tracking.run import TrainingRecord, open_run
from cgan.quality import estimates
from cgan.stages import preprocess, train_judge, validate

CLASSES, SIDE, LATENTS = 3, 8, 4
PARAMS: dict[str, dict[str, Any]] = {
    "preprocess": {"holdout_fraction": 0.3, "seed": 1},
    "train_judge": {"total_kimg": 6.0, "seed": 0},
    "evaluate": {"samples": 300},
    "gate": {
        "against_champion": "better",
        "max_drawn_shift": 1e6,
        "max_outliers": 1.0,
        "min_judge_accuracy": 0.85,  # of 18 images a class
        "max_fid_over_floor": 1e6,
        "max_copies_over_floor": 0.9,
        "min_worst_class_diversity": 0.0,
    },
}


def digits(per_class: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A bar across, a bar down, a ring, which a small judge tells apart: uint8 [N, 1, 8, 8], labels."""
    random = np.random.default_rng(seed)
    labels = np.tile(np.arange(CLASSES), per_class)
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    images = []
    for label in labels:
        y, x = rows - 3.5 - random.normal(0, 0.4), columns - 3.5 - random.normal(0, 0.4)
        distance = [y**2, x**2, (np.hypot(y, x) - 2.5) ** 2][label]
        images.append(np.clip(240 * np.exp(-distance) + random.normal(0, 8, y.shape), 0, 255))
    return np.stack(images).astype(np.uint8)[:, None], labels.astype(np.int64)


def make_project(root: Path, data: tuple[np.ndarray, np.ndarray] | None = None) -> None:
    """Params, CSV, validation report, datasets and judge, by the stages."""
    (root / "params.yaml").unlink(missing_ok=True)
    write_params(root, **PARAMS)
    (root / "dvc.yaml").touch()  # it is a project
    write_csv(root / "data/raw/train.csv", *(data or digits()))
    with settled(root.resolve()):
        for stage in (validate, preprocess, train_judge):
            stage.main()


@functools.cache
def fitted(path: Path, digest: str, steps: int) -> GeneratorNetwork:
    """A generator that tends to the mean image of each class, closer with each step."""
    data = load_images(path)
    torch.manual_seed(0)
    network = build_generator(Architecture("deconv", CLASSES, 1, SIDE, SIDE, LATENTS, 4)).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    labels = torch.arange(12 * CLASSES) % CLASSES
    classes = [
        data.tensors.pixels[data.tensors.labels == label].float() for label in range(CLASSES)
    ]
    real = torch.stack([images.mean(dim=0) for images in classes])[labels] / 127.5 - 1
    for _ in range(steps):
        drawn = network(torch.randn(len(real), LATENTS), labels)
        optimizer.zero_grad()
        (drawn - real).square().mean().backward()
        optimizer.step()
    return network.eval()


def train(root: Path, key: str, steps: int) -> None:
    """What the stages train and record leave: a generator and its run in MLflow."""
    parts, path = Path("data/processed/train.safetensors"), root / "models/generator.safetensors"
    data = load_images(root / parts)
    facts = {"data_sha256": data.source_sha256, "data_digest": data.digest, "steps": steps}
    save_generator(path, fitted(parts, data.digest, steps), facts)
    about: TrainingRecord = {
        "run_key": key,
        "run_name": f"fit of {steps} steps",
        "experiment": "cgan",
        "began_ms": 1,
    }
    with open_run(about) as run:
        run.set_tags({"cgan.generator_sha256": sha256_of(path)})
        tags = {"digest": load_tensors(path, "generator")[1]["digest"]}
        run.log_model(functools.partial(save_mlflow_model, path), steps, tags)
        run.client.set_terminated(run.run_id, "FINISHED", 2000)
        place = {"run_id": run.run_id, "tracking_uri": str(run.client.tracking_uri)}
    write_json(root / "models/mlflow_run.json", about | place)


def of_store(pattern: str) -> Path:
    """The one file or folder of the project's store."""
    [found] = Path("mlartifacts").glob(pattern)
    return found


@contextlib.contextmanager
def settled(root: Path) -> Iterator[None]:
    """The project as working directory, and no tracking settings of the caller."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_RUN_CONTEXT"):
            patch.delenv(name, raising=False)
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # else that of a gate before this one
        patch.setenv("DVC_ROOT", str(root))
        patch.chdir(root)
        yield


@contextlib.contextmanager
def restored(kept: Path) -> Iterator[Path]:
    """A project to work in, as it was kept. All take turns in one folder: MLflow keeps absolute addresses."""
    root = kept.with_name("gated")
    shutil.rmtree(root)
    shutil.copytree(kept, root)
    with settled(root):
        yield root


def gated() -> tuple[dict[str, Any], list[str]]:
    """The report and what was said."""
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimates, "REPLICATES", 40)  # 200 take seconds
        gate(load_params(), said.append)
    return json.loads(Path("reports/gate.json").read_text()), said


# --- projects in a real MLflow store ---------------------------------------------------------------


@functools.cache
def made(steps: int, base: Path, empty_store: Path) -> Path:
    """A project whose version 1, a fit of so many steps, is champion; with none, before any training."""
    kept, root = base / f"kept-{steps}", base / "gated"
    if steps:
        with restored(made(0, base, empty_store)):
            train(root, "first", steps)
            (root / "said.txt").write_text("\n".join(gated()[1]))
    else:
        root.mkdir()
        make_project(root)
        shutil.copyfile(empty_store, root / "mlflow.db")
    return Path(shutil.copytree(root, kept))


@pytest.fixture
def root(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Path]:
    """A project before its first training."""
    with restored(made(0, tmp_path_factory.getbasetemp(), empty_store)) as target:
        yield target


@pytest.fixture
def second(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Path]:
    """The project with its first champion, which a fit of 60 steps can beat."""
    with restored(made(30, tmp_path_factory.getbasetemp(), empty_store)) as target:
        yield target
