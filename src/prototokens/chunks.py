"""Where a long text is cut, and into how many vectors each piece goes.

What vectors can hold is counted in bits, not in tokens: a model's vectors hold near half a bit of the text's information
(under the same model) per trained number, and fits become slow well before that. So pieces are cut to hold equal
information, measured by one pass over the text.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from prototokens.errors import UsageError
from prototokens.frozen_lm import FrozenLM
from prototokens.layout import Layout

DEFAULT_LAYOUT = "tiled:4"
SHORT_LAYOUT = "paper"  # for a text that two vectors hold with ease
# Bits of the text's information for each trained number: at about half of what vectors hold at most, fits take about a
# hundred steps (measured: dev/LOG.md).
BITS_PER_NUMBER = 0.2
LONGEST = 256


class ChunkPlan(NamedTuple):
    """The choice: an arrangement, and where to cut.

    Attributes:
        layout: of every chunk.
        lengths: of the chunks in tokens, in order; they add up to the text.
        bits: information of the whole text under the model, in bits; None where the lengths were given, and it was not
            measured.
    """

    layout: Layout
    lengths: list[int]
    bits: float | None

    def describe(self) -> str:
        """One line for people."""
        shortest, longest = min(self.lengths), max(self.lengths)
        span = f"{longest}" if shortest == longest else f"{shortest}-{longest}"
        held = "" if self.bits is None else f" ({self.bits / sum(self.lengths):.1f} bits a token)"
        count = f"{len(self.lengths)} chunk" + "s" * (len(self.lengths) > 1)
        return f"{count} of {span} tokens, {self.layout.vectors} vectors each, layout {self.layout.name}{held}"


def plan_chunks(lm: FrozenLM, ids: list[int], layout: str | Layout = "auto", length: int | None = None) -> ChunkPlan:
    """Cut `ids` into chunks.

    Args:
        layout: an arrangement, or `auto`: the paper's two vectors where they hold the whole text with ease, else five, tiled.
        length: of every chunk but the last, in tokens; by default chosen from the text's information.

    Raises:
        UsageError: a length that the model cannot take.
    """
    information = None
    if length is None:
        information = lm.surprisal(torch.tensor(ids, device=lm.device)).double().cpu() / math.log(2)
    if layout == "auto":
        short = Layout.named(SHORT_LAYOUT)
        fits = information is not None and float(information.sum()) <= BITS_PER_NUMBER * short.vectors * lm.d_model
        layout = short if fits and length is None else Layout.named(DEFAULT_LAYOUT)
    layout = Layout.named(layout)
    longest = longest_target(lm, layout)
    if length is not None:
        if not 1 <= length <= longest:
            raise UsageError(
                f"chunks of {length} tokens asked for, and {lm.name} takes from 1 to {longest} with layout {layout.name}"
            )
        whole, rest = divmod(len(ids), length)
        return ChunkPlan(layout, [length] * whole + [rest] * (rest > 0), None)
    assert information is not None
    budget = BITS_PER_NUMBER * layout.vectors * lm.d_model
    return ChunkPlan(layout, _cut(information.tolist(), budget, min(LONGEST, longest)), float(information.sum()))


def longest_target(lm: FrozenLM, layout: Layout) -> int:
    """The longest target, in tokens, whose input the model's context holds."""
    if lm.max_context is None:
        return 1 << 20
    return lm.max_context - (layout.positions(lm.max_context) - lm.max_context)


def _cut(information: list[float], budget: float, longest: int) -> list[int]:
    """Lengths of balanced pieces, none above the budget (but a single token may be) nor above `longest`.

    After each piece, what is left is shared out anew: rounding never adds up, and no scrap is left for the end. The measure is
    information, or where the text is so predictable that `longest` asks for more pieces than the budget does, tokens.
    """
    lengths: list[int] = []
    start, left = 0, sum(information)
    while start < len(information):
        rest = len(information) - start
        by_bits, by_length = math.ceil(left / budget), math.ceil(rest / longest)
        share, most = (left / by_bits, longest) if by_bits > by_length else (math.inf, math.ceil(rest / by_length))
        length, held = 0, 0.0
        for bits in information[start : start + most]:
            if length and (held + bits > budget or held + bits / 2 >= share):
                break
            length, held = length + 1, held + bits
        lengths.append(length)
        start, left = start + length, left - held
    return lengths
