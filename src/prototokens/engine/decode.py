"""From vectors to ids: one forward pass for each row, many rows to a pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from prototokens.engine.head import argmax
from prototokens.engine.inputs import OneStep, arrange
from prototokens.errors import UsageError
from prototokens.layout import Layout
from prototokens.lm.frozen_lm import FrozenLM

# Input positions of one forward pass: bounds memory (a few hundred bytes times the model's width, per position).
POSITIONS = 8192


@runtime_checkable
class Held(Protocol):
    """What decoding needs of a row: a `Solution` has it, and so has a chunk of a file."""

    @property
    def protos(self) -> Float[Tensor, "vectors d_model"]: ...
    @property
    def layout(self) -> Layout: ...
    @property
    def length(self) -> int: ...


class Decoded(NamedTuple):
    """Decoded ids and what they took.

    Attributes:
        ids: for each row, its token ids.
        forward_passes: passes through the model; every row took part in exactly one.
    """

    ids: list[list[int]]
    forward_passes: int


@torch.no_grad()
def decode_ids(lm: FrozenLM, rows: Sequence[Held], positions: int = POSITIONS) -> Decoded:
    """The argmax ids of each row, in order; rows of unequal length and layout share a pass by right padding.

    Args:
        positions: most input positions of one pass, padding included.

    Raises:
        UsageError: the vectors are not of the model's width.
    """
    ids: list[list[int]] = []
    passes = 0
    for part in _passes(rows, positions):
        for row in part:
            if row.protos.shape[1] != lm.d_model:
                raise UsageError(f"vectors of width {row.protos.shape[1]} given, and {lm.name} takes {lm.d_model}")
        most = max(row.protos.shape[0] for row in part)
        protos = torch.stack([torch.nn.functional.pad(row.protos, (0, 0, 0, most - row.protos.shape[0])) for row in part])
        arranged = arrange(lm, [OneStep(row.layout).plan(range(row.length)) for row in part], most)
        hidden = lm.hidden_lean(arranged.inputs(protos.to(lm.device, torch.float32)).to(lm.dtype))
        flat = argmax(lm, hidden.flatten(0, 1)[arranged.read])
        ids += [piece.tolist() for piece in flat.split([row.length for row in part])]
        passes += 1
    return Decoded(ids, passes)


@torch.no_grad()
def generate_from(lm: FrozenLM, solutions: Sequence[Held]) -> list[list[int]]:
    """The ids that memory vectors generate greedily, one pass a token, with a cache: decoding of the counterpart.

    Args:
        solutions: of a fit with `Cramming`, all with the same number of vectors; as many ids are generated as each is long.

    Raises:
        UsageError: they differ in their number of vectors, or are not of the model's width.
    """
    if not solutions:
        return []
    shapes = {tuple(solution.protos.shape) for solution in solutions}
    if len(shapes) > 1 or next(iter(shapes))[1] != lm.d_model:
        raise UsageError(f"vectors of one number and of width {lm.d_model} are needed, and shapes {sorted(shapes)} were given")
    memory = torch.stack([solution.protos for solution in solutions]).to(lm.device, lm.dtype)
    ids = lm.generate(memory, max(solution.length for solution in solutions)).tolist()
    return [row[: solution.length] for row, solution in zip(ids, solutions, strict=True)]


def _passes(rows: Sequence[Held], positions: int) -> Iterator[list[Held]]:
    """The rows in order, as many to a pass as fit."""
    part: list[Held] = []
    widest = 0
    for row in rows:
        wider = max(widest, row.layout.positions(row.length))
        if part and (len(part) + 1) * wider > positions:
            yield part
            part, wider = [], row.layout.positions(row.length)
        part.append(row)
        widest = wider
    if part:
        yield part
