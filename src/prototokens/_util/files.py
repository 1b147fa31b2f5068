"""Atomic writes: a kill leaves the old file or the new one."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from prototokens.errors import FileError

ANYBODY, OWNER = 0o666, 0o600  # who may read and write a new file, as far as the umask allows
MAX_NAME = (
    200  # bytes of a file's own name in that of the file beside it: file systems allow 255 in all
)


def write_atomically(path: Path, content: bytes, like: Path | None = None) -> None:
    """Write a temporary file in the same folder, flush it to disk, rename it.

    A file that is replaced keeps its permissions. A new one can be read only by those who may read
    `like`.

    Args:
        like: the file that the content was made from.

    Raises:
        FileError: the path cannot be written; what was there stays.
    """
    beside = None
    try:
        target = Path(
            os.path.realpath(path)
        )  # of a link, the file that it names is written, and the link stays
        # The name is known before the file is there: Ctrl-C at any moment leaves none.
        beside = beside_name(target)
        mode = permissions(target)
        allowed = ANYBODY if like is None else ANYBODY & (permissions(like) or ANYBODY)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        # Never more than in the end, not even for a moment.
        descriptor = os.open(beside, flags, allowed if mode is None else mode & OWNER)
        with open(descriptor, "wb") as handle:
            if mode is not None and hasattr(os, "fchmod"):
                os.fchmod(descriptor, mode)
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(beside, target)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FileError(
            f"{path} could not be written ({reason}): what was there before is untouched"
        ) from error
    finally:
        if beside is not None and os.path.exists(beside):
            os.unlink(beside)


def permissions(path: Path) -> int | None:
    """Who may read, write and execute a regular file; None where there is none."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return stat.S_IMODE(status.st_mode) if stat.S_ISREG(status.st_mode) else None


def beside_name(target: Path) -> Path:
    """A name that no file in the same folder has.

    It is no longer than the file system allows, however long the file's own is.
    """
    start = os.fsdecode(os.fsencode(target.name)[:MAX_NAME])
    return target.with_name(f".{start}.{secrets.token_hex(4)}")
