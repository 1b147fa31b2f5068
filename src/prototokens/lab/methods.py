"""The two methods that experiments compare, by name.

A layout's in one step, and the autoregressive baseline.
"""

from __future__ import annotations

from prototokens._util.numerals import whole_number
from prototokens.engine.inputs import Cramming, Method, OneStep
from prototokens.errors import UsageError
from prototokens.layout import Layout

MEMORY = "memory:"


def method_of(layout: str, prefix: tuple[int, ...] = ()) -> Method:
    """How vectors and model are joined.

    By a layout in one step, or, for `memory:K`, by the autoregressive baseline.

    Args:
        layout: a layout's name, or `memory:K`.
        prefix: token ids that stand before the vectors.

    Raises:
        UsageError: no such layout.
    """
    if not layout.startswith(MEMORY):
        return OneStep(Layout.named(layout).with_prefix(prefix))
    count = whole_number(layout.removeprefix(MEMORY))
    if count is None:
        raise UsageError(f"layout {layout!r} is not memory:K with a number K")
    return Cramming(count, prefix)


def positions(layout: str, length: int) -> int:
    """Input positions of a target of `length` tokens."""
    return method_of(layout).layout.positions(length)
