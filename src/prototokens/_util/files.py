"""Writing of files, so that a kill leaves the old file or the new one."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from prototokens.errors import FileError


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside, flush to the disk, rename.

    Raises:
        FileError: the place cannot be written; what was there stays.
    """
    beside = None
    try:
        place = Path(os.path.realpath(path))  # of a link, the file that it names is written, and the link stays
        # The name is known before the file is there: Ctrl-C at any moment leaves none.
        beside = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666), "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(beside, place)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FileError(f"{path} could not be written ({reason}): what was there before is untouched") from error
    finally:
        if beside is not None and os.path.exists(beside):
            os.unlink(beside)
