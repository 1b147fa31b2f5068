"""What a user hands to `fit`, as the engine takes it: starts, masks, weights in their many forms.

Whatever cannot be meant is refused here, with a sentence that names the argument.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from prototokens.engine.rows import Start
from prototokens.errors import UsageError
from prototokens.layout import MAX_REPEATED, Layout
from prototokens.lm.targets import Targets, described, is_array, whole_numbers
from prototokens.recipe import Recipe
from prototokens.solution import Solution


def read_starts(start: Any, targets: Targets) -> list[Start | None] | None:
    """Where each target begins, from vectors that were given; None: all at random.

    Args:
        start: `random`; vectors in one of the forms of `FitOptions.start`, for every target or in
            a list for each.

    Raises:
        UsageError: their number is not that of the targets, or a number is not finite.
        TypeError: anything else.
    """
    count = len(targets.ids)
    if isinstance(start, str):
        return None
    if _is_start(start) and not (is_array(start) and start.ndim == 3):
        one: Start | None = _start(start, 0)
        return [one for _ in range(count)]
    if not is_array(start) and not isinstance(start, Sequence):
        raise TypeError(_wrong_start(start))
    given = list(start)
    if len(given) != count:
        raise UsageError(
            f"start has vectors for {len(given)} targets, and there are {count}: give one for each"
            " (None: at random), or one for all"
        )
    return [None if one is None else _start(one, number) for number, one in enumerate(given)]


def read_mask(mask: Any, targets: Targets) -> list[tuple[int, ...]] | None:
    """The positions of each target that are not scored; None: all are.

    Args:
        mask: for one target a true or false for each token; for a list, one such mask for each
            target, or None.

    Raises:
        UsageError: a mask of another length than its target, or that leaves nothing to score.
        TypeError: anything else.
    """
    if mask is None:
        return None
    masks = _for_each(mask, targets, "mask", _wrong_mask)
    return [_unscored(one, ids) for one, ids in zip(masks, targets.ids, strict=True)]


def read_weights(weights: Any, targets: Targets) -> list[tuple[float, ...] | None] | None:
    """The factors on the loss of each target's tokens; None: all are 1.

    Args:
        weights: for one target a number for each token; for a list, such numbers for each target,
            or None.

    Raises:
        UsageError: weights of another length than their target, or a number that is not finite or
            not above zero.
        TypeError: anything else.
    """
    if weights is None:
        return None
    each = _for_each(weights, targets, "weights", _wrong_weights)
    return [_factors(one, ids) for one, ids in zip(each, targets.ids, strict=True)]


def _for_each(
    given: Any, targets: Targets, name: str, wrong: Callable[[Any], str]
) -> Sequence[Any]:
    """An option's value for each target, from one for a single target or a list of them."""
    each = [given] if targets.single else given
    if not is_array(each) and not isinstance(each, Sequence):
        raise TypeError(wrong(each))
    if len(each) != len(targets.ids):
        raise UsageError(
            f"{name} has {len(each)} members for {len(targets.ids)} targets: give one for each"
        )
    return each


def layout_of_starts(start: Any) -> Layout | None:
    """The layout that all solutions of a start share; None where there are none, or several."""
    given = start if isinstance(start, list | tuple) and not isinstance(start, Start) else [start]
    layouts = [one.layout for one in given if isinstance(one, Solution)]
    return layouts[0] if layouts and all(one == layouts[0] for one in layouts) else None


def check_options(given: Mapping[str, Any]) -> None:
    """Refuse values of options of `fit` that are of a type it does not take.

    Raises:
        TypeError: such a value; the message names the option.
        UsageError: a number out of range, or two options that exclude each other.
    """
    for name, (kinds, words) in _KINDS.items():
        value = given.get(name)
        if name in given and (not isinstance(value, kinds) or isinstance(value, bool)):
            raise TypeError(f"fit() takes as {name} {words}, not {described(value)}")
    if isinstance(given.get("seed"), Sequence) and whole_numbers(given["seed"]) is None:
        raise TypeError("fit() takes as seed a whole number, or a list with one for each target")
    prefix = given.get("prefix", "auto")
    if not isinstance(prefix, str) and whole_numbers(prefix) is None:
        raise TypeError(
            "fit() takes as prefix 'auto', 'none', 'bos', 'text:...' or a list of token ids, not"
            f" {described(prefix)}"
        )
    vectors, steps = given.get("vectors"), given.get("steps")
    if vectors is not None and given.get("layout") is not None:
        raise UsageError(
            "layout and vectors both say how many vectors there are: give one of them"
            " (vectors=K is the layout keyed:K)"
        )
    if vectors is not None and not 1 <= vectors <= MAX_REPEATED:
        raise UsageError(f"vectors must be from 1 to {MAX_REPEATED}, not {vectors}")
    if steps is not None and steps < 0:
        raise UsageError(f"steps must not be negative, and are {steps}")


_NONE = type(None)
_WHOLE = "a whole number"
_KINDS: dict[str, tuple[Any, str]] = {
    "layout": (str | Layout | _NONE, "a layout or its name"),
    "vectors": (int | _NONE, _WHOLE),
    "recipe": (str | Recipe, "a recipe or its name"),
    "steps": (int | _NONE, _WHOLE),
    "seed": (int | Sequence, "a whole number, or a list with one for each target"),
    "share": (str | _NONE, "'e', 'm' or None"),
    "rows": (int | _NONE, _WHOLE),
}


def _is_start(value: Any) -> bool:
    return isinstance(value, Start | Solution) or is_array(value)


def _start(value: Any, number: int) -> Start:
    """Vectors of one target as a start."""
    if isinstance(value, Start):
        return value
    if isinstance(value, Solution):
        value = value.protos
    if not is_array(value):
        raise TypeError(_wrong_start(value))
    protos = torch.as_tensor(value).detach().to("cpu", torch.float32)
    if not protos.isfinite().all():
        raise UsageError(f"start of target {number + 1} has numbers that are not finite")
    return Start(protos)


def _unscored(mask: Any, ids: list[int]) -> tuple[int, ...]:
    """The positions that a mask of one target leaves out."""
    if mask is None:
        return ()
    values = mask.tolist() if is_array(mask) else mask
    if not isinstance(values, Sequence) or not all(one in (0, 1) for one in values):
        raise TypeError(_wrong_mask(mask))
    _check_length(values, ids, "mask")
    if ids and not any(values):
        raise UsageError("mask leaves no token of a target to be scored: leave the target out")
    return tuple(position for position, scored in enumerate(values) if not scored)


def _factors(weights: Any, ids: list[int]) -> tuple[float, ...] | None:
    """The factors on the loss of one target's tokens."""
    if weights is None:
        return None
    values = weights.tolist() if is_array(weights) else weights
    if not isinstance(values, Sequence) or not all(_is_number(one) for one in values):
        raise TypeError(_wrong_weights(weights))
    _check_length(values, ids, "weights")
    if not all(0 < one < math.inf for one in values):
        raise UsageError(
            "weights must be finite and above zero: a token that should not be scored is left out"
            " by mask"
        )
    return tuple(float(one) for one in values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_length(values: Sequence[Any], ids: list[int], name: str) -> None:
    """Refuse values of another number than a target's tokens."""
    if len(values) != len(ids):
        raise UsageError(
            f"{name} has {len(values)} values for a target of {len(ids)} tokens: give one for each"
        )


def _wrong_weights(weights: Any) -> str:
    return (
        "fit() takes as weights a number for each token of a target, and for a list of targets a"
        f" list of these, not {described(weights)}"
    )


def _wrong_start(value: Any) -> str:
    return (
        "fit() takes as start 'random', 'encoder', 'auto', an encoder, or vectors: a tensor"
        f" [vectors, d_model], a Solution, or a list of these, not {described(value)}"
    )


def _wrong_mask(value: Any) -> str:
    return (
        "fit() takes as mask a true or false for each token of a target, and for a list of targets"
        f" a list of masks, not {described(value)}"
    )
