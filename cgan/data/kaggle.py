"""The download from Kaggle, with retries. The only network code of the pipeline's stages.

Credentials are read from the environment or Kaggle's own file, and never shown.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import json
import logging
import os
import random
import shutil
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cgan.errors import CganError, SourceError
from cgan.params.sections import DataParams
from cgan.project import home

RETRY_DELAYS_S = (2.0, 8.0, 30.0)  # before the second, third and fourth try
MAX_RETRY_AFTER_S = 120.0
TIMEOUT_S = (10.0, 60.0)  # to connect; between bytes
SPARE_BYTES = 1 << 20  # that a download may have above the limit of the CSV

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Credentials:
    """Where Kaggle's credentials come from, and the texts that must never be shown."""

    origin: str
    secrets: tuple[str, ...]


def kept_copy(params: DataParams) -> Path:
    """Where the CSV of an earlier download stays, to be used when Kaggle cannot be."""
    return (
        home() / "downloads" / params.kaggle.replace("/", "+") / PurePosixPath(params.member).name
    )


@contextlib.contextmanager
def downloaded(params: DataParams) -> Iterator[Path]:
    """Yield the file that Kaggle gives for `data.member`, perhaps a .zip. It is removed afterwards.

    Raises SourceError, without credentials in it, also for what goes wrong with the file in the block.
    """
    if not sys.stderr.isatty():
        os.environ["TQDM_DISABLE"] = "1"  # in a log, kagglehub's bar would be a line without an end
    try:
        import kagglehub
    except ImportError:
        raise SourceError(
            "`data.source: kaggle` needs the package kagglehub: `pip install -e '.[kaggle]'`."
        ) from None
    competition = "/" not in params.kaggle
    credentials = _find_credentials()
    if competition and credentials is None:
        raise SourceError(_no_credentials_message())
    good = kept_copy(params)
    incoming = good.parent / "incoming"
    download = kagglehub.competition_download if competition else kagglehub.dataset_download

    def attempt() -> Path:
        shutil.rmtree(incoming, ignore_errors=True)
        incoming.mkdir(parents=True)
        with _timeouts(), _file_size_limit(params.max_megabytes * 1_000_000 + SPARE_BYTES):
            return Path(download(params.kaggle, params.member, output_dir=str(incoming)))

    try:
        yield _with_retries(attempt, params, credentials)
    except CganError as error:
        kept = (
            f" The copy of an earlier download is whole: to use it, set `data.source: file` and "
            f"`data.path: {good}`."
            if good.is_file()
            else ""
        )
        raise SourceError(_redact(f"{error}{kept}", credentials)) from None
    finally:
        shutil.rmtree(incoming, ignore_errors=True)


def _with_retries(
    attempt: Callable[[], Path], params: DataParams, credentials: _Credentials | None
) -> Path:
    """Try until it works, an error says that trying again is no use, or the tries are used up."""
    started = time.monotonic()
    tries = len(RETRY_DELAYS_S) + 1
    for number in range(1, tries + 1):
        try:
            return attempt()
        except Exception as error:  # kagglehub and requests raise a dozen kinds
            reason, wait = _diagnose(error, params, credentials)
        if wait is None:
            raise SourceError(reason)
        if number == tries:
            break
        delay = max(wait, RETRY_DELAYS_S[number - 1] * random.uniform(0.5, 1.5))  # nosec B311
        words = _redact(reason, credentials)
        log.warning("%s Try %d of %d follows in %.0f s.", words, number + 1, tries, delay)
        time.sleep(delay)
    raise SourceError(
        f"{reason} Gave up after {tries} tries in {time.monotonic() - started:.0f} s; "
        "run again later, or download the file in a browser and set `data.source: file`."
    )


def _diagnose(
    error: Exception, params: DataParams, credentials: _Credentials | None
) -> tuple[str, float | None]:
    """→ what happened and what to do, and how many seconds to wait at least before another try.

    None instead of the seconds: another try would be of no use.
    """
    import requests
    from kagglehub.exceptions import DataCorruptionError, UnauthenticatedError

    competition = "/" not in params.kaggle
    page = f"https://www.kaggle.com/{'competitions' if competition else 'datasets'}/{params.kaggle}"
    if isinstance(error, UnauthenticatedError):
        return _no_credentials_message(), None
    if isinstance(error, requests.HTTPError) and error.response is not None:
        code = error.response.status_code
        if code in (401, 403) and credentials is None:
            return _no_credentials_message(), None
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
        return f"{error.filename or kept_copy(params)}: {error.strerror}.", None
    reason = (str(error).splitlines() or [""])[0][:200]
    return f"The download from Kaggle failed: {type(error).__name__}: {reason}.", None


def _retry_after(headers: Any) -> float:
    try:
        return min(MAX_RETRY_AFTER_S, max(0.0, float(headers.get("Retry-After", 0))))
    except ValueError:
        return 0.0


def _no_credentials_message() -> str:
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
        return _Credentials("KAGGLE_USERNAME and KAGGLE_KEY", (key, _basic_auth(username, key)))
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
    return _Credentials(str(path), (key, _basic_auth(username, key)))


def _basic_auth(username: str, key: str) -> str:
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


def _redact(text: str, credentials: _Credentials | None) -> str:
    for secret in credentials.secrets if credentials else ():
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
    """Have the kernel refuse writes beyond `limit` bytes: kagglehub has no limit and unpacks what comes."""
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
