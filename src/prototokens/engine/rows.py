"""What waits to be fitted: targets laid out, grouped where they share a vector, and the random starts they get."""

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
from prototokens.engine.inputs import Method, Plan
from prototokens.errors import TextError, UsageError
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.recipe import Recipe
from prototokens.solution import Solution


class Start(NamedTuple):
    """Vectors that a fit begins from.

    Attributes:
        grid: what they are scored on, if not as they are.
        rate: of the attempt that begins there, as a share of the recipe's: from nearly right
            vectors smaller steps get there sooner.
        spent: row-steps that it took to get there: they count as the fit's.
    """

    protos: Float32[Tensor, "vectors d_model"]
    grid: Grid | None = None
    rate: float = 1.0
    spent: int = 0


@dataclass
class Row:
    """One target with one seed.

    Attributes:
        order: its place in the caller's list.
        ids: the target.
        plan: where its vectors stand in the input, and what is scored.
        start: vectors that its first attempt begins from, if they are given.
        candidates: tokens that it is scored against between two steps with the whole vocabulary
            (`engine.candidates`), rising; None before the first step, or where that is not done.
    """

    order: int
    ids: tuple[int, ...]
    plan: Plan
    seed: int
    start: Start | None = None
    candidates: Tensor | None = None


@dataclass
class Group:
    """Rows that enter and leave together.

    `shared` is the number of the vector that they share, if any.
    """

    rows: list[Row]
    shared: int | None = None
    restarts: int = 0
    breaks: int = 0
    stalls: int = 0  # attempts given up for lack of a gain, and the steps that they took
    stalled_steps: int = 0
    spent: int = 0  # row-steps of earlier attempts, and those that its starts took
    solved: bool = False  # in the last attempt
    slots: list[list[int]] = field(
        default_factory=list
    )  # for each row, its vectors' numbers within the group
    age: int = 0  # steps of this attempt, on the host
    distinct: int = 0  # its own vectors
    best: list[Solution] = field(default_factory=list)  # of all attempts so far, one for each row

    def place(self, vectors: int) -> int:
        """Number the group's distinct vectors, the shared one once; returns how many there are."""
        self.slots, count = [], 0
        for place in range(len(self.rows)):
            slots = []
            for vector in range(vectors):
                if vector == self.shared and place > 0:
                    slots.append(self.slots[0][vector])
                else:
                    slots.append(count)
                    count += 1
            self.slots.append(slots)
        self.distinct = count
        return count

    @property
    def positions(self) -> int:
        """Width of the group's widest row."""
        return max(len(row.plan.index) for row in self.rows)

    @property
    def attempt(self) -> int:
        """Attempts before the one at hand, from other starts."""
        return self.restarts + self.breaks + self.stalls

    @property
    def rate(self) -> float:
        """Share of the recipe's rate at which the next attempt goes.

        The least that a start asks for, if it begins there.
        """
        return min(
            (row.start.rate for row in self.rows if self.steady and row.start is not None),
            default=1.0,
        )

    @property
    def steady(self) -> bool:
        """Whether the next attempt begins at vectors that were given.

        Its loss is low from the first step on.
        """
        return self.attempt == 0 and any(row.start is not None for row in self.rows)


class Starts:
    """Random starts on the scale a recipe asks for.

    A start is a function of (seed, restart, target), so neither the company nor the order of the
    rows changes it. A start that was given serves for the first attempt.
    """

    def __init__(self, lm: FrozenLM, recipe: Recipe, vectors: int):
        self.vectors = vectors
        self.mean, std, self.rms = lm.embedding_scale
        self.std = recipe.start_scale * std
        if recipe.start == "normal":
            self.mean, self.std = torch.zeros_like(self.mean), torch.ones_like(self.std)

    def draw(self, row: Row, restart: int) -> Tensor:
        """`[vectors, d_model]`, float32."""
        if row.start is not None and restart == 0:
            return row.start.protos
        digest = hashlib.blake2b(
            repr((row.seed, restart, row.ids)).encode(), digest_size=7
        ).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
        noise = torch.randn(self.vectors, len(self.mean), generator=generator)
        return self.mean + self.std * noise


def groups_of(
    lm: FrozenLM,
    targets: Sequence[Sequence[int]],
    method: Method,
    seed: int | Sequence[int],
    share: str | None,
    starts: Sequence[Start | None] | None = None,
) -> list[Group]:
    """Check the targets and lay them out, all in one group where they share a vector."""
    starts = _checked(starts, len(targets), (method.vectors, lm.d_model))
    seeds = [seed] * len(targets) if isinstance(seed, int) else list(seed)
    if len(seeds) != len(targets):
        raise UsageError(
            f"{len(seeds)} seeds for {len(targets)} targets: give one seed, or one for each"
        )
    if share not in (None, "e", "m"):
        raise UsageError(f"share must be 'e', 'm' or None, not {share!r}")
    layout = method.layout
    if share and layout.vectors != 2:
        raise UsageError(
            f"share={share!r} needs a layout of two vectors, and {layout.name!r} has"
            f" {layout.vectors}"
        )
    made = []
    for order, (target, its_seed, start) in enumerate(zip(targets, seeds, starts, strict=True)):
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
        made.append(Row(order, ids, method.plan(ids), its_seed, start))
    if share and made:
        return [
            Group(made, shared=0 if share == "e" else 1, spent=max(_spent(row) for row in made))
        ]
    return [Group([row], spent=_spent(row)) for row in made]


def _spent(row: Row) -> int:
    return 0 if row.start is None else row.start.spent


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
        if start is not None and not 0 < start.rate < math.inf:
            raise UsageError(
                f"a start's rate is a share of the recipe's, above zero, not {start.rate}"
            )
        if start is not None and start.spent < 0:
            raise UsageError(f"a start's row-steps are counted from zero, not {start.spent}")
    return starts
