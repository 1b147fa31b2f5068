"""Tokens that the vectors cannot reproduce safely are stored as patches.

Patches, or all tokens of a chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from prototokens.engine.certify import UNCERTIFIED, Certificate, certify, threshold
from prototokens.engine.decode import decode_ids
from prototokens.engine.matrix import margins
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.ptok.patches import Edit, Extras, patch_size, token_size
from prototokens.solution import Solution


class Repaired(NamedTuple):
    """What a file needs beside vectors, and what was tried with all of it.

    Attributes:
        least: least margin of the positions that no patch sets, in logits; None where there are
            none.
    """

    extras: Extras
    certificate: Certificate
    least: float | None


def repair(
    lm: FrozenLM,
    solutions: Sequence[Solution],
    level: str,
    edits: Sequence[Edit] = (),
    *,
    patches: bool = True,
) -> Repaired:
    """Find the positions that vectors cannot reproduce, patch them, and certify the rest.

    A position is not reproduced where it decodes wrong, where its margin is more than one measured
    movement below the margin that the certificate asks for, or where it comes out wrong in one of
    the ways that the certificate tries.

    Args:
        level: of the certificate.
        patches: whether any are made; without them, all stays as it is.
    """
    if not patches:
        certificate, _ = certify(lm, solutions, level)
        return Repaired(
            Extras({}, {}, list(edits)), certificate, min(solution.margin for solution in solutions)
        )
    found = margins(lm, solutions)
    weak = _weak(lm, solutions, level, found)
    certificate = UNCERTIFIED
    for _ in range(2):  # what fails a way of decoding is patched, and the certificate made anew
        stored = {
            number: list(one.ids)
            for number, one in enumerate(solutions)
            if _is_stored(one, weak[number])
        }
        in_vectors = [number for number in range(len(solutions)) if number not in stored]
        rows, positions = (
            [solutions[number] for number in in_vectors],
            [sorted(weak[number]) for number in in_vectors],
        )
        certificate, failing = certify(lm, rows, level, positions)
        if not any(failing):
            break
        for number, more in zip(in_vectors, failing, strict=True):
            weak[number] |= more
    kept = [
        value
        for number, spots in zip(in_vectors, positions, strict=True)
        for position, value in enumerate(found[number].tolist())
        if position not in spots
    ]
    patch = {
        number: {position: solutions[number].ids[position] for position in spots}
        for number, spots in zip(in_vectors, positions, strict=True)
        if spots
    }
    return Repaired(Extras(patch, stored, list(edits)), certificate, min(kept, default=None))


def _weak(
    lm: FrozenLM, solutions: Sequence[Solution], level: str, found: Sequence[Tensor]
) -> list[set[int]]:
    """For each row, the positions that decode wrong or whose margin is too small."""
    asked = threshold(lm, level, solutions[0].layout if solutions else None)
    floor = max(0.0, asked.margin - asked.shift)
    decoded = decode_ids(lm, solutions).ids
    return [
        {
            position
            for position, (token, got, value) in enumerate(
                zip(solution.ids, ids, margin.tolist(), strict=True)
            )
            if got != token or not value > floor
        }
        for solution, ids, margin in zip(solutions, decoded, found, strict=True)
    ]


def _is_stored(solution: Solution, positions: set[int]) -> bool:
    """Whether the tokens themselves take no more bytes than a patch."""
    return bool(positions) and patch_size(
        {position: solution.ids[position] for position in positions}
    ) >= token_size(solution.ids)
