"""How many passages vectors hold exactly, by length: one row for each passage, model, length and recipe.

    python scripts/held_share.py --model builtin --texts books_val.parquet --lengths 16 32 48 --passages 50 \
        --recipe fast --rows results/held/rows.jsonl
    python scripts/held_share.py --report

Rows are appended as they are solved, and what is there already is not run again, so a killed run goes on where it was. Every
solution is decoded by `prototokens.decode_ids` before it is counted; the table at the end is made from all rows of the file.
`--report` writes the tables of
results/held and results/pretraining, and the picture of capacity over pretraining from the committed rows alone.
"""

from __future__ import annotations

import argparse
import random
import re
import statistics
import sys
from pathlib import Path

from matplotlib.figure import Figure

import prototokens as pt
from builtin import data as builtin_data
from fit_rows import about, fit_rows
from map_front import highest_steps, median_steps, shown
from pages import put_between
from prototokens.lab.plots import Panel, Series, lines
from prototokens.lab.report import Table, percent_interval, save_figure
from row_files import RowFile, read_rows

RESULTS = Path(__file__).parents[1] / "results"
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "pretraining.svg"
MARKS = {
    name: (f"<!-- {name}: made by scripts/held_share.py -->", f"<!-- end of {name} -->") for name in ("held", "pretraining")
}
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
    """Share exact, steps to exact and bits of the text per trained number, by model, recipe, layout and length.

    Steps are over all passages: one that is not exact counts as taking for ever.
    """
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        recipe = row["recipe"]
        name = (row.get("tokens_seen", row["model"]), recipe["name"], recipe["steps"], row["layout"], row["length"])
        groups.setdefault(name, []).append(row)
    heads = ("model, or tokens seen", "recipe", "budget", "layout", "tokens", "exact", "95% interval of the share")
    heads += ("median steps", "90th percentile", "accuracy", "bits a float")
    rows_of_cells = []
    for name, group in sorted(groups.items(), key=lambda item: (str(item[0][0]).zfill(12), *item[0][1:])):
        exact = sum(row["exact"] for row in group)
        middle, high = shown(median_steps(group)), shown(highest_steps(group))
        right = sum(row["correct"] for row in group) / sum(row["length"] for row in group)
        bits = statistics.mean(row["nats"] / 0.6931471805599453 / row["floats"] for row in group)
        counted = [f"{exact} of {len(group)}", percent_interval(exact, len(group))]
        cells = [*name, *counted, middle, high, f"{right:.3f}", f"{bits:.3f}"]
        rows_of_cells.append([str(cell) for cell in cells])
    return Table("held", list(heads), rows_of_cells).markdown()


def report() -> None:
    """Tables and picture, from the committed rows."""
    rows = {name: read_rows(RESULTS / name / "rows.jsonl") for name in MARKS}
    for name, of_name in rows.items():
        put_between(RESULTS / name / "README.md", {MARKS[name]: table(of_name)})
    save_figure(over_training(rows["pretraining"]), PICTURE)


def over_training(rows: list[dict]) -> Figure:
    """Share of the passages that are held, against the tokens seen in training: a line for each length."""
    groups: dict[int, dict[int, list[bool]]] = {}
    for row in rows:
        groups.setdefault(row["length"], {}).setdefault(row["tokens_seen"], []).append(row["exact"])
    series = [
        Series(f"{length} tokens", [statistics.mean(held) for _, held in sorted(seen.items())], sorted(seen))
        for length, seen in sorted(groups.items())
    ]
    first = min(row["tokens_seen"] for row in rows if row["tokens_seen"])
    title = f"Passages that two vectors hold, within {rows[0]['recipe']['steps']:,} steps"
    return lines(Panel(title, "training tokens", "share exact", log_x_from=first, y_range=(0, 1)), series)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["builtin"], help="models: 'builtin', folders or hub ids")
    parser.add_argument("--texts", nargs="+", help="parquet or text files, folders, or hub:ID[@REVISION]")
    parser.add_argument("--column", default="text", help="column that holds the text (default: text)")
    parser.add_argument("--lengths", nargs="+", type=int, default=[8, 16, 24, 32, 48], help="tokens of a passage")
    parser.add_argument("--passages", type=int, default=24)
    parser.add_argument("--layout", default="paper")
    parser.add_argument("--recipe", default="fast")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--snapshots", action="store_true", help="the models are training snapshots, named by tokens: 0.5M")
    parser.add_argument("--rows", type=Path, help="the JSON-lines file to append to")
    parser.add_argument("--report", action="store_true", help="write tables and picture from committed rows alone")
    args = parser.parse_args()
    if args.report:
        report()
        return
    if not args.texts or not args.rows:
        parser.error("--texts and --rows are needed where something is to be measured")
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
