"""A tiny model in a folder, and commands run in this process as a user would type them."""

import io
import json
import sys
from typing import NamedTuple

import pytest

from prototokens.cli import main


class Ran(NamedTuple):
    """What a command left: its exit status, standard output as it is, standard error as text."""

    status: int
    out: bytes
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def run(capfdbinary, monkeypatch):
    """Run a command: `run("encode", "book.txt")`, with `stdin=` bytes where it reads them."""

    def run(*arguments, stdin=None):
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        capfdbinary.readouterr()
        with pytest.raises(SystemExit) as leaving:
            main([str(argument) for argument in arguments])
        out, err = capfdbinary.readouterr()
        return Ran(leaving.value.code, out, err.decode())

    return run


@pytest.fixture
def encode(run, folder):
    """`prototokens encode ... --model TINY`."""
    return lambda *arguments, **options: run("encode", *arguments, "--model", folder, **options)


@pytest.fixture
def decode(run, folder):
    """`prototokens decode ... --model TINY`."""
    return lambda *arguments: run("decode", *arguments, "--model", folder)
