"""Solved chunks become the tensors and the header of an encoded text."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from prototokens._util.versions import versions
from prototokens.engine.certify import UNCERTIFIED, Certificate
from prototokens.engine.grid import Grid
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.ptok.decoded import as_text
from prototokens.ptok.header import Header
from prototokens.ptok.patches import Extras
from prototokens.ptok.records import CertificateRecord, ModelRecord, TextRecord
from prototokens.recipe import Recipe
from prototokens.solution import Solution


class Precision(NamedTuple):
    """How many bits the vectors of each chunk take in the file.

    Attributes:
        bits: of each of their numbers (`engine.widths.WIDTHS`).
        grids: that they lie on; None for a chunk whose numbers are floats.
    """

    bits: Sequence[int]
    grids: Sequence[Grid | None]


class Record(NamedTuple):
    """What is recorded of an encoding beside its solutions.

    Attributes:
        row_steps: forward and backward passes spent in all; None: those of the solutions alone.
        certificate: what was tried with the vectors.
        least_margin: of the positions that no patch sets; None: of all that vectors reproduce.
        sizes: of the text in other forms, in bytes (`sizes.sizes_of`).
    """

    row_steps: int | None = None
    certificate: Certificate = UNCERTIFIED
    least_margin: float | None = None
    sizes: dict[str, int] | None = None


class Assembled(NamedTuple):
    """The parts of an encoded text; attributes as `EncodedText` has them."""

    vectors: Float32[Tensor, "distinct d_model"]
    slots: Int64[Tensor, "chunks vectors"]
    scale: Float32[Tensor, "distinct"] | None
    header: Header


def assemble(
    lm: FrozenLM,
    content: bytes,
    solutions: Sequence[Solution],
    *,
    recipe: Recipe,
    share: int | None,
    extras: Extras,
    precision: Precision | None,
    record: Record,
) -> Assembled:
    """Put solved chunks together.

    Args:
        content: the bytes of the whole text.
        solutions: at least one.
        share: number of the vector that all chunks share, if any.
    """
    in_vectors = [number not in extras.stored for number in range(len(solutions))]
    protos = [
        solution.protos for solution, there in zip(solutions, in_vectors, strict=True) if there
    ]
    vectors, slots = _table(protos, in_vectors, share, solutions[0].protos.shape)
    scale, bits = None, None
    if precision is not None:
        scale, bits = _grid_table(precision, in_vectors, slots, len(vectors))
    header = _header(lm, content, solutions, recipe, extras, record)
    shared = None if share is None else ("e" if share == 0 else f"m_{share}")
    if bits is not None:
        header = replace(header, bits=tuple(bits), format=max(2, header.format))
    header = replace(header, shared=shared)
    return Assembled(vectors, slots, scale, header)


def _header(
    lm: FrozenLM,
    content: bytes,
    solutions: Sequence[Solution],
    recipe: Recipe,
    extras: Extras,
    record: Record,
) -> Header:
    """What is recorded of solved chunks, but for how their vectors are stored."""
    in_vectors = [number not in extras.stored for number in range(len(solutions))]
    in_file = [one for one, there in zip(solutions, in_vectors, strict=True) if there]
    exact = [one.exact and there for one, there in zip(solutions, in_vectors, strict=True)]
    repaired = {*extras.patches, *extras.stored}
    margin = record.least_margin
    if margin is None:
        margin = min((solution.margin for solution in in_file), default=math.inf)
    layout, row_steps = solutions[0].layout, record.row_steps
    tokens = sum(solution.length for solution in solutions)
    return Header(
        format=3 if layout.prefix else 2 if extras else 1,
        model=model_record(lm),
        tokenizer=lm.tokenizer_hash,
        layout=layout.name,
        chunks=tuple(solution.length for solution in solutions),
        text=TextRecord(
            hashlib.sha256(content).hexdigest(), len(content), len(as_text(content)), tokens
        ),
        exact=all(flag or number in repaired for number, flag in enumerate(exact)),
        accuracy=sum(solution.right_tokens for solution in in_file) / tokens,
        min_margin=margin if math.isfinite(margin) else None,
        row_steps=sum(one.row_steps for one in solutions) if row_steps is None else row_steps,
        recipe=recipe.as_dict(),
        versions=versions(),
        certificate=CertificateRecord.of(record.certificate),
        keys=layout.key_version,
        prefix=tuple(layout.prefix),
        chunks_exact=tuple(exact),
        steps=tuple(solution.steps for solution in solutions),
        seeds=tuple(solution.seed for solution in solutions),
        restarts=tuple(solution.restarts for solution in solutions),
        stored=tuple(sorted(extras.stored)),
        patched=extras.patched,
        edited=sum(edit.drop + len(edit.insert) for edit in extras.edits),
        sizes=record.sizes or {},
    )


def model_record(lm: FrozenLM) -> ModelRecord:
    """What is recorded of the model that the vectors are fitted to."""
    return ModelRecord(
        name=lm.recorded_name,
        revision=lm.revision,
        fingerprint=lm.fingerprint,
        dtype=str(lm.dtype).removeprefix("torch."),
        d_model=lm.d_model,
        vocab_size=lm.vocab_size,
        response=tuple(lm.response),
    )


def _table(
    protos: list[Tensor], in_vectors: list[bool], share: int | None, shape: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """The distinct vectors of the chunks, and the row of each chunk's vectors among them.

    The row of a chunk that is stored as tokens is -1 throughout.
    """
    count, (width, d_model) = len(protos), shape
    if share is None:
        table, slots = (
            torch.cat([torch.empty(0, d_model), *protos]),
            torch.arange(count * width).view(count, width),
        )
    else:
        own = [number for number in range(width) if number != share]
        shared = [chunk[share : share + 1] for chunk in protos[:1]]
        table = torch.cat([torch.empty(0, d_model), *shared, *(chunk[own] for chunk in protos)])
        slots = torch.zeros(count, width, dtype=torch.int64)
        slots[:, own] = 1 + torch.arange(count * len(own)).view(count, len(own))
    everywhere = torch.full((len(in_vectors), width), -1)
    everywhere[torch.tensor(in_vectors)] = slots
    return table, everywhere


def _grid_table(
    precision: Precision, in_vectors: list[bool], slots: Tensor, distinct: int
) -> tuple[Tensor, list[int]]:
    """The scale of each distinct vector, 0 for those on no grid, and its number of bits."""
    scale, widths = torch.zeros(distinct), [32] * distinct
    for width, grid, there, rows in zip(*precision, in_vectors, slots.tolist(), strict=True):
        if there:
            for vector, row in enumerate(rows):
                widths[row] = width
                scale[row] = 0.0 if grid is None else grid.scale[vector]
    return scale, widths
