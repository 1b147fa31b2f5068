"""Recipes tried side by side on the same passages: one row for each passage and trial, a table in docs/recipe.md.

    python scripts/recipe_search.py --texts file:books_val.parquet --lengths 32 48 --rows results/recipe/builtin.jsonl
    python scripts/recipe_search.py --report results/recipe/*.jsonl

Rows are appended as passages end, and what is there already is not run again, so a killed run goes on where it was. Each
solution is decoded before it is counted. Trials are judged by steps, and by row-steps where a step is of more than one row: in
a race, all starts of a passage count, and a Gauss-Newton step as many as the passage has tokens. Seconds are not written:
steps do not depend on what else a machine does.
"""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import prototokens as pt
from fit_rows import about
from map_front import KEY, highest_steps, median_steps, shown
from pages import put_between
from prototokens.engine.batch import Batch
from prototokens.engine.head import Scores, score
from prototokens.engine.inputs import OneStep
from prototokens.engine.rows import groups_of
from prototokens.lab.report import percent_interval
from prototokens.lab.texts import Texts
from row_files import Row, RowFile, read_rows

MARKS = ("<!-- the search: made by scripts/recipe_search.py -->", "<!-- end of the search -->")
FALL = 300  # steps over which a temperature falls, by equal factors
HINGE = 1.0  # logits that the true token should lead by, in the margin term
LATE = 0.9  # share of right tokens of a row, from which the margin term is added
RACE = 60  # steps after which the best start of a passage goes on alone
NEAR = 0.1  # share of wrong tokens from which on a passage is finished another way
PATIENCE = 300  # row-steps of an L-BFGS finish, and Gauss-Newton steps of its own times the tokens, at most
AIM = 0.5  # logits of margin that a Gauss-Newton step aims at


class Trial(NamedTuple):
    """What is changed.

    Attributes:
        changes: values of the recipe.
        fall_to: the temperature after `FALL` steps.
        hinge: weight of a margin term late in the fit.
        starts: of each passage, that race.
        finish: how a passage that is nearly right goes on: `lbfgs` or `gauss-newton`.
    """

    changes: dict[str, Any] = {}  # noqa: RUF012 (never changed)
    fall_to: float | None = None
    hinge: float = 0.0
    starts: int = 1
    finish: str | None = None


TRIALS = {
    "fast": Trial(),
    "start N(0, 1)": Trial({"start": "normal"}),
    "rate 0.2": Trial({"lr": 0.2}),
    "rate 0.5": Trial({"lr": 0.5}),
    "first beta 0.95": Trial({"betas": (0.95, 0.99)}),
    "second beta 0.98": Trial({"betas": (0.9, 0.98)}),
    "constant rate": Trial({"schedule": "constant"}),
    "temperature 0.3": Trial({"temperature": 0.3}),
    "temperature 1": Trial({"temperature": 1.0}),
    "temperature falls from 1 to 0.25": Trial({"temperature": 1.0}, fall_to=0.25),
    "weight decay 0.01": Trial({"weight_decay": 0.01}),
    "not whitened": Trial({"whiten": False}),
    "margin term 0.1, late": Trial(hinge=0.1),
    "margin term 1, late": Trial(hinge=1.0),
    "race of 3 starts": Trial(starts=3),
    "L-BFGS finish": Trial(finish="lbfgs"),
    "Gauss-Newton finish": Trial(finish="gauss-newton"),
}


class Outcome(NamedTuple):
    """Vectors of a passage, the steps that led to them, and the row-steps spent on it in all."""

    solution: pt.Solution
    steps: int
    row_steps: int


class Searched(Batch):
    """All rows of a trial side by side, from the first step to the last, with the trial's loss."""

    def __init__(self, lm: pt.FrozenLM, recipe: pt.Recipe, trial: Trial, targets: list[list[int]], seed: int):
        method = OneStep(pt.Layout.named("paper"))
        # Start k of a passage has the seed `seed + k`; its order tells the passage.
        rows = [(ids, seed + start) for ids in targets for start in range(trial.starts)]
        waiting = deque(groups_of(lm, [ids for ids, _ in rows], method, [its for _, its in rows], None))
        super().__init__(lm, recipe, method, waiting, None)
        self.trial, self.taken, self.room = trial, 0, sys.maxsize
        self.fill()

    def passage(self, number: int) -> int:
        """Of which passage a group is a start."""
        return self.groups[number].rows[0].order // self.trial.starts

    def _scores(self, read: Tensor, targets: Tensor) -> Scores:
        trial, temperature = self.trial, self.recipe.temperature
        if trial.fall_to is not None:
            temperature *= (trial.fall_to / temperature) ** min(1.0, self.taken / FALL)
        scores = score(self.lm, read, targets, temperature)
        self.taken += 1
        assert self.arranged is not None
        of_row, count = self.arranged.row_of, len(self)
        self.row_loss = scores.loss.new_zeros(count).index_add_(0, of_row, scores.loss)
        assert scores.gradient is not None
        if trial.hinge:
            right = scores.right.float().new_zeros(count).index_add_(0, of_row, scores.right.float())
            late = (right / torch.bincount(of_row, minlength=count) >= LATE)[of_row]
            gradient = _hinge_gradient(self.lm, read, targets) * (trial.hinge * late[:, None])
            scores = scores._replace(gradient=scores.gradient + gradient.to(scores.gradient.dtype))
        return scores


def _hinge_gradient(lm: pt.FrozenLM, read: Tensor, targets: Tensor) -> Tensor:
    """Of the sum of max(0, HINGE - margin) with respect to the hidden states."""
    with torch.enable_grad():
        leaf = read.detach().requires_grad_()
        (HINGE - _margins(lm.logits(leaf).float(), targets)).clamp_min(0).sum().backward()
    assert leaf.grad is not None
    return leaf.grad


def _margins(logits: Tensor, targets: Tensor) -> Tensor:
    """Of each position, true logit minus the best other one."""
    others = logits.scatter(1, targets[:, None], -torch.inf)
    return logits.gather(1, targets[:, None])[:, 0] - others.amax(1)


def fit_trial(
    lm: pt.FrozenLM, targets: list[list[int]], trial: Trial, recipe: pt.Recipe, seed: int, ended: Callable[[int, Outcome], None]
) -> None:
    """Fit the passages by a trial; `ended` is given the number and the outcome of each as it ends."""
    batch = Searched(lm, recipe, trial, targets, seed)
    spent = [0] * len(targets)
    open_passages = set(range(len(targets)))
    while batch.groups:
        for number in range(len(batch.groups)):
            spent[batch.passage(number)] += 1
        batch.step()
        over, stay = batch.over(), [True] * len(batch.groups)
        for number, group in enumerate(batch.groups):
            passage = batch.passage(number)
            near = trial.finish and not over[number] and _near(batch, number)
            if passage not in open_passages or not (over[number] or near):
                continue
            stay[number] = False
            if near:
                protos = batch.vectors_of(group.rows[0].order)
                assert protos is not None
                ended(passage, _finish(lm, targets[passage], protos, trial, recipe, batch.taken - 1, spent[passage]))
            else:
                batch.end_attempt(number)
                (solution,) = group.best
                last = not any(batch.passage(other) == passage and stay[other] for other in range(len(stay)))
                if not (group.solved or last):
                    continue  # another start of this passage may do better
                ended(passage, Outcome(solution, solution.steps, spent[passage]))
            open_passages.discard(passage)
        stay = [keeps and batch.passage(number) in open_passages for number, keeps in enumerate(stay)]
        if trial.starts > 1 and batch.taken == RACE:
            ahead = _ahead(batch)
            stay = [keeps and number in ahead for number, keeps in enumerate(stay)]
        if not all(stay):
            batch.leave(stay)


def _ahead(batch: Searched) -> set[int]:
    """Of each passage the group with the least loss in the step just taken."""
    best: dict[int, int] = {}
    losses = batch.row_loss.tolist()
    for number in range(len(batch.groups)):
        passage = batch.passage(number)
        if passage not in best or losses[number] < losses[best[passage]]:
            best[passage] = number
    return set(best.values())


def _near(batch: Searched, number: int) -> bool:
    """Whether few enough tokens of a group's best are wrong."""
    length = len(batch.groups[number].rows[0].ids)
    return int(batch.state.correct[number]) >= (1 - NEAR) * length


def _finish(
    lm: pt.FrozenLM, ids: list[int], protos: Tensor, trial: Trial, recipe: pt.Recipe, steps: int, spent: int
) -> Outcome:
    """Go on with the vectors of one passage another way, until its margin is reached or patience ends."""
    target, index = torch.tensor(ids, device=lm.device), pt.Layout.named("paper").index(len(ids)).to(lm.device)

    def logits(x: Tensor) -> Tensor:
        return lm.logits(lm.hidden(x[index][None])[0]).float()

    finish = _by_lbfgs if trial.finish == "lbfgs" else _by_gauss_newton
    found, more_steps, more_row_steps = finish(protos.to(lm.device), logits, target, recipe)
    margins = _margins(logits(found).detach(), target)
    solution = pt.Solution(
        protos=found.detach().cpu(), layout=pt.Layout.named("paper"), ids=tuple(ids), correct=int((margins > 0).sum()),
        margin=float(margins.min()), steps=steps + more_steps, row_steps=spent + more_row_steps, restarts=0, seed=0,
    )  # fmt: skip
    return Outcome(solution, solution.steps, solution.row_steps)


Finished = tuple[Tensor, int, int]  # vectors, steps, row-steps


def _by_lbfgs(protos: Tensor, logits: Callable[[Tensor], Tensor], target: Tensor, recipe: pt.Recipe) -> Finished:
    """L-BFGS with a strong Wolfe line search, on the recipe's loss; a step is one evaluation."""
    x, held, taken = protos.clone().requires_grad_(), [], 0
    optimiser = torch.optim.LBFGS([x], max_iter=1, max_eval=10, history_size=30, line_search_fn="strong_wolfe")

    def closure() -> float:
        nonlocal taken
        optimiser.zero_grad()
        out = logits(x)
        taken += 1
        if not held and float(_margins(out.detach(), target).min()) > recipe.margin:
            held.append((x.detach().clone(), taken))
        loss = torch.nn.functional.cross_entropy(out / recipe.temperature, target, reduction="sum")
        loss.backward()
        return float(loss.detach())

    while not held and taken < PATIENCE:
        before = x.detach().clone()
        optimiser.step(closure)
        if torch.equal(before, x):
            break  # no step lowers the loss any more
    found, steps = held[0] if held else (x.detach(), taken)
    return found, steps, steps


def _by_gauss_newton(protos: Tensor, logits: Callable[[Tensor], Tensor], target: Tensor, recipe: pt.Recipe) -> Finished:
    """The least move that brings every margin to `AIM` in linear terms, halved where that makes things worse.

    A step takes one forward pass and as many backward passes as there are tokens.
    """
    x, steps, row_steps = protos.clone(), 0, 0

    def lacking(where: Tensor) -> tuple[float, float]:
        margins = _margins(logits(where).detach(), target)
        return float((AIM - margins).clamp_min(0).sum()), float(margins.min())

    now, least = lacking(x)
    while least <= recipe.margin and row_steps < PATIENCE * len(target) // 10:
        leaf = x.clone().requires_grad_()
        margins = _margins(logits(leaf), target)
        each = torch.eye(len(target), device=x.device)
        slopes = torch.stack([torch.autograd.grad(margins, leaf, one, retain_graph=True)[0].flatten() for one in each])
        gram = slopes @ slopes.T
        gram += 1e-3 * gram.diagonal().mean() * torch.eye(len(target), device=x.device)
        move = slopes.T @ torch.linalg.solve(gram, (AIM - margins.detach()).clamp_min(0))
        steps, row_steps = steps + 1, row_steps + len(target)
        for halving in range(5):
            tried = x + 0.5**halving * move.view_as(x)
            there, least = lacking(tried)
            row_steps += 1
            if there < now:
                x, now = tried, there
                break
        else:
            break
    return x, steps, row_steps


def run(lm: pt.FrozenLM, args: argparse.Namespace) -> None:
    """Every trial of every length, but what is done."""
    texts, rows = Texts(lm, [args.texts], args.seed), RowFile(args.rows, KEY)
    for length in args.lengths:
        passages = [list(passage.ids) for passage in texts.passages(args.passages, length)]
        for name in args.trials or TRIALS:
            trial = TRIALS[name]
            recipe = pt.Recipe.named("fast", steps=args.steps, **trial.changes)
            extra = {k: v for k, v in trial._asdict().items() if k != "changes" and v != Trial._field_defaults[k]}
            known = {"source": texts.source.split("/")[-1], "trial": name}
            jobs = [(ids, about(lm, ids, "paper", recipe, args.seed, **known)) for ids in passages]
            jobs = [(ids, {**row, "recipe": {**row["recipe"], **extra}}) for ids, row in jobs]
            if left := [(ids, row) for ids, row in jobs if not rows.done(row)]:
                fit_trial(lm, [ids for ids, _ in left], trial, recipe, args.seed, partial(_write, lm, rows, left))
                print(f"{lm.name}, {length} tokens, {name}: done", file=sys.stderr, flush=True)


def _write(lm: pt.FrozenLM, rows: RowFile, left: list[tuple[list[int], Row]], number: int, outcome: Outcome) -> None:
    """Append the row of a passage; exact is what reached the margin and is decoded."""
    (ids, row), solution = left[number], outcome.solution
    held = solution.margin > row["recipe"]["margin"]
    result = {
        "exact": held and pt.decode_ids(lm, [solution]).ids[0] == ids,
        "correct": solution.correct, "steps": outcome.steps, "row_steps": outcome.row_steps,
        "margin": round(solution.margin, 5), "floats": solution.protos.numel(),
    }  # fmt: skip
    rows.append({**row, **result})


HEADS = "| trial | exact | 95% interval of the share | steps, median | 90th percentile | row-steps, median | 90th percentile |"


def table(rows: list[dict]) -> list[str]:
    """A table for each model, source, length and budget; percentiles are over all passages, one not exact counting as never."""
    groups: dict[str, dict[str, list[dict]]] = {}
    for row in rows:
        model = f"{row['model']} (weights {row['fingerprint'][:8]}; {row['dtype']})"
        heading = f"**{model}, {row['source']}: {row['length']} tokens, {row['recipe']['steps']:,} steps at most**"
        groups.setdefault(heading, {}).setdefault(row["trial"], []).append(row)
    lines: list[str] = []
    for heading, trials in groups.items():
        lines += ["", heading, "", HEADS]
        lines.append("|---|" + "---:|" * 6)
        for name in sorted(trials, key=list(TRIALS).index):
            found = trials[name]
            spent = [{**row, "steps": row["row_steps"]} for row in found]
            numbers = [shown(of(those)) for those in (found, spent) for of in (median_steps, highest_steps)]
            exact = sum(row["exact"] for row in found)
            counted = [f"{exact} of {len(found)}", percent_interval(exact, len(found))]
            lines.append(f"| {' | '.join([name, *counted, *numbers])} |")
    return lines[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin", help="'builtin', a folder or a hub id")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device")
    parser.add_argument("--texts", default="sample", help="as the experiments take them: file:PATH, generated:SOURCE, ...")
    parser.add_argument("--lengths", nargs="+", type=int, default=[32, 48])
    parser.add_argument("--passages", type=int, default=12)
    parser.add_argument("--trials", nargs="+", choices=list(TRIALS), help="by default all of them")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=Path, default=Path("results/recipe/rows.jsonl"))
    parser.add_argument("--report", nargs="+", type=Path, help="write the tables from these files of rows; nothing is run")
    parser.add_argument("--page", type=Path, default=Path("results/recipe/README.md"))
    args = parser.parse_args()
    if args.report:
        put_between(args.page, {MARKS: "\n".join(table([row for path in args.report for row in read_rows(path)]))})
        return
    lm = pt.FrozenLM.from_pretrained(args.model, dtype=args.dtype, device=args.device)
    lm.name = Path(args.model).name
    run(lm, args)


if __name__ == "__main__":
    main()
