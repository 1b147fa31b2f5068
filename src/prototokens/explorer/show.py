"""HTML of the page: tokens with colours, facts, curves, pictures.

What a visitor or a file can have put there is escaped.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Custom properties make numbers that a style can let run: the clocks of the race.
CSS = """
@property --pt-clock { syntax: '<integer>'; inherits: false; initial-value: 0; }
.gradio-container, .gradio-container > main { width: 100% !important; max-width: 1180px !important;
  margin: 0 auto !important; }
.pt-text { white-space: break-spaces; overflow-wrap: anywhere; line-height: 1.9; font-size: 15px;
  font-family: ui-monospace, Menlo, Consolas, monospace; padding: 10px 12px;
  border: 1px solid var(--border-color-primary); border-radius: 8px; }
.pt-token { border-radius: 4px; padding: 2px 0;
  box-shadow: inset 0 0 0 0.5px rgba(127,127,127,.28); }
.pt-right { background: rgba(34,160,80,.26); }
.pt-wrong { background: rgba(214,60,60,.26);
  text-decoration: underline wavy rgba(214,60,60,.9) 1px; }
.pt-patched { background: rgba(130,80,223,.16); border-bottom: 2px dotted rgba(130,80,223,.8); }
.pt-margin { background: rgba(var(--pt-hue), calc(.18 + .32 * var(--pt-deep))); }
.dark .pt-margin { background: rgba(var(--pt-hue), calc(.5 + .4 * var(--pt-deep))); }
.dark .pt-right { background: rgba(46,160,67,.5); }
.dark .pt-wrong { background: rgba(218,54,51,.55); }
.dark .pt-patched { background: rgba(137,87,229,.45); }
.pt-token:focus { outline: 2px solid var(--color-accent); outline-offset: 1px; }
.pt-token:focus::after { content: attr(title); position: fixed; left: 50%; bottom: 14px;
  transform: translateX(-50%); z-index: 50; padding: 6px 14px; border-radius: 8px;
  background: #1f2328; color: white; font: 14px system-ui, sans-serif;
  white-space: nowrap; box-shadow: 0 0 0 1px rgba(255,255,255,.4); }
.pt-legend { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 8px; margin: 8px 0 0;
  font-size: 13px; }
.pt-swatches { display: inline-flex; width: 170px; height: 14px;
  border: 1px solid var(--border-color-primary); }
.pt-swatches i { flex: 1; }
.pt-wait { opacity: .45; }
.pt-facts { display: flex; flex-wrap: wrap; gap: 6px 22px; margin: 0 0 8px; }
.pt-facts div { min-width: 84px; }
.pt-facts b { display: block; font-size: 19px; font-variant-numeric: tabular-nums; }
.pt-facts span { font-size: 12px; opacity: .75; }
.pt-problem { border-left: 4px solid #d9480f; padding: 8px 12px; background: rgba(217,72,15,.12);
  border-radius: 4px; }
.pt-note { opacity: .8; font-size: 14px; }
.pt-good { color: #1a7f37; font-weight: 600; } .dark .pt-good { color: #4ac26b; }
.pt-bad { color: #cf222e; font-weight: 600; } .dark .pt-bad { color: #ff7b72; }
.pt-picture { overflow-x: auto; margin: 8px 0; } .pt-picture img { max-width: none; width: 100%;
  background: white; border-radius: 6px; }
.pt-picture::-webkit-scrollbar, .pt-table::-webkit-scrollbar { height: 8px; }
.pt-picture::-webkit-scrollbar-thumb, .pt-table::-webkit-scrollbar-thumb {
  background: rgba(127,127,127,.6); border-radius: 4px; }
.pt-sideways { display: none; }
.pt-picture.pt-small img { max-width: 560px; }
.pt-curve { margin: 10px 0 0; }
.pt-curve > div { display: flex; gap: 8px; height: 72px; margin: 2px 0 0; }
.pt-curve svg { flex: 1; min-width: 0; height: 100%; border: solid rgba(127,127,127,.4);
  border-width: 0 0 1px 1px; }
.pt-scale { display: flex; flex-direction: column; justify-content: space-between;
  align-items: flex-end; min-width: 34px; font-size: 11px; line-height: 1; opacity: .75;
  font-variant-numeric: tabular-nums; }
.pt-scale i { font-style: normal; }
.pt-table { overflow-x: auto; max-width: 100%; }
.pt-table table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums;
  border: none !important; margin: 4px 0 12px; }
.pt-table td, .pt-table th { border: 1px solid var(--border-color-primary); padding: 4px 8px;
  text-align: right; }
@media (max-width: 700px) {
  .pt-table table { font-size: 12px; } .pt-table td, .pt-table th { padding: 4px; }
  .pt-sideways { display: block; font-size: 12px; opacity: .8; }
}
.gradio-container input[role=combobox] { padding-right: 28px !important; text-overflow: ellipsis; }
#results-rows .header-cell .cell-menu-button { display: flex; }
#results-report table { display: block; overflow-x: auto; border: none; }
#results-report :is(td, th) { white-space: nowrap; }
.pt-race { display: grid; grid-template-columns: 1fr 1fr; gap: 14px; }
@media (max-width: 700px) { .pt-race { grid-template-columns: 1fr; } }
.pt-late { opacity: 0; animation: pt-come 1ms linear forwards; }
@keyframes pt-come { to { opacity: 1; } }
.pt-clock { font-size: 26px; font-weight: 700; font-variant-numeric: tabular-nums; }
.pt-clock::after { counter-reset: pt var(--pt-clock); content: counter(pt) ' ms'; }
.pt-clock { --pt-clock: var(--pt-end); animation: pt-run linear;
  animation-duration: var(--pt-lasts); }
@keyframes pt-run { from { --pt-clock: 0; } to { --pt-clock: var(--pt-end); } }
"""
STRONG = 3.0  # a margin, in logits, from which on the colour no longer deepens
READABLE = 0.6  # of a picture's own width: the smallest letters are still some six pixels high


class Token(NamedTuple):
    """A token as it is shown.

    Attributes:
        text: its text.
        margin: of its logit, or None where it is not known.
        right: whether it is the target's; None where that is not known.
        patched: whether the file says it, and not the vectors.
    """

    text: str
    margin: float | None = None
    right: bool | None = None
    patched: bool = False


def problem(sentence: str) -> str:
    """A message to a visitor, in a frame."""
    return f'<div class="pt-problem" role="alert">{escape(sentence)}</div>'


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
    inside = "".join(_token(number, token, by_margin) for number, token in enumerate(tokens, 1))
    return f'<div class="pt-text">{inside}</div>'


def _token(number: int, token: Token, by_margin: bool) -> str:
    shown = escape(token.text).replace("\n", "¶\n") or "∅"
    margin = "" if token.margin is None else f", margin {token.margin:.2f}"
    if token.patched:
        return (
            '<span class="pt-token pt-patched" tabindex="0"'
            f' title="token {number}, from a patch">{shown}</span>'
        )
    title = f'tabindex="0" title="token {number}{margin}"'
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


def curve(values: Sequence[float], colour: str, label: str) -> str:
    """A line over the steps so far, on a scale from 0 to the largest value.

    The first and the last value are also written beside it.
    """
    if len(values) < 2:
        return ""
    top, drawn = max(values) or 1.0, _thinned(values)
    points = " ".join(
        f"{400 * i / (len(drawn) - 1):.1f},{62 - 60 * value / top:.1f}"
        for i, value in enumerate(drawn)
    )
    words = f"{label}: {values[0]:.3g} at the first step, {values[-1]:.3g} at step {len(values):,}"
    return (
        f'<div class="pt-curve"><span class="pt-note">{escape(words)}</span>'
        f'<div><span class="pt-scale"><i>{top:.3g}</i><i>0</i></span>'
        '<svg viewBox="0 0 400 64" preserveAspectRatio="none" role="img"'
        f' aria-label="{escape(words)}">'
        f'<polyline fill="none" stroke="{colour}" stroke-width="2"'
        f' vector-effect="non-scaling-stroke" points="{points}"/>'
        "</svg></div></div>"
    )


def _thinned(values: Sequence[float], most: int = 200) -> Sequence[float]:
    """At most so many of the values, evenly spread, the last among them."""
    if len(values) <= most:
        return values
    return [values[round(number * (len(values) - 1) / (most - 1))] for number in range(most)]


def picture(figure: Figure, words: str, small: bool = False) -> str:
    """A figure as an image inside the page: no file is left anywhere."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return image(buffer.getvalue(), words, small)


def image(png: bytes, words: str, small: bool = False) -> str:
    """A PNG inside the page, as wide as the page; unless it is `small`, of a readable width."""
    data = base64.b64encode(png).decode()
    if small:
        return (
            f'<div class="pt-picture pt-small"><img alt="{escape(words)}"'
            f' src="data:image/png;base64,{data}"></div>'
        )
    least = round(READABLE * int.from_bytes(png[16:20], "big"))  # a PNG's width lies there
    return (
        '<span class="pt-sideways">⟷ the picture moves sideways</span><div class="pt-picture"'
        ' tabindex="0">'
        f'<img alt="{escape(words)}" style="min-width:{least}px"'
        f' src="data:image/png;base64,{data}"></div>'
    )


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A small table; the first cell of a row is its head."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in heads)
    body = "".join(
        f"<tr><th>{escape(first)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in rest)}</tr>"
        for first, *rest in rows
    )
    return f'<div class="pt-table" tabindex="0"><table><tr>{head}</tr>{body}</table></div>'


def race(
    one: Sequence[str], one_ms: float, many: Sequence[str], many_ms: float, slower: float
) -> str:
    """Two texts that appear at their measured pace, slowed down alike, each with its clock.

    Args:
        one: the tokens of one-step decoding, all there after `one_ms`; `many`: those that come one
            by one within `many_ms`.
        slower: how many times slower than measured it is shown.
    """
    every = many_ms * slower / max(1, len(many))
    at_once = "".join(_late(token, one_ms * slower) for token in one)
    in_turn = "".join(_late(token, number * every) for number, token in enumerate(many, 1))
    return (
        '<div class="pt-race">'
        + _lane("one step: one forward pass", one_ms, slower, at_once)
        + _lane(f"autoregressive: {len(many)} passes", many_ms, slower, in_turn)
        + "</div>"
    )


def _lane(name: str, ms: float, slower: float, tokens: str) -> str:
    style = f"--pt-end:{max(1, round(ms))};--pt-lasts:{ms * slower:.0f}ms"
    return (
        f'<div><b>{escape(name)}</b><div class="pt-clock" style="{style}"></div>'
        f'<div class="pt-text">{tokens}</div></div>'
    )


def _late(token: str, delay_ms: float) -> str:
    shown = escape(token).replace("\n", "¶\n")
    style = f"animation-delay:{delay_ms:.0f}ms"
    return f'<span class="pt-token pt-late" style="{style}">{shown}</span>'
