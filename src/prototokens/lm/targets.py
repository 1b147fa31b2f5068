"""Targets in the forms that users have them in: texts, and token ids as lists or tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

Ids = Sequence[int] | Tensor | np.ndarray  # one dimension
Target = str | Ids
FORMS = (
    "a text, token ids (a list, or a tensor or array of one dimension), or a list of texts and"
    " lists of ids"
)


class Targets(NamedTuple):
    """Targets as token ids.

    Attributes:
        ids: of each.
        single: whether one target was given, and not a list.
    """

    ids: list[list[int]]
    single: bool


def read_targets(lm: Any, targets: Any, function: str = "fit") -> Targets:
    """The token ids of one target or of a list of them.

    Args:
        lm: the `FrozenLM` whose tokenizer is used.
        targets: a text, token ids, or a list of these.
        function: that was called, for messages.

    Raises:
        TypeError: anything else.
    """
    if isinstance(targets, str):
        return Targets([lm.tokenize(targets)], True)
    if (ids := whole_numbers(targets)) is not None and (ids or is_array(targets)):
        return Targets([ids], True)
    if not isinstance(targets, Sequence) or isinstance(targets, bytes | bytearray):
        raise TypeError(f"{function}() takes as targets {FORMS}, not {described(targets)}")
    found = []
    for number, target in enumerate(targets):
        ids = lm.tokenize(target) if isinstance(target, str) else whole_numbers(target)
        if ids is None:
            raise TypeError(
                f"{function}() takes as targets {FORMS}: member {number + 1} of {len(targets)} is"
                f" {described(target)}"
            )
        found.append(ids)
    return Targets(found, False)


def is_array(value: Any) -> bool:
    """Whether a value is a tensor, or an array of NumPy or of a library like it."""
    return all(hasattr(value, name) for name in ("ndim", "dtype", "tolist"))


def whole_numbers(value: Any) -> list[int] | None:
    """Whole numbers as a list; None where the value holds anything else."""
    if is_array(value):
        if value.ndim != 1:
            return None
        value = value.tolist()
    if not isinstance(value, Sequence) or isinstance(value, str | bytes | bytearray):
        return None
    found = []
    for one in value:
        if isinstance(one, bool | str) or not hasattr(one, "__index__"):
            return None
        try:
            found.append(one.__index__())
        except TypeError:  # a tensor of several numbers, or of a number that is not whole
            return None
    return found


def described(value: Any) -> str:
    """A value in a message."""
    if is_array(value):
        return f"an array of shape {tuple(value.shape)} and type {value.dtype}"
    kind = type(value).__name__
    if isinstance(value, list | tuple) and value:
        return f"a {kind} of {', '.join(sorted({type(one).__name__ for one in value})[:3])}"
    return f"{kind} {value!r:.40}" if isinstance(value, str | int | float | bool) else kind
