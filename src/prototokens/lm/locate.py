"""Find out where to load a model from: the package, a folder, a GGUF file or a commit on the hub.

A model that does not exist is reported before anything is loaded. Loading is the part of
`lm.loading`.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
from huggingface_hub import errors as hub_errors
from huggingface_hub import utils as hub_utils
from transformers.utils import logging as hf_logging

from prototokens.errors import ModelError
from prototokens.lm.checks import one_line
from prototokens.lm.local import BUILTIN, GGUF_SUFFIX, Source, find_local

HUB_TIMEOUT = 10.0  # seconds until the hub counts as out of reach


def recorded_name(name: str) -> str:
    """The name of a model in files: the last part of a path, and anything else unchanged.

    The whole path would tell about one machine and its user; the fingerprint identifies the model.
    """
    path = Path(name).expanduser()
    if name == BUILTIN or not (
        path.is_absolute() or path.is_dir() or name.lower().endswith(GGUF_SUFFIX)
    ):
        return name
    last = Path(os.path.abspath(path)).name
    return f"./{last}" if last == BUILTIN else last or name


def find(name: str, revision: str | None) -> Source:
    """Find a model by the name that a user gave.

    Args:
        name: "builtin", a folder, a GGUF file, or the id of a model on the hub.
        revision: branch, tag or commit, for a hub id.

    Raises:
        ModelError: there is no such model, or it is out of reach.
        UsageError: a revision is given for a model that is not on the hub.
    """
    return find_local(name, revision) or _find_on_hub(name, revision)


def _find_on_hub(name: str, revision: str | None) -> Source:
    """Find a model on the hub, or in the local cache if the hub is out of reach.

    Raises:
        ModelError: it is in neither.
    """
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
        # A model that was downloaded earlier can still be used. `offline` keeps transformers from
        # trying to reach the hub again for half a minute.
        cached = huggingface_hub.try_to_load_from_cache(name, "config.json", revision=revision)
        if isinstance(cached, str):  # .../snapshots/COMMIT/config.json
            return Source(name, Path(cached).parent.name, offline=True)
        advice = "check the name, give a folder, or connect to the network"
        raise ModelError(
            f"{neither} the hub could not be reached ({one_line(error)}): {advice}"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress transformers' loading bars and warnings inside a `with` block.

    Progress bars of downloads are still shown.
    """
    hf_logging.get_verbosity()  # transformers' logger sets its level at the first use
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
