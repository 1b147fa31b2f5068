"""Checkpoints as people really have them.

An adapter, weights of another model, names with a wrapper's prefix.

Each is refused in a sentence that says what it is and what to do. What transformers makes of them
depends on its version and on what else is installed, so that the same folder would be one model
here and another one there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers.utils.hub import cached_file

from prototokens._util import strict_json
from prototokens.errors import ModelError

ADAPTER = "adapter_config.json"
MAX_ADAPTER = 1 << 20  # bytes of its description
MAX_NAME = 200  # characters that a message repeats of what a file says


def adapter_alone(folder: Path) -> str | None:
    """What a folder without a model is, where it holds an adapter; None where it holds none."""
    if not (folder / ADAPTER).is_file():
        return None
    base = _base_of(folder / ADAPTER)
    of = f" of {base!r}" if base else ""
    return f"holds an adapter{of} and no model: load both with peft, merge them (merge_and_unload) and save the result"


def refuse_adapter(name: str, place: str, options: dict[str, Any]) -> None:
    """Refuse a model that an adapter lies beside.

    Transformers would apply it where peft is installed, and else not.

    Args:
        name: as the user called the model.
        place: a folder, or the id of a repository.
        options: as `from_pretrained` of transformers takes them.

    Raises:
        ModelError: there is one.
    """
    found = cached_file(
        place,
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
    """Refuse weights that are not those that the configuration asks for.

    Args:
        name: as the user called the model.
        info: what transformers says of loading: `missing_keys`, `unexpected_keys`,
            `mismatched_keys`.

    Raises:
        ModelError: some are missing, or of another shape. transformers would fill them with random
            numbers.
    """
    if other := sorted(info.get("mismatched_keys", ())):
        weight, stored, asked = other[0]
        raise ModelError(
            f"{name!r} does not fit its config.json: its weight {weight} has shape {list(stored)},"
            f" and {list(asked)} is asked"
            " for; give the config.json that was saved with these weights"
        )
    lacking = sorted(info["missing_keys"])
    if not lacking:
        return
    prefix = _wrapper(lacking, sorted(info.get("unexpected_keys", ())))
    if prefix is not None:
        raise ModelError(
            f"the names of the weights of {name!r} begin with {prefix!r}, as a wrapper leaves them"
            " (torch.compile,"
            " DistributedDataParallel): save the model inside the wrapper, or take that beginning"
            " off the names"
        )
    raise ModelError(
        f"{name!r} is incomplete: it lacks {len(lacking)} weights of a causal LM, {lacking[0]} for"
        " one"
    )


def _wrapper(lacking: list[str], unexpected: list[str]) -> str | None:
    """What stands before a name that is lacking, in a name that nobody asked for."""
    for name in lacking:
        for key in unexpected:
            prefix = key.removesuffix(name)
            if key.endswith(name) and prefix.endswith("."):
                return prefix[:MAX_NAME]
    return None


def _base_of(path: Path) -> str:
    """The model that an adapter's description names: for people alone, nothing is opened by it."""
    try:
        with path.open("rb") as handle:
            described = strict_json.loads(handle.read(MAX_ADAPTER))
        base = described["base_model_name_or_path"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return ""
    return base[:MAX_NAME] if isinstance(base, str) else ""
