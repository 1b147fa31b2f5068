"""A picture of how a text fills in during a fit, as SVG.

It has a row of tokens for each of a few steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from typing import NamedTuple

from torch import Tensor

from prototokens.engine.decode import decode_ids
from prototokens.engine.progress import Progress
from prototokens.fitting import fit
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.solution import Solution

EDGE = 28  # margin on every side
FONT, LETTER = 15.5, 9.4  # size of a token's letters, and the width each of them gets
PAD, LINE, CHIP = 4, 32, 25  # beside a token's letters; from line to line; a chip's height
GAP_IN_WORD, GAP = 3, 7  # between chips: inside a word, and where the token begins with a space
MIN_LETTERS = 3  # least width of a token, in letters, since wrong tokens are drawn there too
MONO = (
    "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', 'Liberation Mono',"
    " monospace"
)
SANS = "-apple-system, 'Segoe UI', 'Noto Sans', 'DejaVu Sans', Helvetica, Arial, sans-serif"
INK, MUTED, FAINT = "#1f2328", "#656d76", "#d8dee4"
E_FILL, M_FILL, MODEL_FILL = "#5b3fd6", "#d9730d", "#24303f"
SIDE = 34  # of the box of a vector, or of a token that comes out
ARROW = f'stroke="{MUTED}" stroke-width="1.8" fill="none" marker-end="url(#tip)"'
# (chip, letters): of a wrong token, of a right one, and of a right one in the last row.
WRONG, RIGHT, LAST = ("#f3f5f7", "#6e7781"), ("#dcf5e3", "#0b6b2c"), ("#1a7f37", "#ffffff")


class Sheet(NamedTuple):
    """What a picture is drawn on.

    Attributes:
        width: of the picture; `left`: where the tokens begin; `edge`: the margin.
        most: moments that are drawn, at most.
    """

    width: int
    left: int
    edge: int
    most: int

    @property
    def narrow(self) -> bool:
        """Whether what is written beside the tokens stands above them."""
        return self.left == self.edge


WIDE, NARROW = Sheet(760, 122, EDGE, 99), Sheet(400, 16, 16, 5)


class Moment(NamedTuple):
    """A step of the fit, and the ids that its vectors decode to."""

    step: int
    ids: list[int]


def moments(lm: FrozenLM, text: str, seed: int, count: int) -> tuple[Solution, list[Moment]]:
    """Fit a text, and decode its vectors at `count` steps.

    The first and the last step are among them.

    Raises:
        SystemExit: the fit did not become exact, or its last vectors do not decode to the text.
    """
    seen: list[Tensor] = []

    def keep(now: Progress) -> None:
        vectors = now.vectors_of(0)
        assert vectors is not None
        seen.append(vectors)

    solution = fit(lm, text, layout="paper", seed=seed, progress=keep)
    if not solution.exact:
        raise SystemExit(
            f"no picture: {solution.correct} of {solution.length} tokens were right after"
            f" {len(seen) - 1} steps;"
            " try another --seed, or a shorter --text"
        )
    steps = spread(solution.steps, count)
    decoded = decode_ids(lm, [replace(solution, protos=seen[step]) for step in steps]).ids
    if decoded[-1] != list(solution.ids):
        raise SystemExit(
            "no picture: the last vectors do not decode to the text, though the fit called them"
            " exact"
        )
    return solution, [Moment(step, ids) for step, ids in zip(steps, decoded, strict=True)]


def spread(last: int, count: int) -> list[int]:
    """Zero, `last`, and steps between them whose logarithms are evenly spaced.

    Fewer where there are not so many steps.
    """
    first = max(1.0, last / 20)
    ratios = [rank / (count - 2) for rank in range(count - 1)]
    return sorted(
        {0, last, *(min(last, round(first * (last / first) ** ratio)) for ratio in ratios if last)}
    )


def shown(token: str) -> str:
    """A token's letters, without the space it begins with.

    What has no letter of its own gets a sign.
    """
    token = token[1:] if token.startswith(" ") and len(token) > 1 else token
    signs = {"\n": "↵", "\t": "⇥", " ": "␣"}
    return (
        "".join(
            signs.get(letter, letter if letter.isprintable() and letter != "\ufffd" else "·")
            for letter in token
        )
        or "·"
    )


def cut(token: str, letters: int) -> str:
    """At most so many letters; a longer token ends in an ellipsis."""
    return token if len(token) <= letters else token[: letters - 1] + "…"


def chip_positions(target: Sequence[str], sheet: Sheet) -> list[tuple[float, int, int]]:
    """For each token of the target: left edge of its chip, line, and width in letters.

    The same in every row of the picture.
    """
    found, x, line = [], 0.0, 0
    for token in target:
        letters = max(MIN_LETTERS, len(shown(token)))
        width = letters * LETTER + 2 * PAD
        x += 0.0 if x == 0 else GAP if token.startswith((" ", "\n")) else GAP_IN_WORD
        if x and sheet.left + x + width > sheet.width - sheet.edge:
            x, line = 0.0, line + 1
        found.append((sheet.left + x, line, letters))
        x += width
    return found


def write(
    x: float,
    y: float,
    text: str,
    size: float,
    fill: str = INK,
    *,
    font: str = SANS,
    style: str = "",
) -> str:
    """A text element; `style` holds further attributes."""
    font_and_ink = f'font-family="{font}" font-size="{size}" fill="{fill}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {font_and_ink} {style}>{escape(text)}</text>'


def box(
    x: float, y: float, width: float, height: float, fill: str, radius: float = 6, extra: str = ""
) -> str:
    corner, size = f'x="{x:.1f}" y="{y:.1f}"', f'width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {corner} {size} rx="{radius}" fill="{fill}" {extra}/>'


def fixed_width(width: float) -> str:
    """Attributes of a centred text that is so wide in whatever font."""
    return f'text-anchor="middle" textLength="{width:.1f}" lengthAdjust="spacingAndGlyphs"'


def chip(x: float, y: float, letters: int, token: str, colours: tuple[str, str]) -> str:
    """A token on its background."""
    text, width = cut(token, letters), letters * LETTER + 2 * PAD
    letters_in = write(
        x + width / 2,
        y + 17.5,
        text,
        FONT,
        colours[1],
        font=MONO,
        style=fixed_width(len(text) * LETTER),
    )
    return box(x, y, width, CHIP, colours[0], 4) + letters_in


def row_of_boxes(x: float, y: float, names: Sequence[str], gap: float) -> list[str]:
    """Vectors e and m, or tokens t, one beside the other."""
    parts = []
    for name in names:
        width = 22 if name == "…" else SIDE
        fill = {"e": E_FILL, "m": M_FILL, "t": RIGHT[0]}.get(name)
        if fill:
            outline = f'stroke="{RIGHT[1]}" stroke-opacity="0.35"' if name == "t" else ""
            parts.append(box(x, y, SIDE, SIDE, fill, 6, outline))
        ink = MUTED if name == "…" else RIGHT[1] if name == "t" else "#ffffff"
        parts.append(
            write(
                x + width / 2, y + 23, name, 17, ink, style='text-anchor="middle" font-weight="600"'
            )
        )
        x += width + gap
    return parts


def narrow_head(tokens: int, sheet: Sheet) -> list[str]:
    """The method from top to bottom."""
    middle = sheet.width / 2
    return [
        write(sheet.edge, 32, "in: e and m, which the fit moves", 14.5, MUTED),
        *row_of_boxes(middle - 109, 44, ("e", "m", "m", "m", "…", "m"), 5),
        f'<path d="M{middle} 84 V99" {ARROW}/>',
        box(sheet.edge + 40, 104, sheet.width - 2 * sheet.edge - 80, 46, MODEL_FILL, 10),
        write(
            middle, 133, "frozen language model, one pass", 16.5, "#ffffff", style=fixed_width(260)
        ),
        f'<path d="M{middle} 154 V169" {ARROW}/>',
        *row_of_boxes(middle - 89, 174, ("t", "t", "t", "…", "t"), 5),
        write(
            sheet.width - sheet.edge, 196, f"{tokens} out", 14.5, MUTED, style='text-anchor="end"'
        ),
    ]


def wide_head(tokens: int, sheet: Sheet) -> list[str]:
    """The method: [e, m, m, ..., m] into the frozen model, the tokens out of it.

    Also what the fit moves.
    """
    top, model, out = 54, 296, 560
    middle, behind = top + SIDE / 2, EDGE + 5 * SIDE + 22 + 6 * 5
    parts = [
        write(EDGE, 36, "in: two trained vectors, e and m", 14.5, MUTED),
        *row_of_boxes(EDGE, top, ("e", "m", "m", "m", "…", "m"), 5),
        f'<path d="M{behind + 5:.0f} {middle} H{model - 9}" {ARROW}/>',
        box(model, top - 14, 216, SIDE + 28, MODEL_FILL, 10),
        write(
            model + 108,
            middle - 3,
            "frozen language model",
            16.5,
            "#ffffff",
            style=fixed_width(184),
        ),
        write(model + 108, middle + 17, "one forward pass", 14, "#c3ccd6", style=fixed_width(114)),
        f'<path d="M{model + 221} {middle} H{out - 9}" {ARROW}/>',
        write(
            sheet.width - EDGE,
            36,
            f"out: all {tokens} tokens",
            14.5,
            MUTED,
            style='text-anchor="end"',
        ),
        *row_of_boxes(out, top, ("t", "t", "t", "…", "t"), 3),
    ]
    below = top + SIDE
    right, left = (out + sheet.width - EDGE) / 2, EDGE + SIDE + 2.5
    parts += [
        f'<path d="M{right} {below + 8} V{below + 24} Q{right} {below + 34} {right - 10}'
        f" {below + 34} H{left + 10}"
        f' Q{left} {below + 34} {left} {below + 24} V{below + 9}" {ARROW} stroke-dasharray="5 4"/>',
        box(270, below + 22, 268, 24, "#ffffff"),
        write(
            404,
            below + 39,
            "the fit moves e and m, nothing else",
            14.5,
            INK,
            style=fixed_width(244),
        ),
    ]
    return parts


def draw(
    model: str, target: list[str], rows: list[tuple[int, list[str], list[bool]]], sheet: Sheet
) -> str:
    """The whole picture as SVG.

    Args:
        model: its name, for the caption.
        target: the tokens of the text.
        rows: for each moment its step, the decoded tokens, and which of them are right.
    """
    if len(rows) > sheet.most:
        last = len(rows) - 1
        rows = [rows[math.ceil(number * last / (sheet.most - 1))] for number in range(sheet.most)]
    positions = chip_positions(target, sheet)
    above = 28 if sheet.narrow else 0
    height_of_row = (1 + max(line for _, line, _ in positions)) * LINE + 16 + above
    parts, y = (
        (narrow_head(len(target), sheet), 234.0)
        if sheet.narrow
        else (wide_head(len(target), sheet), 166.0)
    )
    for number, (step, tokens, right) in enumerate(rows):
        last = number == len(rows) - 1
        parts += row_head(y, step, sum(right), len(target), last, sheet, height_of_row > LINE + 16)
        for (x, line, letters), token, good in zip(positions, tokens, right, strict=True):
            colours = WRONG if not good else LAST if last else RIGHT
            parts.append(chip(x, y + above + line * LINE, letters, shown(token), colours))
        y += height_of_row
    caption = (
        "A real run"
        if sheet.narrow
        else f"A real run on the model “{model}”: {rows[-1][0]:,} steps"
    )
    caption += "; green tokens are right."
    parts.append(write(sheet.edge, y + 10, caption, 13 if sheet.narrow else 14, MUTED))
    described = (
        f"Decoded text at {len(rows)} steps of a fit; at the last one it is: {''.join(target)}"
    )
    return framed(parts, sheet.width, math.ceil(y + 10 + EDGE * 0.8), described)


def row_head(
    y: float, step: int, right: int, tokens: int, last: bool, sheet: Sheet, tall: bool
) -> list[str]:
    """The line above a row, its step, and how many tokens are right.

    Args:
        tall: whether a second line fits beside the tokens; where there is none, the
            count is left out.
    """
    ink, counted = RIGHT[1] if last else MUTED, f"{right} of {tokens}"
    parts = [
        f'<path d="M{sheet.edge} {y - 8:.1f} H{sheet.width - sheet.edge}" stroke="{FAINT}"'
        ' stroke-width="1"/>',
        write(sheet.edge, y + 18, f"step {step:,}", 15.5, style='font-weight="600"'),
    ]
    if sheet.narrow:
        end = sheet.width - sheet.edge
        parts.append(write(end, y + 18, counted, 14.5, ink, style='text-anchor="end"'))
    elif tall:
        parts.append(write(sheet.edge, y + 18 + LINE, counted, 14.5, ink))
    return parts


def framed(parts: list[str], width: int, height: int, described: str) -> str:
    """An SVG document of these parts on a white sheet."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
            f' width="{width}" role="img">',
            "<title>A text fills in while two input vectors of a frozen language model are"
            " fitted</title>",
            f"<desc>{escape(described)}</desc>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="6.5" refY="4" markerWidth="7"'
            ' markerHeight="7" orient="auto">'
            f'<path d="M0.5 0.5 L7 4 L0.5 7.5" fill="none" stroke="{MUTED}"'
            ' stroke-width="1.3"/></marker></defs>',
            box(0.5, 0.5, width - 1, height - 1, "#ffffff", 14, f'stroke="{FAINT}"'),
            *parts,
            "</svg>\n",
        ]
    )
