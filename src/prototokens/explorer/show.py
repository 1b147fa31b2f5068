"""HTML of the page: tokens with colours, facts, tables, the race.

What a visitor or a file can have put there is escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

STRONG = 3.0  # a margin, in logits, from which on the colour no longer deepens
READABLE = 0.6  # of a picture's own width: the smallest letters are still some six pixels high


class Token(NamedTuple):
    """A token as it is shown, or several that make up whole characters together.

    Attributes:
        text: its text.
        margin: of its logit (the least one), or None where it is not known.
        right: whether it is the target's; None where that is not known.
        patched: whether the file says it, and not the vectors.
        count: how many tokens they are.
    """

    text: str
    margin: float | None = None
    right: bool | None = None
    patched: bool = False
    count: int = 1


def problem(sentence: str) -> str:
    """A message to a visitor, in a frame."""
    return f'<div class="pt-problem" role="alert">{escape(sentence)}</div>'


def lead(shows: str, matters: str) -> str:
    """What a tab shows, and why that matters: the sentence that it opens with."""
    return f'<p class="pt-lead"><b>{escape(shows)}</b> {escape(matters)}</p>'


def head(words: str) -> str:
    """What stands above a part of a tab."""
    return f'<div class="pt-head">{escape(words)}</div>'


def cards(*parts: str, grow: bool = False) -> str:
    """Parts side by side, one below the other where the page is narrow.

    Args:
        grow: whether they share the width of the page, and are not as wide as they are.
    """
    kind = ' class="pt-grow"' if grow else ""
    inside = "".join(f"<div{kind}>{part}</div>" for part in parts if part)
    return f'<div class="pt-cards">{inside}</div>'


def note(sentence: str) -> str:
    return f'<p class="pt-note">{escape(sentence)}</p>'


def judged(sentence: str, good: bool) -> str:
    return f'<p class="{"pt-good" if good else "pt-bad"}">{escape(sentence)}</p>'


def facts(named: dict[str, str]) -> str:
    """Numbers with their names under them."""
    cells = "".join(
        f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>"
        for name, value in named.items()
    )
    return f'<div class="pt-facts">{cells}</div>'


def text(tokens: Sequence[Token], by_margin: bool = False) -> str:
    """Tokens one after another.

    Args:
        by_margin: colour by the margin, blue for a wide one and red for a narrow one; else right
            and wrong.
    """
    parts, first = [], 1
    for token in tokens:
        parts.append(_token(first, token, by_margin))
        first += token.count
    return f'<div class="pt-text">{"".join(parts)}</div>'


def _token(number: int, token: Token, by_margin: bool) -> str:
    shown = escape(token.text).replace("\n", "¶\n") or "∅"
    margin = "" if token.margin is None else f", margin {token.margin:.2f}"
    name = f"token {number}"
    if token.count > 1:
        name = f"tokens {number} to {number + token.count - 1}, of one character"
        margin = margin.replace(", margin", ", least margin")
    if token.patched:
        return (
            '<span class="pt-token pt-patched" tabindex="0"'
            f' title="{name}, from a patch">{shown}</span>'
        )
    title = f'tabindex="0" title="{name}{margin}"'
    if by_margin and token.margin is not None:
        style = _colour(token.margin)
        return f'<span class="pt-token pt-margin" style="{style}" {title}>{shown}</span>'
    kind = "pt-wait" if token.right is None and token.margin is None else ""
    kind = kind if token.right is None else "pt-right" if token.right else "pt-wrong"
    return f'<span class="pt-token {kind}" {title}>{shown}</span>'


def _colour(margin: float) -> str:
    """Of a margin, as custom properties: a page in light and one in dark take them differently."""
    reach = max(0.0, min(1.0, margin / STRONG))
    red, blue = (207, 34, 46), (9, 105, 218)
    mixed = ",".join(str(round(a + (b - a) * reach)) for a, b in zip(red, blue, strict=True))
    return f"--pt-hue:{mixed};--pt-deep:{abs(2 * reach - 1):.2f}"


def passes(count: int) -> str:
    """A number of forward passes, in words."""
    return f"{count} forward pass{'es' * (count != 1)}"


def legend() -> str:
    """The colours of margins, from a token that is just decoded to one that leads by far."""
    steps = [STRONG * number / 12 for number in range(13)]
    swatches = "".join(f'<i class="pt-margin" style="{_colour(margin)}"></i>' for margin in steps)
    return (
        f'<div class="pt-legend"><span>margin 0</span><span class="pt-swatches">{swatches}</span>'
        f"<span>{STRONG:g} logits and more; touch a token for its number</span></div>"
    )


def image(png: bytes, words: str) -> str:
    """A PNG inside the page, as wide as the page, and at least of a readable width."""
    data = base64.b64encode(png).decode()
    least = round(READABLE * int.from_bytes(png[16:20], "big"))  # a PNG's width lies there
    return (
        '<span class="pt-sideways">⟷ the picture moves sideways</span><div class="pt-picture"'
        ' tabindex="0">'
        f'<img alt="{escape(words)}" style="min-width:{least}px"'
        f' src="data:image/png;base64,{data}"></div>'
    )


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], of_words: bool = False) -> str:
    """A small table; the first cell of a row is its head.

    Args:
        of_words: whether cells begin at the left, as words do, and not at the right.
    """
    head = "".join(f"<th>{escape(cell)}</th>" for cell in heads)
    body = "".join(
        f"<tr><th>{escape(first)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in rest)}</tr>"
        for first, *rest in rows
    )
    kind = "pt-table pt-words-table" if of_words else "pt-table"
    return f'<div class="{kind}" tabindex="0"><table><tr>{head}</tr>{body}</table></div>'


def race(
    one: Sequence[tuple[str, int]],
    one_ms: float,
    many: Sequence[tuple[str, int]],
    many_ms: float,
    slower: float,
) -> str:
    """Two texts that appear at their measured pace, slowed down alike, each with its clock.

    Args:
        one: pieces of whole characters, and how many tokens each is; all of them are there after
            `one_ms`.
        many: those that come one by one within `many_ms`.
        slower: how many times slower than measured it is shown.
    """
    count = sum(tokens for _, tokens in many)
    every = many_ms * slower / max(1, count)
    at_once = "".join(_late(text, one_ms * slower) for text, _ in one)
    in_turn, come = [], 0
    for text, tokens in many:
        come += tokens
        in_turn.append(_late(text, come * every))
    return (
        '<div><button class="pt-again" data-again>Run it again</button><div class="pt-race">'
        + _lane("one forward pass", one_ms, slower, at_once)
        + _lane(f"token by token: {count} passes", many_ms, slower, "".join(in_turn))
        + "</div></div>"
    )


def _lane(name: str, ms: float, slower: float, tokens: str) -> str:
    style = f"--pt-end:{max(1, round(ms))};--pt-lasts:{ms * slower:.0f}ms"
    return (
        f'<div><b>{escape(name)}</b><div class="pt-clock" style="{style}"></div>'
        f'<div class="pt-text">{tokens}</div></div>'
    )


def _late(text: str, delay_ms: float) -> str:
    shown = escape(text).replace("\n", "¶\n")
    style = f"animation-delay:{delay_ms:.0f}ms"
    return f'<span class="pt-token pt-late" style="{style}">{shown}</span>'
