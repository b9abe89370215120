"""The library that draws the charts of a page: Vega, with Vega-Lite and its embedding.

It comes out of the package vl-convert-python, which brings the scripts. Bundling them takes seconds and
gives the same bytes for the same version, so the bundle is kept under .cgan. It travels compressed: a page
unpacks it when the first chart comes into sight.
"""

import base64
import gzip
import importlib.metadata
import logging
from pathlib import Path

from cgan.files import write_bytes

SNIPPET = "window.vegaEmbed = vegaEmbed;"

log = logging.getLogger(__name__)


def bundle(cache: Path) -> str:
    """gzip in base64, to be unpacked and run as a script. `cache`: a folder."""
    version = importlib.metadata.version("vl-convert-python")
    script_file = cache / f"charts-{version}.js.gz"
    if not script_file.is_file():
        import vl_convert

        log.info("Preparing the chart library (vl-convert-python %s); this is done once.", version)
        script = str(vl_convert.javascript_bundle(SNIPPET))
        write_bytes(script_file, gzip.compress(script.encode(), mtime=0))
    return base64.b64encode(script_file.read_bytes()).decode()
