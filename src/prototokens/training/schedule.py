"""The learning rate over a training: it rises, stays, and falls to zero."""

from __future__ import annotations


def trapezoid(step: int, *, warmup: int, fall: int, end: int, first: int = 0) -> float:
    """The factor on a learning rate at a step.

    Args:
        warmup: steps over which it rises, from `first` on.
        fall: step from which it falls, to reach zero at `end`.
    """
    warm = min(1.0, (step + 1 - first) / max(1, warmup))
    return warm if step < fall else warm * ((end - step) / (end - fall))
