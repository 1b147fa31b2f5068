"""How many passages vectors hold exactly, by length: one row for each passage, model, length and recipe.

    python scripts/held_share.py --model builtin --texts books_val.parquet --lengths 16 32 48 --passages 50 \
        --recipe fast --rows results/held/rows.jsonl

Rows are appended as they are solved, and what is there already is not run again, so a killed run goes on where it was. Every
solution is decoded by `prototokens.decode_ids` before it is counted; the table at the end is made from all rows of the file.
"""

from __future__ import annotations

import argparse
import math
import random
import re
import statistics
import sys
from pathlib import Path

import builtin_data
import prototokens as pt
from fit_rows import about, fit_rows
from row_files import RowFile

KEY = ("fingerprint", "dtype", "layout", "recipe", "seed", "length", "ids_sha256")


def passages(sources: list[str], column: str, count: int, seed: int) -> list[str]:
    """Passages that begin at a sentence, spread evenly over the texts: 1500 characters each."""
    texts = [text for source in sources for text in builtin_data.read_texts(source, column)]
    choose, found = random.Random(seed), []
    for number in range(count):
        text = texts[number % len(texts)]
        starts = [match.end() for match in re.finditer(r'[.!?]["\']? +(?=[A-Z])', text[: len(text) - 1500])]
        # Not the first pages, which in books are often titles and contents.
        starts = [start for start in starts if start > min(2000, len(text) // 10)]
        if not starts:
            raise SystemExit(f"text {number % len(texts) + 1} of the source has no sentence that 1500 characters follow")
        start = choose.choice(starts)
        found.append(text[start : start + 1500])
    return found


def table(rows: list[dict]) -> str:
    """Share exact, steps to exact and bits of the text per trained number, by model, recipe, layout and length."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        recipe = row["recipe"]
        name = (row.get("tokens_seen", row["model"]), recipe["name"], recipe["steps"], row["layout"], row["length"])
        groups.setdefault(name, []).append(row)
    lines = ["| model | recipe | budget | layout | tokens | exact | median steps | 90th percentile | accuracy | bits a float |"]
    lines.append("|" + "---|" * 10)
    for name, group in sorted(groups.items(), key=lambda item: (str(item[0][0]).zfill(12), *item[0][1:])):
        steps = sorted(row["steps"] for row in group if row["exact"])
        middle = f"{statistics.median(steps):.0f}" if steps else "-"
        high = f"{steps[math.ceil(0.9 * len(steps)) - 1]}" if steps else "-"  # nearest rank
        right = sum(row["correct"] for row in group) / sum(row["length"] for row in group)
        bits = statistics.mean(row["nats"] / 0.6931471805599453 / row["floats"] for row in group)
        cells = [*name, f"{len(steps)}/{len(group)}", middle, high, f"{right:.3f}", f"{bits:.3f}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["builtin"], help="models: 'builtin', folders or hub ids")
    parser.add_argument("--texts", nargs="+", required=True, help="parquet or text files, folders, or hub:ID[@REVISION]")
    parser.add_argument("--column", default="text", help="column that holds the text (default: text)")
    parser.add_argument("--lengths", nargs="+", type=int, default=[8, 16, 24, 32, 48], help="tokens of a passage")
    parser.add_argument("--passages", type=int, default=24)
    parser.add_argument("--layout", default="paper")
    parser.add_argument("--recipe", default="fast")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--snapshots", action="store_true", help="the models are training snapshots, named by tokens: 0.5M")
    parser.add_argument("--rows", type=Path, required=True, help="the JSON-lines file to append to")
    args = parser.parse_args()
    rows = RowFile(args.rows, KEY)
    recipe = pt.Recipe.named(args.recipe, steps=args.steps)
    texts = passages(args.texts, args.column, args.passages, args.seed)
    for model in args.model:
        lm = pt.FrozenLM.from_pretrained(model)
        lm.name = Path(model).name
        note = {"tokens_seen": round(float(lm.name.removesuffix("M")) * 1e6)} if args.snapshots else {}
        for length in args.lengths:
            cut = [(number, lm.encode(text)[:length]) for number, text in enumerate(texts)]
            whole = [(number, ids) for number, ids in cut if len(ids) == length]
            jobs = [(ids, about(lm, ids, args.layout, recipe, args.seed, passage=number, **note)) for number, ids in whole]
            fit_rows(lm, jobs, rows)
            print(f"{lm.name}: {length} tokens done", file=sys.stderr, flush=True)
    print(table(rows.rows))


if __name__ == "__main__":
    main()
