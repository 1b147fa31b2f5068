"""Encode a text of any length: cut it, fit its chunks side by side, and check that they decode."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Unpack

from prototokens._util.option_fields import from_keywords
from prototokens.decoding import decode_text
from prototokens.encoder.encoder import Encoder
from prototokens.encoder.plan import plan_with_encoder
from prototokens.encoder.shipped import without_steps
from prototokens.encoder.starts import begin
from prototokens.engine.certify import threshold
from prototokens.engine.decode import decode_ids
from prototokens.engine.fit import fit
from prototokens.engine.inputs import OneStep
from prototokens.engine.progress import Progress
from prototokens.engine.quantise import Quantised, quantise
from prototokens.engine.rows import Init
from prototokens.errors import UsageError
from prototokens.fitting import prefix_of
from prototokens.layout import DEFAULT_VECTORS, Layout, keyed
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.lm.release import check_usable
from prototokens.lm.untrained import untrained
from prototokens.options import INEXACT, EncodeKeywords, EncodeOptions
from prototokens.planning.chunks import MAX_HALVINGS, ChunkPlan
from prototokens.ptok.assemble import Precision, Record
from prototokens.ptok.encoded import EncodedText
from prototokens.ptok.repair import repair
from prototokens.ptok.sizes import sizes_of
from prototokens.ptok.source import Source, read_source
from prototokens.ptok.spans import Solved, Span, halves, left_by
from prototokens.recipe import Recipe
from prototokens.solution import Solution

# Tokens whose lead over another cannot exceed this many margins are patched: they could be fitted,
# at the cost of many steps, and a patch takes a few bytes.
PATCH_SLACK = 8.0


def encode(
    lm: FrozenLM,
    text: str | bytes | Source,
    *,
    plan: ChunkPlan | None = None,
    kept: Solved | None = None,
    progress: Callable[[Progress], None] | None = None,
    log: Callable[[str], None] | None = None,
    **options: Unpack[EncodeKeywords],
) -> EncodedText:
    """Turn a text into vectors.

    Args:
        lm: the frozen model.
        text: a text, or bytes of any kind: bytes that are not UTF-8, or that the tokenizer changes,
            are restored by edits in the file; or the result of `read_source` with this model.
        plan: where to cut, as `plan_chunks` gives it; then `layout`, `chunk_length` and `vectors`
            are ignored.
        kept: spans solved before; new ones are added as they are solved, so that a caller can save
            them when interrupted. Ignored where a vector is shared: spans that were solved
            apart do not share it.
        progress: called after every step, as `fit` does.
        log: called with a sentence about the starts.
        options: `layout`, `chunk_length`, `vectors`, `recipe`, `seed`, `share`, `prefix`, `start`,
            `rows`, `certify`, `inexact`, `bits`: see `EncodeOptions`.

    Returns:
        The encoded text; `.exact` says whether it decodes to the text, checked by decoding it.

    Raises:
        TextError: an empty text, or one that the tokenizer has no token for.
        UsageError: an option with an impossible value, or a plan of another text.
        TypeError: an option that does not exist.
    """
    check_usable(lm, "encode")
    given = from_keywords(EncodeOptions, "encode", options)
    return plan_encoding(lm, text, given, plan).run(kept=kept, progress=progress, log=log)


def plan_encoding(
    lm: FrozenLM,
    text: str | bytes | Source,
    options: EncodeOptions | None = None,
    plan: ChunkPlan | None = None,
) -> PlannedEncoding:
    """Read a text, cut it and settle how it is fitted, before a step is taken.

    Args:
        text, plan: as `encode` takes them.
        options: by default those of `encode`.

    Raises:
        TextError, UsageError: as `encode`.
    """
    options = options or EncodeOptions()
    recipe = options.resolve_recipe()
    inexact = _inexact(options.inexact, recipe)
    source = text if isinstance(text, Source) else read_source(lm, text)
    layout = plan.layout if plan else options.resolve_layout()
    start = "random" if options.share and options.start == "auto" else options.start
    start = without_steps(lm, start, layout, options.vectors, recipe)
    if isinstance(start, Encoder) and options.prefix == "auto":
        prefix = start.shape.prefix
    else:
        prefix = prefix_of(lm, options.prefix, recipe)
    if plan is None:
        asked = recipe
        # A plan depends on the margin only by the tokens that it leaves to patches. To measure the
        # margin takes forward passes, and layouts ask for nearly the same.
        if untrained(lm, source.ids, math.inf):
            shape = layout or keyed(DEFAULT_VECTORS)
            asked = certified_recipe(lm, recipe, options.certify, shape.with_prefix(prefix))
        length, vectors = options.chunk_length, options.vectors
        plan = plan_with_encoder(lm, source.ids, start, layout, length, vectors, asked, prefix)
    if sum(plan.lengths) != len(source.ids):
        raise UsageError(
            f"the plan is for {sum(plan.lengths)} tokens and the text has {len(source.ids)}: give"
            " its own plan"
        )
    if options.share == "e":
        _check_first_tokens(plan, source.ids)
    recipe = certified_recipe(lm, recipe, options.certify, plan.layout)
    settled = replace(options, layout=plan.layout, recipe=recipe, start=start, inexact=inexact)
    return PlannedEncoding(lm, source, plan, recipe, settled)


@dataclass(frozen=True)
class PlannedEncoding:
    """A text that is cut, and everything that its fit depends on.

    Attributes:
        lm: the frozen model.
        source: the text with its ids.
        plan: where it is cut, and the cost forecast.
        recipe: with the margin that the certificate asks for.
        options: with the layout of the plan, this recipe, and the start and the way of treating
            inexact chunks that the defaults stand for.
    """

    lm: FrozenLM
    source: Source
    plan: ChunkPlan
    recipe: Recipe
    options: EncodeOptions

    def run(
        self,
        *,
        kept: Solved | None = None,
        progress: Callable[[Progress], None] | None = None,
        log: Callable[[str], None] | None = None,
    ) -> EncodedText:
        """Fit the chunks, and put the encoded text together; arguments as of `encode`."""
        lm, options = self.lm, self.options
        known = {} if kept is None or options.share else kept
        solutions, row_steps = self._solve(known, progress, log)
        rounded = quantise(
            lm,
            solutions,
            options.bits,
            self.recipe,
            share=options.share,
            rows=options.rows,
            progress=progress,
        )
        encoded = self._assembled(rounded, row_steps + sum(one.row_steps for one in rounded))
        # Whether it is exact is decided by decoding it, not by the fit.
        exact = decode_text(lm, encoded).matches
        return replace(encoded, header=replace(encoded.header, exact=exact))

    def _assembled(self, rounded: list[Quantised], row_steps: int) -> EncodedText:
        """The encoded text, certified, with patches for tokens that vectors cannot reproduce."""
        solutions = [one.solution for one in rounded]
        repaired = repair(
            self.lm,
            solutions,
            self.options.certify,
            self.source.edits,
            patches=self.options.inexact != "keep",
        )
        whole = all(one.bits == 32 for one in rounded)
        return EncodedText.of(
            self.lm,
            self.source.content,
            solutions,
            recipe=self.recipe,
            share={None: None, "e": 0, "m": 1}[self.options.share],
            extras=repaired.extras,
            precision=None
            if whole
            else Precision([one.bits for one in rounded], [one.grid for one in rounded]),
            record=Record(
                row_steps=row_steps,
                certificate=repaired.certificate,
                least_margin=repaired.least,
                sizes=sizes_of(self.lm, self.source),
            ),
        )

    def _solve(
        self,
        kept: Solved,
        progress: Callable[[Progress], None] | None,
        log: Callable[[str], None] | None,
    ) -> tuple[list[Solution], int]:
        """Fit the chunks, and the halves of those that fail, `MAX_HALVINGS` times at most.

        `kept` gets each that is exact.

        Returns:
            The solutions in the order of the text, exact or not, and the row-steps they took, those
            of `kept` among them.
        """
        spans = [part for span in self.plan.spans() for part in left_by(span, kept)]
        failed: Solved = {}
        row_steps = sum(kept[span].row_steps for span in spans if span in kept)
        halving = self.options.inexact == "halve" and not self.options.share
        for attempt in range(MAX_HALVINGS + 1 if halving else 1):
            spans = [
                part for span in spans for part in (halves(span) if span in failed else [span])
            ]
            waiting = [span for span in spans if span not in kept]

            def keep(order: int, solution: Solution, waiting: list[Span] = waiting) -> None:
                (kept if solution.exact_where_scored else failed)[waiting[order]] = solution

            targets = [self.source.ids[span.start : span.end] for span in waiting]
            solutions = fit(
                self.lm,
                targets,
                OneStep(self.plan.layout),
                self.recipe,
                self._init(targets, attempt, log),
                rows=self.options.rows,
                progress=progress,
                finished=keep,
            )
            row_steps += sum(solution.row_steps for solution in solutions)
            if _all_decode(self.lm, spans, kept, failed):
                break
        return [kept.get(span) or failed[span] for span in spans], row_steps

    def _init(
        self, targets: list[list[int]], attempt: int, log: Callable[[str], None] | None
    ) -> Init:
        """Where the chunks of an attempt begin: those after the first begin at random."""
        start = "random" if attempt else self.options.start
        begun = begin(
            self.lm,
            targets,
            self.plan.layout,
            start,
            self.recipe.margin,
            fits=self.recipe.steps > 0,
        )
        if log and targets and not attempt:
            log(begun.words)
        return Init(self.options.seed + attempt, self.options.share, begun.starts)


def _inexact(given: str | None, recipe: Recipe) -> str:
    """How a chunk is treated that is not exact.

    Raises:
        UsageError: no such way.
    """
    if given is None:
        return "halve" if recipe.steps else "patch"
    if given not in INEXACT:
        raise UsageError(f"inexact must be one of {', '.join(INEXACT)}, not {given!r}")
    return given


def certified_recipe(
    lm: FrozenLM, recipe: Recipe, level: str, layout: Layout | None = None
) -> Recipe:
    """The recipe of a text that is encoded.

    Its margin is what a certificate of this level asks for, where its own is less, and tokens that
    a patch holds at less cost than vectors are left to patches.

    Args:
        layout: of the vectors, with the prefix that stands before them.

    Raises:
        UsageError: no such level.
    """
    margin = max(recipe.margin, round(threshold(lm, level, layout).margin, 6))
    slack = recipe.untrained_slack and max(recipe.untrained_slack, PATCH_SLACK)
    return replace(recipe, margin=margin, untrained_slack=slack)


def _check_first_tokens(plan: ChunkPlan, ids: list[int]) -> None:
    """Refuse an e for chunks that begin with different tokens.

    Under causal attention, an e that all chunks share gives each of them the same output.

    Raises:
        UsageError: the first token is read from e alone, and the chunks begin differently.
    """
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

    Decoding, not the fit, decides which are solved and which have failed.
    """
    solutions = [kept.get(span) or failed[span] for span in spans]
    for span, solution, got in zip(spans, solutions, decode_ids(lm, solutions).ids, strict=True):
        decoded = replace(
            solution,
            correct=sum(
                token == right
                for position, (token, right) in enumerate(zip(got, solution.ids, strict=True))
                if position not in solution.excluded
            ),
        )
        right, wrong = (kept, failed) if decoded.exact_where_scored else (failed, kept)
        right[span] = decoded
        wrong.pop(span, None)
    return all(span in kept for span in spans)
