"""A start as a user gives it: a name, or an encoder's folder.

Importing this module is cheap: a command checks its options before it loads a model.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prototokens.encoder.config import STARTS
from prototokens.errors import FileError

if TYPE_CHECKING:
    from prototokens.encoder.encoder import Encoder


def check_start(given: str) -> None:
    """Refuse what is neither a start's name nor an encoder's folder, before a model is loaded.

    Raises:
        FileError: no such name, and no encoder there.
    """
    if given in STARTS:
        return
    try:
        (Path(given) / "config.json").open("rb").close()
    except OSError as error:
        raise FileError(
            f"{given} is no encoder's folder: {error.filename} ({error.strerror or error})"
        ) from error


def start_of(given: str) -> str | Encoder:
    """The start's name, or the encoder in the folder that is given.

    Raises:
        FileError: as `check_start` and `Encoder.load`.
    """
    check_start(given)
    if given in STARTS:
        return given
    from prototokens.encoder.encoder import Encoder

    return Encoder.load(Path(given))
