"""The space that an encoder learns, beside that of fitted vectors: neighbours, the way between texts, noise, prefixes.

    python scripts/encoder_space.py --texts file:books_val.parquet --other code=file:code.txt words=random-words:words.txt
    python scripts/encoder_space.py --report

Rows of five kinds: `neighbours`, how alike the texts are whose vectors are nearest (share of tokens in common), against pairs
at random; `between`, what the straight line between two texts' vectors decodes to, its surprisal under the model beside that of
the texts, for encoded and for fitted vectors; `noise`, accuracy with noise of a share of the vectors' root mean square, for
both; `distance`, cosine distances between encodings, between fitted solutions, and from one to the other; `prefix`, between
a text's vectors and those of its beginning; `domain`, accuracy on other kinds of text, raw and after a fit. `--report` draws
the pictures and writes the tables of results/encoder/README.md from the rows alone.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

import prototokens as pt
from encoder_speed import find
from pages import put_between
from prototokens.encoder.decoder import Decoder
from prototokens.encoder.encoder import Encoder
from prototokens.errors import TextError
from prototokens.lab.plots import Panel, Series, lines
from prototokens.lab.provenance import stamp
from prototokens.lab.report import Table, save_figure, share
from prototokens.lab.texts import Texts
from row_files import RowFile, read_rows

PLACES = [step / 10 for step in range(11)]
RADII = [0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0]
DRAWS = 4
DOMAIN = (
    "texts", "tokens", "accuracy, first pass", "feedback passes", "accuracy, zero-step", "exact, zero-step",
    "exact after a fit", "steps, median",
)  # fmt: skip
MARKS = ("<!-- space: made by scripts/encoder_space.py -->", "<!-- end of the space -->")
Ids = list[list[int]]


def accuracy(decoder: Decoder, protos: Tensor, texts: Ids) -> float:
    """Share of tokens that come out right."""
    return float(decoder.judge(protos.to(decoder.lm.device), texts).scores.right.double().mean())


def decoded(lm: pt.FrozenLM, layout: pt.Layout, protos: Tensor, length: int) -> Ids:
    """What vectors decode to."""
    rows = [pt.Solution(one, layout, tuple([0] * length), 0, 0.0, 0, 0, 0, 0) for one in protos]
    return pt.decode_ids(lm, rows).ids


def in_common(one: Sequence[int], other: Sequence[int]) -> float:
    """Share of distinct tokens of two texts that both have (Jaccard)."""
    return len({*one} & {*other}) / len({*one} | {*other})


def flat(protos: Tensor, layout_mean: Tensor) -> Tensor:
    """Vectors of texts as one direction each, without what all have in common."""
    return torch.nn.functional.normalize((protos - layout_mean).flatten(1), dim=1)


def neighbours(lm: pt.FrozenLM, kinds: dict[str, Tensor], texts: Ids) -> list[dict]:
    rows, draw = [], random.Random(0)
    for kind, protos in kinds.items():
        towards = flat(protos, protos.mean(0))
        nearest = (towards @ towards.mT).fill_diagonal_(-2).argmax(1).tolist()
        strangers = [draw.choice([other for other in range(len(texts)) if other != number]) for number in range(len(texts))]
        for name, others in (("nearest", nearest), ("at random", strangers)):
            shared = [in_common(texts[number], texts[other]) for number, other in enumerate(others)]
            first = [texts[number][0] == texts[other][0] for number, other in enumerate(others)]
            rows.append(
                {"kind": kind, "pair": name, "in_common": statistics.mean(shared), "same_first": statistics.mean(first)}
            )
        examples = [(lm.decode(texts[number]), lm.decode(texts[nearest[number]])) for number in range(min(8, len(texts)))]
        rows.append({"kind": kind, "pair": "examples", "texts": examples})
    return [{"what": "neighbours", **row} for row in rows]


def between(lm: pt.FrozenLM, layout: pt.Layout, kinds: dict[str, Tensor], texts: Ids) -> list[dict]:
    """Along the line from each text to the next one in the list."""
    rows, length = [], len(texts[0])
    for kind, protos in kinds.items():
        for place in PLACES:
            mixed = (1 - place) * protos[0::2] + place * protos[1::2]
            out = decoded(lm, layout, mixed, length)
            ends = list(zip(texts[0::2], texts[1::2], out, strict=True))
            rows.append(
                {
                    "what": "between", "kind": kind, "place": place,
                    "first": statistics.mean(sum(x == y for x, y in zip(a, got, strict=True)) / length for a, _, got in ends),
                    "second": statistics.mean(sum(x == y for x, y in zip(b, got, strict=True)) / length for _, b, got in ends),
                    "nats": statistics.mean(float(lm.surprisal(got).double().mean()) for got in out),
                    "examples": [lm.decode(got) for got in out[:3]],
                }
            )  # fmt: skip
    return rows


def noise(decoder: Decoder, kinds: dict[str, Tensor], texts: Ids) -> list[dict]:
    rows = []
    for kind, protos in kinds.items():
        size = protos.square().mean((1, 2), keepdim=True).sqrt()
        for radius in RADII:
            generator = torch.Generator().manual_seed(0)
            found = [
                accuracy(decoder, protos + radius * size * torch.randn(protos.shape, generator=generator), texts)
                for _ in range(DRAWS)
            ]
            rows.append({"what": "noise", "kind": kind, "radius": radius, "accuracy": statistics.mean(found)})
    return rows


def distances(kinds: dict[str, Tensor]) -> list[dict]:
    """Cosine distances, vectors of a text as one direction: of all pairs, and of the same text from kind to kind."""
    rows, names = [], list(kinds)
    for number, one in enumerate(names):
        for other in names[number:]:
            a, b = (torch.nn.functional.normalize(kinds[name].flatten(1), dim=1) for name in (one, other))
            products = 1 - a @ b.mT
            apart = products[~torch.eye(len(products), dtype=torch.bool)]
            rows.append({"what": "distance", "from": one, "to": other, "texts": "other", "cosine": float(apart.mean())})
            if one != other:
                same = float(products.diagonal().mean())
                rows.append({"what": "distance", "from": one, "to": other, "texts": "same", "cosine": same})
    return rows


def prefixes(lm: pt.FrozenLM, encoder: Encoder, texts: Ids) -> list[dict]:
    """How far a text's vectors are from those of its beginning, each vector by itself."""
    rows, whole = [], torch.stack(encoder.vectors(lm, texts))
    for length in (length for length in (2, 4, 8, 12, 16, 24) if length < len(texts[0])):
        part = torch.stack(encoder.vectors(lm, [ids[:length] for ids in texts]))
        apart = 1 - torch.nn.functional.cosine_similarity(whole, part, dim=2)
        rows.append({"what": "prefix", "length": length, "of": len(texts[0]), "cosine": apart.mean(0).tolist()})
    return rows


def domains(lm: pt.FrozenLM, encoder: Encoder, sources: dict[str, str], count: int, length: int, seed: int) -> list[dict]:
    """How right the encoder is on each kind of text, in its first pass and after its looks; and what fits from there take."""
    rows, decoder = [], Decoder(lm, encoder.layout)
    for name, source in sources.items():
        texts = some_passages(Texts(lm, [source], seed), count, length)
        first = decoder.judge(encoder.batch(lm, texts, refinements=0).protos, texts)
        encoded = encoder.batch(lm, texts)
        judged = decoder.judge(encoded.protos, texts)
        fitted = pt.fit(lm, texts, layout=encoder.layout, start=encoder)
        rows.append(
            {
                "what": "domain", "name": name, "length": length, "texts": len(texts),
                "first": float(first.scores.right.double().mean()), "looks": float(encoded.looks.double().mean()),
                "accuracy": float(judged.scores.right.double().mean()),
                "exact": float(judged.exact(len(texts)).double().mean()),
                "fitted_exact": sum(solution.exact for solution in fitted),
                "steps_median": statistics.median(solution.steps for solution in fitted),
            }
        )  # fmt: skip
    return rows


def some_passages(texts: Texts, count: int, length: int) -> list[list[int]]:
    """So many, or half of that, and so on: as many as a small source has.

    Raises:
        TextError: it has not one.
    """
    while True:
        try:
            return [list(passage.ids) for passage in texts.passages(count, length)]
        except TextError:
            if count == 1:
                raise
            count //= 2


def report(rows: list[dict], page: Path, pictures: Path) -> None:
    """Two pictures, and the tables of the page."""
    kinds = list(dict.fromkeys(row["kind"] for row in rows if row["what"] == "noise"))
    of = {
        what: [row for row in rows if row["what"] == what] for what in ("noise", "between", "distance", "domain", "neighbours")
    }

    def series(what: str, kind: str, x: str, y: str) -> Series:
        mine = [row for row in of[what] if row["kind"] == kind]
        return Series(kind, [row[y] for row in mine], [row[x] for row in mine])

    pictures.mkdir(parents=True, exist_ok=True)
    noisy = Panel("Accuracy with noise on the vectors", "noise, as a share of their size", "token accuracy", y_range=(0, 1))
    save_figure(lines(noisy, [series("noise", kind, "radius", "accuracy") for kind in kinds]), pictures / "encoder-noise.svg")
    way = Panel("Between two texts' vectors", "place on the line", "nats a token of what is decoded")
    save_figure(lines(way, [series("between", kind, "place", "nats") for kind in kinds]), pictures / "encoder-between.svg")
    tables = [
        Table("domain", DOMAIN, [
            (row["name"], row["length"], row["first"], row["looks"], row["accuracy"],
             share(round(row["exact"] * row["texts"]), row["texts"]), share(row["fitted_exact"], row["texts"]),
             row["steps_median"]) for row in of["domain"]
        ]),
        Table("neighbours", ("vectors", "pair", "tokens in common", "same first token"), [
            (row["kind"], row["pair"], row["in_common"], row["same_first"])
            for row in of["neighbours"] if row["pair"] != "examples"
        ]),
        Table("distance", ("from", "to", "texts", "cosine distance"), [
            (row["from"], row["to"], row["texts"], row["cosine"]) for row in of["distance"]
        ]),
    ]  # fmt: skip
    shown = [f"![{words}](../../docs/images/{name}.svg)" for name, words in (
        ("encoder-noise", "accuracy against noise"), ("encoder-between", "surprisal on the way between two texts")
    )]  # fmt: skip
    put_between(page, {MARKS: "\n\n".join([*(table.markdown() for table in tables), *shown])})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--encoder", type=Path, help="its folder; by default the one that ships")
    parser.add_argument("--layout", default="mixed:4", help="of the one that ships")
    parser.add_argument("--texts", default="sample")
    parser.add_argument("--other", nargs="*", default=[], metavar="NAME=SOURCE", help="other kinds of text")
    parser.add_argument("--length", type=int, default=16)
    parser.add_argument("--passages", type=int, default=128, help="an even number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=Path, default=Path("results/encoder/space.jsonl"))
    parser.add_argument("--report", action="store_true", help="draw and write from the rows; nothing is run")
    parser.add_argument("--page", type=Path, default=Path("results/encoder/README.md"))
    parser.add_argument("--pictures", type=Path, default=Path("docs/images"))
    args = parser.parse_args()
    if args.report:
        report(read_rows(args.rows), args.page, args.pictures)
        return
    lm = pt.FrozenLM.from_pretrained(args.model, dtype=args.dtype)
    encoder = find(lm, args.encoder, args.layout)
    count = args.passages // 2 * 2
    texts = [list(passage.ids) for passage in Texts(lm, [args.texts], args.seed).passages(count, args.length)]
    kinds = {"encoded": torch.stack(encoder.vectors(lm, texts))}
    for name, start in (("fitted from random", "random"), ("fitted from encoded", encoder)):
        kinds[name] = torch.stack([solution.protos for solution in pt.fit(lm, texts, layout=encoder.layout, start=start)])
    decoder = Decoder(lm, encoder.layout)
    sources = {"held-out": args.texts, **dict(pair.split("=", 1) for pair in args.other)}
    rows = [
        *neighbours(lm, kinds, texts), *between(lm, encoder.layout, kinds, texts), *noise(decoder, kinds, texts),
        *distances(kinds), *prefixes(lm, encoder, texts),
        *domains(lm, encoder, sources, min(count, 64), args.length, args.seed),
    ]  # fmt: skip
    about = {"fingerprint": lm.fingerprint, "encoder": encoder.config["weights_sha256"], **stamp(lm.device)}
    args.rows.unlink(missing_ok=True)  # one encoder's space, and not two in one picture
    file = RowFile(args.rows, ())
    for row in rows:
        file.append({**row, **about})


if __name__ == "__main__":
    main()
