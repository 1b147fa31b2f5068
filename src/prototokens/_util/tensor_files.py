"""Safetensors files of our own with their metadata: written atomically, refused in words."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from prototokens._util import strict_json
from prototokens._util.files import write_atomically
from prototokens.errors import FileError


def write_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write a file.

    Raises:
        FileError: the path cannot be written.
    """
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    write_atomically(Path(path), save(contiguous, metadata=dict(metadata)))


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a file, and its metadata.

    Raises:
        FileError: missing, or not a whole safetensors file.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileError(f"{path} cannot be read ({error.strerror or error})") from error
    try:
        tensors = load(content)
        header = strict_json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except (SafetensorError, ValueError, RecursionError) as error:
        raise FileError(f"{path} is not a whole safetensors file ({error!s:.200})") from error
    return tensors, header.get("__metadata__") or {}
