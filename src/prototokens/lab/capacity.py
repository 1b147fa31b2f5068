"""How long a prefix vectors can hold: the climb up a grid of lengths, and what is said of where it ended.

The paper's protocol: of each text, the longest prefix on the grid that is reconstructed with at least 0.99 of its tokens right.
The climb goes up from the shortest and ends at the first length at which no text is held any more, so no length beyond the
horizon costs its whole budget twice.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence

from prototokens.engine.decode import generate_from
from prototokens.frozen_lm import FrozenLM
from prototokens.lab.job import Fit, Fitted, Job, Passage, Row, outcome
from prototokens.lab.models import MEMORY
from prototokens.solution import Solution

# The paper's lengths, in tokens.
GRID = (4, 5, 8, 11, 16, 22, 32, 45, 64, 90, 128, 181, 256, 362, 512, 724, 1024, 1448)
HELD = 0.99  # accuracy from which a prefix counts as held

Tried = list[Solution]


def climb(
    texts: Sequence[Passage], lengths: Sequence[int], job: Job, share: str | None = None
) -> Generator[list[Fit], list[Fitted], list[Tried]]:
    """Fit longer and longer prefixes, for `yield from` in a `run`; layout, recipe and seed are the job's.

    Args:
        texts: one; or, with `share`, all that share a vector.
        lengths: the grid, rising; lengths beyond a text's end are left out.

    Returns:
        For each text, the solutions of the lengths that were tried, shortest first.
    """
    tried: list[Tried] = [[] for _ in texts]
    for length in lengths:
        if any(len(text.ids) < length for text in texts):
            break
        targets = tuple(text.ids[:length] for text in texts)
        (fitted,) = yield [Fit(targets, job.layout, job.recipe, job.seed, share)]
        for one, solution in zip(tried, fitted, strict=True):
            one.append(solution)
        if all(solution.accuracy < HELD for solution in fitted):
            break
    return tried


def held(tried: Tried) -> Solution | None:
    """The longest that was held."""
    return max((one for one in tried if one.accuracy >= HELD), key=lambda one: one.length, default=None)


def describe(lm: FrozenLM, text: Passage, tried: Tried, floats: float) -> Row:
    """A row's words on one text's climb.

    Args:
        floats: trained numbers that the text takes for itself: its share of shared vectors counted in.

    Returns:
        held: tokens of the longest prefix held, 0 where none was; horizon: the same of those held exactly; nats: information of
        the longest held under the model; exact, steps, margin:
        of its solution; bits_per_float; bound: tokens that so many numbers could tell apart at the precision that the model
        reads them in, floats x bits / log2(vocabulary); share_of_bound; tried: length, accuracy and steps of every fit; ended:
        whether the climb ended at a length that was not held, and not for want of text or grid. With memory vectors also
        greedy_exact and greedy_accuracy, of real decoding token by token.
    """
    best = held(tried)
    nats = float(lm.surprisal(list(best.ids)).double().sum()) if best else 0.0
    bound = floats * 8 * lm.dtype.itemsize / math.log2(lm.vocab_size)
    tokens = best.length if best else 0
    row = {
        "text": text.id,
        "text_hash": text.ids_hash,
        "held": tokens,
        "horizon": max((one.length for one in tried if one.exact), default=0),
        "nats": nats,
        "floats": floats,
        "bits_per_float": nats / math.log(2) / floats,
        "bound": bound,
        "share_of_bound": tokens / bound,
        "ended": bool(tried) and tried[-1].accuracy < HELD,
        "tried": [[one.length, one.accuracy, one.steps] for one in tried],
        "row_steps": sum(one.row_steps for one in tried),
    }
    if best:
        row |= {name: value for name, value in outcome(best).items() if name in ("exact", "steps", "margin", "accuracy")}
        row |= greedy(lm, best)
    return row


def greedy(lm: FrozenLM, solution: Solution) -> Row:
    """How real greedy decoding of memory vectors goes; nothing for the one-step method, whose decoding is its scoring."""
    if not solution.layout.name.startswith(MEMORY):
        return {}
    (ids,) = generate_from(lm, [solution])
    right = sum(one == other for one, other in zip(ids, solution.ids, strict=True))
    return {"greedy_exact": right == solution.length, "greedy_accuracy": right / solution.length}
