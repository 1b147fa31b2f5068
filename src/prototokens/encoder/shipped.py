"""Which encoder there is for a model.

Those that ship with the package, and the one that a user's choice of a start asks for.
"""

from __future__ import annotations

from pathlib import Path

from prototokens.encoder.config import STARTS
from prototokens.encoder.encoder import Encoder
from prototokens.errors import UsageError
from prototokens.layout import Layout
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.recipe import Recipe


def shipped(
    lm: FrozenLM, layout: Layout | None = None, folder: Path | None = None
) -> Encoder | None:
    """The encoder that ships with the package for this very model (by fingerprint) and layout.

    None: there is none.

    Args:
        layout: of its vectors; without one, of several encoders the one that gives nearly all
            tokens of the longest texts without a step (`Encoder.right_up_to`).
        folder: an encoder's, or one that holds such folders; by default the package's.
    """
    return Encoder.find(lm, layout, folder)


def chosen(lm: FrozenLM, start: str | Encoder, layout: Layout | None = None) -> Encoder | None:
    """The encoder that a start requires; None: it requires none.

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
    if start not in STARTS:
        raise UsageError(f"start {start!r} is none of {', '.join(STARTS)}")
    if start != "encoder":
        return None
    encoder = shipped(lm, layout)
    if encoder is None:
        wanted = "" if layout is None else f" and layout {layout.name!r}"
        raise UsageError(
            f"there is no encoder for {lm.name!r}{wanted}: train one with prototokens train-encoder"
            " and give it as the start, or"
            " start at random"
        )
    return encoder


def without_steps(
    lm: FrozenLM,
    start: str | Encoder,
    layout: Layout | None,
    vectors: int | str | None,
    recipe: Recipe,
) -> str | Encoder:
    """The start as given; but `auto` without a step is the encoder that ships, if there is one.

    Random vectors without a step reproduce hardly a token.

    Args:
        layout, vectors, recipe: as `plan_with_encoder` takes them.
    """
    if start != "auto" or recipe.steps or vectors is not None:
        return start
    return shipped(lm, layout) or start
