"""What an experiment is made of: passages, fits, jobs and rows.

Also the settings that jobs are made from.

An experiment is a module of `lab.experiments` with four names:

    TITLE: str                                   one line, for lists and for the head of the report
    def jobs(config: Config) -> list[Job] what is to be done, in full, before anything is done def
    run(job: Job, lm: FrozenLM) one job: gives its rows (below) def report(rows: list[Row]) ->
    Report tables and figures, from the rows alone

`run` gets a job and the model that `job.model` names. It is either a plain function that returns a
list of rows, or, where it needs solutions, a generator that asks for them and returns the rows at
its end:

    def run(job: Job, lm: FrozenLM) -> Run:
        fits = [Fit.one(text.ids, recipe=job.recipe, seed=job.seed) for text in job.texts] fitted =
        yield fits # one tuple of Solutions for each Fit, one Solution for each of its targets
        return [{"text": text.id, "length": len(text.ids), **outcome(solution)} for text,
        (solution,) in zip(job.texts, fitted)]

A generator may ask again and again, and decide by what it got. The runner puts what all jobs ask
for side by side into one engine, keeps every solution on disk under the fit's key the moment it is
found, and returns one that is there already instead of fitting it again, whichever experiment
asked first. So `run` must do the same whenever it is called with the same
job: a job that was killed is run again from its beginning, and its finished fits cost nothing.

A row holds what the experiment measured, as plain JSON values with plain names. `lab.records` adds
the rest: the job's key, experiment, texts, recipe, layout and seed of the job, the model with its
fingerprint, seconds, machine, versions, git.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from prototokens.lab.passages import Passage, content_hash
from prototokens.recipe import Recipe

if TYPE_CHECKING:
    from prototokens.lab.texts import Texts
    from prototokens.solution import Solution

Row = dict[str, Any]
T = TypeVar("T")

SCALES = ("smoke", "paper")


@dataclass(frozen=True)
class ModelFacts:
    """A model as jobs and rows name it; `lab.models.facts` takes it from a loaded one.

    Attributes:
        name: "builtin", a folder, a hub id, or `random:` before one of them: the same shape with
            random weights.
        revision: commit on the hub, or None.
        fingerprint: hash of the weights; with `dtype`, what decides a result.
        max_context: most input positions, or None where there is no limit.
        flops: floating-point operations of one position's forward and backward pass, for forecasts.
    """

    name: str
    revision: str | None
    fingerprint: str
    tokenizer: str
    dtype: str
    d_model: int
    vocab_size: int
    max_context: int | None
    flops: float = 0.0
    prefix: tuple[int, ...] = ()


@dataclass(frozen=True)
class Fit:
    """A fit: one target, or all targets that share a vector.

    Attributes:
        targets: token ids.
        layout: a layout's name, or `memory:K`: the autoregressive baseline with K memory
            vectors.
        share: "e" or "m" where all targets share that vector.
        seeds: one for each target, where they are not all `seed`.
        prefix: token ids that stand before the vectors; None: the model's own
            (`ModelFacts.prefix`).
    """

    targets: tuple[tuple[int, ...], ...]
    layout: str = "paper"
    recipe: Recipe = field(default_factory=Recipe)
    seed: int = 0
    share: str | None = None
    seeds: tuple[int, ...] = ()
    prefix: tuple[int, ...] | None = None

    @staticmethod
    def one(
        ids: Sequence[int],
        *,
        layout: str = "paper",
        recipe: Recipe | None = None,
        seed: int = 0,
        prefix: tuple[int, ...] | None = None,
    ) -> Fit:
        """A fit of a single target."""
        return Fit((tuple(ids),), layout, recipe or Recipe(), seed, prefix=prefix)

    def key(self, model: ModelFacts) -> str:
        """Hash of everything that determines the solutions."""
        prefix = list(model.prefix if self.prefix is None else self.prefix)
        return content_hash(["fit", model.fingerprint, model.dtype, asdict(self), prefix])


Fitted = tuple["Solution", ...]
# What `run` is when it asks for solutions: it yields fits, is sent one tuple of solutions for each,
# and returns rows.
Run = Generator[list[Fit], list[Fitted], list[Row]]


@dataclass(frozen=True)
class Job:
    """One piece of an experiment: plain values, and a key.

    The key is the hash of everything that determines the job's rows.

    Attributes:
        experiment: the experiment's name.
        model: what it runs on.
        texts: the passages it is about; may be none.
        layout: a layout's name, or `memory:K`.
        values: whatever else the experiment wants to say to its own `run`, as JSON values.
        work: position-steps that it is expected to take (optimiser steps x input positions, over
            all its rows), for forecasts alone: no part of the key. A forward pass without gradient
            counts a third of a step.
        same: a name of the fits that it asks for, the same in jobs that ask for the same ones; for
            forecasts alone, too.
        version: raised by an experiment whose `run` has changed, so that old rows are not taken for
            new ones.
    """

    experiment: str
    model: ModelFacts
    texts: tuple[Passage, ...] = ()
    layout: str = "paper"
    recipe: Recipe = field(default_factory=Recipe)
    seed: int = 0
    values: Mapping[str, Any] = field(default_factory=dict)
    work: float = 0.0
    same: str = ""
    version: int = 1

    @cached_property
    def key(self) -> str:
        """The job's name on disk."""
        texts = [[text.id, text.ids, text.context] for text in self.texts]
        settings = [self.layout, asdict(self.recipe), self.seed, dict(self.values), self.version]
        settings += [list(self.model.prefix)] if self.model.prefix else []
        return content_hash(
            [self.experiment, self.model.fingerprint, self.model.dtype, texts, *settings]
        )

    @property
    def text(self) -> Passage:
        """The passage of a job that has one."""
        (text,) = self.texts
        return text


@dataclass(frozen=True)
class Config:
    """The input of `jobs`: the model, the texts, the scale and how to fit.

    Attributes:
        model: facts of `--model`.
        texts: where passages come from (`lab.texts.Texts`): `texts.passages(count, tokens)`,
            `texts.continuations(contexts, each, tokens)`, and `texts.each()`, one for each
            `--texts` given.
        scale: "smoke" or "paper"; see `pick`.
        recipe: how to fit, its budget of steps set by the scale.
        seed: the first seed; experiments with several count on from it.
        checkpoints: models whose capacity is followed over training, in order; `NAME` or
            `NAME@REVISION`.
        facts_of: facts of a further model, `NAME` or `NAME@REVISION`; it is loaded once to be
            asked.
        embedder: a sentence-embedding model for semantic distances, or None.
        most_texts, grid, most_seeds: what the user sets in place of the scale's numbers: texts,
            lengths, seeds. `count`, `lengths` and `seeds` see to it.
        chosen_layouts: layouts that the user sets in place of an experiment's own; `layouts` sees
            to it.
    """

    model: ModelFacts
    texts: Texts
    scale: str = "smoke"
    recipe: Recipe = field(default_factory=Recipe)
    seed: int = 0
    checkpoints: tuple[str, ...] = ()
    facts_of: Callable[[str], ModelFacts] | None = None
    embedder: str | None = None
    most_texts: int | None = None
    grid: tuple[int, ...] | None = None
    most_seeds: int | None = None
    chosen_layouts: tuple[str, ...] | None = None

    def pick(self, smoke: T, paper: T) -> T:
        """One of the two, by the scale."""
        return smoke if self.scale == "smoke" else paper

    def count(self, smoke: int, paper: int) -> int:
        """How many texts: by the scale, or as the user says."""
        return self.pick(smoke, paper) if self.most_texts is None else self.most_texts

    def seeds(self, count: int) -> list[int]:
        """So many seeds, or as many as the user says, from the first on."""
        count = count if self.most_seeds is None else self.most_seeds
        return list(range(self.seed, self.seed + count))

    def lengths(self, grid: Sequence[int], layout: str = "paper") -> list[int]:
        """The lengths of a grid, or of the user's, that fit the model's context."""
        from prototokens.lab.methods import (
            positions,
        )  # PyTorch with it, which the list of experiments does without

        most = self.model.max_context
        return [
            length
            for length in self.grid or grid
            if most is None or positions(layout, length) <= most
        ]

    def layouts(self, own: Sequence[str]) -> tuple[str, ...]:
        """The layouts of an experiment that compares several.

        Its own, or those of the user instead.
        """
        return self.chosen_layouts or tuple(own)

    def work(self, text: Passage, length: int, layout: str = "paper") -> float:
        """Position-steps that a fit of the text's first `length` tokens is expected to take.

        For `Job.work`.
        """
        return self.texts.costs.fit(text.ids, length, layout, self.recipe)


def outcome(solution: Solution) -> Row:
    """What rows say of a solution: plain numbers; margin None where no finite one was seen."""
    finite = abs(solution.margin) != float("inf") and solution.margin == solution.margin
    return {
        "length": solution.length,
        "correct": solution.correct,
        "accuracy": solution.accuracy,
        "exact": solution.exact,
        "steps": solution.steps,
        "row_steps": solution.row_steps,
        "margin": solution.margin if finite else None,
        "floats": solution.protos.numel(),
        "failure": solution.failure,
    }
