"""A visitor of the page's first half: opens it, types, and looks at canvases and words."""

import functools
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import Page, browsing

from cgan.drawing.generator import Generator
from cgan.model.networks import Architecture, build_generator
from cgan.page.assemble import play_page

LATENT = 12


@functools.cache
@torch.no_grad()
def generator_of(kind: str = "deconv", names: Any = None, **changes: Any) -> Generator:
    """Weights and statistics as after a training: no layer leaves its input as it is, and pictures have
    contrast."""
    facts: dict[str, Any] = {"classes": 10, "channels": 1, "height": 28, "width": 28, "features": 8}
    torch.manual_seed(5)
    network = build_generator(Architecture(kind, **{**facts, "latent_dim": LATENT, **changes}))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 2)
            module.bias.data.normal_(0, 0.3)
            module.momentum = None  # the statistics are means over all batches
    before_tanh: list[torch.Tensor] = []
    last = network.layers[-2]
    hook = last.register_forward_hook(lambda _, __, out: before_tanh.append(out))
    for training in [True] * 5 + [False]:
        labels = torch.randint(network.architecture.classes, (64,))
        network.train(training)(torch.randn(64, network.architecture.latent_dim), labels)
    hook.remove()
    last.get_parameter("weight").data /= before_tanh[-1].std()  # from black to white
    facts = {"digest": "0" * 64, "class_names": list(names) if names else None}
    return Generator(network.eval().requires_grad_(False), facts)


page_of = functools.cache(lambda generator: play_page(generator, "", "a test"))


class Visitor(Page):
    """Of the page's first half, whose elements have these names behind `play-`."""

    def show(self, generator: Generator, folder: Path, link: str = "") -> None:
        """Open the generator's page, whose downloads land there."""
        self._ask("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
        # With another name it is a new page, not another hash.
        path = folder / f"{uuid.uuid4().hex}.html"
        path.write_text(page_of(generator), encoding="utf-8")
        self.start(f"{path.as_uri()}{link}")
        self.until("document.readyState === 'complete'")
        self.idle()

    def idle(self) -> None:
        self.until("document.getElementById('play-picture')?.getAttribute('aria-busy') === 'false'")

    def of(self, name: str, code: str) -> Any:
        """What an element has."""
        return self.run(f"document.getElementById('play-{name}').{code}")

    def change(self, name: str, value: str) -> None:
        """Of a field."""
        self.of(name, f"value = {json.dumps(value)}")
        for event in ("input", "change"):
            self.of(name, f"dispatchEvent(new Event('{event}'))")
        self.idle()

    def value(self, name: str) -> str:
        return str(self.of(name, "value"))

    def words(self, name: str) -> str:
        return str(self.of(name, "textContent"))

    def label(self, name: str = "picture") -> str:
        return str(self.of(name, "getAttribute('aria-label')"))

    def pixels(self, name: str = "picture") -> Any:
        """int [H, W, 3] of a canvas."""
        code = f"""(() => {{
            const canvas = document.getElementById("play-{name}"), {{ width, height }} = canvas;
            const copy = new OffscreenCanvas(width, height).getContext("2d");
            copy.drawImage(canvas, 0, 0);
            return [height, width, Array.from(copy.getImageData(0, 0, width, height).data)];
        }})()"""
        height, width, data = self.run(code)
        return np.array(data).reshape(height, width, 4)[..., :3]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visitor]:
    with browsing(tmp_path_factory.mktemp("browser") / "profile", kind=Visitor) as page:
        yield page


@pytest.fixture
def page(browser: Visitor) -> Iterator[Visitor]:
    """Afterwards: no error in the console, and nothing was asked of a network."""
    browser.errors.clear()
    browser.requests.clear()
    browser.resize(1280, 800)
    browser.prefer_scheme("light")
    yield browser
    assert browser.errors == []
    assert not [url for url in browser.requests if url.startswith("http")]


def side_by_side(images: Any) -> Any:
    """[N, H, W] or [N, H, W, 3] → int [H, N·W, 3]."""
    images = np.asarray(images).astype(int)
    if images.ndim == 3:
        images = images[..., None].repeat(3, axis=3)
    return np.concatenate(list(images), axis=1)


def assert_alike(found: Any, expected: Any) -> None:
    """99.9 % of the pixels within one grey level, none more than two."""
    assert found.shape == expected.shape
    apart = np.abs(found.astype(int) - expected.astype(int))
    assert expected.std() > 30 and (apart <= 1).mean() >= 0.999 and apart.max() <= 2
