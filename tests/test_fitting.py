"""`cgan.fit`: from images to a generator in one call, with the bytes of the pipeline."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, TINY, run_python
from uneven import NAMES, uneven, write_uneven_csv

import cgan
from cgan import fitting, project
from cgan.errors import CganError, DataError, ParamsError
from cgan.files import sha256_of
from cgan.images import Images, load_images
from cgan.notebook import progress_bar
from cgan.quality.judge import Judge, load_judge
from cgan.stages import preprocess, train, train_judge, validate

SHORT = TINY["train"]  # 10 steps
STEPS = 10


@pytest.fixture(scope="module")
def images() -> Images:
    return uneven()


def fit(images: Images, **changes: Any) -> cgan.Run:
    return cgan.fit(images, **{**SHORT, "progress": False, **changes})


def test_the_stage_train_and_fit_make_the_same_file_and_the_same_tables(
    uneven_project: Path, empty_store: Path, tmp_path: Path
) -> None:
    shutil.copy(empty_store, "mlflow.db")
    write_uneven_csv(project.CSV, uneven())
    for stage in (validate, preprocess, train_judge, train):
        stage.main()
    data, (judge, _) = load_images(project.TRAIN_DATA), load_judge(project.JUDGE)
    run = fit(data, judge=judge)
    run.generator.save("fitted.safetensors")
    assert sha256_of(Path("fitted.safetensors")) == sha256_of(project.GENERATOR)
    for table, path in ((run.history, project.LOSSES), (run.probes, project.PROBES)):
        text = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        assert text == path.read_text() and len(table) > 1
    kept = {path.name: path.read_bytes() for path in project.PREVIEWS.iterdir()}
    assert kept == {f"step-{step:06d}.png": png for step, png in run.previews.items()}
    assert len(kept) > 1 and run.preview == kept[max(kept)]
    loaded = cgan.Generator.load(project.GENERATOR)
    assert loaded.facts == run.generator.facts and loaded.class_names == NAMES
    torch.use_deterministic_algorithms(False)
    drawn = run.generator.draw(["fig", "pear"], seed=3)
    assert (drawn == loaded.draw(["fig", "pear"], seed=3)).all()


def test_a_run_says_what_was_trained_and_shows_itself_in_a_notebook(images: Images) -> None:
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


def stop_after(steps: int) -> Any:
    """A bar during which Ctrl-C is pressed."""

    def bar(what: str, planned: range, images_a_step: int) -> Iterator[int]:
        for step in planned:
            if step == steps - 1:
                signal.raise_signal(signal.SIGINT)
            yield step

    return bar


def test_ctrl_c_leaves_the_generator_so_far_and_with_a_folder_the_same_call_goes_on(
    images: Images,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole, before = fit(images), signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(fitting, "progress_bar", stop_after(3))
    alone = fit(images, progress=True)
    assert (alone.step, alone.finished, "3 of 10 steps" in repr(alone)) == (3, False, True)
    assert alone.generator.draw(["apple"]).shape == (1, 8, 12)
    assert alone.generator.facts["steps"] == 3 and signal.getsignal(signal.SIGINT) is before
    assert "Stopped at step 3 of 10: the run has the generator so far; nothing" in caplog.text
    kept = fit(images, progress=True, folder=tmp_path)
    assert kept.step == 3 and "so far; the same call goes on from there." in caplog.text
    monkeypatch.undo()
    other = fit(images, folder=tmp_path, seed=2)
    rest = fit(images, folder=tmp_path)
    assert kept.seconds and rest.seconds is None and " images; seed" in repr(rest), (
        "a part is unknown"
    )
    assert other.step == rest.step == STEPS and len(list(tmp_path.iterdir())) == 2
    assert rest.generator.facts == whole.generator.facts != other.generator.facts
    assert rest.history.equals(whole.history) and rest.previews == whole.previews


def test_a_second_ctrl_c_ends_it_at_once(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    def impatient(what: str, planned: range, images_a_step: int) -> Iterator[int]:
        for step in planned:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            yield step

    monkeypatch.setattr(fitting, "progress_bar", impatient)
    with pytest.raises(KeyboardInterrupt):
        fit(images, progress=True)


def test_what_cannot_be_trained_is_said_in_words_before_anything_is_written(
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


def test_a_folder_in_use_is_refused_and_a_kill_lets_go_of_it(
    images: Images, tmp_path: Path
) -> None:
    code = (
        "import os, sys; from uneven import uneven; import cgan, cgan.fitting\n"
        "def bar(what, steps, images_a_step):\n"
        "    print('training', flush=True); sys.stdin.read(); yield from steps\n"
        "cgan.fitting.progress_bar = bar\n"
        f"cgan.fit(uneven(), folder={str(tmp_path / 'own')!r}, **{SHORT!r})"
    )
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], env=env, text=True, **pipes) as other:
        assert other.stdout and other.stdout.readline() == "training\n"
        with pytest.raises(CganError, match="another call with these arguments"):
            fit(images, folder=tmp_path / "own")
        assert fit(images, folder=tmp_path / "own", seed=9).finished, "another training"
        other.kill()
    assert fit(images, folder=tmp_path / "own").finished


def test_fewer_images_than_a_preset_s_batch_are_one_batch_and_the_run_says_so() -> None:
    few = uneven()
    run = cgan.fit(few, preset="fast", total_kimg=0.2, progress=False)
    assert run.params.batch_size == len(few) and "batch_size 56" in run.choice.explanation
    assert run.finished and run.generator.draw(["fig"]).shape == (1, 8, 12)


def test_a_bar_in_a_terminal_and_in_a_notebook_and_none_elsewhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(progress_bar("training", range(2, 5), 8)) == [2, 3, 4]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert list(progress_bar("training", range(2, 5), 8)) == [2, 3, 4]
    assert "training:  40%" in (shown := capsys.readouterr().err) and "16.0/40.0" in shown


def test_importing_the_package_imports_no_torch_and_offers_its_names(tmp_path: Path) -> None:
    code = "import sys, cgan; print('torch' in sys.modules, 'pandas' in sys.modules, dir(cgan))"
    output = run_python(code, tmp_path)
    assert output.startswith("False False") and all(f"'{name}'" in output for name in cgan.__all__)


def test_with_another_judge_it_is_another_training(images: Images, tmp_path: Path) -> None:
    """Since it may stop at another step, nothing of the first is taken up."""
    for seed in (1, 2):
        torch.manual_seed(seed)
        assert fit(images, judge=Judge(3, 1, 8), folder=tmp_path).finished
    assert len(list(tmp_path.iterdir())) == 2


def test_on_a_thread_which_has_no_signals_it_trains_too(images: Images) -> None:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(fit, images).result().finished
