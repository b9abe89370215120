"""Files that are never half-written: what is on the disk, and when."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cgan.errors import CganError
from cgan.files import locked, replacing, sync_folder, write_bytes, write_json


def test_a_file_keeps_its_old_content_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_bytes(path, b"old")
    with pytest.raises(RuntimeError, match="the cause"), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        assert path.read_bytes() == b"old"
        temporary.unlink()  # what is to be removed is gone already
        raise RuntimeError("the cause")
    assert path.read_bytes() == b"old" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_f57_a_file_that_dvc_linked_from_its_cache_is_never_written_through(
    tmp_path: Path, link: Callable[[Path, Path], None]
) -> None:
    cached, output = tmp_path / "cached", tmp_path / "output"
    cached.write_text("of the cache")
    link(cached, output)
    write_bytes(output, b"new")
    assert cached.read_text() == "of the cache" and output.read_text() == "new"
    assert not output.is_symlink()


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
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"b": float("nan")})
    assert path.read_text(encoding="utf-8") == '{\n  "b": 0.1,\n  "a": [\n    "é"\n  ]\n}\n'


def test_an_error_of_the_disk_that_names_no_file_is_given_the_files_name(tmp_path: Path) -> None:
    path = tmp_path / "the file"
    for error, filename in (
        (OSError(28, "No space left on device"), str(path)),
        (OSError(28, "No space left on device", "another"), "another"),
        (OSError("no number"), None),
        (ValueError("no OSError"), None),
    ):
        with pytest.raises(type(error)) as caught, replacing(str(path)):
            raise error
        assert getattr(caught.value, "filename", None) == filename


def test_a_folder_that_cannot_be_flushed_is_left_so_and_a_broken_disk_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", failing)
    number = errno.EINVAL
    sync_folder(tmp_path)
    number = errno.EIO
    with pytest.raises(OSError, match="Input"):
        sync_folder(tmp_path)


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
    journal = left.with_name(f"{left.name}-journal")  # as SQLite has it
    journal.write_bytes(b"half")
    write_bytes(tmp_path / "training 1.gif", b"another file")
    assert left.exists() and journal.exists()
    write_bytes(path, b"whole")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["training 1.gif", path.name]


def test_f98_what_a_living_process_writes_and_what_is_not_ours_stays(tmp_path: Path) -> None:
    path = tmp_path / "grid.png"
    here = os.uname().nodename
    dead = subprocess.Popen(["true"])
    dead.wait()
    names = [f"{here}.{who}" for who in ("old", "my-own", "1-init", "-", "0-x")]
    names += ["old", "1-init", f"{dead.pid}-ab", f"other-machine.{dead.pid}-ab"]
    others = [tmp_path / f".grid.png.{name}.tmp" for name in names]
    for other in others:
        other.write_bytes(b"")
    with replacing(path) as temporary:
        assert temporary.name.startswith(f".grid.png.{here}.{os.getpid()}-")
        temporary.write_bytes(b"first")
        write_bytes(path, b"second, while the first is written")
        assert temporary.exists()
    assert path.read_bytes() == b"first"
    assert all(other.exists() for other in others)


def test_a_file_system_without_locks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[int] = []

    def failing(*_: object) -> None:
        raise OSError(errors[-1], os.strerror(errors[-1]))

    monkeypatch.setattr("fcntl.flock", failing)
    lacking = pytest.raises(CganError, match=r"has no locks .* CGAN_HOME")
    broken = pytest.raises(OSError, match="Input")
    for error, refused in (
        (errno.ENOLCK, lacking),
        (errno.EOPNOTSUPP, lacking),
        (errno.EIO, broken),
    ):
        errors.append(error)
        with refused, locked(tmp_path / "lock"):
            pass
