"""Find a model on this machine by its name, without PyTorch: the package, a folder or a GGUF file.

So a command can refuse a model that does not exist before it imports what loads one. `lm.locate`
goes on to the hub.
"""

from __future__ import annotations

import importlib.resources
import os
from pathlib import Path
from typing import NamedTuple

from prototokens.errors import ModelError, UsageError
from prototokens.lm import checkpoint

BUILTIN = "builtin"
GGUF_SUFFIX, GGUF_MAGIC = ".gguf", b"GGUF"


class Source(NamedTuple):
    """Where a model is loaded from.

    Attributes:
        location: a folder, a GGUF file, or the id of a model on the hub.
        revision: the commit on the hub; None for a folder or a file.
        offline: whether to look in the local cache only.
        gguf: whether it is a GGUF file.
    """

    location: str
    revision: str | None
    offline: bool
    gguf: bool = False


def find_local(name: str, revision: str | None) -> Source | None:
    """Find a model in the package, a folder or a file; None for what can only be a hub id.

    Args:
        name: "builtin", a folder, a GGUF file, or the id of a model on the hub.
        revision: branch, tag or commit, for a hub id.

    Raises:
        ModelError: there is no such folder or file, or no model in it.
        UsageError: a revision is given for a model that is not on the hub.
    """
    path = Path(name).expanduser()
    if name == BUILTIN:
        path = Path(str(importlib.resources.files("prototokens"))) / BUILTIN
        if not (path / "config.json").is_file():
            advice = "train it with scripts/builtin/train.py, or name another model"
            raise ModelError(f"the built-in model is not part of this installation: {advice}")
    if path.exists() and revision is not None:
        raise UsageError(
            f"{name!r} has no revision {revision!r}: only models on the hub have revisions"
        )
    if path.is_dir():
        if not (path / "config.json").is_file():
            adapter = checkpoint.adapter_without_model(path)
            nothing = "holds no config.json, so no model: give one written by save_pretrained"
            raise ModelError(f"the folder {name!r} {adapter or nothing}")
        return Source(str(path), None, offline=True)
    if path.is_file() and is_gguf(path):
        return Source(str(path), None, offline=True, gguf=True)
    if path.exists():
        advice = "give a .gguf file, or the folder that holds the model's config.json and weights"
        raise ModelError(f"{name!r} is a file that holds no model: {advice}")
    if name.lower().endswith(GGUF_SUFFIX):
        raise ModelError(f"there is no file {name!r}: check the path")
    if name.startswith((".", "~", os.sep)) or name.endswith(os.sep) or name.count(os.sep) > 1:
        raise ModelError(
            f"there is no folder {name!r}: check the path, or give 'builtin' or the id of a model"
            " on the hub"
        )
    return None


def is_gguf(path: Path) -> bool:
    """Whether a file is a GGUF file: by its suffix, or by its first bytes."""
    if path.suffix.lower() == GGUF_SUFFIX:
        return True
    try:
        with path.open("rb") as file:
            return file.read(len(GGUF_MAGIC)) == GGUF_MAGIC
    except OSError:
        return False
