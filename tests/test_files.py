"""Files that are never half-written: what is on the disk, and when."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cgan.files import md5_of, replacing, sha256_of, sync_folder, write_bytes, write_json
from cgan.run.records import RECORDS, Run, RunInfo


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What reaches the kernel, in order: ("fsync", inode and size of the file), ("rename", target)."""
    seen: list[tuple[str, Any]] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        status = Path(f"/proc/self/fd/{descriptor}").stat()
        seen.append(("fsync", (status.st_ino, status.st_size)))
        fsync(descriptor)

    def renaming(rename: Callable[..., None]) -> Callable[..., None]:
        def noted_too(source: Any, target: Any, **options: Any) -> None:
            rename(source, target, **options)
            seen.append(("rename", Path(target)))

        return noted_too

    monkeypatch.setattr(os, "fsync", noted)
    for name in ("replace", "rename"):
        monkeypatch.setattr(os, name, renaming(getattr(os, name)))
    return seen


def test_a_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, calls: list[tuple[str, Any]]
) -> None:
    """A name whose content is still in memory is an empty file after a power cut."""
    path = tmp_path / "model.bin"
    write_bytes(path, b"old")
    calls.clear()
    write_bytes(path, b"all of it")
    renamed = calls.index(("rename", path))
    assert ("fsync", (path.stat().st_ino, 9)) in calls[:renamed]


def test_a_closed_run_is_on_the_disk_with_all_its_records(
    tmp_path: Path, calls: list[tuple[str, Any]]
) -> None:
    tracker = Run(tmp_path, RunInfo("k", "a run", "cgan", ""), resume=False)
    tracker.log_metrics({"loss/generator": 1.0}, 1)
    calls.clear()
    tracker.close()
    status = (tmp_path / RECORDS).stat()
    assert status.st_size > 0
    assert ("fsync", (status.st_ino, status.st_size)) in calls


def test_a_file_keeps_its_old_content_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_bytes(path, b"old")
    inode = path.stat().st_ino
    with pytest.raises(RuntimeError, match="the cause"), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        assert path.read_bytes() == b"old"
        temporary.unlink()  # what is to be removed is gone already
        raise RuntimeError("the cause")
    assert path.read_bytes() == b"old" and list(path.parent.iterdir()) == [path]
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_ino != inode, "never written through a link of DVC's"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_a_file_has_the_mode_that_the_umask_gives(umask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        with replacing(tmp_path / "file") as temporary:
            temporary.chmod(0o600)  # as some writers of files do
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode


def test_json_is_indented_in_the_order_given_with_its_letters_and_never_nan(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    write_json(path, {"b": 0.1, "a": ["é"]})
    assert path.read_text(encoding="utf-8") == '{\n  "b": 0.1,\n  "a": [\n    "é"\n  ]\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"b": float("nan")})
    assert "0.1" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("error", "filename"),
    [
        (OSError(28, "No space left on device"), "the file"),
        (OSError(28, "No space left on device", "another"), "another"),
        (OSError("no number"), None),
        (ValueError("no OSError"), None),
    ],
)
def test_an_error_of_the_disk_that_names_no_file_is_given_the_file_s_name(
    tmp_path: Path, error: Exception, filename: str | None
) -> None:
    path = tmp_path / "the file"
    with pytest.raises(type(error)) as caught, replacing(str(path)) as temporary:
        assert temporary.parent == path.parent
        assert temporary.name.startswith(".the file.") and temporary.suffix == ".tmp"
        raise error
    expected = str(path) if filename == "the file" else filename
    assert getattr(caught.value, "filename", None) == expected


def test_hashes_are_those_of_the_whole_content(tmp_path: Path) -> None:
    path, content = tmp_path / "x", bytes(range(256)) * 5000
    path.write_bytes(content)
    assert sha256_of(str(path)) == hashlib.sha256(content).hexdigest()
    assert md5_of(str(path)) == hashlib.md5(content).hexdigest()


@pytest.mark.parametrize(("number", "raised"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_a_folder_that_cannot_be_flushed_is_left_so_and_a_broken_disk_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, raised: bool
) -> None:
    def failing(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    def opened() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    monkeypatch.setattr(os, "fsync", failing)
    before = opened()
    with pytest.raises(OSError, match="Input") if raised else contextlib.nullcontext():
        sync_folder(tmp_path)
    assert opened() == before


def test_f98_what_a_killed_process_left_goes_when_the_file_is_written_again(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from cgan.files import replacing
with replacing(sys.argv[1]) as temporary:
    temporary.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    path = tmp_path / "training [1].gif"
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".training [1].gif.") and left.read_bytes() == b"half"
    write_bytes(tmp_path / "training 1.gif", b"another file")
    assert left.exists()
    write_bytes(path, b"whole")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["training 1.gif", path.name]


def test_f98_what_a_living_process_writes_and_what_is_not_ours_stays(tmp_path: Path) -> None:
    path = tmp_path / "grid.png"
    others = [tmp_path / f".grid.png.{who}.tmp" for who in ("old", "my-own", "1-init", "-", "0-x")]
    for other in others:
        other.write_bytes(b"")
    with replacing(path) as mine:
        mine.write_bytes(b"first")
        write_bytes(path, b"second, while the first is written")
        assert mine.exists()
    assert path.read_bytes() == b"first"
    assert all(other.exists() for other in others)
