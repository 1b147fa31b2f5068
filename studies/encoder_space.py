"""The space that an encoder learns, beside that of fitted vectors.

    prototokens reproduce studies/encoder_space.py --texts file:books_val.parquet \
        --texts random-words:words.txt --scale paper --out results/encoder
    prototokens reproduce studies/encoder_space.py --from-rows --out results/encoder

The encoder is the first that ships for the model, or the folder given with `--checkpoint`. Rows
of six kinds: `neighbours`, how alike the texts are whose vectors are nearest (share of tokens in
common), against pairs at random; `between`, what the straight line between two texts' vectors
decodes to and how surprising that is, for encoded and for fitted vectors; `noise`, accuracy with
noise of a share of the vectors' root mean square; `distance`, cosine distances within and between
the kinds of vectors; `prefix`, between a text's vectors and those of its beginning; `domain`,
accuracy on each source of texts, without a step and after a fit.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from prototokens.encoder.decoder import Decoder
from prototokens.encoder.encoder import SHIPPED, Encoder
from prototokens.encoder.folder import CONFIG
from prototokens.engine.decode import decode_ids
from prototokens.engine.forward import HasVectors
from prototokens.errors import TextError, UsageError
from prototokens.fitting import fit
from prototokens.lab.job import Config, Job, Row
from prototokens.lab.passages import Passage
from prototokens.lab.plots import Panel, Series, lines
from prototokens.lab.report import Report, Table, share
from prototokens.lab.texts import Texts
from prototokens.layout import Layout
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.solution import Chunk

TITLE = "The space of an encoder"
LENGTH = 16  # tokens of a text
POSITIONS = [step / 10 for step in range(11)]  # on the line between two texts
RADII = [
    0.0,
    0.02,
    0.05,
    0.1,
    0.15,
    0.2,
    0.3,
    0.5,
    0.7,
    1.0,
]  # of noise, as a share of the vectors' size
DRAWS = 4
DOMAIN = (
    "texts",
    "tokens",
    "accuracy, first pass",
    "feedback passes",
    "accuracy, zero-step",
    "exact, zero-step",
    "exact after a fit",
    "steps, median",
)
Ids = list[list[int]]
# Of the job: its encoder by the hash of its weights. Rows are published, so that jobs do not name
# folders of this machine.
ENCODERS: dict[str, Encoder] = {}


def jobs(config: Config) -> list[Job]:
    encoder = _encoder(config.texts.lm, config.checkpoints)
    weights = encoder.config["weights_sha256"]
    ENCODERS[weights] = encoder
    count = config.count(8, 128) // 2 * 2
    main = config.texts.passages(count, LENGTH)
    domains = [_some(texts, min(count, 64)) for texts in config.texts.each()]
    texts = (*main, *(text for part in domains for text in part))
    values = {"main": len(main), "weights": weights}
    work = 3 * sum(config.work(text, LENGTH, encoder.shape.layout) for text in texts)
    return [
        Job(
            "encoder_space",
            config.model,
            texts,
            encoder.shape.layout,
            config.recipe,
            config.seed,
            values,
            work,
        )
    ]


def run(job: Job, lm: FrozenLM) -> list[Row]:
    encoder = ENCODERS[job.values["weights"]]
    decoder = Decoder(lm, encoder.layout)
    texts = [list(text.ids) for text in job.texts[: job.values["main"]]]
    kinds = {"encoded": torch.stack(encoder.vectors(lm, texts))}
    for name, start in (("fitted from random", "random"), ("fitted from encoded", encoder)):
        solutions = fit(lm, texts, layout=encoder.layout, recipe=job.recipe, start=start)
        kinds[name] = torch.stack([solution.protos for solution in solutions])
    rows = [
        *_neighbours(lm, kinds, texts),
        *_between(lm, encoder.layout, kinds, texts),
        *_noise(decoder, kinds, texts),
        *_distances(kinds),
        *_prefixes(lm, encoder, texts),
        *_domains(lm, encoder, job),
    ]
    return [{**row, "weights": job.values["weights"]} for row in rows]


def report(rows: list[Row]) -> Report:
    of = {
        what: [row for row in rows if row["what"] == what] for what in {row["what"] for row in rows}
    }
    kinds = sorted({row["kind"] for row in of["noise"]})

    def series(what: str, kind: str, x: str, y: str) -> Series:
        mine = sorted((row for row in of[what] if row["kind"] == kind), key=lambda row: row[x])
        return Series(kind, [row[y] for row in mine], [row[x] for row in mine])

    noisy = Panel(
        "Accuracy with noise on the vectors",
        "noise, as a share of their size",
        "token accuracy",
        y_range=(0, 1),
    )
    way = Panel(
        "Between two texts' vectors", "position on the line", "nats a token of what is decoded"
    )
    domains = [
        (
            row["name"],
            row["length"],
            row["first"],
            row["looks"],
            row["accuracy"],
            share(round(row["exact"] * row["texts"]), row["texts"]),
            share(row["fitted_exact"], row["texts"]),
            row["steps_median"],
        )
        for row in of["domain"]
    ]
    pairs = [row for row in of["neighbours"] if row["pair"] != "examples"]
    alike = [(row["kind"], row["pair"], row["in_common"], row["same_first"]) for row in pairs]
    apart = [(row["from"], row["to"], row["texts"], row["cosine"]) for row in of["distance"]]
    return Report(
        title=TITLE,
        tables=[
            Table("domain", DOMAIN, sorted(domains)),
            Table(
                "neighbours",
                ("vectors", "pair", "tokens in common", "same first token"),
                sorted(alike),
            ),
            Table("distance", ("from", "to", "texts", "cosine distance"), sorted(apart)),
        ],
        figures={
            "encoder-noise": lines(
                noisy, [series("noise", kind, "radius", "accuracy") for kind in kinds]
            ),
            "encoder-between": lines(
                way, [series("between", kind, "place", "nats") for kind in kinds]
            ),
        },
    )


def _encoder(lm: FrozenLM, folders: Sequence[str]) -> Encoder:
    """The encoder of the first folder; without one, the first that ships for the model."""
    for folder in folders or [str(path.parent) for path in sorted(SHIPPED.rglob(CONFIG))]:
        encoder = Encoder.load(Path(folder))
        if folders or encoder.config["model"]["fingerprint"] == lm.fingerprint:
            encoder.check(lm)
            return encoder
    raise UsageError(f"no encoder for {lm.name!r} ships: name its folder with --checkpoint")


def _some(texts: Texts, count: int) -> list[Passage]:
    """So many passages, or half of that, and so on: as many as a small source has.

    Raises:
        TextError: the source has no passage.
    """
    while True:
        try:
            return texts.passages(count, LENGTH)
        except TextError:
            if count == 1:
                raise
            count //= 2


def _accuracy(decoder: Decoder, protos: Tensor, texts: Ids) -> float:
    """Share of tokens that come out right."""
    return float(decoder.judge(protos.to(decoder.lm.device), texts).scores.right.double().mean())


def _decoded(lm: FrozenLM, layout: Layout, protos: Tensor, length: int) -> Ids:
    """What vectors decode to."""
    rows: list[HasVectors] = [Chunk(one, layout, length) for one in protos]
    return decode_ids(lm, rows).ids


def _in_common(one: Sequence[int], other: Sequence[int]) -> float:
    """Share of distinct tokens of two texts that both have (Jaccard)."""
    return len({*one} & {*other}) / len({*one} | {*other})


def _neighbours(lm: FrozenLM, kinds: dict[str, Tensor], texts: Ids) -> list[Row]:
    rows: list[Row] = []
    draw = random.Random(0)
    for kind, protos in kinds.items():
        # Vectors of a text as one direction, without what all texts have in common.
        towards = torch.nn.functional.normalize((protos - protos.mean(0)).flatten(1), dim=1)
        nearest = (towards @ towards.mT).fill_diagonal_(-2).argmax(1).tolist()
        strangers = [
            draw.choice([other for other in range(len(texts)) if other != number])
            for number in range(len(texts))
        ]
        for name, others in (("nearest", nearest), ("at random", strangers)):
            shared = [
                _in_common(texts[number], texts[other]) for number, other in enumerate(others)
            ]
            first = [texts[number][0] == texts[other][0] for number, other in enumerate(others)]
            means = {"in_common": statistics.mean(shared), "same_first": statistics.mean(first)}
            rows.append({"what": "neighbours", "kind": kind, "pair": name, **means})
        examples = [
            (lm.detokenize(texts[number]), lm.detokenize(texts[nearest[number]]))
            for number in range(min(8, len(texts)))
        ]
        rows.append({"what": "neighbours", "kind": kind, "pair": "examples", "texts": examples})
    return rows


def _between(lm: FrozenLM, layout: Layout, kinds: dict[str, Tensor], texts: Ids) -> list[Row]:
    """Along the line from each text to the next one in the list."""
    rows: list[Row] = []
    length = len(texts[0])

    def right(ids: list[int], got: list[int]) -> float:
        return sum(a == b for a, b in zip(ids, got, strict=True)) / length

    for kind, protos in kinds.items():
        for position in POSITIONS:
            mixed = (1 - position) * protos[0::2] + position * protos[1::2]
            out = _decoded(lm, layout, mixed, length)
            rows.append(
                {
                    "what": "between",
                    "kind": kind,
                    "place": position,
                    "first": statistics.mean(
                        right(ids, got) for ids, got in zip(texts[0::2], out, strict=True)
                    ),
                    "second": statistics.mean(
                        right(ids, got) for ids, got in zip(texts[1::2], out, strict=True)
                    ),
                    "nats": statistics.mean(
                        float(lm.surprisal(got).double().mean()) for got in out
                    ),
                    "examples": [lm.detokenize(got) for got in out[:3]],
                }
            )
    return rows


def _noise(decoder: Decoder, kinds: dict[str, Tensor], texts: Ids) -> list[Row]:
    rows: list[Row] = []
    for kind, protos in kinds.items():
        size = protos.square().mean((1, 2), keepdim=True).sqrt()
        for radius in RADII:
            generator = torch.Generator().manual_seed(0)
            noisy = [
                protos + radius * size * torch.randn(protos.shape, generator=generator)
                for _ in range(DRAWS)
            ]
            found = statistics.mean(_accuracy(decoder, one, texts) for one in noisy)
            rows.append({"what": "noise", "kind": kind, "radius": radius, "accuracy": found})
    return rows


def _distances(kinds: dict[str, Tensor]) -> list[Row]:
    """Cosine distances of all pairs, and of the same text from kind to kind."""
    rows: list[Row] = []
    names = list(kinds)
    for number, one in enumerate(names):
        for other in names[number:]:
            a, b = (
                torch.nn.functional.normalize(kinds[name].flatten(1), dim=1)
                for name in (one, other)
            )
            products = 1 - a @ b.mT
            apart = products[~torch.eye(len(products), dtype=torch.bool)]
            rows.append(
                {
                    "what": "distance",
                    "from": one,
                    "to": other,
                    "texts": "other",
                    "cosine": float(apart.mean()),
                }
            )
            if one != other:
                same = float(products.diagonal().mean())
                rows.append(
                    {"what": "distance", "from": one, "to": other, "texts": "same", "cosine": same}
                )
    return rows


def _prefixes(lm: FrozenLM, encoder: Encoder, texts: Ids) -> list[Row]:
    """How far a text's vectors are from those of its beginning, each vector by itself."""
    rows: list[Row] = []
    whole = torch.stack(encoder.vectors(lm, texts))
    for length in (length for length in (2, 4, 8, 12) if length < len(texts[0])):
        part = torch.stack(encoder.vectors(lm, [ids[:length] for ids in texts]))
        apart = 1 - torch.nn.functional.cosine_similarity(whole, part, dim=2)
        rows.append(
            {
                "what": "prefix",
                "length": length,
                "of": len(texts[0]),
                "cosine": apart.mean(0).tolist(),
            }
        )
    return rows


def _domains(lm: FrozenLM, encoder: Encoder, job: Job) -> list[Row]:
    """Accuracy on each source, in the first pass and at the end, and what fits from there take."""
    rows: list[Row] = []
    decoder = Decoder(lm, encoder.layout)
    sources: dict[str, Ids] = {}
    for text in job.texts[job.values["main"] :]:
        sources.setdefault(text.source, []).append(list(text.ids))
    for name, texts in sources.items():
        first = decoder.judge(encoder.batch(lm, texts, refinements=0).protos, texts)
        encoded = encoder.batch(lm, texts)
        judged = decoder.judge(encoded.protos, texts)
        fitted = fit(lm, texts, layout=encoder.layout, recipe=job.recipe, start=encoder)
        rows.append(
            {
                "what": "domain",
                "name": name,
                "length": len(texts[0]),
                "texts": len(texts),
                "first": float(first.scores.right.double().mean()),
                "looks": float(encoded.feedback_passes.double().mean()),
                "accuracy": float(judged.scores.right.double().mean()),
                "exact": float(judged.exact(len(texts)).double().mean()),
                "fitted_exact": sum(solution.exact for solution in fitted),
                "steps_median": statistics.median(solution.steps for solution in fitted),
            }
        )
    return rows
