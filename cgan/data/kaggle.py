"""The download from Kaggle, with retries. The only network code of the pipeline's stages.

kagglehub finds the credentials and downloads; they are never shown.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import functools
import logging
import os
import random
import shutil
import sys
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from cgan.errors import CganError, SourceError
from cgan.params.sections import DataParams
from cgan.project import home

RETRY_DELAYS_S = (2.0, 8.0, 30.0)  # before the second, third and fourth try
MAX_RETRY_AFTER_S = 120.0
TIMEOUT_S = (10.0, 60.0)  # to connect; between bytes
SPARE_BYTES = 1 << 20  # that a download may have above the limit of the CSV
SETTINGS_PAGE = "https://www.kaggle.com/settings/api"

log = logging.getLogger(__name__)


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
    secrets = _secrets()
    good = kept_copy(params)
    incoming = good.parent / "incoming"
    competition = "/" not in params.kaggle
    download = kagglehub.competition_download if competition else kagglehub.dataset_download
    try:
        if competition and not secrets:
            raise SourceError(_no_credentials_message())
        started, tries = time.monotonic(), len(RETRY_DELAYS_S) + 1
        for number, pause in enumerate((*RETRY_DELAYS_S, None), start=1):
            shutil.rmtree(incoming, ignore_errors=True)
            incoming.mkdir(parents=True)
            try:
                with _timeouts(), _file_size_limit(params.max_megabytes * 1_000_000 + SPARE_BYTES):
                    found = Path(download(params.kaggle, params.member, output_dir=str(incoming)))
                break
            except Exception as error:  # kagglehub and requests raise a dozen kinds
                reason, wait = _diagnose(error, params, known=bool(secrets))
            if wait is None:
                raise SourceError(reason)
            if pause is None:
                raise SourceError(
                    f"{reason} Gave up after {tries} tries in {time.monotonic() - started:.0f} s; run "
                    "again later, or download the file in a browser and set `data.source: file`."
                )
            delay = max(wait, pause * random.uniform(0.5, 1.5))  # nosec B311
            words = _redacted(reason, secrets)
            log.warning("%s Try %d of %d follows in %.0f s.", words, number + 1, tries, delay)
            time.sleep(delay)
        yield found
    except CganError as error:
        kept = (
            f" The copy of an earlier download is whole: to use it, set `data.source: file` and "
            f"`data.path: {good}`."
            if good.is_file()
            else ""
        )
        raise SourceError(_redacted(f"{error}{kept}", secrets)) from None
    finally:
        shutil.rmtree(incoming, ignore_errors=True)


def _diagnose(error: Exception, params: DataParams, *, known: bool) -> tuple[str, float | None]:
    """→ what happened and what to do, and how many seconds to wait at least before another try.

    None instead of the seconds: another try would be of no use. `known`: there are credentials.
    """
    import requests
    from kagglehub.exceptions import DataCorruptionError, UnauthenticatedError

    competition = "/" not in params.kaggle
    page = f"https://www.kaggle.com/{'competitions' if competition else 'datasets'}/{params.kaggle}"
    if isinstance(error, requests.HTTPError) and error.response is not None:
        code = error.response.status_code
        if code in (401, 403) and not known:
            return _no_credentials_message(), None
        if code == 429 or code >= 500:
            what = "asks us to slow down" if code == 429 else "has a fault of its own"
            return f"Kaggle {what} ({code}).", _retry_after(error.response.headers)
        refusals = {
            401: f"Kaggle refused your credentials (401). Make a new token at {SETTINGS_PAGE}; the first of "
            f"these that is there is used: {_places()}.",
            403: f"Kaggle knows you but does not give the data of `{params.kaggle}` (403): its rules are not "
            f"accepted yet. Accept them in a browser at {page}/rules, then run again."
            if competition
            else f"Kaggle knows you but does not give you `{params.kaggle}` (403): it is private, or asks "
            f"for consent. Open {page} in a browser, then run again.",
            404: f"Kaggle has no `{params.member}` in `{params.kaggle}` (404). Compare `data.kaggle` and "
            f"`data.member` with {page}/data.",
        }
        return refusals.get(
            code, f"Kaggle answered {code} for `{params.kaggle}`. See {page}."
        ), None
    if isinstance(error, UnauthenticatedError):
        return _no_credentials_message(), None
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


# --- credentials --------------------------------------------------------------------------------


def _secrets() -> list[str]:
    """What must not be shown of the credentials that kagglehub will use; empty where there are none.

    Warns when others can read their file.
    """
    from kagglehub.config import get_kaggle_credentials

    for path in _files():
        if os.name == "posix" and path.is_file() and path.stat().st_mode & 0o077:
            log.warning("%s can be read by others: `chmod 600 %s`.", path, path)
    try:
        found = get_kaggle_credentials()
    except (OSError, ValueError, TypeError) as error:
        raise SourceError(f"{error}. Download it again from {SETTINGS_PAGE}.") from None
    if found is None:
        return []
    pair = base64.b64encode(f"{found.username}:{found.key}".encode()).decode()
    return [secret for secret in (found.api_key, found.key, pair) if secret]


def _files() -> tuple[Path, Path]:
    folder = os.environ.get("KAGGLE_CONFIG_DIR")
    usual = Path.home() / ".kaggle"
    return usual / "access_token", (Path(folder) if folder else usual) / "kaggle.json"


def _places() -> str:
    token, pair = _files()
    return (
        f"the environment variable KAGGLE_API_TOKEN, the file {token}, the variables KAGGLE_USERNAME and "
        f"KAGGLE_KEY, the file {pair} (readable by you alone: chmod 600)"
    )


def _no_credentials_message() -> str:
    return (
        f"No Kaggle credentials. Make a token at {SETTINGS_PAGE}, and put it into one of {_places()}. "
        "Or set `data.source: sample`."
    )


def _redacted(text: str, secrets: list[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


@contextlib.contextmanager
def _timeouts() -> Iterator[None]:
    """Kaggle's client sends without a timeout: a silent server would hold the stage for ever."""
    import requests

    send = requests.Session.send
    requests.Session.send = functools.partialmethod(send, timeout=TIMEOUT_S)  # type: ignore[method-assign, assignment]
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
