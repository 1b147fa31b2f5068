"""How many passages vectors hold exactly, by length: one row for each passage, model, length and recipe.

    python scripts/held_share.py --model builtin --texts books_val.parquet --lengths 16 32 48 --passages 50 \
        --recipe fast --rows results/held/rows.jsonl

Rows are appended as they are solved, and what is there already is not run again, so a killed run goes on where it was. Every
solution is decoded by `prototokens.decode_ids` before it is counted; the table at the end is made from all rows of the file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import re
import statistics
import sys
import time
from pathlib import Path

import builtin_data
import prototokens as pt

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


def measure(lm: pt.FrozenLM, texts: list[str], length: int, args: argparse.Namespace, note: dict) -> None:
    """Fit the passages of one length that have no row yet, and append their rows."""
    recipe = pt.Recipe.named(args.recipe, steps=args.steps)
    targets, rows = [], []
    for number, text in enumerate(texts):
        ids = lm.encode(text)[:length]
        row = {
            "model": lm.name, **note, "fingerprint": lm.fingerprint, "dtype": str(lm.dtype).removeprefix("torch."),
            "layout": args.layout, "recipe": recipe.as_dict(), "seed": args.seed, "length": length,
            "ids_sha256": hashlib.sha256(json.dumps(ids).encode()).hexdigest(), "passage": number,
        }  # fmt: skip
        if len(ids) == length and key(row) not in done(args.rows):
            targets.append(ids)
            rows.append(row)
    began = time.monotonic()

    def write(order: int, solution: pt.Solution) -> None:
        outcome = {
            "exact": pt.decode_ids(lm, [solution]).ids[0] == list(solution.ids),
            "correct": solution.correct,
            "steps": solution.steps,
            "row_steps": solution.row_steps,
            "margin": round(solution.margin, 5),
            "nats": round(float(lm.surprisal(list(solution.ids)).sum()), 4),
            "floats": solution.protos.numel(),
            "seconds_since_start": round(time.monotonic() - began, 1),
        }
        with args.rows.open("a") as out:
            out.write(json.dumps({**rows[order], **outcome}) + "\n")

    pt.fit(lm, targets, layout=args.layout, recipe=recipe, seed=args.seed, finished=write)


def key(row: dict) -> str:
    return json.dumps([row[name] for name in KEY], sort_keys=True)


def all_rows(path: Path) -> list[dict]:
    """The rows of the file; a torn last line is left out, and said."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            print(f"a torn line in {path} is left out", file=sys.stderr)
    return rows


def done(path: Path) -> set[str]:
    return {key(row) for row in all_rows(path)}


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
    args.rows.parent.mkdir(parents=True, exist_ok=True)
    texts = passages(args.texts, args.column, args.passages, args.seed)
    for model in args.model:
        lm = pt.FrozenLM.from_pretrained(model)
        lm.name = Path(model).name
        note = {"tokens_seen": round(float(lm.name.removesuffix("M")) * 1e6)} if args.snapshots else {}
        for length in args.lengths:
            measure(lm, texts, length, args, note)
            print(f"{lm.name}: {length} tokens done", file=sys.stderr, flush=True)
    print(table(all_rows(args.rows)))


if __name__ == "__main__":
    main()
