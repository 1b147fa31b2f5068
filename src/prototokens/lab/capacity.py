"""How long a prefix vectors can reproduce.

The climb up a grid of lengths, and what is recorded of where it ended.

The paper's protocol: of each text, the longest prefix on the grid that is reconstructed with at
least 0.99 of its tokens right. The climb goes up from the shortest and ends at the first length at
which no text is reproduced any more, so no length beyond the horizon costs its whole budget twice.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace

from prototokens.engine.decode import generate_from
from prototokens.errors import TextError
from prototokens.lab.job import Config, Fit, Fitted, Job, ModelFacts, Row, outcome
from prototokens.lab.passages import Passage
from prototokens.lab.texts import Texts
from prototokens.layout import MEMORY
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.measure import metrics
from prototokens.solution import Solution

SMOKE_GRID = (4, 8, 16, 32)
SHARING = "paper"  # the layout in which texts share an m

Tried = list[Solution]


def jobs_of(
    experiment: str,
    config: Config,
    texts: Texts,
    layouts: Sequence[str] = ("paper",),
    *,
    models: Sequence[tuple[ModelFacts, dict]] = (),
    shared: bool = False,
    smoke_grid: Sequence[int] = SMOKE_GRID,
    **values: object,
) -> list[Job]:
    """Jobs of climbs: one for each model, layout and text of a source.

    Experiments that climb ask for the same fits; `Job.same` says so, and a plan counts them once.

    Args:
        layouts: of the vectors; all climb the lengths that fit the context in each.
        models: and the values of their jobs; by default that of `config` alone.
        shared: also, where the layout `paper` is among them, one job in it for all texts together,
            which share an m.
        values: for every job. `lengths` are added, and with `shared` whether m is.
    """
    grid = config.pick(smoke_grid, metrics.GRID)
    lengths = min((config.lengths(grid, layout) for layout in layouts), key=len)
    if not lengths:
        return []
    found = _passages(config, texts, lengths)
    common = {"lengths": lengths, **values}
    plain = Job(experiment, config.model, recipe=config.recipe, seed=config.seed, values=common)

    def job(model: ModelFacts, some: Sequence[Passage], layout: str, extra: dict) -> Job:
        work = sum(texts.costs.climb(text.ids, lengths, layout, config.recipe) for text in some)
        bare = replace(plain, model=model, texts=tuple(some), layout=layout)
        same = replace(bare, experiment="climb", values={"lengths": lengths}).key
        return replace(bare, values={**common, **extra}, work=work, same=same)

    apart = {"shared": False} if shared else {}
    made = [
        job(model, [text], layout, {**apart, **extra})
        for model, extra in models or ((config.model, {}),)
        for layout in layouts
        for text in found
    ]
    if shared and found and SHARING in layouts:
        made.append(job(config.model, found, SHARING, {"shared": True}))
    return made


def _passages(config: Config, texts: Texts, lengths: list[int]) -> list[Passage]:
    """Texts as long as the longest length.

    At the scale `smoke`, where the user names no lengths, as long as the source has them: lengths
    beyond are taken off the list.

    Raises:
        TextError: the source does not hold so many texts.
    """
    given = config.scale != "smoke" or config.grid is not None
    while True:
        try:
            return texts.passages(config.count(3, 50), max(lengths))
        except TextError:
            if given or len(lengths) <= len(SMOKE_GRID):
                raise
        lengths.pop()


def climb(
    texts: Sequence[Passage],
    lengths: Sequence[int],
    job: Job,
    share: str | None = None,
    prefix: tuple[int, ...] | None = None,
) -> Generator[list[Fit], list[Fitted], list[Tried]]:
    """Fit longer and longer prefixes, for `yield from` in a `run`.

    Layout, recipe and seed are the job's.

    Args:
        texts: one; or, with `share`, all that share a vector.
        lengths: the grid, rising; lengths beyond a text's end are left out.
        prefix: token ids that stand before the vectors; None: the model's own.

    Returns:
        For each text, the solutions of the lengths that were tried, shortest first.
    """
    tried: list[Tried] = [[] for _ in texts]
    for length in lengths:
        if any(len(text.ids) < length for text in texts):
            break
        targets = tuple(text.ids[:length] for text in texts)
        (fitted,) = yield [Fit(targets, job.layout, job.recipe, job.seed, share, prefix=prefix)]
        for one, solution in zip(tried, fitted, strict=True):
            one.append(solution)
        if all(solution.accuracy < metrics.THRESHOLD for solution in fitted):
            break
    return tried


def longest_reproduced(tried: Tried) -> Solution | None:
    """The longest prefix that was reproduced."""
    return max(
        (one for one in tried if one.accuracy >= metrics.THRESHOLD),
        key=lambda one: one.length,
        default=None,
    )


def describe(lm: FrozenLM, text: Passage, tried: Tried, floats: float) -> Row:
    """A row's words on one text's climb.

    Args:
        floats: trained numbers that the text takes for itself: its share of shared vectors counted
            in.

    Returns:
        held: capacity length, the tokens of the longest prefix reproduced, 0 where none was;
        correct: how many of them are right; horizon: tokens of the longest prefix reproduced
        exactly; nats: information of the longest reproduced prefix under the model; exact, steps,
        margin, accuracy: of its solution; bits_per_float; bound: tokens that so many numbers could
        tell apart at the precision that the model reads them in (`metrics.bound`); share_of_bound;
        tried: length, accuracy and steps of every fit; ended: whether the climb ended at a length
        that was not reproduced, and not for want of text or grid. With memory vectors also
        greedy_exact and greedy_accuracy, of real decoding token by token.
    """
    surprisal = lm.surprisal(list(text.ids)).cpu()
    found = metrics.longest_prefix({one.length: one.right_tokens for one in tried}, surprisal)
    bits = 8 * lm.dtype.itemsize
    row = {
        "text": text.id,
        "text_hash": text.ids_hash,
        "held": found.length,
        "correct": found.correct,
        "horizon": max((one.length for one in tried if one.exact), default=0),
        "nats": found.nats,
        "floats": floats,
        "bits_per_float": metrics.bits_per_float(found.nats, floats),
        "bound": metrics.bound(floats, bits, lm.vocab_size),
        "share_of_bound": metrics.share_of_bound(found.correct, floats, bits, lm.vocab_size),
        "ended": bool(tried) and tried[-1].accuracy < metrics.THRESHOLD,
        "tried": [[one.length, one.accuracy, one.steps] for one in tried],
        "row_steps": sum(one.row_steps for one in tried),
    }
    if best := longest_reproduced(tried):
        row |= {
            name: value
            for name, value in outcome(best).items()
            if name in ("exact", "steps", "margin", "accuracy")
        }
        row |= greedy(lm, best)
    return row


def summary(rows: Sequence[Row]) -> metrics.Capacity:
    """Capacity over the rows of one source, by the paper's definition."""
    return metrics.capacity(
        [metrics.LongestPrefix(row["held"], row["correct"], row["nats"]) for row in rows]
    )


def lower_bounds(rows: Sequence[Row]) -> str:
    """How many climbs reproduced nothing, and how many ran out of lengths, in a sentence."""
    none, open_ended = sum(not row["held"] for row in rows), sum(not row["ended"] for row in rows)
    return (
        f"{none} of {len(rows)} climbs reproduced no prefix at all, and count with 0 nats;"
        f" {open_ended} reproduced the longest prefix that was tried: their figures are lower"
        " bounds"
    )


def greedy(lm: FrozenLM, solution: Solution) -> Row:
    """How real greedy decoding of memory vectors goes.

    Nothing for the one-step method, whose decoding is its scoring.
    """
    if not solution.layout.name.startswith(MEMORY):
        return {}
    (ids,) = generate_from(lm, [solution])
    right = sum(one == other for one, other in zip(ids, solution.ids, strict=True))
    return {"greedy_exact": right == solution.length, "greedy_accuracy": right / solution.length}
