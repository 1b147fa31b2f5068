"""Tokens as HTML for notebooks, coloured by margin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

WIDE_MARGIN = 2.0  # logits: from here on tokens have the full colour
MAX_TOKENS = 2000  # that are drawn; a page of more is slow


def tokens_html(title: str, tokens: Sequence[str], margins: Sequence[float | None]) -> str:
    """A line of text, and the tokens below it in the colours of their margins.

    Green is a wide margin, amber a narrow one, red a wrong token.

    Args:
        title: plain text; like the tokens, it is escaped.
        tokens: the text of each token.
        margins: of each, in logits; None where it is not known.
    """
    parts = [
        _span(position, token, margin)
        for position, (token, margin) in enumerate(zip(tokens, margins, strict=True))
    ]
    if len(parts) > MAX_TOKENS:
        parts[MAX_TOKENS:] = [f" and {len(parts) - MAX_TOKENS} more"]
    return (
        f"<div><div>{escape(title)}</div>"
        f'<div style="white-space: pre-wrap; font-family: monospace">{"".join(parts)}</div></div>'
    )


def _span(position: int, token: str, margin: float | None) -> str:
    """One token, with its margin as a tooltip."""
    known = margin is not None and not math.isnan(margin)
    words = f"token {position}, margin {margin:.3g}" if known else f"token {position}"
    style = f' style="background: {_colour(margin)}"' if known and margin is not None else ""
    return f'<span title="{escape(words)}"{style}>{escape(token)}</span>'


def _colour(margin: float) -> str:
    """CSS colour of a margin, readable on light and dark pages."""
    if margin <= 0:
        return "hsla(0, 75%, 50%, 0.45)"
    share = min(1.0, margin / WIDE_MARGIN)
    return f"hsla({40 + 90 * share:.0f}, 75%, 45%, 0.35)"
