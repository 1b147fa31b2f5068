"""Rows to be fitted: targets, grouped where they share a vector, and their random starts."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float32
from torch import Tensor

from prototokens.engine.grid import Grid
from prototokens.engine.inputs import InputPlan, Method
from prototokens.errors import TextError, UsageError
from prototokens.layout import Layout
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.lm.untrained import untrained_positions
from prototokens.recipe import Recipe
from prototokens.solution import Solution


class Start(NamedTuple):
    """Vectors that a fit begins from (a warm start).

    Attributes:
        protos: the vectors.
        grid: that vectors are rounded to before they are scored; None: they are not rounded.
        lr_scale: factor on the recipe's learning rate in the attempt that begins there: from nearly
            right vectors smaller steps need fewer of them.
        row_steps: row-steps that it took to find them; they count as the fit's.
    """

    protos: Float32[Tensor, "vectors d_model"]
    grid: Grid | None = None
    lr_scale: float = 1.0
    row_steps: int = 0


class Init(NamedTuple):
    """Where the vectors of many targets begin, and which of their tokens are scored.

    Attributes:
        seed: of the random starts; a list gives each target its own.
        share: `e` or `m`: one such vector for all targets; then they are solved together or not at
            all.
        starts: vectors that each target begins from (None: at random), of which those with a grid
            stay on it; by default all begin at random.
        excluded: positions of each target that are not scored; by default none are left out.
        weights: factors on the loss of each target's tokens (None: all 1); by default all are 1.
    """

    seed: int | Sequence[int] = 0
    share: str | None = None
    starts: Sequence[Start | None] | None = None
    excluded: Sequence[Sequence[int]] | None = None
    weights: Sequence[Sequence[float] | None] | None = None


RANDOM = Init()


@dataclass
class Row:
    """One target with one seed.

    Attributes:
        order: its index in the caller's list.
        ids: the target.
        plan: where its vectors stand in the input, and which positions are scored.
        excluded: positions of the target that are not scored: those that the caller leaves out,
            and those whose tokens no vectors can give the margin that is asked for
            (`lm.untrained`).
        seed: of its random starts.
        weights: factors on the loss of its tokens; None: all are 1.
        start: vectors that its first attempt begins from, if they are given.
        candidates: tokens that it is scored against between two steps with the whole vocabulary
            (`engine.candidates`), in ascending order; None before the first step, or where that is
            not done.
    """

    order: int
    ids: tuple[int, ...]
    plan: InputPlan
    seed: int
    start: Start | None = None
    excluded: tuple[int, ...] = ()
    weights: tuple[float, ...] | None = None
    candidates: Tensor | None = None

    @property
    def scored_ids(self) -> list[int]:
        """The tokens of the target that are scored, in order."""
        return [token for position, token in enumerate(self.ids) if position not in self.excluded]

    @property
    def scored_weights(self) -> list[float]:
        """The factors on the loss of the tokens that are scored, in order."""
        weights = self.weights or (1.0,) * len(self.ids)
        return [weight for at, weight in enumerate(weights) if at not in self.excluded]


@dataclass
class Group:
    """Rows that enter and leave a batch together: one row, or all rows that share a vector.

    Attributes:
        rows: its rows.
        shared: the index of the vector that they share, if any.
        restarts, divergences, stalls: attempts that ended with their budget, with a loss that was
            not finite, and for lack of a gain.
        stalled_steps: steps that stalled attempts took; they come out of the budget of the next.
        row_steps: of earlier attempts, and of the search for warm starts.
        step: optimizer steps of the current attempt, as the host counts them.
        solved: whether the last attempt was.
        vectors: for each row, the indices of its vectors within the group.
        distinct: how many vectors the group has.
        best: the best solution of all attempts so far, for each row.
    """

    rows: list[Row]
    shared: int | None = None
    restarts: int = 0
    divergences: int = 0
    stalls: int = 0
    stalled_steps: int = 0
    row_steps: int = 0
    step: int = 0
    solved: bool = False
    vectors: list[list[int]] = field(default_factory=list)
    distinct: int = 0
    best: list[Solution] = field(default_factory=list)

    def index_vectors(self, count: int) -> int:
        """Give every vector of the rows an index, a shared one once; returns how many there are."""
        self.vectors, self.distinct = [], 0
        for row in range(len(self.rows)):
            indices = []
            for vector in range(count):
                if vector == self.shared and row > 0:
                    indices.append(self.vectors[0][vector])
                else:
                    indices.append(self.distinct)
                    self.distinct += 1
            self.vectors.append(indices)
        return self.distinct

    @property
    def positions(self) -> int:
        """Input positions of the group's longest row."""
        return max(len(row.plan.index) for row in self.rows)

    @property
    def attempt(self) -> int:
        """How many attempts came before the current one."""
        return self.restarts + self.divergences + self.stalls

    @property
    def warm_started(self) -> bool:
        """Whether the next attempt begins at vectors that were given: its loss is low at once."""
        return self.attempt == 0 and any(row.start is not None for row in self.rows)

    @property
    def lr_scale(self) -> float:
        """Factor on the learning rate that the warm starts ask for, the least of them; else 1."""
        starts = [row.start for row in self.rows if row.start is not None]
        return min((start.lr_scale for start in starts), default=1.0) if self.warm_started else 1.0


class Starts:
    """Random starts on the scale that a recipe asks for.

    A start is a function of the seed, the attempt and the target, so neither the other rows nor
    their order changes it.
    """

    def __init__(self, lm: FrozenLM, recipe: Recipe, vectors: int):
        self.vectors, self.recipe = vectors, recipe
        self.mean, self.std, self.rms = lm.embedding_scale
        if recipe.start == "normal":
            self.mean, self.std = torch.zeros_like(self.mean), torch.ones_like(self.std)

    def scale(self, group: Group) -> float:
        """Factor on the deviation of a group's random start, and on the rate from there.

        Every other attempt after a stall begins at the embeddings' own scale, whose smaller steps
        suit targets near the limit of what the vectors can store; the others at the recipe's.
        """
        return 1.0 if group.stalls % 2 else self.recipe.start_scale

    def draw(self, row: Row, group: Group) -> Float32[Tensor, "vectors d_model"]:
        """Where the next attempt of a row begins: at the vectors that were given, or at random."""
        if row.start is not None and group.attempt == 0:
            return row.start.protos
        digest = hashlib.blake2b(
            repr((row.seed, group.attempt, row.ids)).encode(), digest_size=7
        ).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
        noise = torch.randn(self.vectors, len(self.mean), generator=generator)
        return self.mean + self.scale(group) * self.std * noise


def groups_of(
    lm: FrozenLM,
    targets: Sequence[Sequence[int]],
    method: Method,
    init: Init = RANDOM,
    *,
    least_lead: float = 0.0,
) -> list[Group]:
    """Check the targets and lay them out, all in one group where they share a vector.

    Args:
        least_lead: tokens whose lead over another cannot be larger (`lm.untrained`), in logits, are
            not scored.
    """
    seed, share = init.seed, init.share
    starts = _checked(init.starts, len(targets), (method.vectors, lm.d_model))
    seeds = [seed] * len(targets) if isinstance(seed, int) else list(seed)
    if len(seeds) != len(targets):
        raise UsageError(
            f"{len(seeds)} seeds for {len(targets)} targets: give one seed, or one for each"
        )
    layout = method.layout
    _check_share(share, layout)
    made = []
    for order, (target, row_seed, start) in enumerate(zip(targets, seeds, starts, strict=True)):
        ids = tuple(int(token) for token in target)
        if not ids:
            raise TextError(
                f"target {order + 1} of {len(targets)} is empty: there is nothing to fit"
            )
        if not all(0 <= token < lm.vocab_size for token in ids):
            raise TextError(
                f"target {order + 1} of {len(targets)} has ids outside the vocabulary of"
                f" {lm.vocab_size}"
            )
        positions = len(layout.prefix) + layout.positions(len(ids))
        if lm.max_context is not None and positions > lm.max_context:
            raise TextError(
                f"target {order + 1} of {len(targets)} takes {positions} positions and {lm.name}"
                f" holds {lm.max_context}:"
                " cut it into chunks (prototokens.encode does)"
            )
        left_out = () if init.excluded is None else init.excluded[order]
        excluded = tuple(sorted({*untrained_positions(lm, ids, least_lead), *left_out}))
        plan = method.plan(ids).without(excluded)
        weights = None if init.weights is None else init.weights[order]
        own = None if weights is None else tuple(weights)
        made.append(Row(order, ids, plan, row_seed, start, excluded, own))
    if share and made:
        return [
            Group(
                made,
                shared=0 if share == "e" else 1,
                row_steps=max(_row_steps_before(row) for row in made),
            )
        ]
    return [Group([row], row_steps=_row_steps_before(row)) for row in made]


def _check_share(share: str | None, layout: Layout) -> None:
    """Refuse a vector that cannot be shared in this layout."""
    if share not in (None, "e", "m"):
        raise UsageError(f"share must be 'e', 'm' or None, not {share!r}")
    if share and layout.vectors != 2:
        raise UsageError(
            f"share={share!r} needs a layout of two vectors, and {layout.name!r} has"
            f" {layout.vectors}"
        )


def _row_steps_before(row: Row) -> int:
    return 0 if row.start is None else row.start.row_steps


def _checked(
    starts: Sequence[Start | None] | None, count: int, shape: tuple[int, int]
) -> Sequence[Start | None]:
    """A start, or None, for each target."""
    if starts is None:
        return [None] * count
    if len(starts) != count:
        raise UsageError(f"{len(starts)} starts for {count} targets: give one for each, or none")
    for start in starts:
        if start is not None and tuple(start.protos.shape) != shape:
            raise UsageError(
                f"a start of shape {tuple(start.protos.shape)} was given, and {shape} is needed"
            )
        if start is not None and not 0 < start.lr_scale < math.inf:
            raise UsageError(
                f"lr_scale of a start is a factor on the recipe's rate, above zero, not"
                f" {start.lr_scale}"
            )
        if start is not None and start.row_steps < 0:
            raise UsageError(f"row_steps of a start are counted from zero, not {start.row_steps}")
    return starts
