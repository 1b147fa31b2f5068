"""What a fit gives back for one target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float32
from torch import Tensor

from prototokens.layout import Layout


class Chunk(NamedTuple):
    """Vectors, and what decoding needs of the text that they stand for.

    Attributes:
        protos: the vectors, e first.
        layout: the arrangement they are meant for.
        length: tokens of the text.
        ids: of the text, where they are known; else empty.
    """

    protos: Float32[Tensor, "vectors d_model"]
    layout: Layout
    length: int
    ids: tuple[int, ...] = ()

    @staticmethod
    def of(protos: Tensor, layout: Layout, ids: Sequence[int]) -> Chunk:
        """A chunk of a text that is known."""
        return Chunk(protos, layout, len(ids), tuple(ids))


@dataclass(frozen=True)
class Solution:
    """The proto-tokens of one target, as they were scored (not as they were after a further step).

    Attributes:
        protos: `[vectors, d_model]`, float32, on the CPU; e first.
        layout: the arrangement they are meant for.
        ids: the target.
        correct: number of scored positions whose argmax is the target's token.
        margin: least, over the scored positions, of the true logit minus the best other one (logits);
            negative where one is wrong.
        steps: optimiser steps of the attempt that gave these vectors, before they were scored.
        row_steps: forward and backward passes spent on this row in all, over every attempt.
        restarts: attempts before the one that gave these vectors.
        seed: of the start.
        failure: why the row ended, where it did not end by being solved or by its budget (a loss
            that was not finite).
        excluded: positions that were not scored, as no vectors can give their tokens the margin
            that was asked for (`lm.untrained`). They count as wrong.
    """

    protos: Float32[Tensor, "vectors d_model"]
    layout: Layout
    ids: tuple[int, ...]
    correct: int
    margin: float
    steps: int
    row_steps: int
    restarts: int
    seed: int
    failure: str | None = None
    excluded: tuple[int, ...] = ()

    @property
    def length(self) -> int:
        """Number of tokens of the target."""
        return len(self.ids)

    @property
    def accuracy(self) -> float:
        """Share of positions that are right, in [0, 1]."""
        return self.correct / self.length

    @property
    def exact(self) -> bool:
        """Every token right."""
        return self.correct == self.length

    @property
    def exact_where_scored(self) -> bool:
        """Every token right but those that were not scored."""
        return self.correct == self.length - len(self.excluded)
