"""Files that are never half-written: what is on the disk, and when."""

from pathlib import Path

import pytest

from cgan.base.files import replacing, write_bytes, write_json


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


def test_an_error_of_the_disk_names_the_file(tmp_path: Path) -> None:
    path, full = str(tmp_path / "the file"), (28, "No space left on device")
    for error, filename in ((OSError(*full), path), (OSError(*full, "another"), "another")):
        with pytest.raises(OSError) as caught, replacing(path):
            raise error
        assert caught.value.filename == filename
