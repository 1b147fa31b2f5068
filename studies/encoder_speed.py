"""What an encoder saves: its starts against random ones, its zero-step vectors against fits.

    prototokens reproduce studies/encoder_speed.py --texts file:books_val.parquet \
        --scale paper --steps 2000 --out results/encoder
    prototokens reproduce studies/encoder_speed.py --from-rows --out results/encoder

The encoders are those that ship for the model, or the folders given with `--checkpoint`. Rows of
two kinds: `fits` fits the same passages both ways, block by block with the order turned each
time, the encoder's own passes counted; `raw` encodes and decodes passages without a step, and
fits a part of them for comparison, with seconds for one passage. The machine should do nothing
else meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prototokens.encoder.encoder import SHIPPED, Encoder
from prototokens.encoder.folder import CONFIG
from prototokens.encoder.judge import judged
from prototokens.engine.decode import decode_ids
from prototokens.errors import FileError, UsageError
from prototokens.fitting import fit
from prototokens.lab.job import Config, Job, Row
from prototokens.lab.report import Report, Table, share
from prototokens.lm.devices import wait
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.solution import Solution
from prototokens.training.proof import prove

TITLE = "What an encoder saves"
FITTED = 128  # of the passages of `raw`, how many are fitted too
REFINEMENTS = (0, 3, 12)  # most of a text, one row for each number
SHOWN = (8, 16, 24, 32)  # of the lengths that the shipped encoders were measured at, in tokens
SHIPPED_COLUMNS = (
    "layout",
    "vectors",
    "refinements in training",
    "trained on, million tokens",
    "hours",
    "tokens of a text",
    "feedback passes",
    "tokens right",
    "texts exact",
)
FITS_COLUMNS = (
    "layout",
    "tokens",
    "texts",
    "recipe",
    "rate",
    "row-steps, random",
    "row-steps, encoder",
    "share",
    "exact, random",
    "exact, encoder",
    "solved a minute, random",
    "solved a minute, encoder",
    "times",
    "processor, threads",
)
RAW_COLUMNS = (
    "layout",
    "tokens",
    "texts",
    "source",
    "feedback passes",
    "token accuracy",
    "exact",
    "encode, ms",
    "decode, ms",
    "fit, ms",
    "times",
    "processor, threads",
)


def encoders(lm: FrozenLM, folders: tuple[str, ...] = ()) -> dict[str, Encoder]:
    """The encoders of the folders, or those that ship, by the hash of their weights."""
    found = {}
    for path in [Path(folder) / CONFIG for folder in folders] or sorted(SHIPPED.rglob(CONFIG)):
        encoder = Encoder.load(path.parent)
        try:
            encoder.check(lm)
        except FileError:
            if folders:
                raise
            continue
        found[encoder.config["weights_sha256"]] = encoder
    if not found:
        raise UsageError(f"no encoder for {lm.name!r} ships: name its folder with --checkpoint")
    return found


# Of the jobs: their encoders by the hash of the weights. Rows are published, so that jobs do not
# name folders of this machine.
ENCODERS: dict[str, Encoder] = {}


def jobs(config: Config) -> list[Job]:
    ENCODERS.update(encoders(config.texts.lm, config.checkpoints))
    found = []
    for weights, encoder in ENCODERS.items():
        lengths = [
            length
            for length in config.lengths((8, 16, 32), encoder.shape.layout)
            if length <= encoder.shape.max_length
        ]
        for length in lengths:
            for what, count in (("fits", config.count(8, 128)), ("raw", config.count(8, 1000))):
                texts = tuple(config.texts.passages(count, length))
                work = sum(
                    config.work(text, length, encoder.shape.layout) for text in texts[:FITTED]
                )
                values = {"what": what, "weights": weights}
                found.append(
                    Job(
                        "encoder_speed",
                        config.model,
                        texts,
                        encoder.shape.layout,
                        config.recipe,
                        config.seed,
                        values,
                        work,
                    )
                )
    return found


def run(job: Job, lm: FrozenLM) -> list[Row]:
    encoder = ENCODERS[job.values["weights"]]
    about = {
        "what": job.values["what"],
        "weights": job.values["weights"],
        "trained": encoder.config["trained"],
    }
    if job.values["what"] == "fits":
        row = prove(lm, encoder, [text.ids for text in job.texts], job.recipe)
        return [{**about, **row, "lr": job.recipe.lr, "rate": encoder.rate(row["length"])}]
    return [{**about, **row} for row in _zero_step(lm, encoder, job)]


def report(rows: list[Row]) -> Report:
    cells: dict[str, list[list]] = {"fits": [], "raw": []}
    for row in sorted(
        rows, key=lambda row: (row["layout"], row["length"], row.get("refinements", 0))
    ):
        cells[row["what"]].append(_of_fits(row) if row["what"] == "fits" else _of_zero_step(row))
    return Report(
        title=TITLE,
        tables=[
            Table(
                "shipped",
                SHIPPED_COLUMNS,
                _shipped(),
                "The encoders that ship, on texts that they were not trained on.",
            ),
            Table(
                "fits", FITS_COLUMNS, cells["fits"], "Fits of the same passages from both starts."
            ),
            Table(
                "raw",
                RAW_COLUMNS,
                cells["raw"],
                "Zero-step vectors against fits; seconds are for one passage.",
            ),
        ],
    )


def _timed(lm: FrozenLM, work: Callable[[], Any]) -> tuple[Any, float]:
    """What the work gives, and the seconds that it took."""
    wait(lm.device)
    began = time.monotonic()
    made = work()
    wait(lm.device)
    return made, time.monotonic() - began


def _zero_step(lm: FrozenLM, encoder: Encoder, job: Job) -> list[Row]:
    """A row for each number of refinements."""
    passages = [list(text.ids) for text in job.texts]
    part = passages[:FITTED]
    fitted, seconds = _timed(lm, lambda: fit(lm, part, layout=encoder.layout, recipe=job.recipe))
    rows = []
    for refinements in REFINEMENTS if encoder.shape.refinements else (0,):
        encoder.encodings(lm, passages[:8], refinements)  # the first pass is slower
        encodings, encoding = _timed(
            lm, lambda count=refinements: encoder.encodings(lm, passages, count)
        )
        solutions = judged(lm, encoder.layout, passages, encodings)
        decoded, decoding = _timed(lm, lambda made=solutions: decode_ids(lm, made).ids)
        passes = sum(one.feedback_passes for one in encodings) / len(passages)
        row = _zero_step_row(passages, decoded, encoding, decoding, fitted, seconds)
        rows.append(
            {
                **row,
                "recipe": job.recipe.name,
                "refinements": refinements,
                "looks": round(passes, 3),
            }
        )
    return rows


def _zero_step_row(
    passages: list[list[int]],
    decoded: list[list[int]],
    encoding: float,
    decoding: float,
    fitted: list[Solution],
    fitting: float,
) -> Row:
    """What came out, and the seconds that each way took."""
    length = len(passages[0])
    right = sum(
        a == b
        for ids, got in zip(passages, decoded, strict=True)
        for a, b in zip(ids, got, strict=True)
    )
    return {
        "length": length,
        "texts": len(passages),
        "accuracy": right / (len(passages) * length),
        "exact": sum(got == ids for ids, got in zip(passages, decoded, strict=True)),
        "encode_seconds": encoding / len(passages),
        "decode_seconds": decoding / len(passages),
        "fitted": len(fitted),
        "fitted_exact": sum(solution.exact for solution in fitted),
        "fit_seconds": fitting / len(fitted),
    }


def _shipped() -> list[list]:
    """The lines of the encoders that ship, from their folders."""
    cells = []
    for path in sorted(SHIPPED.rglob(CONFIG)):
        encoder = Encoder.load(path.parent)
        shape, trained = encoder.shape, encoder.config["trained"]
        about = [shape.layout, shape.vectors, shape.refinements]
        about += [trained["tokens"] / 1e6, trained["seconds"] / 3600]
        for row in encoder.config["held_out"]["rows"]:
            if row["length"] in SHOWN:
                exact = share(round(row["exact"] * row["texts"]), row["texts"])
                passes = f"{row.get('looks', 0):.1f}"
                cells.append([*about, row["length"], passes, f"{row['accuracy']:.1%}", exact])
    return cells


def _machine(row: Row) -> str:
    """The processor and threads of a row: rates of two machines are not compared."""
    return f"{row['machine']['processor']}, {row['machine']['threads']}"


def _of_fits(row: Row) -> list:
    random, encoder = row["random"], row["encoder"]
    pace = [60 * side["exact"] / side["seconds"] for side in (random, encoder)]
    return [
        row["layout"],
        row["length"],
        row["texts"],
        row["recipe"],
        row.get("rate", 1.0),
        random["row_steps"],
        encoder["row_steps"],
        encoder["row_steps"] / random["row_steps"],
        random["exact"],
        encoder["exact"],
        *pace,
        pace[1] / pace[0] if pace[0] else None,
        _machine(row),
    ]


def _of_zero_step(row: Row) -> list:
    whole = row["encode_seconds"] + row["decode_seconds"]
    return [
        row["layout"],
        row["length"],
        row["texts"],
        row["source"],
        f"{row.get('looks', 0):.1f}",
        f"{row['accuracy']:.1%}",
        share(row["exact"], row["texts"]),
        1000 * row["encode_seconds"],
        1000 * row["decode_seconds"],
        1000 * row["fit_seconds"],
        row["fit_seconds"] / whole,
        _machine(row),
    ]
