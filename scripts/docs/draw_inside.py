"""Draw what happens inside while a sentence is decoded.

Docs/images/inside.png, from a real run on the built-in model.

python scripts/docs/draw_inside.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import prototokens as pt
from prototokens.explorer import pictures
from prototokens.measure.inside import look

OUT = Path(__file__).parents[2] / "docs" / "images" / "inside.png"
TEXT = "He had never seen the sea before that day."


def main() -> int:
    lm = pt.FrozenLM.from_pretrained("builtin")
    solution = pt.fit(lm, TEXT)
    if not solution.exact:
        sys.exit("the sentence was not reproduced exactly: nothing is drawn")
    pictures.trace(look(lm, solution), lambda token: lm.detokenize([token])).savefig(
        OUT, metadata={"Software": None}
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
