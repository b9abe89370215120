"""Prefect's API, and where the servers are. Each may be missing."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

from cgan.errors import CganError
from cgan.files import read_json
from cgan.project import PRODUCTION
from cgan.store.address import is_server, store_uri, without_credentials
from cgan.store.server import site_of

POOL = "cgan"  # of Prefect, in which the workers are
PASSWORD = "PREFECT_SERVER_API_AUTH_STRING"  # that its server asks for, where `make up` was typed


def ask_prefect(
    url: str, method: str, path: str, content: Any = None, timeout_s: float = 30
) -> Any:
    """What the API at `url` answers. Credentials as Prefect's own client takes them, from the environment.

    Raises CganError with the answer when it refuses, or gives none.
    """
    import httpx

    password = os.environ.get("PREFECT_API_AUTH_STRING") or os.environ.get(PASSWORD, "")
    key = os.environ.get("PREFECT_API_KEY", "")
    options: dict[str, Any] = {
        "json": content,
        "timeout": timeout_s,
        "auth": password.partition(":")[::2] if password else None,
        "headers": {"Authorization": f"Bearer {key}"} if key else None,
    }
    try:
        for wait_s in (0.5, 1, 2, 4, 0):
            answer = httpx.request(method, f"{url}{path}", **options)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            time.sleep(wait_s)  # its database is busy
        answer.raise_for_status()
        return answer.json() if answer.content else None
    except (httpx.HTTPStatusError, json.JSONDecodeError):
        found = f"answers {method} {path} with {answer.status_code}: {answer.text[:500]}"
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        found = f"gives no answer ({error})"
    raise CganError(f"Prefect at {without_credentials(url)} {found}")


def mlflow_site(root: Path) -> str:
    """The address at which a browser finds MLflow's pages now: of the team's server, or of `make up`'s.

    Empty where neither is there.
    """
    with contextlib.suppress(CganError):
        uri = without_credentials(store_uri(root))
        if is_server(uri):
            return uri if uri.startswith("http") else ""
    return services(root).get("mlflow", "")


def services(root: Path) -> dict[str, str]:
    """What the supervisor of `make up` keeps running: a server's address, a worker's process."""
    from cgan import processes

    found = {}
    for name, pid in processes.running(root).items():
        known = read_json(root / PRODUCTION / processes.STATE)[name]
        port = known["port"]
        found[name] = site_of(known["host"], port) if port else f"process {pid}"
    return found
