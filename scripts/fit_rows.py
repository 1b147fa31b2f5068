"""Passages fitted side by side, a row for each as it ends: what held_share.py and map_front.py write."""

from __future__ import annotations

import hashlib
import json

import torch

import prototokens as pt
from row_files import Row, RowFile


def about(lm: pt.FrozenLM, ids: list[int], layout: str, recipe: pt.Recipe, seed: int, **more: object) -> Row:
    """What is known of a row before the fit: all that determines it, and `more`."""
    return {
        "model": lm.name,
        **more,
        "fingerprint": lm.fingerprint,
        "dtype": str(lm.dtype).removeprefix("torch."),
        "layout": layout,
        "recipe": json.loads(json.dumps(recipe.as_dict())),  # tuples as a file gives them back
        "seed": seed,
        "length": len(ids),
        "ids_sha256": hashlib.sha256(json.dumps(ids).encode()).hexdigest(),
    }


def fit_rows(lm: pt.FrozenLM, jobs: list[tuple[list[int], Row]], rows: RowFile) -> None:
    """Fit the passages of one cell that have no row yet, and append their rows.

    Args:
        jobs: ids, and what `about` says of them: alike in layout, recipe and seed.
    """
    jobs = [(ids, row) for ids, row in jobs if not rows.done(row)]
    if not jobs:
        return
    latest: list[pt.Progress] = []

    def write(order: int, solution: pt.Solution) -> None:
        nats = lm.surprisal(list(solution.ids)).double()
        now = latest[-1]
        outcome = {
            # What decodes, not what the fit says.
            "exact": pt.decode_ids(lm, [solution]).ids[0] == list(solution.ids),
            "correct": solution.correct,
            "steps": solution.steps,
            "row_steps": solution.row_steps,
            "margin": round(solution.margin, 5),
            "nats": round(float(nats.sum()), 4),
            "nats_max": round(float(nats.max()), 4),
            "nats_sd": round(float(nats.std(correction=0)), 4),
            "vectors": solution.protos.shape[0],
            "floats": solution.protos.numel(),
            "vocabulary": lm.vocab_size,
            # Of the time of the rows that ran side by side, the part that fell to this one.
            "seconds": round(solution.row_steps * now.seconds / now.row_steps, 3),
            "threads": torch.get_num_threads(),
            "versions": {"prototokens": pt.__version__, "torch": torch.__version__},
        }
        rows.append({**jobs[order][1], **outcome})

    first = jobs[0][1]
    pt.fit(
        lm,
        [ids for ids, _ in jobs],
        layout=first["layout"],
        recipe=pt.Recipe.from_dict(first["recipe"]),
        seed=first["seed"],
        progress=lambda now: latest.__setitem__(slice(None), [now]),
        finished=write,
    )
