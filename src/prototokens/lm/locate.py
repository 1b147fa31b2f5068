"""Where a model is to be loaded from, settled before anything is loaded.

Built-in, a folder, a GGUF file, a commit on the hub.

What cannot be found is said at once and in words. Loading itself is `frozen_lm`'s.
"""

from __future__ import annotations

import importlib.resources
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import huggingface_hub
from huggingface_hub import errors as hub_errors
from huggingface_hub import utils as hub_utils
from transformers.utils import logging as hf_logging

from prototokens.errors import ModelError, UsageError
from prototokens.lm import checkpoint
from prototokens.lm.checks import one_line

BUILTIN = "builtin"
GGUF_SUFFIX, GGUF_MAGIC = ".gguf", b"GGUF"
HUB_TIMEOUT = 10.0  # seconds until the hub counts as out of reach


class Source(NamedTuple):
    """What transformers is to be asked for.

    Attributes:
        place: a folder, a GGUF file, or the id of a model on the hub.
        revision: the commit on the hub; None for a folder or a file.
        offline: whether to look in the local cache only.
        gguf: whether it is a GGUF file.
    """

    place: str
    revision: str | None
    offline: bool
    gguf: bool = False


def recorded_name(name: str) -> str:
    """What files call a model: a folder or a GGUF file by the last part of its path, anything else as it was given.

    A path says where a model lies on one machine and who works there; which model it is, the
    fingerprint says.
    """
    path = Path(name).expanduser()
    if name == BUILTIN or not (
        path.is_absolute() or path.is_dir() or name.lower().endswith(GGUF_SUFFIX)
    ):
        return name
    last = Path(os.path.abspath(path)).name
    return f"./{last}" if last == BUILTIN else last or name


def find(name: str, revision: str | None) -> Source:
    """Find what a user called a model.

    Args:
        name: "builtin", a folder, a GGUF file, or the id of a model on the hub.
        revision: branch, tag or commit, for a hub id.

    Raises:
        ModelError: there is no such thing, or it is out of reach.
        UsageError: a revision of something that has none.
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
            adapter = checkpoint.adapter_alone(path)
            what = (
                adapter or "holds no config.json, so no model: give one written by save_pretrained"
            )
            raise ModelError(f"the folder {name!r} {what}")
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
    return _find_on_hub(name, revision)


def is_gguf(path: Path) -> bool:
    """Whether a file is to be read as a GGUF file: by its name, or by its first letters."""
    if path.suffix.lower() == GGUF_SUFFIX:
        return True
    try:
        with path.open("rb") as file:
            return file.read(len(GGUF_MAGIC)) == GGUF_MAGIC
    except OSError:
        return False


def _find_on_hub(name: str, revision: str | None) -> Source:
    neither = f"{name!r} is neither 'builtin' nor a folder here, and"
    try:
        commit = (
            huggingface_hub.HfApi().model_info(name, revision=revision, timeout=HUB_TIMEOUT).sha
        )
        return Source(name, commit, offline=False)
    except hub_errors.HFValidationError as error:
        raise ModelError(
            f"{neither} cannot be the id of a model on the hub (owner/name): check the spelling"
        ) from error
    except hub_errors.RevisionNotFoundError as error:
        raise ModelError(
            f"the model {name!r} has no revision {revision!r}: give a branch, a tag or a commit of"
            " it"
        ) from error
    except hub_errors.RepositoryNotFoundError as error:
        advice = "check the name, or log in with `hf auth login` if it is private"
        raise ModelError(f"{neither} the hub shows no model of that name: {advice}") from error
    except Exception as error:
        # What was downloaded earlier still serves; otherwise transformers would only try again, for
        # half a minute.
        cached = huggingface_hub.try_to_load_from_cache(name, "config.json", revision=revision)
        if isinstance(cached, str):
            return Source(
                name, Path(cached).parent.name, offline=True
            )  # .../snapshots/COMMIT/config.json
        advice = "check the name, give a folder, or connect to the network"
        raise ModelError(
            f"{neither} the hub could not be reached ({one_line(error)}): {advice}"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' loading bars and warnings off the screen; afterwards all is as it was.

    Downloads keep their bars.
    """
    hf_logging.get_verbosity()  # its logger sets its own level when it is first asked
    loggers = [logging.getLogger("transformers"), logging.getLogger("huggingface_hub")]
    levels = [logger.level for logger in loggers]
    loading, downloads = (
        hf_logging.is_progress_bar_enabled(),
        not hub_utils.are_progress_bars_disabled(),
    )
    hf_logging.disable_progress_bar()
    if downloads:
        hub_utils.enable_progress_bars()
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if loading:
            hf_logging.enable_progress_bar()
            if not downloads:
                hub_utils.disable_progress_bars()
