"""One answer in four forms, and how a number is written in all of them."""

import math
from pathlib import Path

from cgan.base.files import read_json
from cgan.base.report import TERMINAL_ROWS, Kind, Number, Report, Table

EVIL = "<b>|\x1b[2J\n# x"
NUMBERS = Number(value=0.98, interval=(0.975, 1.0))
REPORT = Report(
    question="Is it good?",
    verdict="yes",
    sentence="It is: quite.",
    reasons=["quite", EVIL],
    tables=[Table("Of *each*", ("", "share", "n"), [(EVIL, NUMBERS, 1234)], notes=["odd"])],
    pictures={EVIL: b"png"},
    facts={"n": 1234},
)


def test_a_number_is_written_alike_everywhere() -> None:
    cases: dict[Kind, dict[float | None, str]] = {
        "share": {0.98971: "99.0 %", None: "", math.inf: "–"},
        "points": {0.0123: "+1.2", -0.2: "-20.0"},
        "number": {0.5: "0.500", 99.96: "100", 12345.6: "12,346", -7.0: "-7.00"},
        "difference": {0.0123: "+0.0123", -100_000: "-100,000"},
    }
    for kind, written in cases.items():
        assert [str(Number(value=value, kind=kind)) for value in written] == [*written.values()]
    assert NUMBERS.with_interval == "98.0 % (97.5 % to 100.0 %)"
    assert Number(value=math.nan, interval=(0, 1)).with_interval == "–"


def test_names_stay_text_in_each_form(tmp_path: Path) -> None:
    text, markdown, html = REPORT.as_text(), REPORT.as_markdown("![x](y)"), REPORT.as_html()
    assert text.startswith("YES: It is: quite.\n  - <b>|") and "quite\n  - quite" not in text
    assert r"<b>|\x1b[2J\n# x  98.0 %  1,234" in text and "odd" not in text
    assert (
        "\n\n![x](y)\n\n" in markdown
        and r"| &lt;b&gt;\|\\x1b\[2J \# x | 98.0 % | 1,234 | odd |" in markdown
    )
    assert r"## Of \*each\*" in markdown and "| --- | ---: | ---: | --- |" in markdown
    assert "<b>" not in html and "<caption>Of *each*</caption>" in html
    assert '<td data-of="share">98.0\u00a0%</td>' in html and "base64,cG5n" in html
    REPORT.write(tmp_path / "x.json")
    said = {"question": "Is it good?", "verdict": "yes", "sentence": "It is: quite."}
    assert read_json(tmp_path / "x.json") == {**said, "reasons": ["quite", EVIL], "n": 1234}
    assert (tmp_path / "x.md").read_text() == f"# Is it good?: yes\n\n{REPORT.as_markdown()}"
    table = Table("", ("", "n"), [(str(n), n) for n in range(TERMINAL_ROWS + 1000)])
    assert table.as_text().endswith("\n19  19\n… and 1,000 more")
