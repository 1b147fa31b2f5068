"""The race: one forward pass against token by token, from as many vectors either way."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event
from typing import Any

from prototokens._util.words import counted
from prototokens.engine.decode import decode_ids, generate_from
from prototokens.engine.inputs import Cramming
from prototokens.engine.progress import Progress
from prototokens.errors import UsageError
from prototokens.explorer import show
from prototokens.explorer.tokens import characters
from prototokens.fitting import fit
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.ptok.encoded import EncodedText
from prototokens.recipe import Recipe
from prototokens.solution import Chunk

MAX_TOKENS = 128  # of a chunk that is raced: the autoregressive baseline is fitted first
STEPS = 1000  # of that fit, at most
LASTS = 6000.0  # milliseconds of the slower lane, as shown
TRIES = 3  # measurements of each lane; the quickest counts


class Stopped(Exception):
    """The visitor asked to stop."""


def raced_chunk(encoded: EncodedText) -> Chunk:
    """The first chunk that vectors hold.

    Raises:
        UsageError: there is none, or it is too long.
    """
    if not encoded.in_vectors():
        raise UsageError("no chunk of this text is stored in vectors: there is nothing to race")
    chunk = encoded.chunk(encoded.in_vectors()[0] + 1)
    if chunk.length > MAX_TOKENS:
        raise UsageError(
            f"the first chunk has {chunk.length} tokens, and the autoregressive baseline is"
            f" fitted for {MAX_TOKENS} at most: encode the text with more chunks"
        )
    return chunk


def race(lm: FrozenLM, chunk: Chunk, stop: Event | None = None) -> str:
    """Fit the autoregressive baseline to a chunk's text, and time both.

    Args:
        stop: ends the fit of the baseline when it is set.

    Raises:
        Stopped: it was set.
    """
    target = decode_ids(lm, [chunk]).ids[0]
    method = Cramming(len(chunk.protos))
    (other,) = fit(
        lm, [target], method=method, recipe=Recipe(steps=STEPS), progress=_watching(stop)
    )
    one_ms, one = _quickest(lambda: decode_ids(lm, [chunk]).ids[0])
    many_ms, many = _quickest(lambda: generate_from(lm, [other])[0])
    slower = max(1.0, LASTS / many_ms)
    right = sum(a == b for a, b in zip(many, target, strict=True))
    words = (
        f"The first chunk, {counted(chunk.length, 'token')}, from"
        f" {counted(len(chunk.protos), 'vector')} either way. One pass: {one_ms:.1f} ms. Token by"
        f" token with a cache: {many_ms:.1f} ms, {many_ms / one_ms:.1f} times as long, from memory"
        f" vectors that were fitted for it just now ({counted(other.steps, 'step')};"
        f" {right} of {chunk.length} tokens right). Shown {slower:.0f} times slower than it is."
    )
    lanes = [characters(lm, ids) for ids in (one, many)]
    return show.note(words) + show.race(lanes[0], one_ms, lanes[1], many_ms, slower)


def _watching(stop: Event | None) -> Callable[[Progress], None]:
    def watch(_: Progress) -> None:
        if stop is not None and stop.is_set():
            raise Stopped

    return watch


def _quickest(decode: Any) -> tuple[float, list[int]]:
    """(milliseconds of the quickest of several tries, the ids)."""
    best, ids = float("inf"), []
    for _ in range(TRIES):
        began = time.perf_counter()
        ids = decode()
        best = min(best, (time.perf_counter() - began) * 1000)
    return best, ids
