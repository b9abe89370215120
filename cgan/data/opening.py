"""Whatever is named on the command line → its images: a CSV, an archive, a folder."""

from __future__ import annotations

import tempfile
from pathlib import Path

from cgan.data.album import find_album
from cgan.data.csv_reader import read_csv
from cgan.data.dataset import LabelledImages
from cgan.data.pictures import read_album
from cgan.data.sources import ARCHIVES, PACKED, find_file, unpack
from cgan.params.sections import DataParams, ValidateParams


def read(path: Path, params: DataParams, expected: ValidateParams) -> tuple[LabelledImages, str]:
    """The images that a file, archive or folder holds, and its name for messages. Raises SourceError for
    what cannot be had, DataError for a CSV that is none of images."""
    found = find_file(path)
    with find_album(found) as album:
        if album:
            return read_album(album, params), str(found)
    limit = params.max_megabytes * 1_000_000
    if found.suffix.lower() not in ARCHIVES and not _is_packed(found):
        return read_csv(found, expected, max_bytes=limit), str(found)
    with tempfile.TemporaryDirectory(prefix="cgan-") as folder:
        csv, name = Path(folder) / "unpacked.csv", f"{found} (unpacked)"
        unpack(found, csv, params, str(found))
        return read_csv(csv, expected, max_bytes=limit, name=name), name


def _is_packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4).startswith(PACKED)
