"""The page of a run: what it holds, that it is a function of its inputs, and how it behaves in a browser."""

import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch
from browser import Page
from conftest import ROOT, wait_until, write_params
from finished_project import STEPS, finish, page_data
from visitor import browser as browser
from visitor import page as page

from cgan.drawing.generator import Generator
from cgan.errors import DataError, ModelError
from cgan.evaluation import ClassScores, Evaluation
from cgan.files import read_json, sha256_of, write_json
from cgan.images import load_images
from cgan.model.model_file import load_generator, save_generator
from cgan.model.sampling import draw, encode_png
from cgan.page import class_states as states
from cgan.page.assemble import PAGE_FOLDER, document
from cgan.page.drawn_facts import MAX_CARD_SIDE, NEIGHBOURS_SHOWN
from cgan.page.run_facts import MAX_CURVE_POINTS, curve
from cgan.page.run_page import page_facts, render_page, write_page
from cgan.page.tiles import preview_frames, tile
from cgan.params.presets import PRESETS
from cgan.pipeline.params_file import load_params
from cgan.project import (
    CSV,
    EVALUATION,
    GENERATOR,
    HOLDOUT_DATA,
    JUDGE,
    LOSSES,
    PROBES,
    RUN_PAGE,
    TRAIN_DATA,
    TRAINING,
)
from cgan.quality.judge import load_judge
from cgan.quality.likeness import nearest_neighbours
from cgan.quality.metrics import wilson_interval
from cgan.quality.table import quality_line
from cgan.service.provider import GeneratorProvider
from cgan.stages.page import contents_of
from cgan.training.records import read_records

CACHE = ROOT / ".cgan"  # for the chart library, which takes seconds to put together
PNG = encode_png(torch.zeros(8, 8, dtype=torch.uint8).numpy())
HOSTILE = (
    "<script>document.title='hacked'</script>",
    "</script><img src=x onerror=\"document.title='hacked'\">",
    "a\u2028b\u2029 \u202eאבג' \" & ${1} \\u003c",
)


def page_made() -> None:
    """Write the page of what lies in the working directory."""
    RUN_PAGE.write_text(render_page(contents_of(load_params(), CACHE)), encoding="utf-8")


def facts() -> dict[str, Any]:
    """All that the page shows."""
    return page_facts(contents_of(load_params(), CACHE))


def change_facts(**facts: Any) -> None:
    """In the generator's file, whose weights stay."""
    network, known = load_generator(GENERATOR)
    save_generator(GENERATOR, network, known | facts)


@pytest.fixture(autouse=True)
def finished(project: Path, digits_csv: Path) -> None:
    """A finished project with its page; the working directory."""
    finish(digits_csv)
    page_made()


def test_cgan_serve_says_how_good_the_project_s_generator_is_if_its_evaluation_is_about_it() -> (
    None
):
    served, evaluation = GeneratorProvider(str(GENERATOR)).current, Evaluation.read(EVALUATION)
    assert served and served.quality == quality_line(evaluation)
    another = replace(evaluation, context={**evaluation.context, "generator_digest": "0"})
    for spoil in (lambda: another.write(EVALUATION), EVALUATION.unlink):
        spoil()
        served = GeneratorProvider(str(GENERATOR)).current
        assert served and served.quality == ""


def test_the_page_holds_every_number_of_the_evaluation_with_interval_real_images_and_context() -> (
    None
):
    run, evaluation = facts(), Evaluation.read(EVALUATION)
    assert run["metrics"] == evaluation.table()[1:]
    metrics = {row[0]: row for row in run["metrics"]}
    assert " % to " in metrics["conditional accuracy"][2]
    assert not metrics["accuracy of the worst class"][2], "the smallest of many"
    assert run["measurement_context"] == evaluation.context
    for row, scores in zip(run["classes"], evaluation.classes, strict=True):
        same = ("accuracy", "diversity", "diversity_interval", "excess_interval", "heldout")
        assert [row[name] for name in same] == [getattr(scores, name) for name in same]
        assert row["judge"] == scores.real_accuracy is not None
    for row, counts in zip(run["classes"], evaluation.confusion, strict=True):
        interval = wilson_interval(counts[row["label"]], sum(counts))
        assert (row["low"], row["high"]) == pytest.approx(interval)
    assert run["confusion"]["matrix"] == evaluation.confusion
    assert [preview["step"] for preview in run["previews"]] == list(STEPS)
    assert [row[0] for row in run["losses"]["rows"]] == list(STEPS)
    assert "probe/fid_judge" in run["probes"]["columns"]
    text = RUN_PAGE.read_text(encoding="utf-8")
    assert run["verdict"] == quality_line(evaluation)
    assert f'<p class="verdict">{run["verdict"]} <' in text.replace("\N{NO-BREAK SPACE}", " ")
    assert page_data(text)["losses"] == run["losses"]


@pytest.mark.parametrize(
    ("changes", "state", "advice"),
    [
        ({}, "good", ""),
        ({"right": 930}, "poor", states.WHEN_ILLEGIBLE),
        ({"right": 930, "judge": 0.92}, "poor", states.JUDGE_FAILS),
        (
            {"right": 180, "low": 0.16, "high": 0.2, "judge": 0.875, "heldout": 8},
            "poor",
            states.WHEN_ILLEGIBLE,
        ),
        ({"right": 930, "images": 99}, "poor", states.MORE_IMAGES),
        ({"right": 930, "measurable": False}, "doubtful", states.NOT_MEASURABLE),
        ({"diversity_interval": [0.79, 0.95]}, "poor", states.WHEN_REPETITIVE),
        ({"diversity_interval": [0.79, 0.95], "images": 99}, "poor", states.MORE_IMAGES),
        ({"diversity_interval": [0.81, 0.89]}, "doubtful", states.WHEN_REPETITIVE),
        ({"diversity_interval": [0.81, 0.91]}, "good", ""),
        ({"right": 95, "asked": 100}, "good", ""),  # chance explains it, beside 99 of 100
        ({"diversity_interval": None, "excess_interval": None}, "good", ""),
        # The distance beyond real images', at the low end.
        ({"excess_interval": [0.09, 0.5]}, "good", ""),
        ({"excess_interval": [0.11, 0.2]}, "doubtful", states.WHEN_UNLIKE),
        ({"excess_interval": [0.31, 0.5]}, "poor", states.WHEN_UNLIKE),
        ({"excess_interval": [0.31, 0.5], "images": 99}, "poor", states.MORE_IMAGES),
        ({"excess_interval": [0.11, 0.2], "right": 930}, "poor", states.WHEN_ILLEGIBLE),
        # A judge that misreads every class says little of one: look at the drawings first.
        ({"right": 930, "judge": 0.7, "weak": True}, "doubtful", states.WEAK_JUDGE),
        (
            {"right": 930, "judge": 0.7, "weak": True, "excess_interval": [0.11, 0.2]},
            "doubtful",
            states.WHEN_UNLIKE,
        ),
        (
            {"right": 930, "judge": 0.7, "weak": True, "excess_interval": [0.31, 0.4]},
            "poor",
            states.WHEN_UNLIKE,
        ),
        ({"low": 0.94, "high": 0.96, "heldout": 1000}, "doubtful", states.WHEN_ILLEGIBLE),
        ({"low": 0.94, "high": 0.96, "heldout": 50}, "good", ""),
        ({"heldout": 19}, "doubtful", states.HOLD_OUT_MORE),
        # A sampler can be trained no longer.
        ({"right": 930, "trained": False}, "poor", states.SAMPLED_ILLEGIBLE),
        ({"diversity_interval": [0.79, 0.95], "trained": False}, "poor", states.SAMPLED_REPETITIVE),
        ({"excess_interval": [0.31, 0.5], "trained": False}, "poor", states.SAMPLED_UNLIKE),
        (
            dict.fromkeys(("low", "high", "judge", "diversity_interval")),
            "doubtful",
            states.NOT_DRAWN,
        ),
    ],
)
def test_a_class_is_judged_by_the_gates_limits_and_beside_real_images_with_what_to_change(
    changes: dict[str, Any], state: str, advice: str
) -> None:
    """Limits: .93 right, beyond what chance explains; .8 of the diversity of real images, at the low end;
    clearly below .9 of it."""
    fine = {"low": 0.98, "high": 0.99, "judge": 1.0, "heldout": 50, "images": 200}
    fine |= {"diversity_interval": [0.93, 0.99], "excess_interval": [-0.02, 0.08]}
    fine |= {"right": 985, "asked": 1000}
    measurable = changes.get("measurable", True)
    classes = [fine | changes, dict(fine), dict(fine)]
    judge = 0.69 if changes.get("weak") else 0.98
    limits, trained = load_params(ROOT / "params.yaml").gate, changes.get("trained", True)
    states.add_states(classes, measurable, judge, limits, trained=trained)
    assert (classes[0]["state"], classes[0]["advice"]) == (state, advice)
    assert classes[1]["state"] == ("good" if measurable else "doubtful")


def test_the_page_begins_with_the_classes_their_states_in_a_word_and_one_advice_for_all() -> None:
    evaluation = Evaluation.read(EVALUATION)
    classes = [replace(row, real_accuracy=1.0) for row in evaluation.classes]
    replace(evaluation, classes=classes).write(EVALUATION)
    page_made()
    run, text = facts(), RUN_PAGE.read_text(encoding="utf-8")
    states_of_cards = [each["state"] for each in run["cards"]]
    assert states_of_cards[:2] == ["poor"] * 2, "an untrained generator"
    cards = text[text.index('id="cards"') : text.index('id="numbers"')]
    assert re.findall(r'<span class="state">(\w+)[<,]', cards) == states_of_cards
    assert (
        cards.count("A drawing of ") == 12 and f"{states_of_cards.count('poor')} are poor" in text
    )
    advised = re.findall(r"<strong>([^<]*)</strong>: ", cards)
    assert advised == [", ".join(map(str, labels)) for labels in run["advice"].values()]
    assert ", " in advised[0], "one sentence for all poor ones"
    assert run["lineage"]["generator_sha256"] == sha256_of(GENERATOR)
    assert text.count(sha256_of(GENERATOR)) == 1, "one hash for one file"
    shown = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert run["measurement_context"]["generator_digest"] not in shown


def test_the_page_says_what_trains_twice_as_long_where_that_may_help_or_all_classes_are_good() -> (
    None
):
    longer = "<code>dvc exp run -S train.total_kimg=80</code>"
    change_facts(params={"total_kimg": 40.0})
    page_made()
    advice = "".join(facts()["advice"])
    assert (longer in RUN_PAGE.read_text(encoding="utf-8")) == ("train.total_kimg" in advice)
    evaluation = Evaluation.read(EVALUATION)
    good = ClassScores(
        heldout=50, accuracy=1.0, accuracy_interval=(0.99, 1.0), real_accuracy=0.94, diversity=0.99
    )
    confusion = np.diag([400, 300, 500]).tolist()
    replace(evaluation, classes=[good] * 3, confusion=confusion, not_measurable="").write(
        EVALUATION
    )
    page_made()
    text = RUN_PAGE.read_text(encoding="utf-8")
    assert facts()["states"] == {"poor": 0, "doubtful": 0, "good": 3}
    assert "<strong>What to change</strong>: nothing, all classes are good." in text
    assert longer in text and text.count("real: 47 of 50 right") == 3


def test_training_images_are_announced_where_there_are_any() -> None:
    assert "This page shows training images" in RUN_PAGE.read_text(encoding="utf-8")
    without = replace(contents_of(load_params(), CACHE), judge=None)
    text = render_page(without)
    assert "Training image" not in text and "This page shows training images" not in text


@pytest.mark.parametrize(
    "count", [3, MAX_CURVE_POINTS, MAX_CURVE_POINTS + 1, 2 * MAX_CURVE_POINTS + 1]
)
def test_a_long_curve_keeps_its_last_record(count: int, tmp_path: Path) -> None:
    path = tmp_path / "losses.csv"
    path.write_text("step,loss\n" + "".join(f"{n},0.5\n" for n in range(count)))
    rows = curve(read_records(path))["rows"]
    assert (
        rows[-1] == [count - 1, 0.5]
        and min(count, MAX_CURVE_POINTS / 2) <= len(rows) <= MAX_CURVE_POINTS
    )


def test_making_a_page_twice_gives_the_same_bytes_and_requests_nothing() -> None:
    first = RUN_PAGE.read_text()
    assert render_page(contents_of(load_params(), CACHE)) == first
    # What a page can ask for stands in its markup or style: there is nothing but data in both.
    markup = re.sub(r"<script.*?</script>", "", first, flags=re.DOTALL)
    asked = re.findall(r"""(?:src|href)=["']([^"'#][^"']*)""", markup)
    assert {address.partition(":")[0] for address in asked} == {"data"}
    assert "url(" not in markup and "@import" not in markup


def test_a_drawing_stands_beside_the_nearest_training_images_and_the_worst_come_first() -> None:
    drawn = facts()["drawn"]
    worst, random = ([one["probability"] for one in drawn[part]] for part in ("worst", "random"))
    assert worst == sorted(worst) and max(worst) <= max(random)
    shown = [*drawn["random"], *drawn["worst"]]
    lines = CSV.read_text().splitlines()
    data = load_images(TRAIN_DATA)
    asked = torch.arange(drawn["drawings"]) % data.classes
    images = draw(load_generator(GENERATOR)[0], asked, drawn["seed"])
    by, _ = nearest_neighbours(
        images, asked, data.tensors.pixels, data.tensors.labels, NEIGHBOURS_SHOWN
    )
    for one in shown:
        distances = [other["distance"] for other in one["near"]]
        assert distances == sorted(distances)
        assert any(np.allclose(distances, known, atol=2e-4) for known in by.numpy())
        for other in one["near"]:
            assert other["label"] == one["asked"]
            assert int(lines[other["line"] - 1].split(",")[0]) == other["label"]
    cards = {n: [tile(image, MAX_CARD_SIDE) for image in images[asked == n][:4]] for n in range(3)}
    assert drawn["by_class"] == cards, "on a class's card are drawings of it"


def test_previews_that_are_large_together_are_made_smaller_and_the_page_says_so() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (500, 1000, 3), dtype=np.uint8)
    frames, words = preview_frames(dict.fromkeys((100, 5), encode_png(noise)))
    assert [frame["step"] for frame in frames] == [5, 100] and "smaller" in words
    for frame in frames:
        kind, _, content = frame["src"].partition(";base64,")
        assert kind == "data:image/webp"
        with PIL.Image.open(io.BytesIO(base64.b64decode(content))) as picture:
            assert picture.size == (720, 360)


def test_numbers_that_are_none_are_left_out_of_the_page(page: Page) -> None:
    """A loss that ran away, a distance that could not be taken."""
    lines = PROBES.read_text().splitlines()
    columns, *cells = [line.split(",") for line in lines]
    at = columns.index("probe/fid_judge")
    cells[1][at], cells[2][at] = "nan", "inf"
    PROBES.write_text("\n".join(map(",".join, [columns, *cells])) + "\n")
    report = read_json(EVALUATION)
    report["metrics"]["conditional_accuracy"]["value"] = float("nan")
    report["classes"][1]["accuracy"] = float("nan")
    EVALUATION.write_text(json.dumps(report))
    page_made()
    unfold(page)
    for n in range(page.run("document.querySelectorAll('.chart').length")):
        chart = f"document.querySelectorAll('.chart')[{n}]"
        # Scrolled to again at each look: what is drawn above moves it.
        page.until(f"({chart}.scrollIntoView(), Boolean({chart}.querySelector('svg')))", 60)
    assert "NaN" not in page.run("document.querySelector('main').innerText")
    for part, words in (("metrics", "accuracy\t–\t–"), ("classes", "1\t–\t–")):
        rows = f"[...document.querySelectorAll('#{part} tbody tr')].map((r) => r.innerText)"
        assert any(words in row for row in page.run(rows))


def test_a_mistake_has_the_class_asked_for_and_the_class_seen_in_their_places(page: Page) -> None:
    confusion = [[30, 4, 0], [0, 33, 0], [0, 0, 33]]
    write_json(EVALUATION, read_json(EVALUATION) | {"confusion": confusion})
    page_made()
    unfold(page)
    cells = "[...[...document.querySelectorAll('table')].find((t) => t.caption.textContent"
    cells += " === 'Drawings that the judge takes for another class').tBodies[0].rows[0].cells]"
    assert page.run(f"{cells}.map((cell) => cell.textContent.trim())") == ["0", "1", "4"]
    words = hovered(
        page, ".chart[data-kind=matrix]", " .mark-rect path"
    ).split()  # where the number stands
    assert words == ["asked", "for", "0", "seen", "as", "1", "count", "4"]


def test_what_differs_from_the_preset_is_shown() -> None:
    params = facts()["params"]
    rows = {row["key"]: row for row in params["rows"]}
    assert params["preset"] in PRESETS
    assert rows["train.batch_size"]["value"] == 8 and rows["train.batch_size"]["preset"] != 8
    assert not rows["train.seed"]["preset"] and not any(k.startswith("gate.") for k in rows)
    known = load_params().train.model_dump()
    automatic = [key for key, value in known.items() if value == "auto"]
    change_facts(params=known | {automatic[0]: 0.25, "batch_size": 9})
    rows = {row["key"]: row for row in facts()["params"]["rows"]}
    assert rows[f"train.{automatic[0]}"]["chosen"] == 0.25, "in place of auto"
    assert not any(rows[f"train.{key}"]["chosen"] for key in ("batch_size", *automatic[1:]))


def test_params_that_the_file_lacks_are_shown_with_their_defaults() -> None:
    text = Path("params.yaml").read_text()
    for key in ("generator", "total_kimg"):
        text = re.sub(rf"\n +{key}: .*", "", text)
    Path("params.yaml").write_text(text)
    rows = {row["key"]: row["value"] for row in facts()["params"]["rows"]}
    assert rows["train.generator"] == load_params().train.generator
    assert rows["train.total_kimg"] == load_params().train.total_kimg
    page_made()


def test_a_generator_of_other_data_or_another_evaluation_has_no_page() -> None:
    evaluation = Evaluation.read(EVALUATION)
    context = {**evaluation.context, "generator_digest": "0" * 64}
    replace(evaluation, context=context).write(EVALUATION)
    with pytest.raises(ModelError, match="about another generator, not"):
        render_page(contents_of(load_params(), CACHE))
    evaluation.write(EVALUATION)
    change_facts(data_sha256="0" * 64)
    with pytest.raises(ModelError, match=f"{GENERATOR} was trained on other data"):
        render_page(contents_of(load_params(), CACHE))


class Trained(NamedTuple):
    """As `cgan.fit` gives it."""

    generator: Generator
    history: pd.DataFrame
    probes: pd.DataFrame
    previews: dict[int, bytes]
    seconds: float = 24.0


def test_a_page_is_written_of_a_run_in_memory_and_has_more_where_images_and_judge_are_given(
    page: Page,
) -> None:
    """Without a project, an empty table of probes and no previews; of a training that was stopped before its
    first record. A browser finds no error in any."""
    generator, evaluation = Generator.load(GENERATOR), Evaluation.read(EVALUATION)
    train, held_out = load_images(TRAIN_DATA), load_images(HOLDOUT_DATA)
    judge, history = load_judge(JUDGE)[0], pd.read_csv(LOSSES)
    bare = Trained(generator, history, pd.DataFrame(columns=["step"]), {})
    write_page(RUN_PAGE, bare, evaluation, cache=CACHE)
    text = RUN_PAGE.read_text(encoding="utf-8")
    verdict = quality_line(evaluation, 24.0)
    assert f'<p class="verdict">{verdict} <' in text.replace("\N{NO-BREAK SPACE}", " ")
    absent = ("data", "labels", "drawings", "params", "lineage")
    assert not [part for part in absent if f'id="{part}"' in text]
    assert not re.search(r"dvc (repro|exp|checkout|pull)", text), "there is no project"
    assert page_data(text)["losses"]["rows"] == history.to_numpy(float).tolist()
    unfold(page)
    stopped = Trained(generator, history[:0], pd.DataFrame(columns=["step"]), {0: PNG})
    write_page(RUN_PAGE, stopped, evaluation, cache=CACHE)
    unfold(page)
    training = page.run("document.querySelector('#training').innerText")
    assert "step 0" in training and "ended before its losses" in training
    page.until("Boolean(document.querySelector('#classes .chart svg'))", 60)
    whole = Trained(generator, history, pd.read_csv(PROBES), {5: PNG})
    images = {"train": train, "held_out": held_out}
    write_page(RUN_PAGE, whole, evaluation, **images, judge=judge, title="<mine>", cache=CACHE)
    text = RUN_PAGE.read_text(encoding="utf-8")
    assert [part for part in absent if f'id="{part}"' in text] == ["data", "labels", "drawings"]
    assert "<h1>&lt;mine&gt;</h1>" in text and page_data(text)["previews"][0]["step"] == 5
    unfold(page)
    another = replace(evaluation, context={**evaluation.context, "generator_digest": "0"})
    with pytest.raises(DataError, match=r"another generator.*cgan\.evaluate"):
        write_page(RUN_PAGE, whole, another)
    with pytest.raises(DataError, match="expected both `train` and `held_out`"):
        write_page(RUN_PAGE, whole, evaluation, train=train)
    images["held_out"] = replace(held_out, pixels=held_out.pixels.repeat(2, axis=2))
    with pytest.raises(DataError, match=r"^held_out: .*generator"):
        write_page(RUN_PAGE, whole, evaluation, **images)


def test_no_script_makes_markup_of_text() -> None:
    markup = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\("
    for path in PAGE_FOLDER.glob("*.js"):
        assert not re.search(markup, path.read_text()), path


def test_data_and_words_are_text_whatever_is_in_them() -> None:
    """Neither ends the script that it stands in, nor breaks the file's encoding or its JSON."""
    hostile = "</script><script>alert(1)</script><!-- \u2028 \ud800"
    data = {"name": hostile, "numbers": (float("nan"), [float("-inf")], 0.5)}
    report = dict.fromkeys(("title", "summary", "time"), hostile) | {"reasons": [hostile]}
    page = document("evidence.html", (), data, report=report, tables=[])
    assert page.encode() and "<script>alert" not in page
    assert page_data(page) == {"name": hostile, "numbers": [None, [None], 0.5]}


# -- In a browser ---------------------------------------------------------------------------------


def show(page: Page, width: int = 1280) -> None:
    page.resize(width, 800)
    page.open(RUN_PAGE.resolve().as_uri())


def unfold(page: Page, width: int = 1280) -> None:
    """Show it, open all parts, and go past every chart."""
    show(page, width)
    page.run("document.querySelectorAll('details').forEach((d) => { d.open = true })")
    page.run("document.querySelectorAll('.chart').forEach((c) => c.scrollIntoView())")


def see(page: Page, selector: str) -> dict[str, float]:
    """Scroll something into sight → its middle."""
    page.box(selector)
    page.look(0.3)
    box = page.box(selector)
    return {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}


def hovered(page: Page, chart: str, mark: str) -> str:
    """What is shown where the mouse is in the middle of a part of a chart, once that is there."""
    see(page, chart)
    selector = f"{chart}{mark}"
    page.until(f"Boolean(document.querySelector({selector!r}))")

    def is_told() -> Any:  # at each look: what is drawn above moves it
        page._ask("Input.dispatchMouseEvent", type="mouseMoved", **see(page, selector))
        return page.run("Boolean(document.querySelector('#vg-tooltip-element.visible'))")

    wait_until(is_told)
    return str(page.run("document.querySelector('#vg-tooltip-element').innerText"))


def test_the_numbers_are_folded_until_one_opens_it_and_then_the_film_plays_and_the_charts_tell(
    page: Page,
) -> None:
    show(page)
    assert page.run("document.title") == facts()["title"]
    # The classes, the generator to play with, and one screen of headings below.
    assert page.run("document.documentElement.scrollHeight") < 2.8 * 800
    assert page.run("document.querySelectorAll('.chart[data-drawn]').length") == 0
    page.run(
        "globalThis.seen = []; new MutationObserver(([{ target }]) => seen.push(target.textContent))"
        ".observe(document.querySelector('.scrubber figcaption'), {childList: true})"
    )
    page.run("document.querySelector('#training').open = true")
    caption = "document.querySelector('.scrubber figcaption').textContent"
    picture = "document.querySelector('.scrubber img').src"
    see(page, ".scrubber")
    page.until("seen.join() === 'step 0,step 5,step 10'")
    last = page.run(picture)
    page.run("document.querySelector('.scrubber input').focus()")
    page.press("ArrowLeft")
    assert page.run(caption) == "step 5" and page.run(picture) != last
    assert re.match(r"step\s+\d+\s", hovered(page, ".chart", "[data-drawn] svg"))


def test_a_link_to_a_folded_part_opens_it(page: Page) -> None:
    show(page)
    is_open = "document.querySelector('#classes').open"
    assert not page.run(is_open)
    page.run("document.querySelector('#cards a[href=\"#classes\"]').click()")
    assert page.run(is_open)
    page.run(f"{is_open} = false; document.querySelector('#cards a[href=\"#classes\"]').click()")
    assert page.run(is_open), "the address is the same as before"
    page.run("location.hash = '#data'")
    page.until("document.querySelector('#data').open")


UNPACKED_AFTER_THE_PAGE_S_OWN = """requestIdleCallback(async () => {
    const { charts } = JSON.parse(document.getElementById("page-data").textContent);
    const bytes = Uint8Array.from(atob(charts), (letter) => letter.charCodeAt(0));
    const unzip = new DecompressionStream("gzip");
    await new Response(new Blob([bytes]).stream().pipeThrough(unzip)).text();
    globalThis.unpacked = true;
})"""


def test_it_prints_on_two_sides_with_charts_that_nobody_has_scrolled_to(page: Page) -> None:
    show(page)
    page.run(UNPACKED_AFTER_THE_PAGE_S_OWN)
    page.until("globalThis.unpacked")
    page.look(1)
    page.run("dispatchEvent(new Event('beforeprint'))")
    drawn = "[...document.querySelectorAll('.printed .chart')].map((c) => c.dataset.drawn)"
    found = page.run(drawn)
    assert len(found) > 6 and set(found) == {"true"}, "the browser waits for none"
    page.run("dispatchEvent(new Event('afterprint'))")
    assert page.run("document.querySelectorAll('details[open]').length") == 0
    printed = page._ask("Page.printToPDF", preferCSSPageSize=True)["data"]
    assert len(re.findall(rb"/Type /Page\b", base64.b64decode(printed))) == 2


def test_on_a_phone_metrics_are_cards_and_nothing_has_to_be_moved_sideways(page: Page) -> None:
    change_facts(class_names=["a" * 80, "b" * 30, "c"])
    page_made()
    unfold(page, 320)
    see(page, "#lineage")
    page.look(1)
    assert page.run("document.documentElement.scrollWidth") <= 320
    rights = "[...document.querySelectorAll('main td')].map((e) => e.getBoundingClientRect().right)"
    assert max(page.run(rights)) <= 320
    assert page.run("getComputedStyle(document.querySelector('#metrics td')).display") == "flex"
    unfold(page, 1024)
    assert page.run("document.documentElement.scrollWidth") <= 1024
    see(page, "[data-kind=matrix]")
    names = (
        "document.querySelectorAll('[data-kind=matrix] .role-axis-label text:not([opacity=\"0\"])')"
    )
    page.until(f"{names}.length === 6")


def test_markup_in_class_names_params_and_tags_is_text(page: Page) -> None:
    names = [HOSTILE[1], "אבג' \" & ${1} \\u003c {{ 7 }}", "__proto__"]  # printable, as names are
    write_params(Path(), data={"path": HOSTILE[1]})
    change_facts(class_names=names)
    reference = read_json(TRAINING) | {
        "run_name": HOSTILE[0],
        "tags": {"data": HOSTILE[1]},
        "experiment": HOSTILE[2],
        "origin": {HOSTILE[1]: HOSTILE[0], "commit": HOSTILE[2], "__proto__": "odd"},
    }
    write_json(TRAINING, reference)
    page_made()
    unfold(page)
    words = hovered(page, ".chart[data-kind=matrix]", " .mark-rect path")
    assert any(name in words for name in names)
    assert page.run("document.title") == f"{HOSTILE[2]} · {HOSTILE[1]}"
    assert page.run("document.querySelectorAll('main img[src=x], main script').length") == 0
    text = page.run("document.querySelector('main').textContent")
    assert all(name in text for name in (*HOSTILE, *names))


def test_a_run_that_has_not_reached_mlflow_is_told_with_what_shows_it_later() -> None:
    write_json(TRAINING, read_json(TRAINING) | {"run_id": None})
    page_made()
    text = RUN_PAGE.read_text(encoding="utf-8")
    assert "<code>cgan report</code>" in text and "cgan reproduce" not in text
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(set(ids)) == len(ids), "an id is one element's"
