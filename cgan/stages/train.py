"""Stage train: a generator of the kind that the params ask for. It goes on from a checkpoint.

Checkpoints lie in the training's folder, `.cgan/runs/<fingerprint>`, since DVC deletes outputs before a stage
starts; the fingerprint is a hash of everything that determines the result. The last one is of the last step:
whatever is killed before DVC knows the result, the next start goes on there.
"""

import contextlib
import functools
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from cgan.base.errors import Interrupted
from cgan.base.files import fingerprint, locked, read_json, write_bytes, write_json, write_text
from cgan.data.images import Images, load_images
from cgan.models.hardware import choose_hardware
from cgan.models.model_file import save_discriminator, save_generator
from cgan.params.sections import Params, TrainParams, flatten
from cgan.pipeline import project
from cgan.pipeline.params_file import load_params
from cgan.pipeline.progress import progress
from cgan.pipeline.tracking import store
from cgan.pipeline.tracking.live import LiveTracker
from cgan.pipeline.tracking.run import TrainingRecord
from cgan.quality.judge import load_judge
from cgan.stages.origin import keep_source, origin_tags, project_tree, run_name
from cgan.stages.runner import log, run_stage
from cgan.training.auto import choose
from cgan.training.loop import TrainingResult, train_chosen, training_facts
from cgan.training.provenance import determining_facts
from cgan.training.records import write_records
from cgan.training.state import HISTORY_COLUMNS, PROBE_COLUMNS

# Of a training that is resumed: what it was called and took, whatever has changed since.
KEPT_KEYS = ("run_key", "run_name", "experiment", "began_ms", "training_s")


def main() -> None:
    params = load_params()
    images = load_images(project.TRAIN_DATA)
    hardware = choose_hardware(params.train.device, params.train.precision)
    choice = choose(params.train, images)
    judge, judge_facts = load_judge(project.JUDGE)
    facts = determining_facts(choice.params, images, hardware, judge_facts["digest"])
    folder = project.training_folder(fingerprint(facts))
    dataset, tree, p = dataset_facts(images), project_tree(), choice.params
    tags = {
        "cgan.chosen_for_the_data": choice.explanation or "nothing",
        "cgan.device": str(hardware.device),
        "cgan.precision": hardware.precision_name,
        store.FINGERPRINT_TAG: folder.name,
    }
    training: TrainingRecord = {
        "run_name": run_name(p),
        "experiment": store.experiment_name(params.tracking.experiment),
        "params": recorded_params(params, p),
        "tags": origin_tags(dataset, tree) | tags,
        "dataset": dataset,
    }
    with exclusive_training(folder), stop_signals() as signals:
        keep_source(tree)
        with tracked_training(folder, training) as tracker:
            log.info("Curves as they come: `cgan ui`, run %s.", training["run_name"])
            trained = train_chosen(
                images,
                choice,
                judge=judge,
                log_metrics=tracker.log_metrics,
                folder=folder,
                progress=functools.partial(progress, "training", images_per_step=p.batch_size),
                should_stop=lambda: bool(signals),
            )
            if trained.step < p.total_steps:
                raise Interrupted(
                    f"stopped at step {trained.step} of {p.total_steps}; a checkpoint was saved"
                )
            write_outputs(trained, training_facts(trained, choice, images))
            if not trained.resumed_from:  # else the parts before were not timed
                training["training_s"] = round(trained.wall_time_s, 1)


@contextlib.contextmanager
def tracked_training(folder: Path, training: TrainingRecord) -> Iterator[LiveTracker]:
    """A training, live in MLflow, from start to end. Then TRAINING says what the stage record needs:
    `training`, to which are added run_key, began_ms and ended_ms.

    A training that was killed or interrupted is taken up with the key, name and start time that it had.
    """
    in_progress = folder / project.IN_PROGRESS_NAME
    if in_progress.is_file():
        begun = read_json(in_progress)
        kept = {key: begun[key] for key in KEPT_KEYS if key in begun}
        training.update(cast("TrainingRecord", kept))
        training["tags"] |= {"cgan.resumed": "true"}
    else:
        training["run_key"] = uuid.uuid4().hex
        training["began_ms"] = time.time_ns() // 1_000_000
        write_json(in_progress, training)
    tracker, status = LiveTracker(training), "FAILED"
    try:
        yield tracker
        status = "FINISHED"
    except (Interrupted, KeyboardInterrupt):
        status = "KILLED"
        raise
    finally:
        tracker.end(status)
    training["ended_ms"] = max(training["began_ms"], time.time_ns() // 1_000_000)
    write_json(in_progress, training)
    write_json(project.TRAINING, training)


def recorded_params(params: Params, chosen: TrainParams) -> dict[str, Any]:
    """The params, flat, with a number for each `auto`; without the sections that change neither the training
    nor its numbers."""
    sections = params.model_dump(by_alias=True, exclude={"gate", "sweep", "tracking"})
    return flatten(sections | {"train": chosen.relevant() | {"seed": chosen.seed}})


def dataset_facts(data: Images) -> dict[str, Any]:
    source = read_json(project.DATA_SOURCE)
    return {
        "name": f"{source['source']}: {Path(source['origin']).name}",
        "path": str(project.PICTURES if project.PICTURES.is_file() else project.CSV),
        "sha256": data.source_sha256,
        "rows": source["rows"],
        "training_images": len(data),
        "classes": data.classes,
        "shape": list(data.shape),
    }


@contextlib.contextmanager
def exclusive_training(folder: Path) -> Iterator[None]:
    """Wait for another training in this tree, which a killed `dvc` may leave, or of this result anywhere."""
    wait = functools.partial(log.info, "Another training is running here. Waiting for it.")
    here = project.project_root() / project.TRAIN_LOCK
    with locked(here, on_wait=wait), locked(project.training_lock(folder), on_wait=wait):
        yield


def write_outputs(trained: TrainingResult, facts: dict[str, Any]) -> None:
    """The stage's outputs, but for TRAINING and SOURCE_FOLDER."""
    save_generator(project.GENERATOR, trained.generator, facts)
    save_discriminator(project.DISCRIMINATOR, trained.discriminator, facts)
    project.PREVIEWS.mkdir(parents=True, exist_ok=True)
    if not trained.previews:  # DVC warns of an empty folder at every command
        write_text(project.PREVIEWS / "none.txt", "No previews: this generator is not trained.\n")
    for step, png in trained.previews.items():
        write_bytes(project.PREVIEWS / f"step-{step:06d}.png", png)
    write_records(project.LOSSES, HISTORY_COLUMNS, trained.history)
    write_records(project.PROBES, PROBE_COLUMNS, trained.probes)


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Yield the signals that come, at which a training saves and stops; the first decides the exit code."""
    signals: list[int] = []
    stops = (signal.SIGTERM, signal.SIGINT)
    before = {stop: signal.signal(stop, lambda number, _: signals.append(number)) for stop in stops}
    try:
        yield signals
    except Interrupted as interruption:
        sys.stdout.flush()
        sys.stderr.write(f"Training {interruption}. Start it again to continue.\n")
        sys.exit(128 + signals[0])
    finally:
        for number, handler in before.items():
            # One more changes nothing.
            signal.signal(number, signal.SIG_IGN if signals else handler)


if __name__ == "__main__":
    run_stage(main)
