"""Short trainings of every variant of the encoder, one row each: what to keep, and what did not help.

    python scripts/encoder_variants.py --texts file:books_train.parquet --held-out file:books_val.parquet --steps 2000
    python scripts/encoder_variants.py --report

Each variant changes one thing about `BASE` and gets the same number of steps; its row holds the held-out accuracy and exact
share by length, the tokens and the seconds. The `scaling` variants take the base at other sizes and numbers of steps: accuracy
against training tokens and encoder size. Rows that are there are not run again, so a killed run goes on; a variant that was
killed goes on from its own checkpoint. `--report` writes the table of results/encoder/README.md from the rows alone.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

import prototokens as pt
from pages import put_between
from prototokens._util.settings import as_json
from prototokens.encoder.config import Shape
from prototokens.lab.passages import without_folders
from prototokens.lab.plots import Panel, Series, draw_lines, panels
from prototokens.lab.provenance import stamp
from prototokens.lab.report import Table, save_figure, share
from prototokens.lab.texts import Texts
from prototokens.layout import tiled
from prototokens.lm.devices import bfloat16_pays
from prototokens.training.config import Training
from prototokens.training.distil import save_solutions
from prototokens.training.train import Running, train
from row_files import RowFile, read_rows

BASE = Shape(layout="tiled:4", max_length=16, width=256, layers=4, heads=4, feed_forward=1024)
MARKS = ("<!-- variants: made by scripts/encoder_variants.py -->", "<!-- end of the variants -->")
SCALING_MARKS = ("<!-- scaling: made by scripts/encoder_variants.py -->", "<!-- end of scaling -->")
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "encoder-scaling.svg"
FIRST = "from scratch, all vectors"
GOAL = 0.09  # nats a token at which 99% of the tokens are right: what the shipped encoder has at 8 tokens
Variant = tuple[Shape, dict]  # a shape, and changes to the training


def variants(lm: pt.FrozenLM, steps: int, solutions: Path) -> dict[str, Variant]:
    """Name -> what it is. The first is the base."""
    deep = len(lm.model.base_model(inputs_embeds=lm.embed(_one(lm)), output_hidden_states=True).hidden_states) - 1
    trunk = tuple(sorted({0, deep // 2, deep}))
    found: dict[str, Variant] = {
        FIRST: (BASE, {}),
        "frozen trunk, attention pooling": (replace(BASE, depths=trunk, layers=1), {}),
        "frozen trunk and as many blocks": (replace(BASE, depths=trunk), {}),
        "trunk with adapters, attention pooling": (replace(BASE, depths=trunk, layers=1, rank=16), {}),
        "a direct map of each place, 64 numbers": (replace(BASE, direct=64), {}),
        "a direct map of each place, 256 numbers": (replace(BASE, direct=256), {}),
        "e predicted, m's learned": (replace(BASE, predict="e"), {}),
        "curriculum from short to long": (BASE, {"curriculum": steps // 2, "shortest": 2}),
        "every text of full length": (BASE, {"full": 1.0}),
        "temperature 0.5": (BASE, {"temperature": 0.5}),
        "temperature 2": (BASE, {"temperature": 2.0}),
        "noise 0.05": (BASE, {"noise": 0.05}),
        "noise 0.2": (BASE, {"noise": 0.2}),
        "learning from fitted solutions too": (BASE, {"distil": 0.1, "solutions": str(solutions)}),
        "half the rates": (BASE, {"rate": 0.0015, "matrix_rate": 0.01}),
        "twice the rates": (BASE, {"rate": 0.006, "matrix_rate": 0.04}),
    }
    found |= {f"K = {count}": (replace(BASE, layout=tiled(count).name), {}) for count in (1, 2, 8)}
    found["K = 1, e predicted, m learned"] = (replace(BASE, layout="paper", predict="e"), {})
    mixed = replace(BASE, layout="mixed:4")
    found["mixed:4"] = (mixed, {})
    best = replace(mixed, heads=16)
    found["mixed:4, 16 heads"] = (best, {})
    for count, words in ((1, "once"), (2, "twice"), (3, "three times")):
        found[f"mixed:4, 16 heads, refined {words}"] = (replace(best, refinements=count), {})
    found["tiled:4, 16 heads, refined twice"] = (replace(best, layout="tiled:4", refinements=2), {})
    two = replace(best, layout="mixed:1", predict="e", refinements=4)
    found["mixed:1, e predicted, m learned, 16 heads, refined four times"] = (two, {})
    found |= {f"{length} tokens": (replace(BASE, max_length=length), {}) for length in (8, 32)}
    found |= {f"scaling: {times:g} of the steps": (BASE, {"steps": round(times * steps)}) for times in (0.25, 0.5, 2.0)}
    for width, layers in ((128, 2), (256, 8), (384, 6)):
        shape = replace(BASE, width=width, layers=layers, heads=width // 64, feed_forward=4 * width)
        found[f"scaling: {layers} blocks of width {width}"] = (shape, {})
    return found


def _one(lm: pt.FrozenLM):
    import torch

    return torch.zeros(1, 1, dtype=torch.int64, device=lm.device)


def fit_teachers(lm: pt.FrozenLM, source: str, count: int, path: Path) -> None:
    """Fitted solutions of training texts, made once."""
    if path.exists():
        return
    texts = [passage.ids for passage in Texts(lm, [source], seed=7).passages(count, BASE.max_length)]
    print(f"fitting {count} texts to learn from", file=sys.stderr, flush=True)
    save_solutions(path, lm, pt.fit(lm, texts, layout=BASE.layout))


def share_pools(work: Path, place: Path) -> None:
    """Let a training find the ids that an earlier one has made: reading a source again takes longer than a short training."""
    place.mkdir(parents=True, exist_ok=True)
    for made in work.glob("*/ids-*.npy"):
        if not (place / made.name).exists():
            (place / made.name).hardlink_to(made)


def run(lm: pt.FrozenLM, args: argparse.Namespace) -> None:
    solutions = args.work / "solutions.safetensors"
    args.work.mkdir(parents=True, exist_ok=True)
    rows = RowFile(args.rows, ("fingerprint", "shape", "training"))
    dtype = "bfloat16" if bfloat16_pays(lm.device) else "float32"
    base = Training(
        texts=args.texts, held_out=args.held_out, steps=args.steps, rows=args.batch, seed=args.seed, pool=args.pool, dtype=dtype
    )
    for name, (shape, changes) in variants(lm, args.steps, solutions).items():
        if args.only and not any(word in name for word in args.only):
            continue
        training = replace(base, **changes)
        row = {"variant": name, "fingerprint": lm.fingerprint, "shape": as_json(shape), "training": as_json(training)}
        row = json.loads(json.dumps(row))
        for source in ("texts", "held_out"):  # rows are published: no folders of this machine
            row["training"][source] = without_folders(row["training"][source])
        row["training"]["solutions"] = row["training"]["solutions"].split("/")[-1]
        if rows.done(row):
            continue
        if training.solutions:
            fit_teachers(lm, args.texts, args.teachers, solutions)
        place = args.work / "".join(letter if letter.isalnum() else "-" for letter in name)
        share_pools(args.work, place)
        running = Running(place, texts_measured=args.measured, texts_proved=0, measure_every=max(1, args.steps // 8))
        encoder = train(lm, shape, training, place / "encoder", running)
        found = {
            "parameters": sum(parameter.numel() for parameter in encoder.network.parameters()),
            "trained": encoder.config["trained"],
            "held_out": encoder.config["held_out"]["rows"],
            **stamp(lm.device),
        }
        rows.append({**row, **found})
        last = found["held_out"][-1]
        words = f"{name}: {last['accuracy']:.1%} of the tokens, {last['exact']:.1%} of the texts at {last['length']} tokens"
        print(words, file=sys.stderr, flush=True)


def report(rows: list[dict], page: Path) -> None:
    """The table of the page, best first."""
    columns = (
        "variant", "parameters", "steps", "tokens (M)", "minutes", "length", "feedback passes", "accuracy", "exact",
        "nats a token",
    )  # fmt: skip
    cells = [
        (
            row["variant"], f"{row['parameters'] / 1e6:.1f}M", row["trained"]["step"], f"{row['trained']['tokens'] / 1e6:.2f}",
            f"{row['trained']['seconds'] / 60:.1f}", last["length"], f"{last.get('looks', 0):.1f}", f"{last['accuracy']:.1%}",
            exact_share(last), f"{last['nats']:.3f}",
        )
        for row in sorted(rows, key=lambda row: -row["held_out"][-1]["accuracy"])
        for last in row["held_out"][-1:]
    ]  # fmt: skip
    made: dict[tuple[str, str], str] = {MARKS: Table("variants", columns, cells).markdown()}
    if curves := scaling(rows):
        picture = PICTURE
        made[SCALING_MARKS] = laws(curves).markdown()
        save_figure(draw(curves), picture)
    put_between(page, made)


def exact_share(found: dict) -> str:
    """The texts of a held-out length that came out exact, with the interval of their share."""
    return share(round(found["exact"] * found["texts"]), found["texts"])


def scaling(rows: list[dict]) -> dict[str, list[tuple[float, float, float]]]:
    """What is varied -> (its amount, nats a token, accuracy) of each row that varies nothing else, least first."""
    base = next((row for row in rows if row["variant"] == FIRST), None)
    if base is None:
        return {}
    alike = [row for row in rows if row["variant"] == FIRST or row["variant"].startswith("scaling")]
    kinds = {
        "training tokens": [(row["trained"]["tokens"], row) for row in alike if row["shape"] == base["shape"]],
        "parameters": [(row["parameters"], row) for row in alike if row["trained"]["step"] == base["trained"]["step"]],
    }
    return {
        name: sorted((float(amount), row["held_out"][-1]["nats"], row["held_out"][-1]["accuracy"]) for amount, row in some)
        for name, some in kinds.items()
        if len(some) >= 3
    }


def laws(curves: dict[str, list[tuple[float, float, float]]]) -> Table:
    """Nats as a power of what is varied, and how much of it the goal would take if the law went on."""
    cells = []
    for name, points in curves.items():
        slope, level = np.polyfit(np.log([point[0] for point in points]), np.log([point[1] for point in points]), 1)
        wanted = math.exp((math.log(GOAL) - level) / slope)
        ends = [f"{points[place][0]:,.0f}: {points[place][2]:.1%}" for place in (0, -1)]
        cells.append((name, len(points), *ends, f"{slope:.2f}", f"{wanted:.1e}"))
    columns = ("what grows", "points", "least: accuracy", "most: accuracy", "nats go as its power", f"for {GOAL:g} nats, if so")
    return Table("scaling", columns, cells)


def draw(curves: dict[str, list[tuple[float, float, float]]]):
    """Nats over what is varied, both logarithmic."""
    return panels([
        (
            Panel(f"By {name}", name, "held-out nats a token", log_x=True, log_y=True),
            lambda axes, points=points: draw_lines(axes, [Series("", [one[1] for one in points], [one[0] for one in points])]),
        )
        for name, points in curves.items()
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--texts", default="sample")
    parser.add_argument("--held-out", default="", help="by default the end of --texts")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=64, help="texts of a step")
    parser.add_argument("--pool", type=int, default=20_000_000, help="most tokens that are read")
    parser.add_argument("--measured", type=int, default=256, help="held-out texts")
    parser.add_argument(
        "--teachers", type=int, default=2048, help="texts that are fitted, for the variant that learns from them"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", help="variants whose name holds one of these")
    parser.add_argument("--work", type=Path, default=Path("build/encoder-variants"))
    parser.add_argument("--rows", type=Path, default=Path("results/encoder/variants.jsonl"))
    parser.add_argument("--report", action="store_true", help="write the page's table from the rows; nothing is trained")
    parser.add_argument("--page", type=Path, default=Path("results/encoder/README.md"))
    args = parser.parse_args()
    if args.report:
        report(read_rows(args.rows), args.page)
        return
    run(pt.FrozenLM.from_pretrained(args.model), args)


if __name__ == "__main__":
    main()
