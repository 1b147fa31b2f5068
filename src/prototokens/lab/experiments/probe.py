"""Probe: what the model writes when ordinary generation is started from the vectors of a text.

e and m are fitted to the first half of a passage; then the model generates greedily from e, from m,
from both, with and without its beginning-of-sequence token. What it writes is compared with the
text that the vectors hold, with what comes before and what comes after it. Three starts say how
much likeness means anything: the context itself, the beginning of a sequence alone, and vectors
drawn like a fit's start. Likeness to an unrelated passage is the floor of every comparison.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from prototokens.engine.rows import Starts
from prototokens.lab import plots
from prototokens.lab.embedding import embedder
from prototokens.lab.job import Config, Fit, Job, Row, Run
from prototokens.lab.report import Report, Table, size_notes
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.measure import metrics, quality
from prototokens.solution import Solution

TITLE = "Generation started from the vectors"
# What stands before the first generated token.
STARTS = ("e", "m", "e m", "e m m m", "BOS e", "BOS m", "BOS e m", "e m BOS")
CONTROLS = ("BOS", "noise", "context", "context and text")
AGAINST = ("held", "context", "continuation", "unrelated")
SHOWN = 3  # texts whose generations are printed
LETTERS = 90  # of each
WORDS = {"chrf": "chrF, 0 to 100", "semantic": "cosine of sentence embeddings"}


def jobs(config: Config) -> list[Job]:
    lengths = config.lengths((config.pick(16, 128),))
    context = config.pick(32, 128)
    longest = config.model.max_context
    if not lengths or (longest is not None and longest < context + 3 * lengths[0]):
        return []
    passages = config.texts.passages(config.count(3, 50) + 1, 2 * lengths[0], context)
    made = []
    for text, other in pairwise(passages):
        values = {"held": lengths[0], "embedder": config.embedder}
        work = config.work(text, lengths[0])
        made.append(
            Job(
                "probe",
                config.model,
                (text, other),
                "paper",
                config.recipe,
                config.seed,
                values,
                work=work,
            )
        )
    return made


def run(job: Job, lm: FrozenLM) -> Run:
    text, other = job.texts
    size = job.values["held"]
    fit = Fit.one(text.ids[:size], layout=job.layout, recipe=job.recipe, seed=job.seed)
    ((solution,),) = yield [fit]
    against = dict(
        zip(
            AGAINST,
            (text.ids[:size], text.context[-size:], text.ids[size:], other.ids[:size]),
            strict=True,
        )
    )
    wanted = {name: lm.detokenize(ids) for name, ids in against.items()}
    embed = embedder(job.values["embedder"]) if job.values["embedder"] else None
    made = []
    for start, prompt in _prompts(lm, job, solution).items():
        written = lm.detokenize(lm.generate(prompt[None].to(lm.dtype), size)[0])
        row: Row = {
            "text": text.id,
            "length": size,
            "exact": solution.exact,
            "start": start,
            "written": written,
        }
        if start == "e":
            row["target"] = wanted["held"]
        for name, reference in wanted.items():
            row[f"chrf_{name}"] = quality.chrf(reference, written)
            if embed:
                one, two = embed([reference, written])
                row[f"semantic_{name}"] = quality.semantic_similarity(one, two)
        made.append(row)
    return made


def _prompts(
    lm: FrozenLM, job: Job, solution: Solution
) -> dict[str, Float[Tensor, "positions d_model"]]:
    """Input vectors by the name of the start; those with BOS only where the tokenizer has one."""
    text, size = job.texts[0], job.values["held"]
    start = Starts(lm, job.recipe, 2)
    chance = torch.Generator().manual_seed(job.seed)
    std = job.recipe.start_scale * start.std.cpu()
    noise = start.mean.cpu() + std * torch.randn(2, lm.d_model, generator=chance)
    words: dict[str, Tensor] = {"e": solution.protos[0], "m": solution.protos[1]}
    bos = None if lm.tokenizer is None else lm.tokenizer.bos_token_id
    if bos is not None:
        words["BOS"] = lm.embed(torch.tensor(bos, device=lm.device)).float().cpu()
    made = {}
    for name in (*STARTS, "BOS"):
        parts = name.split()
        if all(part in words for part in parts):
            made[name] = torch.stack([words[part] for part in parts])
    made["noise"] = noise
    lead = [] if bos is None else [bos]
    for name, ids in (
        ("context", text.context),
        ("context and text", text.context + text.ids[:size]),
    ):
        made[name] = lm.embed(torch.tensor([*lead, *ids], device=lm.device)).float()
    return {name: prompt.to(lm.device) for name, prompt in made.items()}


def report(rows: list[Row]) -> Report:
    names = [name for name in (*STARTS, *CONTROLS) if any(row["start"] == name for row in rows)]
    texts = list(dict.fromkeys(row["text"] for row in rows))
    missed = len({row["text"] for row in rows if not row["exact"]})
    tables, figures = [], {}
    measures = [name for name in ("chrf", "semantic") if any(f"{name}_held" in row for row in rows)]
    for measure in measures:
        found = {
            (start, name): metrics.bootstrap(
                [row[f"{measure}_{name}"] for row in rows if row["start"] == start]
            )
            for start in names
            for name in AGAINST
        }
        columns = ["start", *(f"{name}{end}" for name in AGAINST for end in ("", " low", " high"))]
        lines = [
            [start, *(number for name in AGAINST for number in found[start, name])]
            for start in names
        ]
        caption = (
            f"Likeness ({WORDS[measure]}) of what is generated to four texts; means, 95% intervals"
            " by bootstrap over texts"
        )
        tables.append(Table(f"probe_{measure}", columns, lines, caption))
        series = [
            plots.Series(
                name,
                [found[start, name].value for start in names],
                (),
                [found[start, name].low for start in names],
                [found[start, name].high for start in names],
            )
            for name in AGAINST
        ]
        shown = [name.replace(" and ", "\nand ").replace("BOS ", "BOS\n") for name in names]
        panel = plots.Panel(
            f"Likeness of what is generated ({measure})", "generation started from", WORDS[measure]
        )
        figures[f"probe_{measure}"] = plots.bars(panel, shown, series)
    lines = []
    for text in texts[:SHOWN]:
        mine = {row["start"]: row for row in rows if row["text"] == text}
        lines.append(["**the text reproduced**", _cut(mine["e"]["target"])])
        lines += [[name, _cut(mine[name]["written"])] for name in names if name in mine]
    tables.append(
        Table(
            "probe_texts",
            ("start", "generated"),
            lines,
            f"What is generated, of {min(SHOWN, len(texts))} texts",
        )
    )
    notes = [
        f"{len(texts)} texts, 1 seed; of {missed} the vectors do not decode exactly",
        "unrelated: likeness to a passage from elsewhere, the floor; noise: two vectors drawn like"
        " a fit's start",
        "published: noise, or text that has nothing to do with what the vectors hold",
        *size_notes(len(texts)),
    ]
    return Report(TITLE, tables, notes, figures)


def _cut(text: str) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= LETTERS else line[: LETTERS - 1] + "\u2026"
