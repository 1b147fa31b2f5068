"""Stretches of a text's ids: chunks, their halves, and which of them are solved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from prototokens.solution import Solution


class Span(NamedTuple):
    """A stretch of the text's ids: from `start` to before `end`."""

    start: int
    end: int


Solved = dict[Span, Solution]


def spans_of(lengths: Sequence[int]) -> list[Span]:
    """The spans of chunks of these lengths, one after another."""
    spans, start = [], 0
    for length in lengths:
        spans.append(Span(start, start + length))
        start += length
    return spans


def halves(span: Span) -> list[Span]:
    """The two halves of a span; a single token stays whole, for another try from another start."""
    middle = (span.start + span.end) // 2
    return [span] if middle == span.start else [Span(span.start, middle), Span(middle, span.end)]


def left_by(span: Span, kept: Solved) -> list[Span]:
    """The span as an earlier run left it: whole, or halved as far as parts of it were solved."""
    if span in kept or not any(span.start <= other.start < other.end <= span.end for other in kept):
        return [span]
    return [part for half in halves(span) for part in left_by(half, kept)]
