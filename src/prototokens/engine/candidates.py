"""Scoring against candidate tokens: the head of a large vocabulary at a fraction of its cost.

With a vocabulary of 262,144 and a small body, as in Gemma 3 270M, two thirds of a step are the
products of hidden states with the head's matrix. Nearly all of a sharpened softmax lies on a few
tokens, and these change slowly from step to step. So every `Recipe.full_head_every` steps a row is
scored against the whole vocabulary, which also gives its candidates: the likeliest tokens of all
its positions, and its targets. In the steps between, the row is scored against its candidates
alone. A margin over candidates is an upper bound of the true one; a row that seems solved is scored
again against the whole vocabulary in the same step, and only such scores decide whether a row is
solved or better than before. Each row has candidates and steps of its own, so that its fit does not
depend on the other rows of the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from prototokens.engine.head import Scores, score
from prototokens.engine.rows import Group, Row
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.recipe import Recipe

MIN_VOCABULARY = 1 << 15  # tokens below which the head costs too little for this to pay
LIKELIEST = 64  # tokens of each position that become candidates


class _Span(NamedTuple):
    """A row, the number of its group, and its scored positions among those of the batch."""

    group: int
    row: Row
    positions: slice


def pays(lm: FrozenLM, recipe: Recipe) -> bool:
    """Whether rows are scored against candidates.

    On a GPU they are not: it would wait for one small product for each row.
    """
    large = lm.vocab_size >= MIN_VOCABULARY
    return recipe.full_head_every > 1 and large and lm.device.type == "cpu"


def score_candidates(
    lm: FrozenLM,
    recipe: Recipe,
    groups: Sequence[Group],
    hidden: Float[Tensor, "positions hidden"],
    targets: Int64[Tensor, "positions"],
) -> tuple[Scores, Bool[Tensor, "groups"]]:
    """Score the rows of a batch, each against the whole vocabulary or its candidates.

    Args:
        groups: those of the batch. A group at a step that is a multiple of
            `recipe.full_head_every` is scored against the whole vocabulary, and its rows'
            `candidates` are replaced.
        hidden, targets: of the scored positions of all rows, in order.

    Returns:
        The scores, and for each group whether they are of the whole vocabulary.
    """
    scoring = _Scoring(lm, recipe, hidden, targets)
    spans = list(_spans(groups))
    full = torch.tensor([group.step % recipe.full_head_every == 0 for group in groups])
    scoring.against_vocabulary([span for span in spans if full[span.group]])
    between = [span for span in spans if not full[span.group]]
    for span in between:
        scoring.against_candidates(span)
    margin = scoring.margin
    unsolved = {
        span.group for span in between if not (margin[span.positions] > recipe.margin).all()
    }
    again = [span for span in between if span.group not in unsolved]
    scoring.against_vocabulary(again)
    full[[span.group for span in again]] = True
    return Scores(scoring.loss, margin > 0, margin, scoring.gradient), full.to(hidden.device)


class _Scoring:
    """Scores of all positions of a batch, which come row by row."""

    def __init__(self, lm: FrozenLM, recipe: Recipe, hidden: Tensor, targets: Tensor):
        self.lm, self.temperature = lm, recipe.temperature
        self.hidden, self.targets = hidden, targets
        self.margin = torch.empty(len(targets), device=hidden.device)
        self.loss, self.gradient = torch.empty_like(self.margin), torch.empty_like(hidden)

    def against_vocabulary(self, spans: list[_Span]) -> None:
        """Score these rows against the whole vocabulary, and give them new candidates."""
        if not spans:
            return
        parts = [torch.arange(span.positions.start, span.positions.stop) for span in spans]
        positions = torch.cat(parts).to(self.hidden.device)
        scores = score(
            self.lm,
            self.hidden[positions],
            self.targets[positions],
            self.temperature,
            top=LIKELIEST,
        )
        self._record(positions, scores)
        assert scores.likeliest is not None
        lengths = [len(part) for part in parts]
        for span, likeliest in zip(spans, scores.likeliest.split(lengths), strict=True):
            own = self.targets[span.positions]
            span.row.candidates = torch.cat([likeliest.flatten(), own]).unique()

    def against_candidates(self, span: _Span) -> None:
        """Score a row against its candidates alone."""
        tokens, head = span.row.candidates, self.lm.head
        assert tokens is not None
        bias = None if head.bias is None else head.bias[tokens]
        head = replace(head, weight=head.weight[tokens], bias=bias)
        own = torch.searchsorted(tokens, self.targets[span.positions])
        hidden = self.hidden[span.positions]
        self._record(span.positions, score(self.lm, hidden, own, self.temperature, head=head))

    def _record(self, positions: slice | Tensor, scores: Scores) -> None:
        assert scores.gradient is not None
        self.margin[positions], self.loss[positions] = scores.margin, scores.loss
        self.gradient[positions] = scores.gradient


def _spans(groups: Sequence[Group]) -> Iterator[_Span]:
    start = 0
    for number, group in enumerate(groups):
        for row in group.rows:
            end = start + len(row.scored_ids)
            yield _Span(number, row, slice(start, end))
            start = end
