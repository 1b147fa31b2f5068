"""Where a fit begins: at random, or at what an encoder gives; and which encoder there is for a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from prototokens.encoder.encoder import CONFIG, Encoder
from prototokens.encoder.proof import proved
from prototokens.encoder.through import Decoder
from prototokens.engine.grid import Start
from prototokens.engine.rows import Target
from prototokens.errors import FileError, UsageError
from prototokens.frozen_lm import FrozenLM
from prototokens.layout import Layout
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
        folder: an encoder's, or one that holds such folders; by default the package's.
    """
    for place in sorted((folder or SHIPPED).rglob(CONFIG)):
        encoder = Encoder.load(place.parent)
        try:
            encoder.check(lm, layout)
        except (FileError, UsageError):
            continue
        return encoder
    return None


def begin(lm: FrozenLM, targets: Sequence[Target], layout: str | Layout, start: str | Encoder = "auto") -> Begun:
    """Starts for targets, texts or ids.

    Args:
        start: `random`; `encoder`, the shipped one; `auto`, that one where it has proved to save time at a target's length,
            random elsewhere; or an encoder.

    Raises:
        UsageError: no such start, no encoder for this model and layout, or one of another layout.
        FileError: an encoder of another model.
        TextError: `encoder`, or one given, and a target longer than it was trained for.
    """
    layout = Layout.named(layout)
    ids = [lm.encode(target) if isinstance(target, str) else list(target) for target in targets]
    if isinstance(start, Encoder):
        start.check(lm, layout)
        return Begun([Start(protos) for protos in start.vectors(lm, ids)], f"starts from {start.path or 'an encoder'}")
    if start not in NAMES:
        raise UsageError(f"start {start!r} is none of {', '.join(NAMES)}")
    encoder = None if start == "random" else shipped(lm, layout)
    if start == "encoder":
        if encoder is None:
            raise UsageError(
                f"there is no encoder for {lm.name!r} and layout {layout.name!r}: train one with prototokens train-encoder and"
                " give it as the start, or start at random"
            )
        return begin(lm, ids, layout, encoder)
    none: list[Start | None] = [None] * len(targets)
    if encoder is None:
        return Begun(none, "random starts" if start == "random" else "random starts: no encoder for this model and layout")
    able = [number for number, one in enumerate(ids) if one and proved(encoder, len(one))]
    for number, protos in zip(able, encoder.vectors(lm, [ids[number] for number in able]), strict=True):
        none[number] = Start(protos)
    return Begun(none, f"starts of {len(able)} of {len(targets)} chunks from the encoder, which saves time there")


def raw(lm: FrozenLM, encoder: Encoder, targets: Sequence[Sequence[int]]) -> list[Solution]:
    """Solutions without a single step: the encoder's vectors as they are, and what the decoder makes of them.

    Raises:
        FileError: an encoder of another model.
        TextError: a target that is empty, or longer than the encoder was trained for.
    """
    decoder, found = Decoder(lm, encoder.layout), []
    vectors = encoder.vectors(lm, targets)
    for first in range(0, len(targets), AT_A_TIME):
        part = slice(first, first + AT_A_TIME)
        texts = [tuple(ids) for ids in targets[part]]
        judged = decoder.judge(torch.stack(vectors[part]).to(lm.device), texts)
        found += [
            Solution(protos, encoder.layout, ids, correct=correct, margin=margin, steps=0, row_steps=0, restarts=0, seed=0)
            for protos, ids, correct, margin in zip(
                vectors[part], texts, judged.right(len(texts)).tolist(), judged.least_margins(len(texts)).tolist(), strict=True
            )
        ]
    return found


def chunk_lengths(encoder: Encoder, tokens: int) -> list[int]:
    """How a text of so many tokens is cut for an encoder: as few chunks as it takes, of lengths that differ by one at most."""
    count = -(-tokens // encoder.shape.max_length)
    return [tokens // count + (number < tokens % count) for number in range(count)]
