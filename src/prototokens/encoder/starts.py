"""Where a fit begins: at random, or at what an encoder gives; and which encoder there is for a model."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from prototokens.encoder.decoder import Decoder
from prototokens.encoder.encoder import CONFIG, Encoder, Encoding, next_longer
from prototokens.engine.rows import Start, Target
from prototokens.errors import FileError, UsageError
from prototokens.layout import Layout
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.planning.chunks import ChunkPlan, Outlook, plan_chunks, price
from prototokens.recipe import Recipe
from prototokens.solution import Solution

SHIPPED = Path(__file__).parents[1] / "builtin" / "encoder"
NAMES = ("random", "encoder", "auto")
AT_A_TIME = 256  # texts that are judged in one pass


class Begun(NamedTuple):
    """Where fits begin.

    Attributes:
        starts: for each target, where from; None: at random.
        words: which it is, for people.
    """

    starts: list[Start | None]
    words: str


def shipped(lm: FrozenLM, layout: Layout | None = None, folder: Path | None = None) -> Encoder | None:
    """The encoder that ships with the package for this very model (by fingerprint), and this layout; None: there is none.

    Args:
        layout: of its vectors; without one, of several encoders the one that has most of the tokens of its longest texts right.
        folder: an encoder's, or one that holds such folders; by default the package's.
    """
    found: list[Encoder] = []
    for place in sorted((folder or SHIPPED).rglob(CONFIG)):
        encoder = Encoder.load(place.parent)
        try:
            encoder.check(lm, layout)
        except (FileError, UsageError):
            continue
        if layout is not None:  # no other is looked for: each one that is read takes time
            return encoder
        found.append(encoder)
    return max(found, key=lambda one: one.measured[-1][1] if one.measured else 0.0, default=None)


def chosen(lm: FrozenLM, start: str | Encoder, layout: Layout | None = None) -> Encoder | None:
    """The encoder that a start insists on; None: it insists on none.

    Args:
        start: `random`, `auto`, `encoder`, or an encoder.
        layout: that it has to be for; by default any.

    Raises:
        UsageError: no such start, no encoder for this model and layout, or one of another layout.
        FileError: an encoder of another model.
    """
    if isinstance(start, Encoder):
        start.check(lm, layout)
        return start
    if start not in NAMES:
        raise UsageError(f"start {start!r} is none of {', '.join(NAMES)}")
    if start != "encoder":
        return None
    encoder = shipped(lm, layout)
    if encoder is None:
        what = "" if layout is None else f" and layout {layout.name!r}"
        raise UsageError(
            f"there is no encoder for {lm.name!r}{what}: train one with prototokens train-encoder and give it as the start, or"
            " start at random"
        )
    return encoder


def without_steps(
    lm: FrozenLM, start: str | Encoder, layout: str | Layout, vectors: int | str | None, recipe: str | Recipe
) -> str | Encoder:
    """The start as it is; but `auto` without a step is the encoder that ships, if there is one: else hardly a token is right.

    Args:
        layout, vectors: as `plan_from` takes them.
    """
    if start != "auto" or Recipe.named(recipe).steps or vectors is not None:
        return start
    return shipped(lm, None if layout == "auto" else Layout.named(layout)) or start


def saves(row: dict[str, Any]) -> bool:
    """Whether a row of `proof.prove` says that the encoder's start takes less time, and loses no text."""
    random, encoder = row["random"], row["encoder"]
    return encoder["seconds"] < random["seconds"] and encoder["exact"] >= random["exact"]


def proved(encoder: Encoder, length: int) -> bool:
    """Whether the encoder has proved that it saves time at this length: at the next longer one that was tried."""
    row = next_longer(encoder.config["proof"], length)
    return length <= encoder.shape.max_length and row is not None and saves(row)


def starts_of(lm: FrozenLM, encoder: Encoder, texts: Sequence[Sequence[int]], margin: float = 0.0) -> list[Start]:
    """Where fits of texts begin with an encoder, and at which rate.

    Args:
        margin: that the fits ask for; the encoder refines until it is there, if it can.

    Raises:
        FileError, TextError: as `Encoder.vectors`.
    """
    return [
        Start(protos, rate=encoder.rate(len(ids)), spent=looks)
        for (protos, looks), ids in zip(encoder.encodings(lm, texts, margin=margin), texts, strict=True)
    ]


def begin(
    lm: FrozenLM, targets: Sequence[Target], layout: str | Layout, start: str | Encoder = "auto", margin: float = 0.0
) -> Begun:
    """Starts for targets, texts or ids.

    Args:
        start: `random`; `encoder`, the shipped one; `auto`, that one where it has proved to save time at a target's length,
            random elsewhere; or an encoder.
        margin: as `starts_of` takes it.

    Raises:
        UsageError: no such start, no encoder for this model and layout, or one of another layout.
        FileError: an encoder of another model.
        TextError: `encoder`, or one given, and a target longer than it was trained for.
    """
    layout = Layout.named(layout)
    ids = [lm.encode(target) if isinstance(target, str) else list(target) for target in targets]
    encoder = chosen(lm, start, layout)
    if encoder is not None:
        return Begun([*starts_of(lm, encoder, ids, margin)], f"starts from {encoder.path or 'an encoder'}")
    none: list[Start | None] = [None] * len(targets)
    if start == "random":
        return Begun(none, "random starts")
    encoder = shipped(lm, layout)
    if encoder is None:
        return Begun(none, f"random starts: no encoder for {lm.name!r} and layout {layout.name}")
    able = [number for number, one in enumerate(ids) if one and proved(encoder, len(one))]
    for number, start_there in zip(able, starts_of(lm, encoder, [ids[number] for number in able], margin), strict=True):
        none[number] = start_there
    if not able:
        return Begun(none, "random starts: the encoder has not proved to save time at these lengths")
    return Begun(none, f"{len(able)} of {len(targets)} chunks start from the encoder, which saves time there; others at random")


def plan_from(
    lm: FrozenLM,
    ids: list[int],
    start: str | Encoder = "auto",
    layout: str | Layout = "auto",
    length: int | None = None,
    vectors: int | Literal["auto"] | None = None,
    recipe: str | Recipe = "fast",
) -> ChunkPlan:
    """The plan of `plan_chunks`; where the start insists on an encoder, with its layout, chunks and forecast.

    With vectors and start `auto`, the encoder that ships is one more way to choose from, at the cost that it has proved.

    Args:
        start: as `begin` takes it; the rest as `plan_chunks` does.

    Raises:
        UsageError: as `chosen` and `plan_chunks`.
    """
    named = Layout.named(layout) if layout != "auto" else None
    encoder = chosen(lm, start, named)
    if encoder is not None and ids:
        layout = named or (encoder.layout if vectors is None else layout)
        # What no step will mend is cut where the encoder is nearly always right.
        longest = encoder.raw_length if Recipe.named(recipe).steps == 0 else encoder.shape.max_length
        length = length or max(chunk_lengths(encoder, len(ids), longest))
    plan = plan_chunks(lm, ids, layout, length, vectors, recipe)
    if encoder is None and (start, vectors, length, Recipe.named(recipe).name) == ("auto", "auto", None, "fast"):
        at_hand = shipped(lm)
        return plan if at_hand is None else _cheaper(lm, plan, at_hand)
    if encoder is None or not ids:
        return plan
    # The forecast is of random starts; without a step there is nothing to forecast.
    return plan._replace(forecast=_outlook(encoder, plan.lengths) if Recipe.named(recipe).steps else None)


def _cheaper(lm: FrozenLM, plan: ChunkPlan, encoder: Encoder) -> ChunkPlan:
    """The plan, or chunks of the length at which the encoder has proved to be cheapest, if they are cheaper."""
    plans = [plan]
    for row in encoder.config["proof"]:
        lengths = chunk_lengths(encoder, sum(plan.lengths), min(row["length"], encoder.shape.max_length))
        outlook = _outlook(encoder, lengths)
        if outlook is not None and all(proved(encoder, length) for length in set(lengths)):
            plans.append(ChunkPlan(encoder.layout, lengths, plan.bits, outlook))
    return min(plans, key=lambda one: price(one.forecast, one.layout.vectors * lm.d_model) if one.forecast else math.inf)


def _outlook(encoder: Encoder, lengths: Sequence[int]) -> Outlook | None:
    """What fits of chunks from an encoder's vectors are expected to cost, by its proof; None where it has none for them."""
    rows = [row for row in encoder.config["proof"] if "row_steps" in row["encoder"]]
    found = [row for length in lengths if (row := next_longer(rows, length)) is not None]
    if len(found) < len(lengths):
        return None
    exact = [row["encoder"]["exact"] / row["texts"] for row in found]
    each = [row["encoder"]["row_steps"] / row["texts"] for row in found]
    return Outlook(
        exact=sum(exact) / len(exact),
        steps=statistics.median(row["encoder"]["steps_median"] for row in found),
        chunks=float(len(found)),
        row_steps=sum(each),
        position_steps=sum(length * row_steps for length, row_steps in zip(lengths, each, strict=True)),
        measured=True,
    )


def raw(lm: FrozenLM, encoder: Encoder, targets: Sequence[Sequence[int]]) -> list[Solution]:
    """Solutions without a single step: the encoder's vectors as they are, and what the decoder makes of them.

    Row-steps are the looks that the encoder's refinements took.

    Raises:
        FileError: an encoder of another model.
        TextError: a target that is empty, or longer than the encoder was trained for.
    """
    return judged(lm, encoder, targets, encoder.encodings(lm, targets))


def judged(lm: FrozenLM, encoder: Encoder, targets: Sequence[Sequence[int]], encodings: Sequence[Encoding]) -> list[Solution]:
    """Encodings of targets as solutions, with what the decoder makes of them."""
    decoder, found = Decoder(lm, encoder.layout), []
    for first in range(0, len(targets), AT_A_TIME):
        part = slice(first, first + AT_A_TIME)
        texts = [tuple(ids) for ids in targets[part]]
        told = decoder.judge(torch.stack([protos for protos, _ in encodings[part]]).to(lm.device), texts)
        found += [
            Solution(protos, encoder.layout, ids, correct=correct, margin=margin, steps=0, row_steps=looks, restarts=0, seed=0)
            for (protos, looks), ids, correct, margin in zip(
                encodings[part],
                texts,
                told.right(len(texts)).tolist(),
                told.least_margins(len(texts)).tolist(),
                strict=True,
            )
        ]
    return found


def chunk_lengths(encoder: Encoder, tokens: int, longest: int | None = None) -> list[int]:
    """How a text of so many tokens is cut for an encoder: as few chunks as it takes, of lengths that differ by one at most.

    Args:
        longest: of a chunk; by default as long as the encoder takes.
    """
    count = -(-tokens // (longest or encoder.shape.max_length))
    return [tokens // count + (number < tokens % count) for number in range(count)]
