"""Where a fit begins: at random, or at the vectors of an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from prototokens.encoder.encoder import Encoder, next_longer
from prototokens.encoder.judge import Encoding
from prototokens.encoder.shipped import chosen, shipped
from prototokens.engine.rows import Start
from prototokens.layout import Layout
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.solution import Solution

# Share of a recipe's rate where the refinements of an encoder did not reach the margin. Such texts
# are of other kinds than those that the rate was chosen on, of which none is left over. Chosen on
# 32 texts of source code and German, of which it saved a tenth to a quarter of the row-steps
# (dev/LOG.md, 2026-11-27).
MISSED_RATE = 0.3


class Begun(NamedTuple):
    """Where fits begin.

    Attributes:
        starts: for each target, where from; None: at random.
        words: which it is, for people.
    """

    starts: list[Start | None]
    words: str


def saves(row: dict[str, Any]) -> bool:
    """Whether a row of `training.proof.prove` shows less time with the encoder and no text lost."""
    random, encoder = row["random"], row["encoder"]
    return encoder["seconds"] < random["seconds"] and encoder["exact"] >= random["exact"]


def proved(encoder: Encoder, length: int) -> bool:
    """Whether the encoder has proved that it saves time at this length.

    At the next longer one that was tried.
    """
    row = next_longer(encoder.config["proof"], length)
    return length <= encoder.shape.max_length and row is not None and saves(row)


def starts_of(
    lm: FrozenLM, encoder: Encoder, texts: Sequence[Sequence[int]], margin: float = 0.0
) -> list[Start]:
    """Where fits of texts begin with an encoder, and at which rate.

    Args:
        margin: that the fits ask for; the encoder refines until it is there, if it can, or until
            a fit has proved to take fewer row-steps from there.

    Raises:
        FileError, TextError: as `Encoder.vectors`.
    """
    return starts_at(encoder, encodings_for_fits(lm, encoder, texts, margin), texts)


def encodings_for_fits(
    lm: FrozenLM, encoder: Encoder, texts: Sequence[Sequence[int]], margin: float = 0.0
) -> list[Encoding]:
    """Vectors that fits go on from: refined as often as pays at the length of each text.

    Raises:
        FileError, TextError: as `Encoder.encodings`.
    """
    limits = [encoder.refinements_before_fit(len(ids)) for ids in texts]
    found: dict[int, Encoding] = {}
    for limit in set(limits):
        part = [number for number, own in enumerate(limits) if own == limit]
        encodings = encoder.encodings(lm, [texts[number] for number in part], limit, margin)
        found |= dict(zip(part, encodings, strict=True))
    return [found[number] for number in range(len(texts))]


def starts_at(
    encoder: Encoder, encodings: Sequence[Encoding], texts: Sequence[Sequence[int]]
) -> list[Start]:
    """Starts at encodings; where all refinements missed the margin, fits go on in smaller steps."""
    return [
        Start(
            one.protos,
            lr_scale=min(
                encoder.rate(len(ids)), MISSED_RATE if _missed(encoder, one, len(ids)) else 1.0
            ),
            row_steps=one.feedback_passes,
        )
        for one, ids in zip(encodings, texts, strict=True)
    ]


def _missed(encoder: Encoder, encoding: Encoding, length: int) -> bool:
    """Whether all of the refinements of an encoder that has some did not reach the margin."""
    whole = encoder.refinements_before_fit(length) is None
    return whole and encoder.shape.refinements > 0 and not encoding.reached


def begin(
    lm: FrozenLM,
    targets: Sequence[Sequence[int]],
    layout: Layout,
    start: str | Encoder = "auto",
    margin: float = 0.0,
    fits: bool = True,
) -> Begun:
    """Starts for targets, given as ids.

    Args:
        start: `random`; `encoder`, the shipped one; `auto`, that one where it has proved to save
            time at a target's length, random elsewhere; or an encoder.
        margin: as `starts_of` takes it.
        fits: whether fits go on from there; else the encoder refines as long as it can.

    Raises:
        UsageError: no such start, no encoder for this model and layout, or one of another layout.
        FileError: an encoder of another model.
        TextError: `encoder`, or one given, and a target longer than it was trained for.
    """
    ids = [list(target) for target in targets]

    def encodings_of(encoder: Encoder, texts: list[list[int]]) -> list[Encoding]:
        if fits:
            return encodings_for_fits(lm, encoder, texts, margin)
        return encoder.encodings(lm, texts, margin=margin)

    encoder = chosen(lm, start, layout)
    if encoder is not None:
        found = encodings_of(encoder, ids)
        words = f"starts from {encoder.path or 'an encoder'}{_not_right(encoder, found)}"
        return Begun([*starts_at(encoder, found, ids)], words)
    starts: list[Start | None] = [None] * len(targets)
    if start == "random":
        return Begun(starts, "random starts")
    encoder = shipped(lm, layout)
    if encoder is None:
        return Begun(starts, f"random starts: no encoder for {lm.name!r} and layout {layout.name}")
    able = [number for number, one in enumerate(ids) if one and proved(encoder, len(one))]
    texts = [ids[number] for number in able]
    encodings = encodings_of(encoder, texts)
    for number, start_there in zip(able, starts_at(encoder, encodings, texts), strict=True):
        starts[number] = start_there
    if not able:
        return Begun(
            starts, "random starts: the encoder has not proved to save time at these lengths"
        )
    return Begun(
        starts,
        f"{len(able)} of {len(targets)} chunks start from the encoder, which saves time there"
        f"{_not_right(encoder, encodings)}; others at random",
    )


def _not_right(encoder: Encoder, encodings: Sequence[Encoding]) -> str:
    """How many of its texts the encoder knows that it did not get right, in words, if any."""
    missed = sum(not one.reached for one in encodings) if encoder.shape.refinements else 0
    return f" ({missed} of them not right yet)" if missed else ""


def raw(lm: FrozenLM, encoder: Encoder, targets: Sequence[Sequence[int]]) -> list[Solution]:
    """Solutions without a single step: `Encoder.solutions`."""
    return encoder.solutions(lm, targets)
