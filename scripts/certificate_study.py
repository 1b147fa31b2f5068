"""How many results of each stopping rule come out the same in every way of decoding, and what a margin costs in steps.

    python scripts/certificate_study.py --texts file:books_val.parquet --chunks 500 --rows results/certificate/rows.jsonl
    python scripts/certificate_study.py --report

The same chunks, from the same starts, are fitted by three rules: `argmax`, which stops when every token is right, as published
(the margin is zero); `recipe`, the margin of the recipe itself; `standard`, the margin that the certificate asks for. Each
solution goes through a file and is decoded in every cell of the strict matrix. A row is a chunk, rule and layout: steps, least
margin, and the cells in which a token came out wrong.
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import prototokens as pt
from pages import put_between
from prototokens.encoding import certified_recipe
from prototokens.engine.certify import cells_of, threshold
from prototokens.engine.matrix import margins, run_cells
from prototokens.lab.provenance import stamp
from prototokens.lab.report import Table, share
from prototokens.lab.texts import Texts
from prototokens.ptok.encoded import EncodedText
from row_files import RowFile, options, parsed, read_rows

PAGE = Path(__file__).parents[1] / "results" / "certificate" / "README.md"
MARKS = ("<!-- certificate: made by scripts/certificate_study.py -->", "<!-- end of the certificate -->")
KEY = ("fingerprint", "dtype", "layout", "rule", "length", "chunk", "seed")
WAYS = ("by batch or padding alone", "in another kernel, dtype or thread count", "only compiled")
RULES = ("argmax", "recipe", "standard")
AT_A_TIME = 100  # chunks that are fitted, saved and decoded before their rows are written


def rule_recipe(lm: pt.FrozenLM, rule: str, steps: int) -> pt.Recipe:
    """The `fast` recipe with the margin of a rule."""
    recipe = pt.Recipe.named("fast", steps=steps)
    if rule == "argmax":
        return replace(recipe, margin=0.0)
    return recipe if rule == "recipe" else certified_recipe(lm, recipe, "standard")


def from_file(lm: pt.FrozenLM, solutions: list[pt.Solution], recipe: pt.Recipe) -> list[pt.Solution]:
    """Solutions as a file gives them back."""
    text = lm.decode([token for one in solutions for token in one.ids])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.ptok"
        EncodedText.of(lm, text, solutions, recipe=recipe).save(path)
        chunks = EncodedText.load(path).chunks()
    return [replace(one, protos=chunk.protos) for one, chunk in zip(solutions, chunks, strict=True)]


def measure(lm: pt.FrozenLM, chunks: dict[int, list[int]], base: dict, recipe: pt.Recipe, rows: RowFile) -> None:
    """Fit some chunks by one rule, decode them in every way, and append their rows."""
    fitted = pt.fit(lm, list(chunks.values()), layout=base["layout"], recipe=recipe, seed=base["seed"])
    solved = [(number, one) for number, one in zip(chunks, fitted, strict=True) if one.exact]
    saved = from_file(lm, [one for _, one in solved], recipe) if solved else []
    own = margins(lm, saved) if saved else []
    cells = run_cells(lm, saved, cells_of(lm, "strict"))
    tried = [(one.cell.describe(), one.margins) for one in cells if one.margins is not None]
    wrong = {
        number: [cell for cell, found in tried if bool((found[place] <= 0).any())] for place, (number, _) in enumerate(solved)
    }
    least = {number: min(float(found[place].min()) for _, found in tried) for place, (number, _) in enumerate(solved)}
    kept = {number: float(own[place].min()) for place, (number, _) in enumerate(solved)}
    for number, one in zip(chunks, fitted, strict=True):
        outcome = {"solved": one.exact, "steps": one.steps, "row_steps": one.row_steps}
        if one.exact:
            outcome |= {"margin": round(kept[number], 5), "least_anywhere": round(least[number], 5), "wrong_in": wrong[number]}
        rows.append({**base, "chunk": number, **outcome, "cells": len(tried), **stamp(lm.device)})


def report(rows: list[dict]) -> str:
    """The table, from rows alone."""
    cells = []
    groups = {(row["model"], row["layout"], row["length"], row["steps_allowed"]) for row in rows}
    for group in sorted(groups, key=str):
        for rule in RULES:
            part = [
                row for row in rows
                if (row["model"], row["layout"], row["length"], row["steps_allowed"]) == group and row["rule"] == rule
            ]  # fmt: skip
            solved = [row for row in part if row["solved"]]
            if not solved:
                continue
            failed = [row for row in solved if row["wrong_in"]]
            margin = f"{statistics.median(row['asked'] for row in part):.3f}"
            cells.append(
                [
                    group[0], group[1], group[2], rule, margin, f"{len(solved)} of {len(part)}",
                    share(len(failed), len(solved)), *by_way(failed),
                    statistics.median(row["steps"] for row in solved),
                    f"{min(row['least_anywhere'] for row in solved):.3f}",
                ]
            )  # fmt: skip
    heads = ["model", "layout", "tokens", "stops at", "margin", "solved", "wrong somewhere", *WAYS, "median steps",
             "least margin anywhere"]  # fmt: skip
    ways, sources = max(row["cells"] for row in rows), sorted({Path(row["texts"]).name for row in rows})
    caption = f"Each solution, read back from a file, decoded in {ways} ways; texts of {', '.join(sources)}."
    return Table("certificate", heads, cells, caption).markdown()


def by_way(failed: list[dict]) -> list[int]:
    """How many solutions went wrong in each of `WAYS`; one that did in several counts with the first of them."""
    counts = dict.fromkeys(WAYS, 0)
    for row in failed:
        ways = [cell.split(", ")[3:] for cell in row["wrong_in"] if cell.startswith(f"{row['dtype']}, ")]
        own, uncompiled = any(not way for way in ways), any(not cell.endswith("compiled") for cell in row["wrong_in"])
        counts[WAYS[0 if own else 1 if uncompiled else 2]] += 1
    return list(counts.values())


def main() -> None:
    parser = options(str(__doc__), "results/certificate/rows.jsonl", "results/certificate/README.md")
    parser.add_argument("--chunks", type=int, default=500)
    parser.add_argument("--lengths", nargs="+", default=["paper=16", "tiled:4=32"], help="of a chunk: LAYOUT=TOKENS")
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--steps", type=int, default=2000)
    args = parsed(parser)
    if args.report:
        put_between(PAGE, {MARKS: report(read_rows(args.rows))})
        return
    lm, rows = pt.FrozenLM.from_pretrained(args.model), RowFile(args.rows, KEY)
    for word in args.lengths:
        layout, length = word.rsplit("=", 1)
        passages = Texts(lm, [args.texts], args.seed).passages(args.chunks, int(length))
        for rule in args.rules:
            recipe = rule_recipe(lm, rule, args.steps)
            base = {
                "model": lm.name, "fingerprint": lm.fingerprint, "dtype": str(lm.dtype).removeprefix("torch."),
                "layout": layout, "length": int(length), "rule": rule, "asked": recipe.margin, "seed": args.seed,
                "shift": round(threshold(lm, "standard").shift, 5), "steps_allowed": args.steps,
                "texts": args.texts.split("/")[-1],
            }  # fmt: skip
            left = [number for number in range(len(passages)) if not rows.done({**base, "chunk": number})]
            for first in range(0, len(left), AT_A_TIME):
                part = {number: list(passages[number].ids) for number in left[first : first + AT_A_TIME]}
                measure(lm, part, base, recipe, rows)
                print(f"{layout}, {length} tokens, {rule}: {len(left) - first - len(part)} chunks to go", flush=True)
    print(report(rows.rows))


if __name__ == "__main__":
    main()
