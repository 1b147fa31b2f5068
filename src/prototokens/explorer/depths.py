"""What happens between vectors and text, as heat maps of HTML, a row for each token.

Tokens stand below each other, so that they can be read whatever their number, on any page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from prototokens.explorer import charts, show
from prototokens.explorer.charts import Cell
from prototokens.explorer.vectors import name_of, names_of
from prototokens.measure.inside import Inside, appears

MAX_LETTERS = 12  # of a token in a cell; the tooltip has the whole
STRONG = 4.0  # logits, from which on the colour of a margin no longer deepens


def label(token: str) -> str:
    """A token as a label: spaces and line ends made visible."""
    return token.replace(" ", "␣").replace("\n", "¶").replace("\t", "→") or "∅"


def heads(inside: Inside) -> str:
    """Attention to each vector by layer and head, the mean over positions."""
    vectors = inside.attention.shape[-1]
    # The first position has nothing but itself to attend to.
    looking = inside.attention[:, :, 1:] if inside.attention.shape[2] > 1 else inside.attention
    mean = looking.mean(2)
    most = max(float(mean.max()), 1e-9)
    columns = [str(number + 1) for number in range(mean.shape[1])]
    parts = []
    for vector, name in enumerate(names_of(vectors)):
        rows = [
            (
                str(layer + 1),
                [
                    Cell(
                        _share(value), f"layer {layer + 1}, head {head}: {value:.1%}", value / most
                    )
                    for head, value in zip(columns, shares, strict=True)
                ],
            )
            for layer, shares in enumerate(mean[..., vector].tolist())
        ]
        words = f"attention to {name}, by layer and head"
        parts.append(show.head(f"To {name}") + charts.heat("layer / head", columns, rows, words))
    return show.cards(*parts)


def lens(inside: Inside, tokens: Sequence[str], texts: dict[int, str]) -> str:
    """What each depth decodes to: the probability of the token that comes out at the end.

    Args:
        tokens: the text of each position.
        texts: of every token that some depth decodes to.
    """
    nats, rank, ids = inside.lens.nats, inside.lens.rank, inside.lens.ids
    columns = ["input", *(str(number) for number in range(1, len(nats)))]
    rows = []
    for position, token in enumerate(tokens):
        cells = []
        for depth, name in enumerate(columns):
            chance = math.exp(-float(nats[depth, position]))
            there = bool(rank[depth, position] == 0)
            word = label(texts[int(ids[depth, position])])
            tip = f"depth {name}: “{word}”\n“{label(token)}” has {chance:.1%} there"
            cells.append(Cell(word[:MAX_LETTERS], tip, chance, "green", there))
        rows.append((label(token), cells))
    mean = float(appears(inside.lens).float().mean())
    words = "logit lens: what each depth decodes to"
    return (
        show.head("What each depth decodes to (logit lens)")
        + show.note(
            "Greener: more probability of the token that comes out in the end; framed: already"
            f" there. On average it appears at depth {mean:.1f} of {len(nats) - 1}."
        )
        + charts.heat("token / depth", columns, rows, words, wide=True)
    )


def knocked_out(inside: Inside, tokens: Sequence[str]) -> str:
    """The margin of each token where e is hidden from all but the first blocks."""
    margin = inside.knockout.margin
    kept = (margin > 0).float().mean(1).tolist()
    last = len(margin) - 1
    columns = ["none", *(str(number) for number in range(1, last)), "all"]
    rows = [
        (
            label(token),
            [
                Cell(
                    f"{value:.1f}",
                    _seeing(number, last, value),
                    abs(value) / STRONG,
                    "blue" if value > 0 else "red",
                )
                for number, value in enumerate(margin[:, position].tolist())
            ],
        )
        for position, token in enumerate(tokens)
    ]
    shares = ", ".join(f"{name} {share:.0%}" for name, share in zip(columns, kept, strict=True))
    return (
        show.head("e hidden from all but the first blocks")
        + show.note(
            "The margin of each token, in logits, by how many blocks see e; red is lost. Tokens"
            f" kept: {shares}."
        )
        + charts.heat("token / blocks", columns, rows, "margins with e knocked out")
    )


def _seeing(blocks: int, last: int, margin: float) -> str:
    """The tooltip of a margin, and of how many blocks see e there."""
    who = "all blocks see" if blocks == last else f"the first {blocks} blocks see"
    who = who if blocks else "no block sees"
    return f"{who} e: margin {margin:.2f}, {'kept' if margin > 0 else 'lost'}"


def positions(inside: Inside, tokens: Sequence[str], vector: int, layer: int | None) -> str:
    """One vector's attention, position by position.

    Args:
        layer: whose heads are the columns; None: all layers, the means of their heads.
    """
    shares = inside.attention[..., vector]
    values = shares.mean(1) if layer is None else shares[layer]
    kind = "layer" if layer is None else "head"
    columns = [str(number + 1) for number in range(len(values))]
    # Where e's own output is not read (layout `free`), there is a position more than there are
    # tokens.
    named = [""] * (values.shape[1] - len(tokens)) + [label(token) for token in tokens]
    most = max(float(values.max()), 1e-9)
    rows = [
        (
            name,
            [
                Cell(_share(value), f"{name}, {kind} {column}: {value:.1%}", value / most)
                for column, value in zip(columns, values[:, position].tolist(), strict=True)
            ],
        )
        for position, name in enumerate(named)
    ]
    name = name_of(vector, inside.attention.shape[-1])
    which = "by layer, the mean of its heads" if layer is None else f"by head of layer {layer + 1}"
    words = f"attention of each position to {name}"
    return (
        show.head(f"Attention of each position to {name}")
        + show.note(f"Percent, {which}; the deepest colour is {most:.0%}.")
        + charts.heat(f"token / {kind}", columns, rows, words)
    )


def _share(value: float) -> str:
    """A share as a whole number of percent."""
    return f"{100 * value:.0f}"
