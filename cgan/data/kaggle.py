"""The download from Kaggle, with retries. The only network code of the pipeline's stages.

kagglehub finds the credentials and downloads; they are never shown.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import logging
import os
import random
import re
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from cgan.errors import SourceError
from cgan.params.sections import DataParams

RETRY_DELAYS_S = (2.0, 8.0, 30.0)  # before the second, third and fourth try
TIMEOUT_S = (10.0, 60.0)  # to connect; between bytes
SETTINGS_PAGE = "https://www.kaggle.com/settings/api"
CREDENTIALS = (
    "the environment variable KAGGLE_API_TOKEN, the file ~/.kaggle/access_token, the variables "
    "KAGGLE_USERNAME and KAGGLE_KEY, the file ~/.kaggle/kaggle.json (readable by you alone: chmod 600)"
)
NO_CREDENTIALS = (
    f"No Kaggle credentials. Make a token at {SETTINGS_PAGE}, and put it into one of {CREDENTIALS}. Or set "
    "`data.source: sample`."
)

log = logging.getLogger(__name__)


def download(params: DataParams, folder: str) -> Path:
    """The file that Kaggle gives for `data.member`, perhaps a .zip, somewhere in `folder`.

    Raises SourceError, without credentials in it.
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
    competition = "/" not in params.kaggle
    if competition and not secrets:
        raise SourceError(NO_CREDENTIALS)
    get = kagglehub.competition_download if competition else kagglehub.dataset_download
    for pause in (*RETRY_DELAYS_S, None):
        try:
            with _timeouts():
                return Path(
                    get(params.kaggle, params.member, output_dir=tempfile.mkdtemp(dir=folder))
                )
        except Exception as error:  # kagglehub and requests raise a dozen kinds
            reason, passing = _diagnose(error, params, bool(secrets))
        for secret in secrets:
            reason = reason.replace(secret, "***")
        if pause is None or not passing:
            break
        delay = pause * random.uniform(0.5, 1.5)  # nosec B311
        log.warning("%s Another try follows in %.0f s.", reason, delay)
        time.sleep(delay)
    if passing:
        reason += (
            f" Gave up after {len(RETRY_DELAYS_S) + 1} tries; run again later, or download the file in a "
            "browser and set `data.source: file`."
        )
    raise SourceError(reason)


def _diagnose(error: Exception, params: DataParams, known: bool) -> tuple[str, bool]:
    """→ what happened and what to do, and whether another try may help. `known`: there are credentials."""
    import requests
    from kagglehub.exceptions import DataCorruptionError, UnauthenticatedError

    slug, competition = params.kaggle, "/" not in params.kaggle
    page = f"https://www.kaggle.com/{f'competitions/{slug}/rules' if competition else f'datasets/{slug}'}"
    code = getattr(getattr(error, "response", None), "status_code", 0)
    if isinstance(error, UnauthenticatedError) or (code in (401, 403) and not known):
        return NO_CREDENTIALS, False
    refusals = {
        401: f"Kaggle refused your credentials (401). Make a new token at {SETTINGS_PAGE}; the first of "
        f"these that is there is used: {CREDENTIALS}.",
        403: f"Kaggle does not give you `{slug}` (403): its rules are not accepted yet. Accept them in a "
        f"browser at {page}, then run again.",
    }
    if code in refusals:
        return refusals[code], False
    # An address that Kaggle leads to is signed: whoever has it has the file.
    line = re.sub(r"\?\S+", "?…", (str(error).splitlines() or [""])[0])[:400]
    damage = (DataCorruptionError, zipfile.BadZipFile, zlib.error, EOFError)
    passing = isinstance(error, (requests.RequestException, *damage)) and not 0 < code < 429
    return f"The download from Kaggle failed: {type(error).__name__}: {line}.", passing


# --- credentials --------------------------------------------------------------------------------


def _secrets() -> list[str]:
    """What must not be shown of the credentials that kagglehub will use; empty where there are none.

    Warns when others can read their file.
    """
    from kagglehub.config import get_kaggle_credentials

    folder = Path.home() / ".kaggle"
    pair = Path(os.environ.get("KAGGLE_CONFIG_DIR") or folder) / "kaggle.json"
    for path in (folder / "access_token", pair):
        if os.name == "posix" and path.is_file() and path.stat().st_mode & 0o077:
            log.warning("%s can be read by others: `chmod 600 %s`.", path, path)
    try:
        found = get_kaggle_credentials()
    except (OSError, ValueError, TypeError) as error:
        raise SourceError(f"{error}. Download it again from {SETTINGS_PAGE}.") from None
    if found is None:
        return []
    basic = base64.b64encode(f"{found.username}:{found.key}".encode()).decode()
    return [secret for secret in (found.api_key, found.key, basic) if secret]


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
