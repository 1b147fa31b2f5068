"""Encode a text of any length: cut it, fit its chunks side by side, check that they decode, put them together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from prototokens.decoding import decode_text
from prototokens.encoder.encoder import Encoder
from prototokens.encoder.plan import plan_from
from prototokens.encoder.shipped import without_steps
from prototokens.encoder.starts import begin
from prototokens.engine.certify import threshold
from prototokens.engine.decode import decode_ids
from prototokens.engine.fit import fit
from prototokens.engine.inputs import OneStep
from prototokens.engine.progress import Progress
from prototokens.engine.quantise import quantise
from prototokens.errors import UsageError
from prototokens.fitting import prefix_of
from prototokens.layout import Layout
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.planning.chunks import MAX_HALVINGS, ChunkPlan
from prototokens.ptok.assemble import Precision, Record
from prototokens.ptok.encoded import EncodedText
from prototokens.ptok.repair import repair
from prototokens.ptok.sizes import sizes_of
from prototokens.ptok.source import Source, read_source
from prototokens.ptok.spans import Solved, Span, halves, left_by
from prototokens.recipe import Recipe
from prototokens.solution import Solution

INEXACT = ("halve", "patch", "keep")


def encode(
    lm: FrozenLM,
    text: str | bytes | Source,
    *,
    layout: str | Layout = "auto",
    chunk_length: int | None = None,
    vectors: int | Literal["auto"] | None = None,
    recipe: str | Recipe = "fast",
    seed: int = 0,
    share: str | None = None,
    prefix: str | Sequence[int] = "auto",
    start: str | Encoder = "auto",
    rows: int | None = None,
    plan: ChunkPlan | None = None,
    progress: Callable[[Progress], None] | None = None,
    kept: Solved | None = None,
    certify: str = "standard",
    inexact: str | None = None,
    bits: int | Literal["auto"] = 32,
    said: Callable[[str], None] | None = None,
) -> EncodedText:
    """Turn a text into vectors.

    Args:
        text: or bytes, of any kind: what is no UTF-8, and what the tokenizer changes, is set right
            by edits in the file; or what `read_source` has made of it with this model.
        layout: an arrangement of every chunk, or `auto`.
        chunk_length: tokens of every chunk but the last; by default cut by the text's information
            (`plan_chunks`).
        vectors: of a chunk, in place of a layout; `auto` chooses their number by the forecast
            (`plan_chunks`).
        share: one e (or one m) for all chunks; such a text is solved as a whole or not at all, and
            its chunks are not halved.
        prefix: token ids that stand before the vectors of every chunk, as `fit` takes them.
        start: where the vectors begin: `random`; `encoder`, the one that ships for this model;
            `auto`, that one where it has proved to save time; or an encoder (`encoder.starts`). A
            chunk that has failed is tried again at random. Shared vectors always begin at random.
        plan: where to cut, as `plan_from` gave it; then `layout`, `chunk_length` and `vectors` are
            not looked at.
        progress: called after every step, as `fit` does.
        kept: spans solved before; new ones are added as they are solved, so that a caller can save
            them when interrupted. Not looked at where a vector is shared: spans that were solved
            apart do not share it.
        certify: `standard` goes on until every margin withstands other batch shapes, kernels and
            dtypes, and tries the most different of them on the result; `strict` tries the whole
            decode matrix; `none` stops at the recipe's own margin.
        inexact: what becomes of a chunk that is not exact within its steps. `halve`: its halves are
            tried again, and what is not exact in the end is patched; `patch`: its wrong tokens go
            into the file as they are, or all of its tokens where that is shorter; `keep`: it stays
            as it is. By default `halve`, and `patch` for a recipe without steps.
        bits: of each number of the vectors in the file: 32, 16, 1 to 8, or `auto`: the fewest that
            stay exact, for each chunk. A chunk that is not exact in so many takes more
            (`engine.quantise`).
        said: called with a sentence about the starts.

    Returns:
        The encoded text; `.exact` says whether it decodes to the text, checked by decoding it.

    Raises:
        TextError: an empty text, or one that the tokenizer has no token for.
        UsageError: an option that cannot be meant, or a plan of another text.
    """
    recipe = Recipe.named(recipe)
    inexact = _inexact(inexact, recipe)
    source = text if isinstance(text, Source) else read_source(lm, text)
    start = "random" if share and start == "auto" else start
    start = without_steps(lm, start, plan.layout if plan else layout, vectors, recipe)
    plan = plan or plan_from(
        lm, source.ids, start, layout, chunk_length, vectors, recipe, prefix_of(lm, prefix, recipe)
    )
    recipe = certified_recipe(lm, recipe, certify, plan.layout)
    if sum(plan.lengths) != len(source.ids):
        raise UsageError(
            f"the plan is for {sum(plan.lengths)} tokens and the text has {len(source.ids)}: give"
            " its own plan"
        )
    if share == "e":
        _check_first_tokens(plan, source.ids)
    tries = 1 if share or inexact != "halve" else MAX_HALVINGS + 1
    work = _Work(lm, source.ids, plan.layout, recipe, seed, share, start, rows, progress, said)
    solutions, row_steps = _solve(work, plan.spans(), {} if kept is None or share else kept, tries)
    chosen = quantise(lm, solutions, bits, recipe, share=share, rows=rows, progress=progress)
    repaired = repair(
        lm, [one.solution for one in chosen], certify, source.edits, patches=inexact != "keep"
    )
    encoded = EncodedText.of(
        lm,
        source.content,
        [one.solution for one in chosen],
        recipe=recipe,
        share={None: None, "e": 0, "m": 1}[share],
        extras=repaired.extras,
        precision=None
        if all(one.bits == 32 for one in chosen)
        else Precision([one.bits for one in chosen], [one.grid for one in chosen]),
        record=Record(
            row_steps=row_steps + sum(one.row_steps for one in chosen),
            certificate=repaired.certificate,
            least_margin=repaired.least,
            sizes=sizes_of(lm, source),
        ),
    )
    # What decodes, not what was fitted, settles whether it is exact.
    return replace(encoded, header=replace(encoded.header, exact=decode_text(lm, encoded).matches))


@dataclass(frozen=True)
class _Work:
    """What every attempt at a text has in common; fields as the arguments of `encode`."""

    lm: FrozenLM
    ids: list[int]
    layout: Layout
    recipe: Recipe
    seed: int
    share: str | None
    start: str | Encoder
    rows: int | None
    progress: Callable[[Progress], None] | None
    said: Callable[[str], None] | None


def _solve(work: _Work, cut: list[Span], kept: Solved, tries: int) -> tuple[list[Solution], int]:
    """Fit the chunks, and the halves of those that fail, so many times in all.

    `kept` gets each that is exact.

    Returns:
        The solutions in the order of the text, exact or not, and the row-steps they took, those of
        `kept` among them.
    """
    spans = [part for span in cut for part in left_by(span, kept)]
    failed: Solved = {}
    row_steps = sum(kept[span].row_steps for span in spans if span in kept)
    for attempt in range(tries):
        spans = [part for span in spans for part in (halves(span) if span in failed else [span])]
        waiting = [span for span in spans if span not in kept]

        def keep(order: int, solution: Solution, waiting: list[Span] = waiting) -> None:
            (kept if solution.exact_where_scored else failed)[waiting[order]] = solution

        targets = [work.ids[span.start : span.end] for span in waiting]
        begun = begin(
            work.lm,
            targets,
            work.layout,
            work.start if attempt == 0 else "random",
            work.recipe.margin,
        )
        if work.said and attempt == 0 and waiting:
            work.said(begun.words)
        solutions = fit(
            work.lm,
            targets,
            OneStep(work.layout),
            work.recipe,
            seed=work.seed + attempt,
            share=work.share,
            starts=begun.starts,
            rows=work.rows,
            progress=work.progress,
            finished=keep,
        )
        row_steps += sum(solution.row_steps for solution in solutions)
        if _all_decode(work.lm, spans, kept, failed):
            break
    return [kept.get(span) or failed[span] for span in spans], row_steps


def _inexact(given: str | None, recipe: Recipe) -> str:
    """What is to become of a chunk that is not exact.

    Raises:
        UsageError: no such way.
    """
    if given is None:
        return "halve" if recipe.steps else "patch"
    if given not in INEXACT:
        raise UsageError(f"inexact must be one of {', '.join(INEXACT)}, not {given!r}")
    return given


def certified_recipe(
    lm: FrozenLM, recipe: str | Recipe, level: str, layout: Layout | None = None
) -> Recipe:
    """The recipe with the margin that a certificate of this level asks for, where its own is less.

    Args:
        layout: of the vectors, with the prefix that stands before them.

    Raises:
        UsageError: no such recipe or level.
    """
    recipe = Recipe.named(recipe)
    return replace(recipe, margin=max(recipe.margin, round(threshold(lm, level, layout).margin, 6)))


def _check_first_tokens(plan: ChunkPlan, ids: list[int]) -> None:
    """Refuse what cannot be: under causal attention, an e that all chunks share gives each of them the same output."""
    starts = [span.start for span in plan.spans()]
    if int(plan.layout.scored(1)[0]) == 0 and len({ids[start] for start in starts}) > 1:
        raise UsageError(
            f"with layout {plan.layout.name!r} the first token of a chunk is read from e alone, so"
            " one e for all chunks cannot"
            " hold chunks that begin with different tokens: choose layout 'free', which does not"
            " read it, or share m"
        )


def _all_decode(lm: FrozenLM, spans: list[Span], kept: Solved, failed: Solved) -> bool:
    """Whether all spans decode exactly.

    What decodes, not what the fit says, settles which are kept and which have failed.
    """
    solutions = [kept.get(span) or failed[span] for span in spans]
    for span, solution, got in zip(spans, solutions, decode_ids(lm, solutions).ids, strict=True):
        decoded = replace(
            solution,
            correct=sum(
                token == right
                for place, (token, right) in enumerate(zip(got, solution.ids, strict=True))
                if place not in solution.excluded
            ),
        )
        right, wrong = (kept, failed) if decoded.exact_where_scored else (failed, kept)
        right[span] = decoded
        wrong.pop(span, None)
    return all(span in kept for span in spans)
