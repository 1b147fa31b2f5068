"""Solutions on disk, one safetensors file a fit.

Found once, used by every experiment that asks for the same fit.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load

from prototokens.errors import FileError
from prototokens.lab.job import Fit, Fitted, ModelFacts
from prototokens.lab.methods import method_of
from prototokens.ptok.solutions import pack_solutions, unpack_solutions


class SolutionStore:
    """The solutions beside a folder's rows."""

    def __init__(self, folder: Path):
        self.folder = folder / "solutions"

    def path(self, key: str) -> Path:
        """The file of a fit."""
        return self.folder / key[:2] / f"{key}.safetensors"

    def save(self, fit: Fit, model: ModelFacts, fitted: Fitted) -> None:
        """Write the solutions of a fit; whole or not at all.

        Raises:
            FileError: the path cannot be written.
        """
        self.save_packed(fit.key(model), packed(fit, fitted))

    def save_packed(self, key: str, data: bytes) -> None:
        """Write the content of a file that has been packed already."""
        path = self.path(key)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Not flushed to the disk: what a power cut tears is found again, and a flush takes
            # longer than many a fit.
            beside.write_bytes(data)
            os.replace(beside, path)
        except OSError as error:
            raise FileError(
                f"{path} could not be written ({error.strerror}): make room, and start again"
            ) from error

    def load(self, fit: Fit, model: ModelFacts) -> Fitted | None:
        """The solutions of a fit.

        None where they are not there, or cannot be read and so have to be found again.
        """
        path = self.path(fit.key(model))
        try:
            return unpacked(fit, path.read_bytes())
        except OSError:
            return None


def packed(fit: Fit, fitted: Fitted) -> bytes:
    """A fit's solutions as the content of a file."""
    prefix = json.dumps(list(fitted[0].layout.prefix) if fitted else [])
    return pack_solutions(fitted, layout=fit.layout, prefix=prefix)


def unpacked(fit: Fit, data: bytes) -> Fitted | None:
    """The inverse of `packed`; None where the content is damaged."""
    try:
        size = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + size])["__metadata__"]
        layout = method_of(fit.layout, tuple(json.loads(metadata["prefix"]))).layout
        return unpack_solutions(load(data), metadata, layout, fit.targets)
    except (SafetensorError, ValueError, KeyError, TypeError):
        return None
