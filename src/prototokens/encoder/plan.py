"""Where a text is cut for an encoder, and what fits from its vectors are expected to cost."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any, Literal

from prototokens.encoder.encoder import Encoder, next_longer
from prototokens.encoder.judge import judged
from prototokens.encoder.shipped import chosen, shipped
from prototokens.encoder.starts import encodings_for_fits, proved
from prototokens.layout import Layout
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.planning.chunks import ChunkPlan, CostForecast, plan_chunks, price
from prototokens.ptok.spans import spans_of
from prototokens.recipe import FAST, Recipe

TRIED_CHUNKS = (
    16  # chunks of a text that an encoder is tried on before it is chosen for all of them
)


def plan_with_encoder(
    lm: FrozenLM,
    ids: list[int],
    start: str | Encoder = "auto",
    layout: Layout | None = None,
    length: int | None = None,
    vectors: int | Literal["auto"] | None = None,
    recipe: Recipe = FAST,
    prefix: tuple[int, ...] = (),
) -> ChunkPlan:
    """The plan of `plan_chunks`.

    Where the start requires an encoder, the plan has its layout, chunks and forecast.

    With vectors and start `auto`, the encoder that ships is one more way to choose from, at the
    cost that it has proved.

    Args:
        start: as `begin` takes it; the rest as `plan_chunks` does.
        layout: None: it is chosen.

    Raises:
        UsageError: as `chosen` and `plan_chunks`.
    """
    named = layout.with_prefix(prefix) if layout else None
    encoder = chosen(lm, start, named)
    by_default = encoder is None and (start, vectors, length) == ("auto", "auto", None)
    if encoder is not None and ids:
        layout = named or (encoder.layout if vectors is None else None)
        # Without steps, chunks have a length at which the encoder is nearly always right.
        longest = encoder.shape.max_length if recipe.steps else encoder.raw_length
        length = length or max(chunk_lengths(encoder, len(ids), longest))
    plan = plan_chunks(lm, ids, layout or "auto", length, vectors, recipe, prefix)
    if by_default and recipe.name == FAST.name:
        candidate = shipped(lm)
        if candidate and candidate.shape.prefix == prefix:
            return _cheaper(lm, plan, candidate, ids)
    if encoder is None or not ids:
        return plan
    # The forecast is of random starts; without a step there is nothing to forecast.
    return plan._replace(forecast=_forecast(encoder, plan.lengths) if recipe.steps else None)


def _cheaper(lm: FrozenLM, plan: ChunkPlan, encoder: Encoder, ids: list[int]) -> ChunkPlan:
    """The plan, or chunks of a length at which the encoder has proved to be cheaper.

    The proof is of the texts that it was made on. An encoder that would be taken is therefore tried
    on some chunks of this text, and what they cost settles it.
    """
    found = min(_plans(lm, plan, encoder), key=lambda one: _price(lm, one))
    if found is plan or found.forecast is None:
        return plan
    found = found._replace(forecast=_tried(lm, encoder, found, ids))
    return min((plan, found), key=lambda one: _price(lm, one))


def _plans(lm: FrozenLM, plan: ChunkPlan, encoder: Encoder) -> list[ChunkPlan]:
    """The plan, and one for each length at which the encoder has proved to save time."""
    plans = [plan]
    for row in encoder.config["proof"]:
        lengths = chunk_lengths(
            encoder, sum(plan.lengths), min(row["length"], encoder.shape.max_length)
        )
        forecast = _forecast(encoder, lengths)
        if forecast is not None and all(proved(encoder, length) for length in set(lengths)):
            plans.append(plan._replace(layout=encoder.layout, lengths=lengths, forecast=forecast))
    return plans


def _price(lm: FrozenLM, plan: ChunkPlan) -> float:
    """What a plan costs, as `plan_chunks` weighs it; infinite where it has no forecast."""
    return price(plan.forecast, plan.layout.vectors * lm.d_model) if plan.forecast else math.inf


def _tried(lm: FrozenLM, encoder: Encoder, plan: ChunkPlan, ids: list[int]) -> CostForecast:
    """The cost forecast of the plan, from what the encoder does with some chunks of this very text.

    What a fit takes from there on grows with the share of tokens that are wrong, from what it took
    in the proof, and is never more than a random start takes.
    """
    assert plan.forecast is not None
    spans = spans_of(plan.lengths)
    chosen = spans[:: -(-len(spans) // TRIED_CHUNKS)]
    texts = [ids[span.start : span.end] for span in chosen]
    row_steps = 0.0
    for one in judged(lm, encoder.layout, texts, encodings_for_fits(lm, encoder, texts)):
        row = next_longer(encoder.config["proof"], one.length)
        wrong = 1 - (one.correct or 0) / one.length
        row_steps += one.row_steps + (0.0 if row is None else _fit_steps(row, wrong))
    each = max(1.0, row_steps / len(chosen))
    return plan.forecast._replace(
        row_steps=each * len(plan.lengths), position_steps=each * sum(plan.lengths)
    )


def _fit_steps(row: dict[str, Any], wrong: float) -> float:
    """The row-steps that a fit is expected to take from vectors with this share of wrong tokens.

    Args:
        row: of the proof. Older ones do not say how many tokens were right before their fits.
    """
    random = row["random"].get("row_steps", 0) / row["texts"]
    found, known = row["encoder"], 1 - row["encoder"].get("right", 1.0)
    if wrong == 0 or known == 0:
        return random * (wrong > 0)
    return min(random, (found["row_steps"] - found["passes"]) / row["texts"] * wrong / known)


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
