"""The library that draws the charts of a page: Vega, with Vega-Lite and its embedding.

It comes out of the package vl-convert-python, which brings the scripts. Bundling them takes seconds and
gives the same bytes for the same version, so the bundle is kept under .cgan. It travels compressed: a page
unpacks it when the first chart comes into sight.
"""

import base64
import functools
import gzip
import importlib.metadata
import logging
from pathlib import Path

from cgan.files import write_bytes

EXPORT_SNIPPET = "window.vegaEmbed = vegaEmbed;"  # what the bundle hands to the page

log = logging.getLogger(__name__)


def chart_library(cache: Path | None) -> str:
    """The library, gzip in base64, to be unpacked and run as a script. `cache`: a folder that keeps it; None:
    this process does."""
    if cache is None:
        return base64.b64encode(_gzipped_bundle()).decode()
    version = importlib.metadata.version("vl-convert-python")
    script_file = cache / f"charts-{version}.js.gz"
    if not script_file.is_file():
        log.info("Preparing the chart library (vl-convert-python %s); this is done once.", version)
        write_bytes(script_file, _gzipped_bundle())
    return base64.b64encode(script_file.read_bytes()).decode()


@functools.cache
def _gzipped_bundle() -> bytes:
    import vl_convert

    return gzip.compress(str(vl_convert.javascript_bundle(EXPORT_SNIPPET)).encode(), mtime=0)
