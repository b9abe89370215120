"""The docs show all pictures, the text agrees with them, and links and promises lead somewhere."""

import re

from conftest import ROOT

from cgan.base.files import read_json

IMAGES = ROOT / "docs/images"
SHOWN = re.compile(r"!\[([^\]]*)\]\((?:docs/)?images/([\w.-]+)\)")
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]


def test_the_docs_show_all_pictures_and_none_is_large() -> None:
    shown = {name for page in PAGES for _, name in SHOWN.findall(page.read_text())}
    there = {path.name for path in IMAGES.iterdir()}
    assert shown == there - {"facts.json"}
    assert all(path.stat().st_size <= 300_000 for path in IMAGES.iterdir())


def test_each_promise_names_tests_that_exist() -> None:
    rows = re.findall(r"^\| (\d+) \|(.*)$", (ROOT / "docs/promises.md").read_text(), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 25))
    for _, row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", row)
        assert named, row
        for file, test in named:
            assert f"def {test}" in (ROOT / file).read_text(), (file, test)


def test_every_link_within_the_docs_leads_somewhere() -> None:
    for page in [*PAGES, *(ROOT / "docs/adr").glob("*.md"), ROOT / "CONTRIBUTING.md"]:
        for target, anchor in re.findall(
            r"\]\((?!https?:)([^)#\s]*)(?:#([^)]*))?\)", page.read_text()
        ):
            there = page.parent / target if target else page
            assert there.exists(), (page.name, target)
            heads = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE) if anchor else []
            names = [re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads]
            assert not anchor or anchor in names, (page.name, target, anchor)


def test_the_text_agrees_with_what_the_pictures_show() -> None:
    facts = read_json(IMAGES / "facts.json")
    readme = (ROOT / "README.md").read_text()
    accuracy, spread = map(float, re.findall(r"\*\*([\d.]+) ± ([\d.]+) %", readme)[0])
    assert abs(100 * facts["sample"]["accuracy"] - accuracy) <= 3 * spread
    assert f"trained in {facts['sample']['training_s']:.0f} s" in readme
    for page in (ROOT / "README.md", ROOT / "docs/production.md"):
        captions = {name: words for words, name in SHOWN.findall(page.read_text())}
        assert facts["production"].lower() in captions["production-run.png"], page
