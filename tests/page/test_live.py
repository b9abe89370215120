"""The page of a training that goes on: what it shows, that nothing ends by it, and that it ends."""

import re
from pathlib import Path

import pytest

from cgan.cli import app
from cgan.errors import CganError, Interrupted
from cgan.files import write_bytes
from cgan.page.live import LIVE, SHARE, LivePage
from cgan.project import RUN_PAGE
from cgan.tracking.records import append

AT = {"loss/discriminator": 1.5, "loss/generator": 0.25, "progress/images_per_s": 500.0}


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LivePage:
    """Of a training that was interrupted at step 50; the working directory is an empty one."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run"
    folder.mkdir()
    append(folder, "metrics", step=50, metrics={**AT, "progress/kimg": 5.0})
    return LivePage(folder, "<b>one</b>", 40.0)


def shown(live: LivePage, step: int, kimg: float, **metrics: float) -> str:
    """The page after a record, however soon it comes."""
    live.due = 0.0
    append(live.folder, "metrics", step=step, metrics={**AT, "progress/kimg": kimg, **metrics})
    assert list(live.between([step])) == [step]
    return LIVE.read_text(encoding="utf-8")


def test_it_shows_the_newest_drawings_curves_and_the_time_left_until_it_points_to_the_runs_page(
    live: LivePage,
) -> None:
    with live.kept():
        assert 'http-equiv="refresh"' in LIVE.read_text() and "<polyline" not in LIVE.read_text()
        for step in (0, 90):
            write_bytes(live.folder / f"previews/step-{step:06d}.png", f"{step}".encode())
        text = shown(live, 100, 10.0, **{"probe/conditional_accuracy": 0.876})
        for words in (
            "&lt;b&gt;one&lt;/b&gt;",
            "10 of 40 thousand images; about 60 s left",
            "87.6 % of the drawings",
            "<h2>Step 90</h2>",
            "base64,OTA=",
            '<progress value="10.0" max="40.0">',
        ):
            assert words in text, words
        lines = re.findall('points="([^"]*)"', text)
        assert [len(line.split()) for line in lines] == [2, 2], "the folder's and the new"
        slow = {"progress/images_per_s": 100.0}
        assert "about 5 min left" in shown(live, 200, 10.0, **slow)
    text = LIVE.read_text(encoding="utf-8")
    assert "refresh" not in text and "The training is done" in text
    link = re.search('<a href="([^"]*)">', text)
    assert link and (LIVE.parent / link[1]).resolve() == RUN_PAGE.resolve()
    assert not re.search(r'(?:src|href)="(?!data:|\.\.)', text), "it asks for nothing"


def test_it_is_not_written_again_before_its_cost_is_a_small_part_of_the_time(
    live: LivePage, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("cgan.page.live.time.perf_counter", lambda: clock[0])
    written: list[float] = []

    def body(words: str) -> str:
        written.append(clock[0])
        clock[0] += 0.05
        return words

    monkeypatch.setattr(live, "_body", body)
    while clock[0] < 200:
        live.write()
        clock[0] += 0.1
    assert 8 < len(written) <= 1 + 100 * SHARE / 0.05


def test_a_page_that_cannot_be_written_is_told_once_and_the_training_goes_on(
    live: LivePage, caplog: pytest.LogCaptureFixture
) -> None:
    LIVE.parent.write_text("a file where the folder should be")
    with live.kept():
        assert list(live.between(range(3))) == [0, 1, 2]
    told = [each.message for each in caplog.records if "could not be written" in each.message]
    assert len(told) == 1 and "The training goes on" in told[0]


def test_a_training_that_stops_says_why_and_is_not_waited_for(live: LivePage) -> None:
    with pytest.raises(Interrupted), live.kept():
        raise Interrupted("stopped at <step> 7")
    text = LIVE.read_text(encoding="utf-8")
    assert "refresh" not in text and "The training stopped: stopped at &lt;step&gt; 7." in text


def test_cgan_watch_tells_where_the_page_is_and_how_one_comes_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    (tmp_path / "dvc.yaml").touch()
    with pytest.raises(CganError, match=r"live\.html: not found.*`dvc repro`"):
        app(["watch"], standalone_mode=False)
    write_bytes(tmp_path / LIVE, b"a page")
    app(["watch"], standalone_mode=False)
    assert capsys.readouterr().out == f"{tmp_path / LIVE}: open it in a browser.\n"
