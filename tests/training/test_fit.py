"""`cgan.fit`: from images to a generator in one call. Its bytes: promises/test_training.py."""

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, uneven

import cgan
from cgan.base.errors import CganError, DataError, ParamsError, TrainingError
from cgan.base.progress import progress_bar
from cgan.data.images import Images
from cgan.quality.judge import Judge
from cgan.training import fit as fitting

IMAGES = uneven()
STEPS = 10


def fit(images: Images = IMAGES, **changes: Any) -> cgan.Run:
    return cgan.fit(images, **{**TINY["train"], "progress": False, **changes})


@pytest.fixture(autouse=True)
def a_terminal_s_handler() -> Iterator[None]:
    """What Ctrl-C does in a fresh process, whatever other tests of this one have left."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_run_says_what_was_trained_and_shows_itself(tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGINT)
    run = fit(seed=4)
    assert signal.getsignal(signal.SIGINT) is handler
    assert (run.finished, run.step, run.params.seed) == (True, STEPS, 4)
    assert run.params.updates in ("one_pass", "two_passes") and "updates" in run.choice.explanation
    assert str(run.history.step.tolist()) == "[2, 4, 6, 8, 10]" and run.probes.empty
    assert [*run.history][:3] == ["step", "kimg", "learning_rate"]
    assert max(run.previews) == STEPS and run.preview == run.previews[STEPS] != run.previews[0]
    assert "<Run: " in repr(run) and "10 steps of 8 images" in repr(run) and "seed 4" in repr(run)
    shown = run._repr_html_()
    assert "Chosen for these images" in shown and "data:image/png;base64," in shown
    losses = run.history.iloc[-1, 3:5]
    assert ">discriminator {:.3g}, generator {:.3g}".format(*losses) in shown
    run.generator.save(tmp_path / "x.safetensors")
    loaded = cgan.Generator.load(tmp_path / "x.safetensors")
    assert loaded.facts == run.generator.facts
    drawn = run.generator.draw(["fig", "pear"], seed=3)
    assert drawn.shape == (2, 8, 12) and (drawn == loaded.draw(["fig", "pear"], seed=3)).all()


def pressed_at(step: int, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar during which Ctrl-C is pressed so many times."""

    def bar(what: str, planned: range, images_per_step: int) -> Iterator[int]:
        for done in planned:
            for _ in range(times if done == step - 1 else 0):
                signal.raise_signal(signal.SIGINT)
            yield done

    monkeypatch.setattr(fitting, "progress_bar", bar)


def test_ctrl_c_leaves_a_generator_and_the_same_call_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole, before = fit(), signal.getsignal(signal.SIGINT)
    pressed_at(3, 1, monkeypatch)
    alone = fit(progress=True)
    assert (alone.step, alone.finished, "3 of 10 steps" in repr(alone)) == (3, False, True)
    assert alone.generator.draw(["apple"]).shape == (1, 8, 12)
    assert alone.generator.facts["steps"] == 3 and signal.getsignal(signal.SIGINT) is before
    assert "Stopped at step 3 of 10: the run has the generator so far; nothing" in caplog.text
    kept = fit(progress=True, folder=tmp_path)
    assert kept.step == 3 and "so far; the same call goes on from there." in caplog.text
    monkeypatch.undo()
    rest, other = (fit(folder=tmp_path, seed=seed) for seed in (1, 2))
    assert kept.seconds and rest.seconds is None, "a part is unknown"
    assert other.step == rest.step == STEPS and len(list(tmp_path.iterdir())) == 2
    assert rest.generator.facts == whole.generator.facts != other.generator.facts
    assert rest.history.equals(whole.history) and rest.previews == whole.previews
    pressed_at(1, 2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):  # a second one ends it at once
        fit(progress=True)


def test_what_cannot_be_trained_is_said_and_nothing_is_written(tmp_path: Path) -> None:
    empty = Images(IMAGES.pixels, IMAGES.labels, list("abcd"))
    cases: list[tuple[Any, dict[str, Any], type[CganError], str]] = [
        (IMAGES, {"bacth_size": 8}, ParamsError, "did you mean `batch_size`?"),
        (IMAGES, {"lr": "fast"}, ParamsError, "`lr`: "),
        (IMAGES, {"seed": -1}, ParamsError, "`seed`: "),
        (IMAGES, {"preset": "quick"}, ParamsError, "default, fast, "),
        (IMAGES, {"device": "tpu"}, ParamsError, "`device`"),
        (IMAGES, {"generator": "demo"}, ParamsError, '`generator="deconv"`'),
        (IMAGES.pixels, {}, CganError, "ndarray"),
        (IMAGES.at([0]), {}, DataError, "found 1"),
        (IMAGES, {"judge": Judge(2, 1, 8)}, DataError, "(3, 1); found (2, 1)"),
        (empty, {}, DataError, "found none of d. Add some"),
    ]
    for given, changes, kind, words in cases:
        with pytest.raises(kind) as caught:
            fit(given, folder=tmp_path, **changes)
        assert words in str(caught.value) and "train." not in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "lock"]
    with pytest.raises(TrainingError, match=r"is not a finite number\. .* Lower `lr`"):
        fit(lr=1000.0, class_logit_weight=1e6, total_kimg=0.2)


def test_a_folder_in_use_is_refused_until_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other call is on a thread, which has no signals, and trains all the same."""
    has_begun, may_go_on = threading.Event(), threading.Event()

    def waiting(what: str, planned: range, images_per_step: int) -> Iterator[int]:
        has_begun.set()
        may_go_on.wait(60)
        yield from planned

    with ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(fitting, "progress_bar", waiting)
        other = pool.submit(fit, folder=tmp_path, progress=True)
        has_begun.wait(60)
        with pytest.raises(CganError, match="another call with these arguments"):
            fit(folder=tmp_path)
        assert fit(folder=tmp_path, seed=9).finished, "another training"
        may_go_on.set()
        assert other.result().finished
    assert fit(folder=tmp_path).finished


def test_a_bar_is_shown_in_a_terminal_and_none_elsewhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(progress_bar("training", range(2, 5), 8)) == [2, 3, 4]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert list(progress_bar("training", range(2, 5), 8)) == [2, 3, 4]
    assert "training:  40%" in (shown := capsys.readouterr().err) and "16.0/40.0" in shown


def test_with_another_judge_it_is_another_training(tmp_path: Path) -> None:
    """Since it may stop at another step, nothing of the first is taken up."""
    for seed in (1, 2):
        torch.manual_seed(seed)
        run = fit(judge=Judge(3, 1, 8), folder=tmp_path)
        assert run.finished and len(run.probes) > 1
    assert len(list(tmp_path.iterdir())) == 2
