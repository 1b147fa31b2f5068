"""From the texts of a shard to its file: fit side by side, round, decode, certify."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, NamedTuple

from prototokens.corpus.meta import Totals
from prototokens.corpus.options import Settings
from prototokens.corpus.schema import VERSION, Rows, Shape, to_parquet
from prototokens.corpus.tasks import Task
from prototokens.encoder.start_option import start_of
from prototokens.engine.certify import certify
from prototokens.engine.decode import decode_ids
from prototokens.engine.progress import Progress
from prototokens.engine.quantise import Quantised, polish_recipe, rounded
from prototokens.fitting import fit
from prototokens.lab.passages import without_folders
from prototokens.lab.texts import sampled
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.solution import Chunk, Solution

BITS = {"float32": 32, "float16": 16, "int8": 8}


class Made(NamedTuple):
    """A shard's file, and sums over its rows."""

    shard: int
    content: bytes
    totals: Totals


class FittedRow(NamedTuple):
    """What one fit gave, as it is stored."""

    stored: Quantised
    exact: bool
    certificate: str


class Worker:
    """Makes shards with a model that it holds."""

    def __init__(self, lm: FrozenLM, settings: Settings):
        """The start is looked up here, on the machine that fits.

        Raises:
            FileError: the start's encoder is not here.
        """
        self.lm, self.settings = lm, settings
        self.start = start_of(settings.start)

    def make(self, task: Task, progress: Callable[[Progress], None] | None = None) -> Made:
        """The file of a shard.

        Rows of the same ids have the same vectors and are fitted once.
        """
        began = time.perf_counter()
        ids = self._ids(task)
        distinct = list(dict.fromkeys(ids))
        rows = dict(zip(distinct, self.fit_rows(distinct, progress), strict=True))
        found = [rows[one] for one in ids]
        fitted = [rows[one].stored.solution for one in distinct]
        totals = Totals(
            rows=len(ids),
            tokens=sum(map(len, ids)),
            exact=sum(row.exact for row in found),
            certified=sum(row.certificate != "none" for row in found),
            row_steps=sum(one.row_steps for one in fitted),
            position_steps=sum(one.row_steps * one.length for one in fitted),
            duplicates=len(ids) - len(distinct),
            empty=task.empty,
            seconds=round(time.perf_counter() - began, 3),
        )
        settings = self.settings
        shape = Shape(settings.layout.vectors, self.lm.d_model, settings.values)
        facts = facts_of(task, totals)
        return Made(task.shard, to_parquet(shape, self._columns(task, ids, found), facts), totals)

    def _ids(self, task: Task) -> list[tuple[int, ...]]:
        """The ids of the rows; of the model's own samples, they are drawn now."""
        given = [piece.ids for piece in task.pieces]
        if not task.generate:
            return given
        seeds = [str(self.settings.seed)] * len(given)
        return sampled(self.lm, given, self.settings.length, seeds)

    def fit_rows(
        self, ids: list[tuple[int, ...]], progress: Callable[[Progress], None] | None
    ) -> list[FittedRow]:
        """Fit the ids; what is stored is decoded, which decides what is exact."""
        settings, lm = self.settings, self.lm
        solutions = fit(
            lm,
            [list(one) for one in ids],
            layout=settings.layout,
            prefix=settings.layout.prefix or "none",
            recipe=settings.recipe,
            seed=settings.seed,
            start=self.start,
            progress=progress,
        )
        stored = self._rounded(solutions)
        decoded = decode_ids(lm, [one.solution for one in stored]).ids
        exact = [tuple(got) == one for got, one in zip(decoded, ids, strict=True)]
        levels = self._levels([one.solution for one in stored], exact)
        return [FittedRow(*one) for one in zip(stored, exact, levels, strict=True)]

    def _rounded(self, solutions: list[Solution]) -> list[Quantised]:
        """Solutions in the type that they are stored in; row-steps include those of repairs."""
        bits, recipe = BITS[self.settings.values], polish_recipe(self.settings.recipe)
        if bits == 32:
            return [Quantised(one, bits) for one in solutions]
        found: dict[int, Quantised] = {}
        # What was not exact before it was rounded is not worth the steps of a repair.
        for exact in (True, False):
            part = [n for n, one in enumerate(solutions) if one.exact_where_scored == exact]
            moving = recipe if exact else replace(recipe, steps=0)
            some = rounded(self.lm, [solutions[n] for n in part], [bits] * len(part), moving)
            for number, one in zip(part, some, strict=True):
                steps = one.solution.row_steps + one.row_steps
                found[number] = one._replace(solution=replace(one.solution, row_steps=steps))
        return [found[number] for number in range(len(solutions))]

    def _levels(self, solutions: list[Solution], exact: list[bool]) -> list[str]:
        """The certificate that each row has passed, or `none`."""
        level = self.settings.certify
        found = ["none"] * len(solutions)
        tried = [number for number, right in enumerate(exact) if right]
        if level == "none" or not tried:
            return found
        chunks = [
            Chunk.of(one.protos, one.layout, one.ids) for one in (solutions[n] for n in tried)
        ]
        _, weak = certify(self.lm, chunks, level)
        for number, positions in zip(tried, weak, strict=True):
            found[number] = "none" if positions else level
        return found

    def _columns(self, task: Task, ids: list[tuple[int, ...]], found: list[FittedRow]) -> Rows:
        """The rows of the file."""
        solutions = [row.stored.solution for row in found]
        pieces, count = task.pieces, len(found)
        columns: dict[str, list[Any]] = {
            "row": list(range(task.first_row, task.first_row + count)),
            "id": [f"{one.document}/{one.part}" for one in pieces],
            "source": [without_folders(self.settings.source)] * count,
            "document": [one.document for one in pieces],
            "part": [one.part for one in pieces],
            "parts": [one.parts for one in pieces],
            "verbatim": [one.verbatim for one in pieces],
            "text": [self.lm.detokenize(one) for one in ids],
            "ids": [list(one) for one in ids],
            "correct": [one.correct for one in solutions],
            "margin": [one.margin for one in solutions],
            "steps": [one.steps for one in solutions],
            "row_steps": [one.row_steps for one in solutions],
            "exact": [row.exact for row in found],
            "certificate": [row.certificate for row in found],
        }
        grids = [row.stored.grid for row in found]
        return Rows(
            columns, [one.protos for one in solutions], [one for one in grids if one is not None]
        )


def facts_of(task: Task, totals: Totals) -> dict[str, Any]:
    """What a shard says of itself in its footer."""
    return {
        "schema": VERSION,
        "shard": task.shard,
        "first_row": task.first_row,
        "extent": task.extent._asdict(),
        "totals": asdict(totals),
    }
