"""What a command is given to read, taken in bounded memory: no more of it than the command can use.

A path may name a device without an end, and standard input may be a pipe that never closes. So the
beginning of a text is read first, and the rest only as far as the command says that it can use it.
"""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import click

from prototokens.errors import TextError, UsageError

MAX_HEAD = 1 << 24  # bytes of a text that are read before it is known how many can be used
MAX_TEXT = 1 << 28  # bytes of a text that a command without a limit of its own takes


@dataclass
class Given:
    """A text that a command was given.

    Attributes:
        name: as messages call it.
        head: its first bytes; all of it, where `rest` is None.
        rest: where the other bytes can be read.
        size: bytes in all, where that is known before they are read.
    """

    name: str
    head: bytes
    rest: io.BufferedIOBase | None = None
    size: int | None = None

    def read(self, most: int) -> bytes | None:
        """All of it; None where it has more than `most` bytes, of which none beyond `most` is kept.

        Raises:
            TextError: it cannot be read.
        """
        if self.rest is None:
            return self.head if len(self.head) <= most else None
        if self.size is not None and self.size > most:
            return None
        with _in_words(self.name):
            more = self.rest.read(max(most + 1 - len(self.head), 0))
        self.head, self.rest = self.head + more, None
        return self.head if len(self.head) <= most else None


def open_text(source: str | None, text: str | None) -> Given:
    """The text of a file argument, of `-` (standard input) or of --text, with its first bytes.

    Raises:
        UsageError: none of them is given, or two.
        TextError: the file does not exist, or cannot be read.
    """
    if (source is None) == (text is None):
        raise UsageError("give either a file (or - for standard input) or --text")
    if text is not None:
        return Given("--text", os.fsencode(text))  # an argument that is no UTF-8 is what it was
    assert source is not None
    name = "standard input" if source == "-" else source
    with _in_words(name):
        handle = _standard_input() if source == "-" else _opened(Path(source))
        first = handle.read(MAX_HEAD)
        follows = handle.read(1) if len(first) == MAX_HEAD else b""
    if not follows:
        return Given(name, first)
    return Given(name, first + follows, handle, _size_of(handle))


def read_all(given: Given) -> bytes:
    """All bytes of a text, `MAX_TEXT` at most.

    Raises:
        TextError: there are more, or they cannot be read.
    """
    content = given.read(MAX_TEXT)
    if content is None:
        raise TextError(f"{given.name} holds more than {MAX_TEXT:,} bytes: give a shorter text")
    return content


def _standard_input() -> io.BufferedIOBase:
    if sys.stdin is None:
        raise OSError("it is closed")
    return cast(io.BufferedIOBase, sys.stdin.buffer)


def _opened(path: Path) -> io.BufferedIOBase:
    """A file that is closed at the end of the command that reads it."""
    handle = path.open("rb")
    click.get_current_context().call_on_close(handle.close)
    return handle


def _size_of(handle: io.BufferedIOBase) -> int | None:
    """Bytes of a regular file; None of anything else, which may have no end."""
    try:
        status = os.fstat(handle.fileno())
    except (OSError, io.UnsupportedOperation):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


@contextmanager
def _in_words(name: str) -> Iterator[None]:
    """Errors of reading as sentences.

    Raises:
        TextError: in place of them.
    """
    try:
        yield
    except IsADirectoryError as error:
        raise TextError(f"{name} is a folder, and a text file was expected") from error
    except FileNotFoundError as error:
        raise TextError(f"{name} does not exist") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TextError(f"{name} cannot be read ({reason})") from error
