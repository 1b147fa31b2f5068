"""Tokens that the model never learned to tell from others, and what vectors can do with them.

Every token whose output row is nearly another token's is listed, with the largest lead that any
hidden state can give it (`lm.untrained`). Then the bound is put to the test: one token in the
middle of a passage is replaced, by an untrained token or, as a control, by one drawn from the rest
of the vocabulary, and vectors are fitted to the whole passage: until every token is right by a
hair, and until every token is right by the margin that the list was made for.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from prototokens.lab import plots
from prototokens.lab.job import Config, Fit, Job, Row, Run
from prototokens.lab.report import Report, Table, percent_interval, size_notes
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.lm.untrained import SAMPLE, all_untrained, nearest, state_norm

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Tokens that the model never learned"
LAYOUT = "keyed:2"
LIST, TRIAL = "list", "trial"
UNTRAINED, CONTROL = "untrained", "control"
LEAD = 1.0  # logits; tokens that cannot lead another one by so much are listed
MARGIN = 0.5  # logits; certificates ask for about as much (docs/reliability.md)
SMALL_MARGIN = 0.05  # of a fit without a certificate
SHOWN = 100  # tokens of the table; the rows have all
CAPTION = (
    "solved: every token right by the margin that is asked for; interval of its share by Clopper"
    " and Pearson"
)


def jobs(config: Config) -> list[Job]:
    """One job that lists the tokens, and one for each passage that they are tried in."""
    lengths = config.lengths((16,), LAYOUT)
    if not lengths:
        return []
    listing = Job("untrained", config.model, recipe=config.recipe, values={"about": LIST})
    return [listing] + [
        Job(
            "untrained",
            config.model,
            (text,),
            LAYOUT,
            config.recipe,
            config.seed,
            {"about": TRIAL},
            work=4 * config.work(text, lengths[0], LAYOUT),
        )
        for text in config.texts.passages(config.count(4, 20), lengths[0])
    ]


def run(job: Job, lm: FrozenLM) -> Run:
    if job.values["about"] == LIST:
        return _listed(lm)
    return (yield from _tried(job, lm))


def _listed(lm: FrozenLM) -> list[Row]:
    """The summary, then one row for each untrained token."""
    found, largest = all_untrained(lm, LEAD), state_norm(lm)
    sample = torch.randperm(lm.vocab_size, generator=torch.Generator().manual_seed(0))[:SAMPLE]
    rows: list[Row] = [
        {
            "about": LIST,
            "vocabulary": lm.vocab_size,
            "untrained": len(found),
            "lead": LEAD,
            "state_norm": largest,
            "bounds": [largest * value for value in nearest(lm, sample).distance.tolist()],
        }
    ]
    near = nearest(lm, torch.tensor(found, dtype=torch.int64))
    for token, other, distance in zip(
        found, near.token.tolist(), near.distance.tolist(), strict=True
    ):
        rows.append(
            {
                "about": "token",
                "token": token,
                "characters": lm.detokenize([token]),
                "nearest": other,
                "distance": distance,
                "bound": distance * largest,
            }
        )
    return rows


def _tried(job: Job, lm: FrozenLM) -> Run:
    """Fit the passage with its middle token replaced, by an untrained token and by another."""
    chance = random.Random(f"{job.seed} {job.text.id}")
    found = all_untrained(lm, LEAD)
    others = sorted(set(range(lm.known_ids)) - set(found) - set(job.text.ids))
    replaced = {CONTROL: chance.choice(others)}
    if usable := [token for token in found if token < lm.known_ids]:
        replaced[UNTRAINED] = chance.choice(usable)
    middle = len(job.text.ids) // 2
    wanted = [
        (kind, margin, (*job.text.ids[:middle], token, *job.text.ids[middle + 1 :]))
        for kind, token in replaced.items()
        for margin in (SMALL_MARGIN, MARGIN)
    ]
    fits = [
        Fit.one(
            ids,
            layout=job.layout,
            recipe=replace(job.recipe, margin=margin, untrained_slack=0.0),
            seed=job.seed,
        )
        for _, margin, ids in wanted
    ]
    return [
        {
            "about": TRIAL,
            "text": job.text.id,
            "kind": kind,
            "token": replaced[kind],
            "asked": margin,
            "length": solution.length,
            "correct": solution.correct,
            "exact": solution.exact,
            "margin": solution.margin,
            "row_steps": solution.row_steps,
        }
        for (kind, margin, _), (solution,) in zip(wanted, (yield fits), strict=True)
    ]


def report(rows: list[Row]) -> Report:
    listed = [row for row in rows if row["about"] == LIST]
    tokens = [row for row in rows if row["about"] == "token"]
    trials = [row for row in rows if row["about"] == TRIAL]
    notes = [
        f"{row['untrained']} of {row['vocabulary']:,} tokens cannot lead another one by"
        f" {row['lead']} logits: final hidden states have a norm of {row['state_norm']:.3g} at"
        f" most, and their output rows are nearer to another one than {row['lead']} /"
        f" {row['state_norm']:.3g}"
        for row in listed
    ]
    notes += size_notes(len({row["text"] for row in trials})) if trials else []
    if len(tokens) > SHOWN:
        notes.append(f"the table has the first {SHOWN} of them; the rows have all")
    figures = {"untrained": _figure(listed[0], tokens)} if listed and tokens else {}
    return Report(
        title=TITLE,
        notes=notes,
        tables=[*_token_table(tokens), *_trial_table(trials)],
        figures=figures,
    )


def _token_table(tokens: Sequence[Row]) -> list[Table]:
    if not tokens:
        return []
    columns = ["token", "characters", "nearest token", "distance", "largest possible lead, logits"]
    table = [
        [row["token"], repr(row["characters"]), row["nearest"], row["distance"], row["bound"]]
        for row in sorted(tokens, key=lambda row: row["token"])[:SHOWN]
    ]
    return [Table("untrained", columns, table, "In the order of their ids")]


def _trial_table(trials: Sequence[Row]) -> list[Table]:
    columns = [
        "token put in the middle",
        "margin asked for, logits",
        "passages",
        "solved",
        "95% interval of the share",
        "exact",
        "row-steps, mean",
    ]
    table = []
    for kind in (CONTROL, UNTRAINED):
        for margin in (SMALL_MARGIN, MARGIN):
            some = [row for row in trials if (row["kind"], row["asked"]) == (kind, margin)]
            if some:
                solved = sum(row["margin"] > margin for row in some)
                exact = sum(row["exact"] for row in some)
                steps = sum(row["row_steps"] for row in some) / len(some)
                interval = percent_interval(solved, len(some))
                table.append([kind, margin, len(some), solved, interval, exact, steps])
    return [Table("trials", columns, table, CAPTION)] if table else []


def _figure(listed: Row, tokens: Sequence[Row]) -> Figure:
    """The largest possible lead of untrained tokens, beside that of tokens at random."""
    drawn = {
        f"{len(listed['bounds'])} tokens at random": listed["bounds"],
        "untrained": [row["bound"] for row in tokens],
    }
    series = [
        plots.Series(name, sorted(values), [rank / len(values) for rank in range(len(values))])
        for name, values in drawn.items()
    ]
    panel = plots.Panel(
        x="share of the tokens", y="largest possible lead over another token, logits", log_y=True
    )
    return plots.lines(panel, series, markers=False)
