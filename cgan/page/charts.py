"""The library that draws the charts of a page: Vega, with Vega-Lite and its embedding.

It comes out of the package vl-convert-python, which brings the scripts. Bundling them takes seconds and
gives the same bytes for the same version, so the bundle is kept under .cgan. It travels compressed: a page
unpacks it when the first chart comes into sight.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import importlib.metadata
import logging
from pathlib import Path

from cgan.errors import CganError
from cgan.files import write_bytes

PACKAGE = "vl-convert-python"
SNIPPET = "window.vegaEmbed = vegaEmbed;"

log = logging.getLogger(__name__)


def bundle(cache: Path) -> str:
    """gzip in base64, to be unpacked and run as a script. `cache`: a folder.

    Raises CganError where the package is not installed.
    """
    try:
        version = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise CganError(
            f"the package {PACKAGE} is not installed, and the charts of a page are drawn with what it "
            f"brings. Install it: `pip install {PACKAGE}`."
        ) from None
    kept = cache / f"charts-{version}.js.gz"
    content = _whole(kept)
    if content is None:
        log.info("Putting the chart library together (%s %s), once.", PACKAGE, version)
        content = gzip.compress(_bundle().encode(), mtime=0)
        with contextlib.suppress(OSError):  # it is made again next time
            write_bytes(kept, content)
    return base64.b64encode(content).decode()


def _whole(path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
        gzip.decompress(content)
    except (OSError, EOFError, ValueError):
        return None
    return content


def _bundle() -> str:
    import vl_convert

    return str(vl_convert.javascript_bundle(SNIPPET))
