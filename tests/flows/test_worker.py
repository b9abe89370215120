"""A worker that joins a pool: what it needs is asked for first, and what a killed one left is taken up."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import pytest
from test_checkout import clone as clone
from toy_project import git

from cgan.errors import CganError
from cgan.git import fetch_commit
from flows import worker
from flows.servers import Production

AWAY = ("Prefect: .*Connection refused", "MLflow: ")


@pytest.mark.parametrize(
    ("prefect", "mlflow", "missing"),
    [
        ("", "", ("Prefect: PREFECT_API_URL is not set", "MLflow: MLFLOW_TRACKING_URI is not set")),
        ("http://name:secret@127.0.0.1:9/api", "http://127.0.0.1:9", AWAY),
        ("http://127.0.0.1:9", "postgresql://me:secret@127.0.0.1:9/runs", AWAY),
    ],
)
def test_a_machine_that_cannot_join_is_told_at_once_all_that_is_missing_without_a_password(
    clone: Path,
    monkeypatch: pytest.MonkeyPatch,
    prefect: str,
    mlflow: str,
    missing: tuple[str, ...],
) -> None:
    monkeypatch.chdir(clone)
    for name, value in {"PREFECT_API_URL": prefect, "MLFLOW_TRACKING_URI": mlflow}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CGAN_REMOTE", raising=False)
    shutil.rmtree(clone.parent / "origin.git")
    if prefect:
        assert worker.api_url().endswith(":9/api"), "the address of the pages is meant, too"
    began = time.monotonic()
    faults = (*missing, "DVC remote: .*dvc remote add", "git: ")
    with pytest.raises(CganError, match=r"(.|\n)*".join(faults)) as told:
        worker.require(clone)
    assert "secret" not in str(told.value) and time.monotonic() - began < 20


def test_git_is_asked_with_the_key_of_the_environment_and_asks_nobody(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, log = clone.parent / "ssh", clone.parent / "log"
    script.write_text(f'#!/bin/sh\necho "$@" >> {log}\necho no key >&2\nexit 1\n')
    script.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", f"{script} -i the-key")
    git(clone, "remote", "set-url", "origin", "ssh://host/cgan.git")
    with pytest.raises(CganError, match="no key"):
        fetch_commit(clone, "0" * 40)
    (asked,) = [line for line in log.read_text().splitlines() if "upload-pack" in line]
    assert asked.startswith("-i the-key -o BatchMode=yes")


def test_a_worker_s_name_says_what_it_takes_and_is_no_other_machine_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker.socket, "gethostname", lambda: "gpu-box")
    names = [worker._name(Production(tmp_path / n), ("cpu", "cuda")) for n in ("a", "b", "a")]
    assert all(re.fullmatch(r"gpu-box-[0-9a-f]{4} \(cpu, cuda\)", name) for name in names)
    assert names[0] == names[2] != names[1]
