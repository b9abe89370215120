"""The download from Kaggle, with retries. The only network code of the pipeline's stages.

kagglehub finds the credentials and downloads. Messages show only the type and status of its errors, because
their texts may hold a key, or a signed address.
"""

import logging
import multiprocessing
import os
import random
import sys
import tempfile
import time
from multiprocessing.pool import ThreadPool
from pathlib import Path

from cgan.errors import SourceError
from cgan.params.sections import DataParams

RETRY_DELAYS_S = (2.0, 8.0, 30.0)  # before the second, third and fourth try
TIMEOUT_S = 1800.0  # of a try; Kaggle's client would wait for a silent server for ever
NO_CREDENTIALS = (
    "No Kaggle credentials, or Kaggle refused them (401). Make a token at "
    "https://www.kaggle.com/settings/api. Put it into the environment variable KAGGLE_API_TOKEN, the file "
    "~/.kaggle/access_token, the variables KAGGLE_USERNAME and KAGGLE_KEY, or the file ~/.kaggle/kaggle.json "
    "(chmod 600); the first that is there is used. Or set `data.source: sample`."
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
        from kagglehub.exceptions import UnauthenticatedError
    except ImportError:
        raise SourceError(
            "`data.source: kaggle` needs the package kagglehub: `pip install -e '.[kaggle]'`."
        ) from None
    slug, competition = params.kaggle, "/" not in params.kaggle
    get = kagglehub.competition_download if competition else kagglehub.dataset_download
    for pause in (*RETRY_DELAYS_S, None):
        options = {"output_dir": tempfile.mkdtemp(dir=folder)}
        try:
            with ThreadPool(1) as pool:  # a thread that can be left when the time is over
                return Path(pool.apply_async(get, (slug, params.member), options).get(TIMEOUT_S))
        except multiprocessing.TimeoutError:
            raise SourceError(
                f"Kaggle's download was not complete after {TIMEOUT_S:,.0f} s. Run again later, or download "
                "the file in a browser and set `data.source: file`."
            ) from None
        except Exception as error:  # kagglehub and requests raise a dozen kinds
            code = getattr(getattr(error, "response", None), "status_code", 0)
            if isinstance(error, UnauthenticatedError) or code == 401:
                raise SourceError(NO_CREDENTIALS) from None
            if code == 403:
                page = f"competitions/{slug}/rules" if competition else f"datasets/{slug}"
                raise SourceError(
                    f"Kaggle does not give you `{slug}` (403): its rules are not accepted yet. Accept them "
                    f"in a browser at https://www.kaggle.com/{page}, then run again."
                ) from None
            reason = f"The download from Kaggle failed: {type(error).__name__} {code or ''}".strip()
        if pause is None or 0 < code < 429:
            break
        delay = pause * random.uniform(0.5, 1.5)  # nosec B311
        log.warning("%s. The next try is in %.0f s.", reason, delay)
        time.sleep(delay)
    raise SourceError(
        f"{reason}. Is `{slug}` right, and `data.member`? Run again later, or download the file in a browser "
        "and set `data.source: file`."
    )
