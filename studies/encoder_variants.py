"""Short trainings of every variant of the encoder: what to keep, and what did not help.

    prototokens reproduce studies/encoder_variants.py --texts file:books_train.parquet \
        --texts file:books_val.parquet --scale paper --out results/encoder
    prototokens reproduce studies/encoder_variants.py --from-rows \
        --out results/encoder

The first source is trained on, and the second, if there is one, is measured on. Each variant
changes one thing about `BASE` and gets the same number of steps; its row holds the held-out
accuracy and exact share by length, the tokens and the seconds. The `scaling` variants take the
base at other sizes and numbers of steps. A variant that was killed goes on from its own
checkpoint in `WORK`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from prototokens._util.settings import as_json, from_json
from prototokens.encoder.config import Shape
from prototokens.fitting import fit
from prototokens.lab.job import Config, Job, Row
from prototokens.lab.passages import without_folders
from prototokens.lab.plots import Panel, Series, draw_lines, panels
from prototokens.lab.report import Report, Table, share
from prototokens.lab.texts import Texts
from prototokens.layout import tiled
from prototokens.lm.devices import bfloat16_pays
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.training.config import Running, Training
from prototokens.training.distil import save_solutions
from prototokens.training.train import train

TITLE = "Variants of the encoder"
BASE = Shape(layout="tiled:4", max_length=16, width=256, layers=4, heads=4, feed_forward=1024)
WORK = Path("build/encoder-variants")
FIRST = "from scratch, all vectors"
# Nats a token at which 99% of the tokens are right: what the shipped encoder has at 8 tokens.
GOAL = 0.09
POOL, MEASURED, TEACHERS = (
    20_000_000,
    256,
    2048,
)  # tokens that are read, held-out texts, fitted texts to learn from
TEACHER = "solutions.safetensors"
COLUMNS = (
    "variant",
    "parameters",
    "steps",
    "tokens (M)",
    "minutes",
    "length",
    "feedback passes",
    "accuracy",
    "exact",
    "nats a token",
)
LAWS = (
    "what grows",
    "points",
    "least: accuracy",
    "most: accuracy",
    "nats go as its power",
    f"for {GOAL:g} nats, if so",
)
Variant = tuple[Shape, dict[str, Any]]  # a shape, and changes to the training
# Of the jobs: the sources as they were given. Rows are published, so that jobs do not name folders
# of this machine.
SOURCES: dict[str, str] = {}


def variants(depth: int, steps: int) -> dict[str, Variant]:
    """Name -> what it is; the first is the base. `depth`: number of the frozen model's layers."""
    trunk = tuple(sorted({0, depth // 2, depth}))
    found: dict[str, Variant] = {
        FIRST: (BASE, {}),
        "frozen trunk, attention pooling": (replace(BASE, depths=trunk, layers=1), {}),
        "frozen trunk and as many blocks": (replace(BASE, depths=trunk), {}),
        "trunk with adapters, attention pooling": (
            replace(BASE, depths=trunk, layers=1, rank=16),
            {},
        ),
        "a direct map of each place, 64 numbers": (replace(BASE, direct=64), {}),
        "a direct map of each place, 256 numbers": (replace(BASE, direct=256), {}),
        "e predicted, m's learned": (replace(BASE, predict="e"), {}),
        "curriculum from short to long": (BASE, {"curriculum": steps // 2, "shortest": 2}),
        "every text of full length": (BASE, {"full": 1.0}),
        "temperature 0.5": (BASE, {"temperature": 0.5}),
        "temperature 2": (BASE, {"temperature": 2.0}),
        "noise 0.05": (BASE, {"noise": 0.05}),
        "noise 0.2": (BASE, {"noise": 0.2}),
        "learning from fitted solutions too": (BASE, {"distil": 0.1, "solutions": TEACHER}),
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
    found |= {
        f"scaling: {times:g} of the steps": (BASE, {"steps": round(times * steps)})
        for times in (0.25, 0.5, 2.0)
    }
    for width, layers in ((128, 2), (256, 8), (384, 6)):
        shape = replace(BASE, width=width, layers=layers, heads=width // 64, feed_forward=4 * width)
        found[f"scaling: {layers} blocks of width {width}"] = (shape, {})
    return found


def jobs(config: Config) -> list[Job]:
    lm, steps = config.texts.lm, config.pick(50, 2000)
    texts, *rest = config.texts.sources
    SOURCES.update({without_folders(source): source for source in config.texts.sources})
    base = Training(
        texts=without_folders(texts),
        held_out=without_folders(rest[0]) if rest else "",
        steps=steps,
        seed=config.seed,
        pool=POOL,
        dtype="bfloat16" if bfloat16_pays(lm.device) else "float32",
    )
    ids = torch.zeros(1, 1, dtype=torch.int64, device=lm.device)
    states = lm.model.base_model(
        inputs_embeds=lm.embed(ids), output_hidden_states=True
    ).hidden_states
    found = []
    for name, (shape, changes) in variants(len(states) - 1, steps).items():
        training = replace(base, **changes)
        # As a file gives it back: tuples are lists.
        values = json.loads(
            json.dumps({"variant": name, "shape": as_json(shape), "training": as_json(training)})
        )
        work = 6.0 * training.steps * training.rows * shape.max_length
        found.append(
            Job(
                "encoder_variants",
                config.model,
                (),
                shape.layout,
                config.recipe,
                config.seed,
                values,
                work,
            )
        )
    return found


def run(job: Job, lm: FrozenLM) -> list[Row]:
    values = job.values
    shape, training = from_json(Shape, values["shape"]), from_json(Training, values["training"])
    training = replace(
        training, texts=SOURCES[training.texts], held_out=SOURCES.get(training.held_out, "")
    )
    WORK.mkdir(parents=True, exist_ok=True)
    if training.solutions:
        training = replace(training, solutions=str(_teachers(lm, training.texts)))
    folder = WORK / "".join(letter if letter.isalnum() else "-" for letter in values["variant"])
    _share_pools(folder)
    running = Running(
        folder, measured=MEASURED, proved=0, measure_every=max(1, training.steps // 8)
    )
    encoder = train(lm, shape, training, folder / "encoder", running)
    found = {
        "parameters": sum(parameter.numel() for parameter in encoder.network.parameters()),
        "trained": encoder.config["trained"],
        "held_out": encoder.config["held_out"]["rows"],
    }
    return [
        {
            "variant": values["variant"],
            "shape": values["shape"],
            "training": values["training"],
            **found,
        }
    ]


def report(rows: list[Row]) -> Report:
    """Best first, and the laws of scaling."""
    cells = [
        _line(row)
        for row in sorted(rows, key=lambda row: (-row["held_out"][-1]["accuracy"], row["variant"]))
    ]
    tables, figures = [Table("variants", COLUMNS, cells)], {}
    if curves := _scaling(rows):
        tables.append(_laws(curves))
        figures["encoder-scaling"] = _drawn(curves)
    return Report(title=TITLE, tables=tables, figures=figures)


def _teachers(lm: FrozenLM, source: str) -> Path:
    """Fitted solutions of training texts, made once."""
    path = WORK / TEACHER
    if not path.exists():
        texts = [
            passage.ids
            for passage in Texts(lm, [source], seed=7).passages(TEACHERS, BASE.max_length)
        ]
        save_solutions(path, lm, fit(lm, texts, layout=BASE.layout))
    return path


def _share_pools(folder: Path) -> None:
    """Let a training find the ids that an earlier one has made: reading them takes longer."""
    folder.mkdir(parents=True, exist_ok=True)
    for made in WORK.glob("*/ids-*.npy"):
        if not (folder / made.name).exists():
            (folder / made.name).hardlink_to(made)


def _line(row: Row) -> tuple:
    last, trained = row["held_out"][-1], row["trained"]
    return (
        row["variant"],
        f"{row['parameters'] / 1e6:.1f}M",
        trained["step"],
        f"{trained['tokens'] / 1e6:.2f}",
        f"{trained['seconds'] / 60:.1f}",
        last["length"],
        f"{last.get('looks', 0):.1f}",
        f"{last['accuracy']:.1%}",
        share(round(last["exact"] * last["texts"]), last["texts"]),
        f"{last['nats']:.3f}",
    )


def _scaling(rows: Sequence[Row]) -> dict[str, list[tuple[float, float, float]]]:
    """What is varied -> (its amount, nats a token, accuracy) of rows that vary nothing else."""
    base = next((row for row in rows if row["variant"] == FIRST), None)
    if base is None:
        return {}
    alike = [row for row in rows if row["variant"] == FIRST or row["variant"].startswith("scaling")]
    kinds = {
        "training tokens": [
            (row["trained"]["tokens"], row) for row in alike if row["shape"] == base["shape"]
        ],
        "parameters": [
            (row["parameters"], row)
            for row in alike
            if row["trained"]["step"] == base["trained"]["step"]
        ],
    }
    return {
        name: sorted(
            (float(amount), row["held_out"][-1]["nats"], row["held_out"][-1]["accuracy"])
            for amount, row in some
        )
        for name, some in kinds.items()
        if len(some) >= 3
    }


def _laws(curves: dict[str, list[tuple[float, float, float]]]) -> Table:
    """Nats as a power of what is varied, and how much the goal would take if the law went on."""
    cells = []
    for name, points in curves.items():
        slope, level = np.polyfit(
            np.log([point[0] for point in points]), np.log([point[1] for point in points]), 1
        )
        wanted = math.exp((math.log(GOAL) - level) / slope)
        ends = [f"{points[end][0]:,.0f}: {points[end][2]:.1%}" for end in (0, -1)]
        cells.append((name, len(points), *ends, f"{slope:.2f}", f"{wanted:.1e}"))
    return Table("scaling", LAWS, cells)


def _drawn(curves: dict[str, list[tuple[float, float, float]]]) -> Figure:
    """Nats over what is varied, both logarithmic."""
    return panels(
        [
            (
                Panel(f"By {name}", name, "held-out nats a token", log_x=True, log_y=True),
                lambda axes, points=points: draw_lines(
                    axes, [Series("", [one[1] for one in points], [one[0] for one in points])]
                ),
            )
            for name, points in curves.items()
        ]
    )
