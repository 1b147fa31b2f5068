"""How a row's vectors become the model's inputs, and which positions are scored.

A `Method` says where the vectors of a row stand and which outputs are scored; the fit needs nothing
else, so a new method is a new class here. Rows of unequal length share
a batch by right padding alone: under a causal mask, positions behind a row's end cannot touch it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from prototokens.errors import UsageError
from prototokens.keys import signs
from prototokens.layout import Layout, memory
from prototokens.lm.frozen_lm import FrozenLM

GIVEN = -1  # in a plan's index: here stands a token of the text, not a vector
MAX_MEMORY = 1024


class InputPlan(NamedTuple):
    """How one row is laid out: what is needed to build its inputs and to read its outputs.

    Attributes:
        index: the vector that sits at each input position; `GIVEN` where the row's own text stands.
        scored: the input position whose output is read as each target token.
        given: the ids of the `GIVEN` positions, in order.
        keyed: whether each vector is multiplied by the key of its position (`keys.signs`).
        prefix: token ids that stand before the first position.
    """

    index: Int64[Tensor, "positions"]
    scored: Int64[Tensor, "tokens"]
    given: Int64[Tensor, "given"]
    keyed: bool = False
    prefix: tuple[int, ...] = ()

    def without(self, excluded: Sequence[int]) -> InputPlan:
        """The same plan with some positions of the target not scored."""
        if not excluded:
            return self
        keep = torch.ones(len(self.scored), dtype=torch.bool)
        keep[list(excluded)] = False
        return self._replace(scored=self.scored[keep])


@runtime_checkable
class Method(Protocol):
    """How vectors and a target become inputs."""

    @property
    def layout(self) -> Layout:
        """What solutions record."""
        ...

    @property
    def vectors(self) -> int:
        """Number of trained vectors of a row."""
        ...

    def plan(self, ids: Sequence[int]) -> InputPlan:
        """Where the vectors of a row go, for a target of these ids."""
        ...


class OneStep:
    """Every input position holds a proto-token, chosen by the layout: no target token is fed in."""

    def __init__(self, layout: Layout):
        self.layout = layout
        self.vectors = layout.vectors

    def plan(self, ids: Sequence[int]) -> InputPlan:
        index = self.layout.index(len(ids))
        if bool((index == GIVEN).any()):
            raise UsageError(
                f"layout {self.layout.name!r} feeds the text in: it is decoded token by token"
                " (generate_from)"
            )
        layout = self.layout
        return InputPlan(
            index,
            layout.scored(len(ids)),
            index.new_empty(0),
            layout.key_version > 0,
            layout.prefix,
        )


class Cramming:
    """The autoregressive baseline: K memory vectors and then the text, with teacher forcing.

    Each output is scored against the next token; all tokens of the text but the last are
    fed in. Decoding is ordinary greedy
    generation from the vectors (`engine.decode.generate_from`). Source: Kuratov et al., arXiv
    2502.13063, section 3. Keys would change nothing here: each memory vector stands at one position
    only, where a fixed sign pattern is a change of variables, and the scored positions differ by
    the text itself.

    Args:
        vectors: number of memory vectors.
        prefix: token ids that stand before them.
    """

    def __init__(self, vectors: int = 1, prefix: Sequence[int] = ()):
        if not 1 <= vectors <= MAX_MEMORY:
            raise UsageError(f"from 1 to {MAX_MEMORY} memory vectors can be used, not {vectors}")
        self.vectors = vectors
        self.layout = memory(vectors).with_prefix(prefix)

    def plan(self, ids: Sequence[int]) -> InputPlan:
        index, scored = self.layout.index(len(ids)), self.layout.scored(len(ids))
        return InputPlan(
            index,
            scored,
            torch.tensor(list(ids[:-1]), dtype=torch.int64),
            prefix=self.layout.prefix,
        )


class Arranged(NamedTuple):
    """Rows of unequal length, padded to one shape.

    Attributes:
        spread: one-hot over a row's vectors for each position; zero where the text stands.
        fixed: the input vectors where the text stands, zero elsewhere; None where no row has any.
        read: for each scored token of all rows, in order, its index in the flattened
            `[rows * positions]`.
        row_of: the row of each scored token.
        keys: what the vector at each position is multiplied by, for all rows alike or for each;
            None where no row is keyed.
        prefix: token ids that stand before the first position of every row.
    """

    spread: Float[Tensor, "rows positions vectors"]
    fixed: Float[Tensor, "rows positions d_model"] | None
    read: Int64[Tensor, "tokens"]
    row_of: Int64[Tensor, "tokens"]
    keys: Float[Tensor, "positions d_model"] | Float[Tensor, "rows positions d_model"] | None
    prefix: tuple[int, ...]

    def inputs(
        self, protos: Float[Tensor, "rows vectors d_model"]
    ) -> Float[Tensor, "rows positions d_model"]:
        """The model's inputs.

        A product with a one-hot matrix is an exact gather, and its gradient a plain product.
        """
        placed = self.spread @ protos
        if self.keys is not None:
            placed = placed * self.keys
        return placed if self.fixed is None else placed + self.fixed


def repeat_last(values: Tensor, length: int) -> Tensor:
    """The values padded to `length` by copies of the last one.

    Nothing reads the positions behind a row's end. Zeros there would still be inputs that no model
    was trained on: a norm without an epsilon (Gemma 3n) makes NaN of them, in the loss's gradient
    too. The row's own last input is as harmless as the row itself.
    """
    return torch.cat([values, values[-1:].expand(length - len(values), *values.shape[1:])])


def arrange(
    lm: FrozenLM, plans: Sequence[InputPlan], vectors: int, width: int | None = None
) -> Arranged:
    """Pad the plans of a batch, which share a prefix, to one shape.

    Args:
        width: positions of each row; None: as many as the longest has.
    """
    prefix = plans[0].prefix
    assert all(plan.prefix == prefix for plan in plans)
    longest = max(len(plan.index) for plan in plans) if width is None else width
    spread = torch.zeros(len(plans), longest, vectors)
    fixed = None
    if any(len(plan.given) for plan in plans):
        fixed = torch.zeros(len(plans), longest, lm.d_model, device=lm.device)
    for row, plan in enumerate(plans):
        index = repeat_last(plan.index, longest)
        positions = (index != GIVEN).nonzero()[:, 0]
        spread[row, positions, index[positions]] = 1.0
        if fixed is not None and len(plan.given):
            positions = (index == GIVEN).nonzero()[:, 0]
            given = repeat_last(plan.given, len(positions))
            fixed[row, positions.to(lm.device)] = lm.embed(given.to(lm.device)).float()
    read = torch.cat([plan.scored + row * longest for row, plan in enumerate(plans)])
    row_of = torch.cat([torch.full_like(plan.scored, row) for row, plan in enumerate(plans)])
    keys = _keys(plans, longest, lm.d_model)
    keys = None if keys is None else keys.to(lm.device)
    return Arranged(
        spread.to(lm.device), fixed, read.to(lm.device), row_of.to(lm.device), keys, prefix
    )


def _keys(
    plans: Sequence[InputPlan], width: int, d_model: int
) -> Float[Tensor, "positions d_model"] | Float[Tensor, "rows positions d_model"] | None:
    """The keys of a batch: one table if every row is keyed, else one for each row."""
    keyed = [plan.keyed for plan in plans]
    if not any(keyed):
        return None
    table = signs(width, d_model)
    return table if all(keyed) else torch.where(torch.tensor(keyed)[:, None, None], table, 1.0)
