"""What a fit tells while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Progress:
    """What a progress callback is given after every step.

    Attributes:
        done: targets that are finished; `solved`: those of them that are exact by the recipe's
            margin.
        total: targets in all.
        accuracy: share of right tokens among the rows in the batch just now, in [0, 1].
        loss: mean cross-entropy of their tokens at the recipe's temperature, in nats.
        row_steps: forward and backward passes so far, each counted once per row; `seconds`: since
            the start.
        vectors_of: order of a target -> its vectors as just scored, or None where it is not in the
            batch.
    """

    done: int
    solved: int
    total: int
    accuracy: float
    loss: float
    row_steps: int
    seconds: float
    vectors_of: Callable[[int], Tensor | None]
