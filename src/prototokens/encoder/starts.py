"""Where a fit begins: at random, or at the vectors of an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from prototokens.encoder.decoder import Decoder
from prototokens.encoder.encoder import Encoder, Encoding, next_longer
from prototokens.encoder.shipped import chosen, shipped
from prototokens.engine.rows import Start
from prototokens.layout import Layout
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.solution import Solution

AT_A_TIME = 256  # texts that are judged in one pass


class Begun(NamedTuple):
    """Where fits begin.

    Attributes:
        starts: for each target, where from; None: at random.
        words: which it is, for people.
    """

    starts: list[Start | None]
    words: str


def saves(row: dict[str, Any]) -> bool:
    """Whether a row of `training.proof.prove` says that the encoder's start takes less time, and loses no text."""
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
        margin: that the fits ask for; the encoder refines until it is there, if it can.

    Raises:
        FileError, TextError: as `Encoder.vectors`.
    """
    return [
        Start(protos, lr_scale=encoder.rate(len(ids)), row_steps=looks)
        for (protos, looks), ids in zip(
            encoder.encodings(lm, texts, margin=margin), texts, strict=True
        )
    ]


def begin(
    lm: FrozenLM,
    targets: Sequence[Sequence[int]],
    layout: Layout,
    start: str | Encoder = "auto",
    margin: float = 0.0,
) -> Begun:
    """Starts for targets, given as ids.

    Args:
        start: `random`; `encoder`, the shipped one; `auto`, that one where it has proved to save
            time at a target's length, random elsewhere; or an encoder.
        margin: as `starts_of` takes it.

    Raises:
        UsageError: no such start, no encoder for this model and layout, or one of another layout.
        FileError: an encoder of another model.
        TextError: `encoder`, or one given, and a target longer than it was trained for.
    """
    ids = [list(target) for target in targets]
    encoder = chosen(lm, start, layout)
    if encoder is not None:
        return Begun(
            [*starts_of(lm, encoder, ids, margin)], f"starts from {encoder.path or 'an encoder'}"
        )
    none: list[Start | None] = [None] * len(targets)
    if start == "random":
        return Begun(none, "random starts")
    encoder = shipped(lm, layout)
    if encoder is None:
        return Begun(none, f"random starts: no encoder for {lm.name!r} and layout {layout.name}")
    able = [number for number, one in enumerate(ids) if one and proved(encoder, len(one))]
    for number, start_there in zip(
        able, starts_of(lm, encoder, [ids[number] for number in able], margin), strict=True
    ):
        none[number] = start_there
    if not able:
        return Begun(
            none, "random starts: the encoder has not proved to save time at these lengths"
        )
    return Begun(
        none,
        f"{len(able)} of {len(targets)} chunks start from the encoder, which saves time there;"
        " others at random",
    )


def raw(lm: FrozenLM, encoder: Encoder, targets: Sequence[Sequence[int]]) -> list[Solution]:
    """Solutions without a single step.

    The encoder's vectors as they are, and what the decoder makes of them.

    Row-steps are the looks that the encoder's refinements took.

    Raises:
        FileError: an encoder of another model.
        TextError: a target that is empty, or longer than the encoder was trained for.
    """
    return judged(lm, encoder, targets, encoder.encodings(lm, targets))


def judged(
    lm: FrozenLM, encoder: Encoder, targets: Sequence[Sequence[int]], encodings: Sequence[Encoding]
) -> list[Solution]:
    """Encodings of targets as solutions, with what the decoder makes of them."""
    decoder, found = Decoder(lm, encoder.layout), []
    for first in range(0, len(targets), AT_A_TIME):
        part = slice(first, first + AT_A_TIME)
        texts = [tuple(ids) for ids in targets[part]]
        told = decoder.judge(
            torch.stack([protos for protos, _ in encodings[part]]).to(lm.device), texts
        )
        found += [
            Solution(
                protos,
                encoder.layout,
                ids,
                correct=correct,
                margin=margin,
                steps=0,
                row_steps=looks,
                restarts=0,
                seed=0,
            )
            for (protos, looks), ids, correct, margin in zip(
                encodings[part],
                texts,
                told.right(len(texts)).tolist(),
                told.least_margins(len(texts)).tolist(),
                strict=True,
            )
        ]
    return found
