"""Where a long text is cut, and how many vectors each chunk gets.

What vectors can hold is counted in bits, not in tokens: two vectors hold near half a bit of the
text's information (under the same model) per trained number, more of them, mixed, up to one, and
fits become slow well before that. So pieces are cut to hold equal information, measured by one pass
over the text. How much each holds is chosen by the forecast: more numbers buy fewer steps, and they
are bought as long as one per cent more of them saves more than `TRADE` per cent of the work.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from prototokens._util.words import counted
from prototokens.errors import TextError, UsageError
from prototokens.layout import DEFAULT_VECTORS, MAX_REPEATED, Layout, keyed
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.lm.untrained import untrained_positions
from prototokens.planning.forecast import Forecaster
from prototokens.ptok.spans import Span, spans_of
from prototokens.recipe import FAST, Recipe

DEFAULT_LAYOUT = keyed(5)
SHORT_LAYOUT = keyed(
    DEFAULT_VECTORS
)  # for a text that two vectors hold with ease, and where two are asked for
MAX_LENGTH = 256
VECTORS = (
    1,
    2,
    3,
    5,
    9,
    17,
)  # of a chunk, that `vectors="auto"` chooses from: those that were mapped (docs/vectors.md)
# Bits of the text's information for each trained number that are tried: from what takes hardly a
# step to what is hopeless.
LOADS = tuple(round(0.04 * 1.2**power, 3) for power in range(14))
# More than 1, as it is the file that stays; at 1.5 the fit of a chunk takes about a hundred steps
# (docs/vectors.md).
TRADE = 1.5
# A chunk that does not become exact is halved, and each half tried again: this often, which takes
# any length below 256 to single tokens.
MAX_HALVINGS = 8
# Where a tenth of a chunk's tokens or more are held by patches, since the model never learned them,
# the others take this much more steps: it hardly learned their neighbours either. Measured on
# Chinese, Russian, emoji and random bytes against English (dev/LOG.md, 2026-11-28).
MANY_UNTRAINED, HARDER = 0.1, 0.8
NEGLIGIBLE = 1e-6  # halves of a chunk, expected, that are left out of a forecast
TRIED_TOKENS = 1 << 14  # tokens of a long text that the trials take
WINDOW, WINDOWS = (
    32,
    8,
)  # tokens and number of the stretches that are read without what stands before them


class CostForecast(NamedTuple):
    """What a plan is expected to cost.

    Attributes:
        exact: share of the chunks that become exact as they are cut, without being halved; in [0,
            1].
        steps: optimiser steps of a chunk, the median over the chunks.
        chunks: how many there will be in the end, as those that are not exact are halved.
        row_steps: forward and backward passes in all, each counted once for each chunk that takes
            part, the halves' among them.
        position_steps: the same times the tokens of the chunk: what the work is proportional to.
        measured: whether fits of this very model are behind it; else it is what other models have
            in common.
    """

    exact: float
    steps: float
    chunks: float
    row_steps: float
    position_steps: float
    measured: bool

    def describe(self, pace: float | None = None) -> str:
        """One line for people; with `pace`, in row-steps a second, how long it will take."""
        source = "" if self.measured else " from other models"
        words = f"forecast{source}: {self.steps:,.0f} steps a chunk, {self.exact:.0%} of them exact"
        return words if pace is None else f"{words}, {clock(self.row_steps / pace)} here"


class ChunkPlan(NamedTuple):
    """A plan: the layout of all chunks, and where the text is cut.

    Attributes:
        layout: of every chunk.
        lengths: of the chunks in tokens, in order; they add up to the text.
        bits: information of the whole text under the model, in bits; None in a plan that was made
            without measuring it.
        forecast: what it is expected to cost; None in such a plan.
        untrained: tokens of the text that are left to patches (`lm.untrained`).
    """

    layout: Layout
    lengths: list[int]
    bits: float | None
    forecast: CostForecast | None = None
    untrained: int = 0

    def spans(self) -> list[Span]:
        """Where each chunk lies among the text's ids."""
        return spans_of(self.lengths)

    def describe(self) -> str:
        """One line for people."""
        shortest, longest = min(self.lengths), max(self.lengths)
        span = f"{longest}" if shortest == longest else f"{shortest}-{longest}"
        information = (
            "" if self.bits is None else f" ({self.bits / sum(self.lengths):.1f} bits a token)"
        )
        count = counted(len(self.lengths), "chunk")
        layout = f"{counted(self.layout.vectors, 'vector')} each, layout {self.layout.name}"
        patched = (
            f"; {self.untrained} of {sum(self.lengths)} tokens by patch, as the model never"
            " learned them"
        )
        span += " token" if longest == 1 else " tokens"
        return f"{count} of {span}, {layout}{information}{patched * (self.untrained > 0)}"


class _Text(NamedTuple):
    """What is known of a text before it is cut.

    Attributes:
        information: bits of each token, given the text before it.
        beginning: how many more bits a chunk has than those of its tokens, as nothing stands before
            it when it is decoded.
        scored: 1 for each token that the vectors have to reproduce, 0 for each that is left to a
            patch (`lm.untrained`).
    """

    information: list[float]
    beginning: float
    scored: list[int]


def plan_chunks(
    lm: FrozenLM,
    ids: list[int],
    layout: str | Layout = "auto",
    length: int | None = None,
    vectors: int | Literal["auto"] | None = None,
    recipe: Recipe = FAST,
    prefix: tuple[int, ...] = (),
) -> ChunkPlan:
    """Cut `ids` into chunks for random starts (`encoder.plan.plan_with_encoder` weighs an encoder).

    Args:
        layout: an arrangement, or `auto`: two keyed vectors where they hold the whole text with
            ease, else five.
        length: of every chunk but the last, in tokens; by default chosen by the forecast.
        vectors: of a chunk, where `layout` is `auto`: K is `keyed:K`; `auto` chooses this too by
            the forecast.
        recipe: that the forecast is for.
        prefix: token ids that stand before the vectors of every chunk; where a layout was given,
            its own are kept.

    Raises:
        TextError: there are no ids.
        UsageError: a length that the model cannot take, or vectors that do not fit the layout.
    """
    if not ids:
        raise TextError("the text is empty: there is nothing to cut")
    expect = Forecaster.of(lm, recipe)
    given = None if layout == "auto" else Layout.named(layout)
    layouts = [one.with_prefix(prefix or one.prefix) for one in _layouts(given, vectors, length)]
    if length is not None:
        _check_length(lm, layouts, length)
    text = _read(lm, ids, expect.recipe.least_lead)
    part = text._replace(
        information=text.information[:TRIED_TOKENS], scored=text.scored[:TRIED_TOKENS]
    )
    tried: list[tuple[float, Layout, float]] = []
    for one in layouts:
        for load in LOADS if length is None else LOADS[:1]:
            lengths = _lengths(lm, part, one, load, length)
            if (
                one.name == SHORT_LAYOUT.name
                and vectors is None
                and len(layouts) > 1
                and len(lengths) > 1
            ):
                continue  # by default two vectors are for texts that they reproduce whole
            tried.append(
                (price(_forecast(expect, part, one, lengths), one.vectors * lm.d_model), one, load)
            )
    _, best, load = min(tried, key=lambda trial: trial[0])
    lengths = _lengths(lm, text, best, load, length)
    return ChunkPlan(
        best,
        lengths,
        math.fsum(text.information),
        _forecast(expect, text, best, lengths),
        untrained=len(text.scored) - sum(text.scored),
    )


def _check_length(lm: FrozenLM, layouts: list[Layout], length: int) -> None:
    """Refuse chunks of a length that the model cannot take."""
    for one in layouts:
        longest = lm.longest_target(one)
        if not 1 <= length <= longest:
            raise UsageError(
                f"chunks of {length} tokens asked for, and {lm.name} takes from 1 to {longest} with"
                f" layout {one.name}"
            )


def price(forecast: CostForecast, floats: int) -> float:
    """The price of a plan with chunks of `floats` trained numbers; the lowest is chosen.

    Its unit means nothing.
    """
    return (forecast.chunks * floats) ** TRADE * forecast.position_steps


def clock(seconds: float) -> str:
    """A time as minutes and seconds, with hours where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
        if minutes >= 60
        else f"{minutes}:{rest:02d}"
    )


def _layouts(layout: Layout | None, vectors: int | str | None, length: int | None) -> list[Layout]:
    """The layouts to choose from."""
    if vectors is None:
        if layout is not None:
            return [layout]
        return [DEFAULT_LAYOUT] if length is not None else [SHORT_LAYOUT, DEFAULT_LAYOUT]
    if layout is not None:
        if vectors != layout.vectors:
            raise UsageError(
                f"layout {layout.name!r} has {layout.vectors} vectors a chunk, and {vectors} are"
                " asked for: give one of the two"
            )
        return [layout]
    if vectors == "auto":
        return [keyed(count) for count in VECTORS]
    if not isinstance(vectors, int) or not 1 <= vectors <= MAX_REPEATED:
        raise UsageError(
            f"vectors of a chunk are 'auto' or a number from 1 to {MAX_REPEATED}, not {vectors!r}"
        )
    return [keyed(vectors)]


def _read(lm: FrozenLM, ids: list[int], least_lead: float) -> _Text:
    """The information of each token, given the text before it; none where a patch holds the token.

    Also how much more the first tokens of a chunk have without that text.
    """
    excluded = set(untrained_positions(lm, ids, least_lead))
    scored = [int(position not in excluded) for position in range(len(ids))]
    tokens = torch.tensor(ids, device=lm.device)
    information = (lm.surprisal(tokens).double().cpu() / math.log(2)).tolist()
    starts = range(WINDOW, len(ids) - WINDOW + 1)
    extra = []
    for start in starts[:: max(1, math.ceil(len(starts) / WINDOWS))]:
        alone = float(lm.surprisal(tokens[start : start + WINDOW]).double().sum()) / math.log(2)
        extra.append(alone - math.fsum(information[start : start + WINDOW]))
    information = [bits * counts for bits, counts in zip(information, scored, strict=True)]
    return _Text(information, max(0.0, sum(extra) / len(extra)) if extra else 0.0, scored)


def _lengths(
    lm: FrozenLM, text: _Text, layout: Layout, load: float, length: int | None
) -> list[int]:
    """The text cut into chunks of so many tokens, or of so many bits for each number of theirs."""
    if length is not None:
        whole, rest = divmod(len(text.information), length)
        return [length] * whole + [rest] * (rest > 0)
    budget = load * layout.vectors * lm.d_model
    # A text that fits as a whole has nothing before it that it would miss.
    alone = math.fsum(text.information) <= budget
    budget = budget if alone else max(budget - text.beginning, budget / 2)
    return _cut(text.information, budget, min(MAX_LENGTH, lm.longest_target(layout)))


def _forecast(expect: Forecaster, text: _Text, layout: Layout, lengths: list[int]) -> CostForecast:
    """The cost forecast of all chunks together.

    Chunks that are not exact are halved: the halves count too, and theirs.
    """
    bits = torch.tensor(
        [math.fsum(text.information[start:end]) for start, end in spans_of(lengths)],
        dtype=torch.float64,
    )
    bits[1:] += text.beginning
    positions = torch.tensor(lengths, dtype=torch.float64)
    tokens = torch.tensor(
        [max(1, sum(text.scored[start:end])) for start, end in spans_of(lengths)],
        dtype=torch.float64,
    )
    slower = _slower(tokens / positions)
    expected = expect.rows(bits, tokens, layout)
    exact = float(expected.exact.mean())
    steps = float((slower * expected.steps).clamp(max=expect.recipe.steps).median())
    row_steps = position_steps = chunks = 0.0
    # How many pieces of each chunk there are at this level of halving, where every piece of it is
    # alike.
    pieces = torch.ones_like(bits)
    for level in range(MAX_HALVINGS + 1):
        row_steps += float((pieces * slower * expected.row_steps).sum())
        position_steps += float((pieces * positions * slower * expected.row_steps).sum())
        chunks += float((pieces * expected.exact).sum())
        pieces = 2 * pieces * (1 - expected.exact)
        if float(pieces.max()) < NEGLIGIBLE or level == MAX_HALVINGS:
            break
        bits, tokens = bits / 2, (tokens / 2).clamp(min=1)
        positions = (positions / 2).clamp(min=1)
        expected = expect.rows(bits, tokens, layout)
    return CostForecast(
        exact, steps, chunks + float(pieces.sum()), row_steps, position_steps, expect.measured
    )


def _slower(scored: Tensor) -> Tensor:
    """The factor on a chunk's steps for the tokens that patches hold.

    Args:
        scored: share of the chunk's tokens that vectors hold.
    """
    return 1 + HARDER * ((1 - scored) / MANY_UNTRAINED).clamp(max=1)


def _cut(information: list[float], budget: float, longest: int) -> list[int]:
    """Lengths of balanced pieces, none above the budget nor above `longest`.

    A single token may be above the budget.

    After each piece, what is left is shared out anew: rounding never adds up, and no scrap is left
    for the end. The measure is information, or where the text is so predictable that `longest` asks
    for more pieces than the budget does, tokens.
    """
    lengths: list[int] = []
    start, left = 0, sum(information)
    while start < len(information):
        rest = len(information) - start
        by_bits, by_length = math.ceil(left / budget), math.ceil(rest / longest)
        share, limit = (
            (left / by_bits, longest)
            if by_bits > by_length
            else (math.inf, math.ceil(rest / by_length))
        )
        length, used = 0, 0.0
        for bits in information[start : start + limit]:
            if length and (used + bits > budget or used + bits / 2 >= share):
                break
            length, used = length + 1, used + bits
        lengths.append(length)
        start, left = start + length, left - used
    return lengths
