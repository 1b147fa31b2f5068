"""How a row's vectors become the model's inputs, and which positions are scored.

A way of joining vectors and model is a `Method`: two small functions of a layout-like description. The fit knows nothing
else of it, so a new method is a new class here. Rows of unequal length share a batch by right padding alone: under a causal
mask, positions behind a row's end cannot touch it.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from prototokens.layout import Layout


class Plan(NamedTuple):
    """One row, laid out: what the method needs to build its inputs and to read its outputs.

    Attributes:
        index: the vector that sits at each input position.
        scored: the input position whose output is read as each target token.
    """

    index: Int64[Tensor, "positions"]
    scored: Int64[Tensor, "tokens"]


@runtime_checkable
class Method(Protocol):
    """How vectors and a target become inputs."""

    @property
    def vectors(self) -> int:
        """Number of trained vectors of a row."""
        ...

    def plan(self, length: int) -> Plan:
        """Where the vectors of a row go, for a target of `length` tokens."""
        ...


class OneStep:
    """Every input position holds a proto-token, chosen by the layout: no target token is fed in."""

    def __init__(self, layout: Layout):
        self.layout = layout
        self.vectors = layout.vectors

    def plan(self, length: int) -> Plan:
        return Plan(self.layout.index(length), self.layout.scored(length))


class Arranged(NamedTuple):
    """Rows of unequal length, padded to one shape.

    Attributes:
        spread: one-hot over a row's vectors for each position; zero behind the row's end.
        read: for each scored token of all rows, in order, its place in the flattened `[rows * positions]`.
        row_of: the row of each scored token.
    """

    spread: Float[Tensor, "rows positions vectors"]
    read: Int64[Tensor, "tokens"]
    row_of: Int64[Tensor, "tokens"]

    def inputs(self, protos: Float[Tensor, "rows vectors d_model"]) -> Float[Tensor, "rows positions d_model"]:
        """The model's inputs. A product with a one-hot matrix is an exact gather, and its gradient a plain product."""
        return self.spread @ protos


def arrange(plans: list[Plan], vectors: int, device: torch.device, dtype: torch.dtype) -> Arranged:
    """Pad the plans of a batch to one shape."""
    longest = max(len(plan.index) for plan in plans)
    spread = torch.zeros(len(plans), longest, vectors)
    for row, plan in enumerate(plans):
        spread[row, torch.arange(len(plan.index)), plan.index] = 1.0
    read = torch.cat([plan.scored + row * longest for row, plan in enumerate(plans)])
    row_of = torch.cat([torch.full_like(plan.scored, row) for row, plan in enumerate(plans)])
    return Arranged(spread.to(device, dtype), read.to(device), row_of.to(device))
