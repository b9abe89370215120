"""The page as the service serves it, in a real browser: its policy lets it work, and ask for nothing."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browser import browsing
from PIL import Image
from served import a_model, running_file

from cgan.service.served import Keeper


def test_the_page_plays_downloads_and_asks_for_nothing_but_itself(tmp_path: Path) -> None:
    model = a_model(tmp_path / "generator.safetensors")
    with running_file(model) as client, browsing(tmp_path / "profile") as page:
        page.downloads_to(tmp_path)
        address = f"{client.base_url}/#text=2024&seed=7"
        page.open(address)
        drawn = "document.getElementById('play-picture')"
        page.until(f"{drawn}?.getAttribute('aria-busy') === 'false'")
        label = page.run(f"{drawn}.getAttribute('aria-label')")
        assert label == "2024, drawn with seed 7"
        page.click("#play-png")
        with Image.open(page.downloaded(tmp_path / "2024-seed-7.png")) as picture:
            assert picture.width > 4 * 28
        page.look(1)
        assert page.errors == []
        assert page.elsewhere() == []
        asked = {url.partition("#")[0] for url in page.requests if urlsplit(url).scheme == "http"}
        assert asked == {f"{client.base_url}/"}
        # What else a script might try is refused by the policy.
        page.run("fetch('/model').catch((error) => { window.refused = String(error); })")
        page.until("window.refused")
        assert any("Content Security Policy" in error for error in page.errors)


def test_a_name_that_no_page_can_hold_does_not_take_the_page_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served = Keeper("digits").current
    assert served
    monkeypatch.setattr("cgan.page.assemble.play_page", lambda generator: "<p>\ud800</p>")
    assert served.page == b"<p>?</p>"
