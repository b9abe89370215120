"""Stage train: the conditional DCGAN, or a sampler that needs no training.

An interrupted training goes on where its checkpoint is.

Checkpoints lie in the run's folder, `.cgan/runs/<fingerprint>`; the fingerprint is a hash of everything that
determines the result. They are no outputs of DVC's, because DVC deletes those before a stage starts. The last
one is of the last step: whatever is killed before DVC knows the result, the next start goes on from there.
"""

import contextlib
import functools
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from cgan import project
from cgan.data.contact_sheet import with_names
from cgan.errors import Interrupted, TrainingError
from cgan.files import (
    locked,
    md5_of,
    read_json,
    require_writable,
    sha256_of,
    write_bytes,
    write_text,
)
from cgan.images import Images, load_images
from cgan.model.file_facts import FORMAT
from cgan.model.hardware import Hardware, choose_hardware
from cgan.model.model_file import save_generator, save_network, save_no_discriminator
from cgan.model.sampling import image_grid
from cgan.params.reading import load_params
from cgan.params.sections import Params, TrainParams, flatten
from cgan.project import (
    AT_THE_END,
    DISCRIMINATOR,
    GENERATOR,
    LOSSES,
    PACKAGE,
    PREVIEWS,
    PROBES,
    TRAIN_DATA,
)
from cgan.quality.judge import load_judge
from cgan.stages.forecast import seconds_of_training
from cgan.stages.origin import facts_of_here, log_source, origin, run_name, source_of_here
from cgan.stages.runner import duration, log, progress, run_stage
from cgan.tracking.records import runs, training_lock
from cgan.tracking.runs import WEIGHTS, Run, training_run
from cgan.training.fitting import Fit, fit, sampler_of
from cgan.training.loop import Diverged, Trained, train
from cgan.training.monitoring import PROBE, Watch
from cgan.training.state import COLUMNS

PREVIEW_COLUMNS, PREVIEW_CLASSES = 4, 20
COMPUTING = ("model", "training")  # packages: a change of the rest cannot change the result


def main() -> None:
    params = load_params()
    data = load_images(TRAIN_DATA)
    hardware = choose_hardware(params.train.device, params.train.precision)
    fitting = fit(params.train, data)
    fitted = fitting.params
    judge, judge_facts = load_judge(project.JUDGE)
    facts = result_facts(fitted, data, hardware, judge_facts["digest"])
    folder = runs() / fingerprint(facts)
    dataset, source = dataset_facts(data), source_of_here()
    tags = {
        **facts_of_here(dataset, source),
        "cgan.chosen_for_the_data": fitting.choice or "nothing",
        "cgan.device": str(hardware.device),
        "cgan.precision": str(hardware.precision).removeprefix("torch."),
        "cgan.fingerprint": folder.name,
        "dvc.data_md5": md5_of(TRAIN_DATA),
    }
    require_writable(GENERATOR, PREVIEWS, LOSSES)
    if not fitting.settings:
        log.info(
            f"Training {fitted.generator} against {fitted.discriminator} on {len(data):,} images "
            f"({hardware.device}, {tags['cgan.precision']}): {fitted.total_steps:,} steps of "
            f"{fitted.batch_size}, about {duration(seconds_of_training(data, fitted))}"
        )
    with (
        only_training(folder),
        asked_to_stop() as signals,
        training_run(
            folder,
            run_name(params.train),
            params.tracking.experiment,
            params=as_run(params, fitted),
            tags=tags,
            dataset=dataset,
            origin=origin(dataset, source),
        ) as run,
    ):
        run.load = system_load if params.tracking.system_metrics else None
        log_source(run, source)
        if fitting.settings:
            keep_sampler(run, fitting, data, facts)
            return
        if fitting.choice:
            log.info("Chosen for these images: %s", fitting.choice)
        if fitting.advice:
            log.info(fitting.advice)
        watch = Watch(judge.to(hardware.device), data, fitted.seed)
        bar = functools.partial(progress, "training", images_a_step=fitted.batch_size)
        log.info("Drawings and curves as they come: `cgan ui`, run %s.", run.info["run_name"])
        try:
            trained = train(data, fitted, run, folder, bar, lambda: bool(signals), watch)
        except Diverged as error:
            raise TrainingError(f"{error} The previews are in {folder / 'previews'}.") from None
        made_by = {"params": facts["params"], "steps": fitted.total_steps, **facts["data"]}
        write_outputs(trained, made_by)
        record(run, trained)
    done, seconds = fitted.total_steps - trained.resumed_from, trained.wall_time_s
    rate = done * fitted.batch_size / max(seconds, 1e-9)
    log.info(f"Trained {done:,} steps in {seconds:.1f} s, {rate:,.0f} images/s → {GENERATOR}")


def result_facts(
    params: TrainParams, data: Images, hardware: Hardware, judge: str
) -> dict[str, Any]:
    """Everything that determines the trained weights, what their file says, and the probes, by the digest of
    their judge; as plain JSON."""
    names = {"class_names": data.class_names} if data.is_named else {}
    return {
        "format": FORMAT,
        "params": params.used(),
        "data": {"data_sha256": data.source_sha256, "data_digest": data.digest} | names,
        "judge": judge,
        "classes": data.classes,  # by `validate.classes` there can be more than the data shows
        "code": {
            f"{package}/{path.name}": sha256_of(path)
            for package in COMPUTING
            for path in sorted((PACKAGE / package).glob("*.py"))
        },
        "torch": torch.__version__,
        "device": str(hardware.device),
        "precision": str(hardware.precision),
    }


def as_run(params: Params, fitted: TrainParams) -> dict[str, Any]:
    """The params, flat, with a number for each `auto`. Not those that are read after the training: they may
    change before it is resumed, and MLflow refuses that."""
    recorded = params.model_dump(by_alias=True, exclude={"gate", "sweep", "tracking"})
    return flatten(recorded | {"train": fitted.used() | {"seed": fitted.seed}})


def fingerprint(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def dataset_facts(data: Images) -> dict[str, Any]:
    source = read_json(project.CSV_SOURCE) if project.CSV_SOURCE.is_file() else {}
    return {
        "name": f"{source.get('source', 'csv')}: {Path(str(source.get('origin', 'train.csv'))).name}",
        "path": str(project.PICTURES if project.PICTURES.is_file() else project.CSV),
        "sha256": data.source_sha256,
        "rows": source.get("rows", len(data)),
        "training_images": len(data),
        "classes": data.classes,
        "shape": list(data.shape),
    }


@contextlib.contextmanager
def only_training(folder: Path) -> Iterator[None]:
    """Wait for another training in this tree, since killing `dvc` can leave one alive, or of the same result
    in any checkout."""
    with contextlib.ExitStack() as held:
        for lock in (project.project_root() / project.TRAIN_LOCK, training_lock(folder)):
            if not held.enter_context(locked(lock, wait=False)):
                number = lock.read_text(encoding="utf-8")
                log.info("Another training is running here (process %s). Waiting for it.", number)
                held.enter_context(locked(lock))
            lock.write_text(str(os.getpid()), encoding="utf-8")
        yield


def system_load() -> dict[str, float]:
    """The machine's load since the last call, as MLflow's pages know it."""
    load: dict[str, float] = {}
    with contextlib.suppress(Exception):  # no GPU, or nothing that asks it
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

        for kind in (CPUMonitor, GPUMonitor):
            monitor: Any = kind()  # untyped
            monitor.collect_metrics()
            load |= monitor.aggregate_metrics()
    return {f"system/{name}": value for name, value in load.items()}


def write_outputs(trained: Trained, facts: dict[str, Any]) -> None:
    """The files that the stage leaves, the reference to its run aside."""
    save_generator(GENERATOR, trained.generator, facts)
    save_network(DISCRIMINATOR, trained.discriminator, facts)
    PREVIEWS.mkdir(parents=True, exist_ok=True)
    for step, png in trained.previews.items():
        write_bytes(PREVIEWS / f"step-{step:06d}.png", png)
    write_text(LOSSES, _table(COLUMNS, trained.history))
    write_text(PROBES, _table((*COLUMNS[:2], *PROBE), trained.probes))


def keep_sampler(run: Run, fitting: Fit, data: Images, facts: dict[str, Any]) -> None:
    """In place of a training: a file of the images that a sampler draws from, empty tables, and drawings for
    MLflow."""
    assert fitting.settings
    began = time.perf_counter()
    log.info(
        f"Nothing to train: drawings are put together from pieces of the {len(data):,} training images."
    )
    log.info("Chosen for these images: %s", fitting.choice)
    log.info(fitting.advice)
    sampler = sampler_of(data, fitting.settings)
    save_generator(GENERATOR, sampler, {"params": facts["params"], **facts["data"]})
    save_no_discriminator(DISCRIMINATOR)
    PREVIEWS.mkdir(parents=True, exist_ok=True)
    write_text(LOSSES, _table(COLUMNS, []))
    write_text(PROBES, _table((*COLUMNS[:2], *PROBE), []))
    seconds = time.perf_counter() - began
    names = data.class_names[:PREVIEW_CLASSES]
    labels = torch.arange(len(names)).repeat_interleave(PREVIEW_COLUMNS)
    images = sampler.draw(labels, fitting.params.seed).unflatten(0, (len(names), -1))
    run.log_image(AT_THE_END, with_names(image_grid(images), names), 0)
    run.log_file(GENERATOR, "networks")
    log_generator(run, seconds)
    log.info(
        f"{GENERATOR}: {sampler.kind}; {sampler.seconds_per_drawing:.2g} s of a core for a drawing"
    )


def record(run: Run, trained: Trained) -> None:
    """What the training made, for MLflow."""
    for path in (LOSSES, PROBES, GENERATOR):
        run.log_file(path, "reports" if path.suffix == ".csv" else "networks")
    log_generator(run, trained.wall_time_s)
    if not trained.resumed_from:
        run.info["training_s"] = round(trained.wall_time_s, 1)


def log_generator(run: Run, seconds: float) -> None:
    run.set_tags({"dvc.generator_md5": md5_of(GENERATOR), WEIGHTS: sha256_of(GENERATOR)})
    # At step 0, as all that is one number: MLflow draws one of a later step as a line of one dot.
    run.log_metrics({"time/training_s": seconds}, 0)


def _table(columns: tuple[str, ...], rows: list[list[float]]) -> str:
    """Records as CSV, the step a whole number."""
    lines = [[name.removeprefix("progress/") for name in columns]]
    lines += [[f"{step:.0f}", *(f"{value:.6g}" for value in values)] for step, *values in rows]
    return "".join(",".join(line) + "\n" for line in lines)


@contextlib.contextmanager
def asked_to_stop() -> Iterator[list[int]]:
    """Yield the list of SIGTERM and Ctrl-C that come, at which a training saves and stops; the first one
    decides the exit code."""
    signals: list[int] = []
    kinds = (signal.SIGTERM, signal.SIGINT)
    before = {kind: signal.signal(kind, lambda number, _: signals.append(number)) for kind in kinds}
    try:
        yield signals
    except Interrupted as interruption:
        sys.stdout.flush()
        sys.stderr.write(f"Training {interruption}. Start it again to continue.\n")
        sys.exit(128 + signals[0])
    finally:
        for number, handler in before.items():
            # Another signal while the process ends must not change its exit code.
            signal.signal(number, signal.SIG_IGN if signals else handler)


if __name__ == "__main__":
    run_stage(main)
