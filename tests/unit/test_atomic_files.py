"""Files are written whole or not at all, and nobody can read more than before."""

import os

import pytest

from prototokens._util.files import beside_name, permissions, write_atomically

posix = pytest.mark.skipif(os.name != "posix", reason="permissions as here are those of POSIX")


@pytest.fixture
def umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


@posix
@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o755])
def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path, mode):
    """As a plain write leaves them (untitaker/python-atomicwrites, issue 42)."""
    path = tmp_path / "x.ptok"
    path.write_bytes(b"old")
    path.chmod(mode)
    write_atomically(path, b"new")
    assert (permissions(path), path.read_bytes()) == (mode, b"new")


@posix
@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(
    ("mode", "expected"), [(0o600, 0o600), (0o640, 0o640), (0o644, 0o644), (0o777, 0o644)]
)
def test_a_new_file_is_no_more_open_than_what_it_was_made_from(tmp_path, mode, expected):
    """facebook/zstd, issue 1630: neither in the end nor for a moment."""
    source = tmp_path / "secret.txt"
    source.write_bytes(b"secret")
    source.chmod(mode)
    write_atomically(tmp_path / "x.ptok", b"new", like=source)
    assert permissions(tmp_path / "x.ptok") == expected


def test_a_name_as_long_as_may_be_can_be_written(tmp_path):
    """yt-dlp, issue 1786: the name of the file beside it was the one that was too long."""
    path = tmp_path / ("n" * 250 + ".ptok")
    write_atomically(path, b"new")
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    assert len(os.fsencode(beside_name(tmp_path / ("\u00e4" * 120)).name)) <= 255
