"""The download from Kaggle, by kagglehub.

Messages show only the type and status of its errors: their texts may hold a key, or a signed address.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

from cgan.base.errors import DataError
from cgan.params.sections import DataParams

RETRY_DELAYS_S = (2.0, 10.0)  # kagglehub does not retry
NO_CREDENTIALS = (
    "No Kaggle credentials, or Kaggle refused them (401). Put a token of https://www.kaggle.com/settings/api "
    "into the environment variable KAGGLE_API_TOKEN, the variables KAGGLE_USERNAME and KAGGLE_KEY, or "
    "~/.kaggle/access_token or ~/.kaggle/kaggle.json. Or set `data.source: sample`."
)


def download(params: DataParams, folder: str) -> Path:
    """The file that Kaggle gives for `data.member`, perhaps a .zip, in `folder`. Raises DataError."""
    if not sys.stderr.isatty():
        os.environ["TQDM_DISABLE"] = "1"  # in a log, kagglehub's bar would be a line without an end
    try:
        import kagglehub
        from kagglehub.exceptions import UnauthenticatedError
    except ImportError:
        raise DataError(
            "`data.source: kaggle` needs the package kagglehub: `pip install -e '.[kaggle]'`."
        ) from None
    slug, is_competition = params.kaggle, "/" not in params.kaggle
    get = kagglehub.competition_download if is_competition else kagglehub.dataset_download
    for delay in (*RETRY_DELAYS_S, None):
        try:
            return Path(get(slug, params.member, output_dir=tempfile.mkdtemp(dir=folder)))
        except Exception as error:  # kagglehub and requests raise a dozen kinds
            code = getattr(getattr(error, "response", None), "status_code", 0)
            kind = type(error).__name__
            is_unauthenticated = isinstance(error, UnauthenticatedError)
        if is_unauthenticated or code == 401:
            raise DataError(NO_CREDENTIALS)
        if delay is None or 0 < code < 429:
            break
        time.sleep(delay)
    page = f"competitions/{slug}/rules" if is_competition else f"datasets/{slug}"
    raise DataError(
        f"The download from Kaggle failed: {kind} {code or ''}. Is `{slug}` right, and `data.member`? With "
        f"403, accept its rules at https://www.kaggle.com/{page}. Or run again later, or download the file "
        "in a browser and set `data.source: file`."
    )
