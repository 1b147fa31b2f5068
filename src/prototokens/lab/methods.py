"""The two methods that experiments compare, by name.

A layout's in one step, and the autoregressive baseline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prototokens._util.numerals import whole_number
from prototokens.errors import UsageError
from prototokens.layout import MEMORY, Layout

if TYPE_CHECKING:
    from prototokens.engine.inputs import Method


def parse_method(layout: str) -> Layout | int:
    """The layout of that name, or K of `memory:K`; without PyTorch.

    Raises:
        UsageError: neither.
    """
    if not layout.startswith(MEMORY):
        return Layout.named(layout)
    count = whole_number(layout.removeprefix(MEMORY))
    if count is None:
        raise UsageError(f"layout {layout!r} is not memory:K with a number K")
    return count


def method_of(layout: str, prefix: tuple[int, ...] = ()) -> Method:
    """How vectors and model are joined.

    By a layout in one step, or, for `memory:K`, by the autoregressive baseline.

    Args:
        layout: a layout's name, or `memory:K`.
        prefix: token ids that stand before the vectors.

    Raises:
        UsageError: no such layout.
    """
    from prototokens.engine.inputs import Cramming, OneStep

    parsed = parse_method(layout)
    if isinstance(parsed, Layout):
        return OneStep(parsed.with_prefix(prefix))
    return Cramming(parsed, prefix)


def positions(layout: str, length: int) -> int:
    """Input positions of a target of `length` tokens."""
    return method_of(layout).layout.positions(length)
