"""Draw the pictures of the documentation from real fits on the built-in model.

    python scripts/docs/draw_pictures.py

docs/images/filling-in.svg, and a narrow one for telephones: how a text fills in during a fit with
the paper's layout, a row for each of a few steps that are spread evenly on a logarithmic scale.
docs/images/inside.png: what happens inside the model while a sentence is decoded. A fit that does
not end exact draws nothing and exits with status 1.
"""

from __future__ import annotations

import sys
from pathlib import Path

from prototokens import FrozenLM, fit, samples
from prototokens.explorer import pictures
from prototokens.explorer.filling_in import NARROW, WIDE, draw, moments
from prototokens.measure.inside import look

IMAGES = Path(__file__).parents[2] / "docs" / "images"
ROWS = 7
SENTENCE = "He had never seen the sea before that day."


def filling_in(lm: FrozenLM) -> None:
    """The steps of a fit."""
    solution, seen = moments(lm, samples.short(), 0, ROWS)
    rows = []
    for step, ids in seen:
        right = [got == wanted for got, wanted in zip(ids, solution.ids, strict=True)]
        rows.append((step, [lm.detokenize([token]) for token in ids], right))
    target = [lm.detokenize([token]) for token in solution.ids]
    for sheet, name in ((WIDE, "filling-in.svg"), (NARROW, "filling-in-narrow.svg")):
        (IMAGES / name).write_text(draw(lm.name, target, rows, sheet), encoding="utf-8")


def inside(lm: FrozenLM) -> None:
    """Attention, logit lens and margins of a sentence."""
    solution = fit(lm, SENTENCE)
    if not solution.exact:
        sys.exit("the sentence was not reproduced exactly: it is not drawn")
    picture = pictures.trace(look(lm, solution), lambda token: lm.detokenize([token]))
    picture.savefig(IMAGES / "inside.png", metadata={"Software": None})


if __name__ == "__main__":
    builtin = FrozenLM.from_pretrained("builtin")
    filling_in(builtin)
    inside(builtin)
