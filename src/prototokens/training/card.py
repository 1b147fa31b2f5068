"""An encoder's card, and the picture on it: all from what its training logged and measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prototokens.encoder.encoder import BEYOND, Encoder
from prototokens.encoder.starts import saves
from prototokens.lab.plots import Panel, Series, draw_lines, panels
from prototokens.lab.report import Table, save_figure, share

CARD = """---
license: apache-2.0
library_name: prototokens
---

# An encoder for {model}

A network that maps a text of up to {max_length} tokens to its {vectors} vectors in one pass{how}.
The frozen model decodes them in one pass. Made with `prototokens train-encoder`.

{facts}

## Zero-step: without a fit

Texts that it was not trained on ({source}). A feedback pass is one forward and backward \
pass of the frozen
model; a text that is exact takes no further one. Shares of exact texts have their exact \
95% interval, and belong to
this kind of text and to the processor that measured them.

{raw}

### By kind of text

{kinds}

![loss and held-out accuracy over training](held-out.svg)

## As a start

{proof}

## Use and limits

`prototokens.encoder.encoder.Encoder.load(folder)` reads it. It serves the model with \
fingerprint `{fingerprint}` and layout
`{layout}`, and is refused for any other. Of texts of other kinds than it was trained on, \
more do not come out exactly; a fit
from its vectors goes on from there.
"""

HOW = """, and
refines them with gradients from the frozen model: {} in training, up to {} in use"""


def write_card(encoder: Encoder) -> str:
    """The card's text."""
    config, shape = encoder.config, encoder.shape
    parameters = sum(parameter.numel() for parameter in encoder.network.parameters())
    training, trained = config["training"], config["trained"]
    depths = ", ".join(map(str, shape.depths))
    reads = (
        "its input embeddings" if shape.depths == (0,) else f"its hidden states at depths {depths}"
    )
    facts = [
        ("parameters", f"{parameters:,} (bfloat16)"),
        (
            "blocks",
            f"{shape.layers} of width {shape.width}, {shape.heads} heads, feed-forward"
            f" {shape.feed_forward}",
        ),
        (
            "reads",
            f"of the frozen model {reads}"
            + (f", with adapters of rank {shape.rank}" if shape.rank else ""),
        ),
        (
            "predicts",
            "every vector"
            if shape.predict == "all"
            else "e; the others are learned, the same for every text",
        ),
        ("layout", f"{shape.layout}, {shape.vectors} vectors"),
        (
            "refinements",
            f"of {shape.refine_layers} blocks, the same for all" if shape.refinements else "none",
        ),
        (
            "training",
            f"{trained['step']:,} steps of {training['rows']} texts, {trained['tokens']:,} tokens",
        ),
        ("loss", f"cross-entropy of the frozen decoder at temperature {training['temperature']:g}"),
        ("time", f"{trained['seconds'] / 3600:.2f} hours"),
    ]
    return CARD.format(
        model=config["model"]["name"],
        fingerprint=config["model"]["fingerprint"],
        layout=shape.layout,
        max_length=shape.max_length,
        vectors=shape.vectors,
        how=HOW.format(shape.refinements, BEYOND * shape.refinements) if shape.refinements else "",
        facts=Table("facts", ("", ""), facts).markdown(),
        source=config["held_out"]["source"],
        raw=_raw(config["held_out"]["rows"]),
        kinds=_kinds(encoder),
        proof=_proof(encoder),
    )


def _raw(rows: list[dict[str, Any]]) -> str:
    columns = ("tokens", "feedback passes", "token accuracy", "exact", "nats a token")
    cells = [
        (
            row["length"],
            f"{row.get('looks', 0):.1f}",
            f"{row['accuracy']:.1%}",
            share(round(row["exact"] * row["texts"]), row["texts"]),
            f"{row['nats']:.3f}",
        )
        for row in rows
    ]
    return Table("raw", columns, cells).markdown()


def _kinds(encoder: Encoder) -> str:
    """Rates by kind of text, all from rows of `evaluate.by_kind`."""
    found, refined = encoder.config.get("kinds"), encoder.shape.refinements > 0
    if not found:
        return "This was not measured."
    columns = ["kind", "tokens", "feedback passes", "token accuracy", "exact"]
    columns += ["known to be exact"] * refined
    cells = [
        [
            row["kind"],
            row["length"],
            f"{row['looks']:.1f}",
            f"{row['accuracy']:.1%}",
            share(round(row["exact"] * row["texts"]), row["texts"]),
            *[row["reached"]] * refined,
        ]
        for row in found["rows"]
    ]
    words = (
        f"Measured in {found['dtype']} on a processor named {found['processor']!r}. Source code is"
        " of Python's standard library, German sentences are of a small grammar, and uniform ids"
        " are drawn from the vocabulary, all alike likely."
    )
    if refined:
        words += (
            " The last column counts the texts that the encoder itself saw come out exactly: of the"
            " others it knows that it failed, and a fit goes on from their vectors."
        )
    return f"{words}\n\n{Table('kinds', columns, cells).markdown()}"


def _proof(encoder: Encoder) -> str:
    rows = encoder.config["proof"]
    if not rows:
        return "This was not measured, so `auto` starts at random."
    columns = (
        "tokens",
        "texts",
        "rate from the encoder",
        "row-steps, random",
        "row-steps, encoder",
        "seconds, random",
        "seconds, encoder",
        "exact, random",
        "exact, encoder",
        "auto takes",
    )
    cells = [
        (
            row["length"],
            row["texts"],
            f"{encoder.rate(row['length']):g}",
            row["random"]["row_steps"],
            row["encoder"]["row_steps"],
            f"{row['random']['seconds']:.1f}",
            f"{row['encoder']['seconds']:.1f}",
            row["random"]["exact"],
            row["encoder"]["exact"],
            "the encoder" if saves(row) else "random",
        )
        for row in rows
    ]
    words = (
        "The same texts, fitted from random starts and from the encoder's vectors in turn; the"
        " encoder's passes are counted."
        " The rate is a share of the recipe's, chosen on other texts:"
    )
    return f"{words}\n\n{Table('proof', columns, cells).markdown()}"


def draw(log: Path, encoder: Encoder, path: Path) -> None:
    """Training loss, and held-out accuracy and exact share of the longest texts, over tokens."""
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").split("\n") if line]
    tokens = [row["tokens"] / 1e6 for row in rows]
    measured = [row for row in rows if "held_out" in row]
    tokens_measured = [row["tokens"] / 1e6 for row in measured]
    last = [row["held_out"][-1] for row in measured]
    words = f"Held-out, {encoder.shape.max_length} tokens"
    loss = [Series("", [row["nats"] for row in rows], tokens)]
    shares = [
        Series(name, [row[name] for row in last], tokens_measured) for name in ("accuracy", "exact")
    ]
    figure = panels(
        [
            (
                Panel("Loss of a batch", "tokens (millions)", "nats a token"),
                lambda axes: draw_lines(axes, loss, markers=False),
            ),
            (
                Panel(words, "tokens (millions)", "share", y_range=(0, 1)),
                lambda axes: draw_lines(axes, shares),
            ),
        ]
    )
    save_figure(figure, path)
