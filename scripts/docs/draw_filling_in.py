"""Draw how a text fills in during a fit.

It writes docs/images/filling-in.svg, and a narrow one for telephones.

    python scripts/docs/draw_filling_in.py

One text is fitted with the paper's layout, e and m. The vectors of every step are recorded; those
of a few steps, spread evenly on a logarithmic scale, are decoded and drawn, a row for each. A run
that does not end exact draws nothing and exits with status 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from prototokens import FrozenLM, samples
from prototokens.explorer.filling_in import NARROW, WIDE, draw, moments

OUT = Path(__file__).parents[2] / "docs" / "images" / "filling-in.svg"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="builtin", help="'builtin', a folder, or a hub id")
    parser.add_argument("--text", default=samples.short(), help="what to fit")
    parser.add_argument("--seed", type=int, default=0, help="of the initial vectors")
    parser.add_argument("--rows", type=int, default=7, help="moments to draw, at most")
    parser.add_argument("--out", type=Path, default=OUT, help="the narrow one goes beside it")
    args = parser.parse_args()
    if args.rows < 3:
        parser.error(f"--rows {args.rows}: at least 3 are needed")
    lm = FrozenLM.from_pretrained(args.model)
    solution, seen = moments(lm, args.text, args.seed, args.rows)
    target = [lm.detokenize([token]) for token in solution.ids]
    rows = []
    for step, ids in seen:
        right = [got == wanted for got, wanted in zip(ids, solution.ids, strict=True)]
        rows.append((step, [lm.detokenize([token]) for token in ids], right))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for sheet, path in ((WIDE, args.out), (NARROW, args.out.with_stem(args.out.stem + "-narrow"))):
        path.write_text(draw(Path(lm.name).name, target, rows, sheet), encoding="utf-8")
    sys.stderr.write(
        f"{args.out}: {len(target)} tokens, steps"
        f" {', '.join(str(moment.step) for moment in seen)}\n"
    )


if __name__ == "__main__":
    main()
