"""Few bits: in how many bits a number of the vectors has to be kept for the text still to come out.

    python scripts/bits_table.py --texts file:books_val.parquet --rows results/bits/rows.jsonl
    python scripts/bits_table.py --model stories260K --texts generated:sample --lengths paper=8 tiled:4=16
    python scripts/bits_table.py --report

Passages are fitted once with `fast`. For every width from 16 bits down to one, each solution is rounded (exact by that alone?),
and moved along its grid by a short fit (exact then, and after how many steps?). A row is a passage, layout and width.
`--report` writes the tables of results/bits/README.md from the rows alone.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from pathlib import Path

import prototokens as pt
from pages import put_between
from prototokens.engine.grid import GRID_BITS, WIDTHS
from prototokens.engine.quantise import polish_recipe, rounded
from prototokens.lab.provenance import stamp
from prototokens.lab.report import Table, share
from prototokens.lab.texts import Texts
from row_files import RowFile, options, parsed, read_rows

PAGE = Path(__file__).parents[1] / "results" / "bits" / "README.md"
MARKS = ("<!-- bits: made by scripts/bits_table.py -->", "<!-- end of the bits -->")
CAPTION = "Every width for every text; shares with exact 95% intervals; the scales of the grids are counted."
KEY = ("fingerprint", "dtype", "layout", "length", "passage", "bits", "seed")


def measure(lm: pt.FrozenLM, layout: str, length: int, texts: list[list[int]], base: dict, rows: RowFile) -> None:
    """Rows of one layout and length, in every width."""
    recipe = pt.Recipe.named("fast")
    base = {**base, "layout": layout, "length": length}
    if all(rows.done({**base, "passage": number, "bits": width}) for number in range(len(texts)) for width in WIDTHS[:-1]):
        return
    fitted = pt.fit(lm, texts, layout=layout, recipe=recipe)
    exact = [number for number, one in enumerate(fitted) if one.exact]
    part = [fitted[number] for number in exact]
    nats = {number: float(lm.surprisal(texts[number]).sum()) for number in exact}
    polish = polish_recipe(recipe)
    for width in WIDTHS[-2::-1]:
        plain = rounded(lm, part, [width] * len(part), replace(polish, steps=0))
        moved = rounded(lm, part, [width] * len(part), polish)
        for number, one, other in zip(exact, plain, moved, strict=True):
            floats = one.solution.protos.numel()
            scales = 32 * len(one.solution.protos) * (width in GRID_BITS)
            rows.append(
                {
                    **base, "passage": number, "bits": width, "passages": len(texts), "fitted": len(exact),
                    "rounded": one.solution.exact, "exact": other.solution.exact, "steps": other.row_steps,
                    "fit_steps": fitted[number].steps, "vector_bits": width * floats + scales,
                    "text_bits": round(nats[number] / math.log(2), 3), **stamp(lm.device),
                }
            )  # fmt: skip
        print(f"{layout}, {length} tokens, {width} bits: done", flush=True)


def report(rows: list[dict]) -> str:
    """The table, and the fewest bits of each text, from rows alone."""
    cells, fewest = [], []
    for group in sorted({(row["model"], row["layout"], row["length"]) for row in rows}):
        own = [row for row in rows if (row["model"], row["layout"], row["length"]) == group]
        for width in sorted({row["bits"] for row in own}, reverse=True):
            part = [row for row in own if row["bits"] == width]
            steps = [row["steps"] for row in part if row["exact"]]
            cells.append(
                [
                    *group, width, f"{part[0]['vector_bits'] / group[2]:.0f}",
                    *(share(sum(row[what] for row in part), len(part)) for what in ("rounded", "exact")),
                    statistics.median(steps) if steps else None,
                    statistics.mean(row["text_bits"] / row["vector_bits"] for row in part),
                ]
            )  # fmt: skip
        best = [min((row for row in own if row["passage"] == one and row["exact"]), key=lambda row: row["bits"])
                for one in sorted({row["passage"] for row in own})]  # fmt: skip
        fewest.append(
            [
                *group, len(best), statistics.mean(row["bits"] for row in best),
                statistics.mean(row["vector_bits"] / group[2] for row in best),
                statistics.mean(row["text_bits"] / group[2] for row in best),
                statistics.mean(row["text_bits"] / row["vector_bits"] for row in best),
            ]
        )  # fmt: skip
    heads = ["model", "layout", "tokens", "bits a number", "bits a token", "exact when rounded", "exact after steps",
             "median steps", "text's bits a vector's bit"]  # fmt: skip
    few = ["model", "layout", "tokens", "texts", "bits a number", "bits a token", "the text's own bits a token",
           "text's bits a vector's bit"]  # fmt: skip
    first = Table(
        "bits",
        heads,
        cells,
        CAPTION,
    )
    second = Table("fewest", few, fewest, "The fewest bits in which a text stays exact, the mean over texts (`--bits auto`).")
    return f"{first.markdown()}\n\n{second.markdown()}"


def main() -> None:
    parser = options(str(__doc__), "results/bits/rows.jsonl", "results/bits/README.md")
    parser.add_argument("--passages", type=int, default=24)
    parser.add_argument("--lengths", nargs="+", default=["paper=16", "paper=32", "tiled:4=32"], help="LAYOUT=TOKENS")
    args = parsed(parser)
    if args.report:
        put_between(PAGE, {MARKS: report(read_rows(args.rows))})
        return
    lm, rows = pt.FrozenLM.from_pretrained(args.model), RowFile(args.rows, KEY)
    base = {
        "model": Path(lm.name).name, "fingerprint": lm.fingerprint, "dtype": str(lm.dtype).removeprefix("torch."),
        "seed": args.seed, "texts": args.texts.split("/")[-1],
    }  # fmt: skip
    for word in args.lengths:
        layout, length = word.rsplit("=", 1)
        passages = Texts(lm, [args.texts], args.seed).passages(args.passages, int(length))
        measure(lm, layout, int(length), [list(one.ids) for one in passages], base, rows)
    print(report(rows.rows))


if __name__ == "__main__":
    main()
