"""Run vectors through the frozen model: inputs, hidden states, and those at scored positions.

No other module makes inputs from vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from prototokens.engine.inputs import Arranged, OneStep, arrange, repeat_last
from prototokens.errors import UsageError
from prototokens.layout import Layout
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.lm.release import check_usable

# Input vectors `[rows, positions, d_model]` and a prefix, to hidden states
# `[rows, positions, hidden]`.
Backend = Callable[[Tensor, tuple[int, ...]], Tensor]


def scored_hidden(
    lm: FrozenLM,
    arranged: Arranged,
    protos: Float[Tensor, "rows vectors d_model"],
    backend: Backend | None = None,
    height: int = 0,
) -> Float[Tensor, "tokens hidden"]:
    """Hidden states at the scored positions of all rows, in order.

    Differentiable with respect to the vectors.

    Args:
        lm: the frozen model.
        arranged: where the vectors stand and what is scored.
        protos: of each row, in float32; the inputs are cast to the model's dtype.
        backend: how the inputs run through the model; by default `lm.hidden_lean`.
        height: rows that the pass is filled up to, by copies of the last one: a compiled body sees
            few shapes.
    """
    inputs = arranged.inputs(protos)
    if height > len(inputs):  # nothing is read from them
        inputs = repeat_last(inputs, height)
    states = (backend or lm.hidden_lean)(inputs.to(lm.dtype), arranged.prefix)
    return states.flatten(0, 1)[arranged.read]


@runtime_checkable
class HasVectors(Protocol):
    """Vectors and their layout: a `Solution`, or a chunk of a file."""

    @property
    def protos(self) -> Float[Tensor, "vectors d_model"]: ...
    @property
    def layout(self) -> Layout: ...
    @property
    def length(self) -> int: ...


def check_rows(lm: FrozenLM, rows: Iterable[HasVectors], any_model: bool = False) -> None:
    """Refuse vectors that a model cannot read.

    Args:
        any_model: let solutions of other weights pass.

    Raises:
        UsageError: a model that was released, vectors of another width, or a solution that was
            fitted to another model.
    """
    check_usable(lm, "decode_ids")
    for row in rows:
        if row.protos.shape[1] != lm.d_model:
            raise UsageError(
                f"vectors of width {row.protos.shape[1]} given, and {lm.name} takes {lm.d_model}"
            )
        made_for = getattr(row, "fingerprint", "")  # chunks of files were checked with their file
        if made_for and made_for != lm.fingerprint and not any_model:
            raise UsageError(
                f"the solution was fitted to a model with fingerprint {made_for[:12]!r}, and"
                f" {lm.name!r} has fingerprint {lm.fingerprint[:12]!r}: vectors mean nothing to"
                " other weights; use the model they were fitted to, or any_model=True"
            )


def inputs_of(lm: FrozenLM, row: HasVectors) -> Float[Tensor, "positions d_model"]:
    """The input vectors of one row with its prefix, in the model's dtype.

    The first `len(row.layout.prefix)` positions are the prefix.
    """
    arranged = arrange(lm, [OneStep(row.layout).plan(range(row.length))], len(row.protos))
    inputs = arranged.inputs(row.protos[None].to(lm.device, torch.float32))[0]
    prefix = lm.embed(torch.tensor(arranged.prefix, dtype=torch.int64, device=lm.device))
    return torch.cat([prefix.to(lm.dtype), inputs.to(lm.dtype)])


def stacked(
    protos: list[Float[Tensor, "_ d_model"]], device: torch.device
) -> Float[Tensor, "rows vectors d_model"]:
    """The vectors of rows of different layouts in one tensor, padded with zeros."""
    most = max(len(one) for one in protos)
    padded = [torch.nn.functional.pad(one, (0, 0, 0, most - len(one))) for one in protos]
    return torch.stack(padded).to(device, torch.float32)
