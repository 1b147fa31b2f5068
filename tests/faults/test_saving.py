"""A file is written whole or not at all, and what was there before stays until then."""

import errno
import json
import os
from dataclasses import replace

import pytest
import torch

import prototokens as pt
from prototokens._util.files import write_atomically
from prototokens.errors import FileError
from prototokens.ptok.encoded import EncodedText

TEXT = "Call me Ishmael."


@pytest.fixture(scope="module")
def encoded(tiny_llama):
    return pt.encode(tiny_llama, TEXT, chunk_length=4)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.ptok"


def test_a_file_comes_back_as_it_was(encoded, tiny_llama, path):
    size = encoded.save(path)
    assert path.stat().st_size == size
    back = EncodedText.load(path)
    assert torch.equal(back.vectors, encoded.vectors)
    assert torch.equal(back.slots, encoded.slots)
    assert back.header.tensors_sha256
    header = replace(back.header, tensors_sha256=None).as_json()
    assert header == json.loads(json.dumps(encoded.header.as_json()))
    assert back.path == path
    assert pt.decode(tiny_llama, back) == TEXT
    assert {back.to_bytes() for _ in range(20)} == {
        path.read_bytes()
    }  # saved again it is the same file


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_no_litter(encoded, path, monkeypatch, call):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path.write_bytes(b"old")
    monkeypatch.setattr(os, call, full)
    with pytest.raises(
        FileError, match=r"x\.ptok could not be written \(No space left on device\)"
    ):
        encoded.save(path)
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("call", ["open", "fsync"])
def test_an_interrupt_leaves_the_old_file_and_no_litter(encoded, path, monkeypatch, call):
    done = getattr(os, call)

    def stopped(*given):
        done(*given)  # a new file is there already when the signal is seen
        raise KeyboardInterrupt

    path.write_bytes(b"old")
    monkeypatch.setattr(os, call, stopped)
    with pytest.raises(KeyboardInterrupt):
        encoded.save(path)
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_no_such_folder(encoded, tmp_path):
    with pytest.raises(FileError, match="could not be written"):
        encoded.save(tmp_path / "no" / "x.ptok")
    with pytest.raises(FileError, match="could not be written"):
        encoded.save(tmp_path / "a\0b")


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_rights_are_those_of_a_new_file(encoded, path):
    before = os.umask(0o027)
    try:
        encoded.save(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640
