"""Run vectors through the frozen model.

The results are the decoded tokens, their cross-entropy in nats, and the gradient with respect to
the vectors.

The decoder's own pass and head are the engine's (`engine.inputs`, `engine.head`): the logits never
exist as a whole, and no gradient of a weight is ever asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from prototokens.engine.forward import scored_hidden
from prototokens.engine.head import Scores, score
from prototokens.engine.inputs import InputPlan, OneStep, arrange
from prototokens.layout import Layout
from prototokens.lm.frozen_lm import FrozenLM


class Judged(NamedTuple):
    """What the decoder makes of the vectors of some texts.

    Attributes:
        hidden: its states at the scored positions, with a gradient where the vectors have one.
        scores: what the head says of them.
        row_of: the text of each position.
    """

    hidden: Float[Tensor, "positions hidden"]
    scores: Scores
    row_of: Int64[Tensor, "positions"]

    def least_margins(self, rows: int) -> Float32[Tensor, "rows"]:
        """Of each text, the least margin."""
        return self.scores.margin.new_full((rows,), torch.inf).scatter_reduce_(
            0, self.row_of, self.scores.margin, "amin"
        )

    def losses(self, rows: int) -> Float32[Tensor, "rows"]:
        """Of each text, the summed loss."""
        return self.scores.loss.new_zeros(rows).index_add_(0, self.row_of, self.scores.loss)

    def right(self, rows: int) -> Int64[Tensor, "rows"]:
        """Of each text, how many positions are right."""
        return self.row_of.new_zeros(rows).index_add_(0, self.row_of, self.scores.right.long())

    def exact(self, rows: int) -> Bool[Tensor, "rows"]:
        """Of each text, whether every position is right."""
        return self.least_margins(rows) > 0


class Decoder:
    """A frozen model that reads vectors in one arrangement; plans of a length are laid out once."""

    def __init__(self, lm: FrozenLM, layout: Layout):
        self.lm, self.layout, self.method = lm, layout, OneStep(layout)
        self._plans: dict[int, InputPlan] = {}

    def judge(
        self,
        protos: Float[Tensor, "rows vectors d_model"],
        texts: Sequence[Sequence[int]],
        temperature: float = 1.0,
        gradient: bool = False,
        placed: bool = False,
    ) -> Judged:
        """Decode the vectors of texts in one pass, and score what comes out against them.

        Args:
            protos: the vectors, or, where they are `placed`, the input of each position.
            texts: token ids, of any lengths.
            temperature: of the loss; margins are of the undivided logits.
            gradient: whether a backward pass follows.
        """
        lm = self.lm
        plans = [self._plan(len(ids)) for ids in texts]
        if placed:
            plans = [
                plan._replace(index=torch.arange(len(plan.index)), keyed=False) for plan in plans
            ]
        arranged = arrange(lm, plans, protos.shape[1])
        targets = torch.tensor(
            [token for ids in texts for token in ids], dtype=torch.int64, device=lm.device
        )
        with torch.set_grad_enabled(gradient), torch.autocast(lm.device.type, enabled=False):
            hidden = scored_hidden(lm, arranged, protos.float())
            return Judged(
                hidden, score(lm, hidden.detach(), targets, temperature, gradient), arranged.row_of
            )

    def _plan(self, length: int) -> InputPlan:
        if length not in self._plans:
            self._plans[length] = self.method.plan(range(length))
        return self._plans[length]


def padded(
    texts: Sequence[Sequence[int]], device: torch.device
) -> tuple[Int64[Tensor, "rows seq"], Int64[Tensor, "rows"]]:
    """Ids of texts, filled up on the right with zeros, and their lengths."""
    longest = max(len(ids) for ids in texts)
    ids = torch.tensor(
        [[*ids, *[0] * (longest - len(ids))] for ids in texts], dtype=torch.int64, device=device
    )
    return ids, torch.tensor([len(one) for one in texts], dtype=torch.int64, device=device)
