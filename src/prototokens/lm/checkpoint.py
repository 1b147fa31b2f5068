"""Reject checkpoints that are not a complete model, with a message that says what to do.

Such a checkpoint is, for example, an adapter, weights that belong to another configuration, or
weights whose names have a wrapper's prefix. transformers treats them differently depending on its
version and on which packages are installed, so the same folder could be two different models on two
machines.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prototokens._util import strict_json
from prototokens.errors import ModelError

ADAPTER = "adapter_config.json"
MAX_ADAPTER_BYTES = 1 << 20  # that are read of adapter_config.json
MAX_NAME = 200  # characters of a name in a file that a message repeats


def adapter_without_model(folder: Path) -> str | None:
    """The end of an error message for a folder with an adapter and no model.

    None for a folder without an adapter.
    """
    if not (folder / ADAPTER).is_file():
        return None
    base = _base_model(folder / ADAPTER)
    of = f" of {base!r}" if base else ""
    return (
        f"holds an adapter{of} and no model: load both with peft, merge them (merge_and_unload)"
        " and save the result"
    )


def refuse_adapter(name: str, location: str, options: dict[str, Any]) -> None:
    """Reject a model with an adapter in the same folder or repository.

    transformers applies the adapter if peft is installed, and ignores it otherwise.

    Args:
        name: what the user called the model.
        location: a folder, or the id of a repository.
        options: keyword arguments of `from_pretrained` of transformers.

    Raises:
        ModelError: there is an adapter.
    """
    from transformers.utils.hub import cached_file  # not above: `lm.local` needs none of it

    found = cached_file(
        location,
        ADAPTER,
        revision=options.get("revision"),
        local_files_only=options["local_files_only"],
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if found is not None:
        raise ModelError(
            f"{name!r} holds an adapter ({ADAPTER}) beside a model, and whether it counts would"
            " depend on what is installed:"
            " merge it into the weights (merge_and_unload of peft), or move it elsewhere"
        )


def refuse_incomplete(name: str, info: dict[str, Any]) -> None:
    """Reject weights that differ from those that the configuration describes.

    Args:
        name: what the user called the model.
        info: the loading info of transformers: `missing_keys`, `unexpected_keys`,
            `mismatched_keys`.

    Raises:
        ModelError: weights are missing or have another shape, so that transformers has initialised
            them at random.
    """
    if mismatched := sorted(info.get("mismatched_keys", ())):
        weight, stored, expected = mismatched[0]
        raise ModelError(
            f"{name!r} does not fit its config.json: its weight {weight} has shape {list(stored)},"
            f" and {list(expected)} is asked for; give the config.json that was saved with these"
            " weights"
        )
    missing = sorted(info["missing_keys"])
    if not missing:
        return
    prefix = _wrapper_prefix(missing, sorted(info.get("unexpected_keys", ())))
    if prefix is not None:
        raise ModelError(
            f"the names of the weights of {name!r} begin with {prefix!r}, as a wrapper leaves them"
            " (torch.compile, DistributedDataParallel): save the model inside the wrapper, or take"
            " that beginning off the names"
        )
    raise ModelError(
        f"{name!r} is incomplete: it lacks {len(missing)} weights of a causal LM, {missing[0]} for"
        " one"
    )


def _wrapper_prefix(missing: list[str], unexpected: list[str]) -> str | None:
    """The prefix that makes the name of a missing weight that of an unexpected one, or None."""
    for name in missing:
        for key in unexpected:
            prefix = key.removesuffix(name)
            if key.endswith(name) and prefix.endswith("."):
                return prefix[:MAX_NAME]
    return None


def _base_model(path: Path) -> str:
    """The base model that an adapter's configuration names, or "": it is only shown in messages."""
    try:
        with path.open("rb") as handle:
            described = strict_json.loads(handle.read(MAX_ADAPTER_BYTES))
        base = described["base_model_name_or_path"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return ""
    return base[:MAX_NAME] if isinstance(base, str) else ""
