"""Files that are never half-written: what is on the disk, and when."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cgan.files import replacing, write_bytes, write_json


def test_a_file_is_as_it_was_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_bytes(path, b"old")
    with pytest.raises(RuntimeError, match="the cause"), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        assert path.read_bytes() == b"old"
        temporary.unlink()  # what is to be removed is gone already
        raise RuntimeError("the cause")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"b": float("nan")})
    assert path.read_bytes() == b"old" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_a_file_linked_from_a_cache_is_not_written_through(
    tmp_path: Path, link: Callable[[Path, Path], None]
) -> None:
    cached, output = tmp_path / "cached", tmp_path / "output"
    cached.write_text("of the cache")
    link(cached, output)
    write_bytes(output, b"new")
    assert cached.read_text() == "of the cache" and output.read_text() == "new"
    assert not output.is_symlink()


def test_an_error_of_the_disk_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "the file"
    for error, filename in (
        (OSError(28, "No space left on device"), str(path)),
        (OSError(28, "No space left on device", "another"), "another"),
        (OSError("no number"), None),
    ):
        with pytest.raises(OSError) as caught, replacing(str(path)):
            raise error
        assert caught.value.filename == filename
