"""Whole files: what is too large is not read, and what is written leaves nothing beside it."""

import errno
import io
import os
import tempfile
import tracemalloc
from pathlib import Path

import pytest

from showface.runtime.errors import DiskFullError, InputError
from showface.runtime.files import append_whole, write_errors, write_file
from showface.runtime.untrusted.read import MAX_FILE, read_file

NOBODY = 65534  # a user's number


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "x.png").open("wb") as file:
        file.truncate(MAX_FILE + 1)
    tracemalloc.start()
    with pytest.raises(InputError, match="is larger than 1024 MiB"):
        read_file(tmp_path / "x.png")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.fixture
def closed_file():
    """Return a file without permissions in a folder that all may enter; root becomes another user meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = Path(folder) / "x.png"
        path.write_bytes(b"x")
        path.chmod(0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(NOBODY)
        yield path
        os.seteuid(user)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs users and permissions")
def test_a_file_without_permission_is_named(closed_file):
    with pytest.raises(InputError, match=r"x\.png: cannot be read: Permission denied"):
        read_file(closed_file)


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, DiskFullError), (errno.EROFS, DiskFullError), (errno.EIO, InputError)]
)
def test_an_error_of_one_file_is_told_from_one_of_the_disk(tmp_path, number, kind):
    with pytest.raises(kind, match=os.strerror(number)), write_errors(tmp_path, tmp_path / "x"):
        raise OSError(number, os.strerror(number))


def test_a_line_of_which_only_a_piece_fits_is_an_error():
    class NearlyFull(io.BytesIO):
        def write(self, data):
            return super().write(data[:3])

    append_whole(NearlyFull(), b"abc")
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        append_whole(NearlyFull(), b"abcd")


def test_two_processes_never_share_a_temporary_name(tmp_path, monkeypatch):
    """Processes and threads of two machines may have the same numbers."""
    names = []
    real = os.replace

    def record(temporary, path):
        names.append(temporary.name)
        real(temporary, path)

    monkeypatch.setattr(os, "replace", record)
    for _ in range(2):
        write_file(tmp_path / "x", b"bytes")
    assert len(set(names)) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
