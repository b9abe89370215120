"""`cgan.fit`: from images to a generator in one call, with the bytes of the pipeline."""

import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import NAMES, TINY, uneven, write_csv, write_params

import cgan
from cgan import fitting
from cgan.errors import CganError, DataError, ParamsError, TrainingError
from cgan.images import Images, load_images
from cgan.notebook import progress_bar
from cgan.project import CSV, GENERATOR, JUDGE, LOSSES, PREVIEWS, PROBES, TRAIN_DATA
from cgan.quality.judge import Judge, load_judge
from cgan.stages import preprocess, train, train_judge, validate

SHORT = TINY["train"]
STEPS = 10


@pytest.fixture(scope="module")
def images() -> Images:
    return uneven()


def fit(images: Images, **changes: Any) -> cgan.Run:
    return cgan.fit(images, **{**SHORT, "progress": False, **changes})


@pytest.mark.usefixtures("project")
def test_the_stage_train_and_fit_make_the_same_file_and_tables(empty_store: Path) -> None:
    shutil.copy(empty_store, "mlflow.db")
    write_csv(CSV, uneven())
    write_params(Path(), train_judge={"total_kimg": 0.2})
    for stage in (validate, preprocess, train_judge, train):
        stage.main()
    run = fit(load_images(TRAIN_DATA), judge=load_judge(JUDGE)[0])
    run.generator.save("fitted.safetensors")
    assert Path("fitted.safetensors").read_bytes() == GENERATOR.read_bytes()
    for table, path in ((run.history, LOSSES), (run.probes, PROBES)):
        text = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        assert text == path.read_text() and len(table) > 1
    kept = {path.name: path.read_bytes() for path in PREVIEWS.iterdir()}
    assert kept == {f"step-{step:06d}.png": png for step, png in run.previews.items()}
    assert len(kept) > 1 and run.preview == kept[max(kept)]
    loaded = cgan.Generator.load(GENERATOR)
    assert loaded.facts == run.generator.facts and loaded.class_names == NAMES
    torch.use_deterministic_algorithms(False)
    drawn = run.generator.draw(["fig", "pear"], seed=3)
    assert (drawn == loaded.draw(["fig", "pear"], seed=3)).all()


def test_a_run_says_what_was_trained_and_shows_itself(images: Images) -> None:
    torch.use_deterministic_algorithms(False)
    handler = signal.getsignal(signal.SIGINT)
    run = fit(images, seed=4)
    assert signal.getsignal(signal.SIGINT) is handler
    assert (run.finished, run.step, run.params.seed) == (True, STEPS, 4)
    assert run.params.updates in ("one_pass", "two_passes") and "updates" in run.choice.explanation
    assert list(run.history.step) == [2, 4, 6, 8, 10] and run.probes.empty
    assert "<Run: " in repr(run) and "10 steps of 8 images" in repr(run) and "seed 4" in repr(run)
    shown = run._repr_html_()
    assert "Chosen for these images" in shown and "data:image/png;base64," in shown
    assert f"generator {run.history['loss/generator'].iloc[-1]:.3g}" in shown
    assert [run.generator.draw(["pear"]).shape, run.preview[:4]] == [(1, 8, 12), b"\x89PNG"]
    assert not torch.are_deterministic_algorithms_enabled(), "other code computes as before"


def test_what_needs_no_training_is_a_run_too() -> None:
    colour = uneven(channels=3)
    run = cgan.fit(colour, preset="local_score", progress=False)
    assert run.finished and run.history.empty and run.discriminator is None
    assert "its file is the training images" in repr(run) and "base64" in run._repr_html_()


@pytest.fixture(autouse=True)
def a_terminal_s_handler() -> Iterator[None]:
    """What Ctrl-C does in a fresh process, whatever other tests of this one have left."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def pressed_at(step: int, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar during which Ctrl-C is pressed so many times."""

    def bar(what: str, planned: range, images_a_step: int) -> Iterator[int]:
        for done in planned:
            for _ in range(times if done == step - 1 else 0):
                signal.raise_signal(signal.SIGINT)
            yield done

    monkeypatch.setattr(fitting, "progress_bar", bar)


def test_ctrl_c_leaves_a_generator_and_the_same_call_goes_on(
    images: Images,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole, before = fit(images), signal.getsignal(signal.SIGINT)
    pressed_at(3, 1, monkeypatch)
    alone = fit(images, progress=True)
    assert (alone.step, alone.finished, "3 of 10 steps" in repr(alone)) == (3, False, True)
    assert alone.generator.draw(["apple"]).shape == (1, 8, 12)
    assert alone.generator.facts["steps"] == 3 and signal.getsignal(signal.SIGINT) is before
    assert "Stopped at step 3 of 10: the run has the generator so far; nothing" in caplog.text
    kept = fit(images, progress=True, folder=tmp_path)
    assert kept.step == 3 and "so far; the same call goes on from there." in caplog.text
    monkeypatch.undo()
    rest, other = (fit(images, folder=tmp_path, seed=seed) for seed in (1, 2))
    assert kept.seconds and rest.seconds is None, "a part is unknown"
    assert other.step == rest.step == STEPS and len(list(tmp_path.iterdir())) == 2
    assert rest.generator.facts == whole.generator.facts != other.generator.facts
    assert rest.history.equals(whole.history) and rest.previews == whole.previews


def test_a_second_ctrl_c_ends_it_at_once(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    pressed_at(1, 2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        fit(images, progress=True)


def test_what_cannot_be_trained_is_said_and_nothing_is_written(
    images: Images, tmp_path: Path
) -> None:
    empty = Images(images.pixels, images.labels, list("abcd"))
    cases: list[tuple[Any, dict[str, Any], type[CganError], str]] = [
        (images, {"bacth_size": 8}, ParamsError, "did you mean `batch_size`?"),
        (images, {"lr": "fast"}, ParamsError, "`lr`: "),
        (images, {"seed": -1}, ParamsError, "`seed`: "),
        (images, {"preset": "quick"}, ParamsError, "default, fast, "),
        (images, {"device": "tpu"}, ParamsError, "`device`"),
        (images, {"generator": "demo"}, ParamsError, '`generator="deconv"`'),
        (images.pixels, {}, CganError, "ndarray"),
        (images.at([0]), {}, DataError, "found 1"),
        (images, {"judge": Judge(2, 1, 8)}, DataError, "(3, 1); found (2, 1)"),
        (empty, {}, DataError, "found none of d. Add some"),
    ]
    for given, changes, kind, words in cases:
        with pytest.raises(kind) as caught:
            fit(given, folder=tmp_path, **changes)
        assert words in str(caught.value) and "train." not in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "lock"]
    with pytest.raises(TrainingError, match=r"is not a finite number\. .* Lower `lr`"):
        fit(images, lr=1000.0, class_logit_weight=1e6, total_kimg=0.2)


def test_a_folder_in_use_is_refused_until_it_is_free(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other call is on a thread, which has no signals, and trains all the same."""
    has_begun, may_go_on = threading.Event(), threading.Event()

    def waiting(what: str, planned: range, images_a_step: int) -> Iterator[int]:
        has_begun.set()
        may_go_on.wait(60)
        yield from planned

    with ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(fitting, "progress_bar", waiting)
        other = pool.submit(fit, images, folder=tmp_path, progress=True)
        has_begun.wait(60)
        with pytest.raises(CganError, match="another call with these arguments"):
            fit(images, folder=tmp_path)
        assert fit(images, folder=tmp_path, seed=9).finished, "another training"
        may_go_on.set()
        assert other.result().finished
    assert fit(images, folder=tmp_path).finished


def test_a_bar_is_shown_in_a_terminal_and_none_elsewhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(progress_bar("training", range(2, 5), 8)) == [2, 3, 4]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert list(progress_bar("training", range(2, 5), 8)) == [2, 3, 4]
    assert "training:  40%" in (shown := capsys.readouterr().err) and "16.0/40.0" in shown


def test_with_another_judge_it_is_another_training(images: Images, tmp_path: Path) -> None:
    """Since it may stop at another step, nothing of the first is taken up."""
    for seed in (1, 2):
        torch.manual_seed(seed)
        assert fit(images, judge=Judge(3, 1, 8), folder=tmp_path).finished
    assert len(list(tmp_path.iterdir())) == 2
