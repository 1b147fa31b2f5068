"""The groups that run: one optimizer step of all their vectors, and what came of each."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from prototokens.engine import candidates
from prototokens.engine.forward import scored_hidden
from prototokens.engine.grid import on_grid
from prototokens.engine.head import Scores, score
from prototokens.engine.inputs import Method, arrange
from prototokens.engine.optimizer import move, token_weights
from prototokens.engine.rows import Group
from prototokens.engine.state import BatchState
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.recipe import Recipe
from prototokens.solution import Solution

STALL_GAIN = 0.1  # by how much the loss has to fall to count as a gain (`Recipe.stall`)
STALL_ACCURACY = 0.75  # share of right tokens from which on a slow attempt goes on


class StepResult(NamedTuple):
    """What a step found at the vectors that it scored, before it moved them.

    Attributes:
        accuracy: share of all scored tokens of the batch that are right, a scalar.
        loss: mean cross-entropy of a token at the recipe's temperature, in nats, a scalar.
    """

    accuracy: Tensor
    loss: Tensor


class Batch:
    """Groups laid out side by side.

    Which groups these are does not change; `state` does, with every step.
    """

    def __init__(
        self,
        lm: FrozenLM,
        recipe: Recipe,
        method: Method,
        state: BatchState,
        width: int,
        height: int,
    ):
        """Lay out the rows of these groups.

        Args:
            width: input positions that rows are padded to.
            height: rows that a pass is filled up to.
        """
        self.lm, self.recipe, self.method, self.state = lm, recipe, method, state
        self.width, self.height = width, height
        self.rows = [row for group in state.groups for row in group.rows]
        self.scored = state.vectors.value
        self.on_grid = any(
            row.start is not None and row.start.grid is not None for row in self.rows
        )
        if self.rows:
            plans = [row.plan for row in self.rows]
            self.arranged = arrange(lm, plans, method.vectors, width)
            ids = [token for row in self.rows for token in row.scored_ids]
            self.targets = torch.tensor(ids, dtype=torch.int64, device=lm.device)
        self.weights = self._weights()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def groups(self) -> list[Group]:
        """The groups, in the order of the state."""
        return self.state.groups

    def step(self) -> StepResult:
        """Score the vectors, record the best so far, and move the vectors.

        If this raises an out-of-memory error, the step can be retried: neither vectors nor
        optimizer state have changed, and what was recorded is recorded again with the same values.
        """
        vectors = self.state.vectors
        # The gradient at what is scored moves the values behind it: straight through the rounding.
        self.scored = (
            on_grid(vectors.value, vectors.grid_scale, vectors.grid_levels)
            if self.on_grid
            else vectors.value
        )
        protos = self.scored.clone().requires_grad_()
        hidden = scored_hidden(
            self.lm,
            self.arranged,
            protos[self.state.rows.vectors],
            self.lm.hidden_static,
            self.height,
        )
        scores, full = self._scores(hidden.detach())
        gradient = scores.gradient
        assert gradient is not None
        if self.weights is not None:
            gradient = (gradient * self.weights[:, None]).to(hidden.dtype)
            scores = scores._replace(loss=scores.loss * self.weights)
        tokens = self.state.tokens
        weight = token_weights(self.recipe, tokens.weight, scores.margin)
        if weight is not tokens.weight:
            gradient = (gradient * weight[:, None]).to(hidden.dtype)
        (gradient,) = torch.autograd.grad(hidden, protos, gradient)
        count = max(1, len(scores.right))
        result = StepResult(scores.right.sum() / count, scores.loss.sum() / count)
        group_loss = self._record(scores, full)
        new_tokens = replace(self.state.tokens, weight=weight)
        steps = [group.step for group in self.groups for _ in range(group.distinct)]
        move(self.recipe, self.state.vectors, self.state.of_groups, steps, gradient, group_loss)
        for group in self.groups:
            group.step += 1
        self.state.tokens = new_tokens
        return result

    def ended(self) -> list[bool]:
        """For each group, whether its attempt has ended; on a GPU this waits for running work."""
        return self.state.of_groups.ended().tolist()

    def solutions(self, index: int) -> list[Solution]:
        """For each row of a group, the best vectors that were scored in this attempt."""
        group, rows = self.groups[index], self.state.rows
        numbers = (rows.group == index).nonzero()[:, 0].tolist()
        tokens = self.state.tokens
        return [
            Solution(
                protos=self.state.vectors.best[rows.vectors[number]].cpu().clone(),
                layout=self.method.layout,
                ids=row.ids,
                correct=int(rows.correct[number]),
                margin=float(rows.margin[number]),
                steps=int(self.state.of_groups.best_step[index]),
                row_steps=0,
                restarts=group.attempt,
                seed=row.seed,
                excluded=row.excluded,
                fingerprint=self.lm.fingerprint,
                margins=tuple(tokens.margin[tokens.row == number].tolist()),
            )
            for row, number in zip(group.rows, numbers, strict=True)
        ]

    def vectors_of(self, order: int) -> Tensor | None:
        """The vectors of the target of that order, as they were just scored.

        None where it is not in the batch.
        """
        for row, indices in zip(self.rows, self.state.rows.vectors, strict=True):
            if row.order == order:
                return self.scored[indices].detach().cpu().clone()
        return None

    def _weights(self) -> Tensor | None:
        """The factors on the loss of all scored tokens; None where all are 1."""
        if all(row.weights is None for row in self.rows):
            return None
        weights = [weight for row in self.rows for weight in row.scored_weights]
        return torch.tensor(weights, dtype=torch.float32, device=self.lm.device)

    def _scores(self, hidden: Tensor) -> tuple[Scores, Tensor | bool]:
        """The scores, and which groups (True: all) were scored against the whole vocabulary."""
        if candidates.pays(self.lm, self.recipe):
            return candidates.score_candidates(
                self.lm, self.recipe, self.groups, hidden, self.targets
            )
        return score(self.lm, hidden, self.targets, self.recipe.temperature), True

    def _record(self, scores: Scores, full: Tensor | bool) -> Tensor:
        """Record, for each group, whether the vectors just scored are its best so far.

        Only scores against the whole vocabulary (`full`) count; the best vectors are copied.

        Returns:
            The mean loss of each group.
        """
        state, row_of = self.state, self.arranged.row_of
        rows, groups, vectors = state.rows, state.of_groups, state.vectors
        correct = torch.zeros_like(rows.correct).index_add_(0, row_of, scores.right.long())
        margin = torch.full_like(rows.margin, math.inf)
        margin.scatter_reduce_(0, row_of, scores.margin, "amin")
        total = torch.zeros_like(groups.correct).index_add_(0, rows.group, correct)
        least = torch.full_like(groups.margin, math.inf)
        least.scatter_reduce_(0, rows.group, margin, "amin")
        loss = torch.zeros_like(groups.margin).index_add_(0, rows.group[row_of], scores.loss)
        mean_loss, finite = loss / groups.tokens.clamp(min=1), loss.isfinite()
        running = ~groups.ended()
        better = (total > groups.correct) | ((total == groups.correct) & (least > groups.margin))
        better &= finite & running & full
        best_correct = torch.where(better, total, groups.correct)
        gain = mean_loss < groups.least_loss * (1 - STALL_GAIN)
        gain_step = torch.where(gain, groups.step, groups.gain_step)
        stalled = groups.step - gain_step > self.recipe.stall
        stalled &= best_correct < STALL_ACCURACY * groups.tokens
        new_groups = replace(
            groups,
            least_loss=torch.where(gain, mean_loss, groups.least_loss),
            gain_step=gain_step,
            stalled=groups.stalled | (stalled & running & (self.recipe.stall > 0)),
            correct=best_correct,
            margin=torch.where(better, least, groups.margin),
            best_step=torch.where(better, groups.step, groups.best_step),
            diverged=groups.diverged | (~finite & running),
            solved=groups.solved | (better & (least > self.recipe.margin)),
        )
        of_better = better[rows.group]
        new_rows = replace(
            rows,
            correct=torch.where(of_better, correct, rows.correct),
            margin=torch.where(of_better, margin, rows.margin),
        )
        best = torch.where(better[vectors.group, None], self.scored, vectors.best)
        token_margin = torch.where(of_better[row_of], scores.margin, state.tokens.margin)
        # All of it or, where memory ran out above, nothing.
        state.of_groups, state.rows = new_groups, new_rows
        state.tokens = replace(state.tokens, margin=token_margin)
        state.vectors = replace(vectors, best=best)
        return mean_loss
