"""From vectors to ids: one forward pass for each row, many rows to a pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from prototokens.engine.forward import HasVectors, check_rows, scored_hidden, stacked
from prototokens.engine.head import argmax
from prototokens.engine.inputs import OneStep, arrange
from prototokens.errors import UsageError
from prototokens.lm.frozen_lm import FrozenLM

# Input positions of one forward pass: bounds memory (a few hundred bytes times the model's width,
# per position).
POSITIONS = 8192


class Decoded(NamedTuple):
    """Decoded ids and what they took.

    Attributes:
        ids: for each row, its token ids.
        forward_passes: passes through the model; every row took part in exactly one.
    """

    ids: list[list[int]]
    forward_passes: int


@torch.no_grad()
def decode_ids(
    lm: FrozenLM,
    rows: Sequence[HasVectors],
    positions: int = POSITIONS,
    any_model: bool = False,
) -> Decoded:
    """The argmax ids of each row, in order.

    Rows of unequal length and layout share a pass by right padding.

    Args:
        positions: most input positions of one pass, padding included.
        any_model: decode solutions that were fitted to other weights all the same.

    Raises:
        UsageError: the vectors are not of the model's width, or of another model.
    """
    check_rows(lm, rows, any_model)
    ids: list[list[int]] = []
    passes = 0
    for part in _passes(rows, positions):
        protos = stacked([row.protos for row in part], lm.device)
        arranged = arrange(
            lm, [OneStep(row.layout).plan(range(row.length)) for row in part], protos.shape[1]
        )
        flat = argmax(lm, scored_hidden(lm, arranged, protos))
        ids += [piece.tolist() for piece in flat.split([row.length for row in part])]
        passes += 1
    return Decoded(ids, passes)


@torch.no_grad()
def generate_from(
    lm: FrozenLM, solutions: Sequence[HasVectors], any_model: bool = False
) -> list[list[int]]:
    """The ids that memory vectors generate greedily, one pass a token, with a cache.

    Decoding of the autoregressive baseline.

    Args:
        solutions: of a fit with `Cramming`, all with the same number of vectors; as many ids are
            generated as each is long.
        any_model: decode solutions that were fitted to other weights all the same.

    Raises:
        UsageError: they differ in their number of vectors, or are not of the model's width, or of
            another model.
    """
    if not solutions:
        return []
    check_rows(lm, solutions, any_model)
    shapes = {tuple(solution.protos.shape) for solution in solutions}
    if len(shapes) > 1:
        raise UsageError(
            f"vectors of one number and of width {lm.d_model} are needed, and shapes"
            f" {sorted(shapes)} were given"
        )
    memory = torch.stack([solution.protos for solution in solutions]).to(lm.device, lm.dtype)
    prefix = solutions[0].layout.prefix
    if any(solution.layout.prefix != prefix for solution in solutions):
        raise UsageError(
            "memory vectors that stand behind different prefixes cannot be decoded side by side"
        )
    if prefix:
        before = lm.embed(torch.tensor([prefix], device=lm.device)).to(lm.dtype)
        memory = torch.cat([before.expand(len(memory), -1, -1), memory], 1)
    ids = lm.generate(memory, max(solution.length for solution in solutions)).tolist()
    return [row[: solution.length] for row, solution in zip(ids, solutions, strict=True)]


def _passes(rows: Sequence[HasVectors], positions: int) -> Iterator[list[HasVectors]]:
    """The rows in order, as many to a pass as fit and stand behind the same prefix."""
    part: list[HasVectors] = []
    widest = 0
    for row in rows:
        own = len(row.layout.prefix) + row.layout.positions(row.length)
        wider = max(widest, own)
        if part and (
            (len(part) + 1) * wider > positions or row.layout.prefix != part[0].layout.prefix
        ):
            yield part
            part, wider = [], own
        part.append(row)
        widest = wider
    if part:
        yield part
