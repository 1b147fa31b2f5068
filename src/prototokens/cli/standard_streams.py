"""Standard streams that are closed, full, or no longer read.

A closed standard output must not pass for one that was written (`decode x.ptok >&-` would lose the
text with status 0), and a reader that has seen enough (`inspect x.ptok | head -1`) is no failure of
the command.
"""

from __future__ import annotations

import errno
import os
import select
import sys
from typing import TextIO

BROKEN_PIPE = 141  # as a shell reports a program that SIGPIPE ended: 128 + 13
OUTPUT, ERRORS = 1, 2  # the file descriptors of standard output and standard error


def open_closed() -> None:
    """Replace standard output and standard error where they are closed.

    Of output, a descriptor that refuses to be written to, so that a command which prints fails; of
    errors, one that discards all. No file that is opened later gets their numbers and is written
    to by accident.
    """
    if sys.stdout is None:
        sys.stdout = _stream(os.O_RDONLY)
    if sys.stderr is None:
        sys.stderr = _stream(os.O_WRONLY)


def _stream(mode: int) -> TextIO:
    """A stream of text over the lowest descriptor that is free, opened in a mode of `os.open`."""
    return os.fdopen(os.open(os.devnull, mode), "w", encoding="utf-8", closefd=False)


def reader_has_gone(error: Exception) -> bool:
    """Whether this error is of a pipe whose reader has closed it.

    Then nothing more is written there.
    """
    if not isinstance(error, OSError) or error.errno != errno.EPIPE:
        return False
    broken = [descriptor for descriptor in (OUTPUT, ERRORS) if _is_broken(descriptor)]
    for descriptor in broken:
        _drop_the_rest(descriptor)
    return bool(broken)


def _drop_the_rest(descriptor: int) -> None:
    """Discard what is still buffered.

    Python would write it at the end of the process and fail again, with a traceback.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def _is_broken(descriptor: int) -> bool:
    if not hasattr(select, "poll"):
        return True  # Windows: click knows of no other pipe either
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def describe(error: Exception) -> str:
    """An error as a sentence. An `OSError` that no command has named is of standard output."""
    if not isinstance(error, OSError):
        return str(error)
    if error.errno == errno.EBADF:
        _drop_the_rest(OUTPUT)
        return "standard output is closed: nothing could be printed"
    named = f"{error.filename}" if error.filename else "standard output"
    return f"{named} cannot be written ({error.strerror or error})"
