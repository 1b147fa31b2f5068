"""Where a text is cut for an encoder, and what fits from its vectors are expected to cost."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Literal

from prototokens.encoder.encoder import Encoder, next_longer
from prototokens.encoder.shipped import chosen, shipped
from prototokens.encoder.starts import proved
from prototokens.layout import Layout
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.planning.chunks import ChunkPlan, CostForecast, plan_chunks, price
from prototokens.recipe import Recipe


def plan_from(
    lm: FrozenLM,
    ids: list[int],
    start: str | Encoder = "auto",
    layout: str | Layout = "auto",
    length: int | None = None,
    vectors: int | Literal["auto"] | None = None,
    recipe: str | Recipe = "fast",
    prefix: tuple[int, ...] = (),
) -> ChunkPlan:
    """The plan of `plan_chunks`.

    Where the start insists on an encoder, with its layout, chunks and forecast.

    With vectors and start `auto`, the encoder that ships is one more way to choose from, at the
    cost that it has proved.

    Args:
        start: as `begin` takes it; the rest as `plan_chunks` does.

    Raises:
        UsageError: as `chosen` and `plan_chunks`.
    """
    named = Layout.named(layout).with_prefix(prefix) if layout != "auto" else None
    if prefix and start == "auto":
        start = "random"  # the encoders that ship know no prefix
    encoder = chosen(lm, start, named)
    if encoder is not None and ids:
        layout = named or (encoder.layout if vectors is None else layout)
        # What no step will mend is cut where the encoder is nearly always right.
        longest = (
            encoder.raw_length if Recipe.named(recipe).steps == 0 else encoder.shape.max_length
        )
        length = length or max(chunk_lengths(encoder, len(ids), longest))
    plan = plan_chunks(lm, ids, layout, length, vectors, recipe, prefix)
    if encoder is None and (start, vectors, length, Recipe.named(recipe).name) == (
        "auto",
        "auto",
        None,
        "fast",
    ):
        at_hand = shipped(lm)
        return plan if at_hand is None else _cheaper(lm, plan, at_hand)
    if encoder is None or not ids:
        return plan
    # The forecast is of random starts; without a step there is nothing to forecast.
    return plan._replace(
        forecast=_forecast(encoder, plan.lengths) if Recipe.named(recipe).steps else None
    )


def _cheaper(lm: FrozenLM, plan: ChunkPlan, encoder: Encoder) -> ChunkPlan:
    """The plan, or chunks of the length at which the encoder has proved to be cheapest, if they are cheaper."""
    plans = [plan]
    for row in encoder.config["proof"]:
        lengths = chunk_lengths(
            encoder, sum(plan.lengths), min(row["length"], encoder.shape.max_length)
        )
        forecast = _forecast(encoder, lengths)
        if forecast is not None and all(proved(encoder, length) for length in set(lengths)):
            plans.append(ChunkPlan(encoder.layout, lengths, plan.bits, forecast))
    return min(
        plans,
        key=lambda one: (
            price(one.forecast, one.layout.vectors * lm.d_model) if one.forecast else math.inf
        ),
    )


def _forecast(encoder: Encoder, lengths: Sequence[int]) -> CostForecast | None:
    """What fits of chunks from an encoder's vectors are expected to cost, by its proof.

    None where it has none for them.
    """
    rows = [row for row in encoder.config["proof"] if "row_steps" in row["encoder"]]
    found = [row for length in lengths if (row := next_longer(rows, length)) is not None]
    if len(found) < len(lengths):
        return None
    exact = [row["encoder"]["exact"] / row["texts"] for row in found]
    each = [row["encoder"]["row_steps"] / row["texts"] for row in found]
    return CostForecast(
        exact=sum(exact) / len(exact),
        steps=statistics.median(row["encoder"]["steps_median"] for row in found),
        chunks=float(len(found)),
        row_steps=sum(each),
        position_steps=sum(
            length * row_steps for length, row_steps in zip(lengths, each, strict=True)
        ),
        measured=True,
    )


def chunk_lengths(encoder: Encoder, tokens: int, longest: int | None = None) -> list[int]:
    """How a text of so many tokens is cut for an encoder.

    As few chunks as it takes, of lengths that differ by one at most.

    Args:
        longest: of a chunk; by default as long as the encoder takes.
    """
    count = -(-tokens // (longest or encoder.shape.max_length))
    return [tokens // count + (number < tokens % count) for number in range(count)]
