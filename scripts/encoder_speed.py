"""What an encoder saves: fits from its starts against random ones, in turn, and its raw way against fitting. One row each.

    python scripts/encoder_speed.py --texts file:books_val.parquet --record
    python scripts/encoder_speed.py --what raw --texts file:books_val.parquet --passages 1000 --lengths 32
    python scripts/encoder_speed.py --report

`fits` fits the same passages both ways, block by block with the order turned each time, the encoder's own pass counted:
row-steps, texts solved a minute. `--record` first looks for the rate at which fits go on from the encoder's vectors, on other
passages, and writes both into the encoder's config and card, by which `auto` decides; and how right the encoder is by length.
`raw` encodes and decodes passages without a step, and fits a part of them (`--fitted`) for comparison; seconds are for one
passage. `--refinements` limits what an encoder does to its vectors after its first pass. The machine should do nothing else
meanwhile. `--report` writes the tables of results/encoder/README.md from the rows alone.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import prototokens as pt
from pages import put_between
from prototokens.encoder.encoder import CONFIG, Encoder
from prototokens.encoder.shipped import SHIPPED, shipped
from prototokens.encoder.starts import judged
from prototokens.lab.provenance import stamp
from prototokens.lab.report import Table, share
from prototokens.lab.texts import Texts
from prototokens.lm.devices import wait
from prototokens.training.card import write_card
from prototokens.training.evaluate import of_encoder
from prototokens.training.proof import prove, tune
from row_files import RowFile, read_rows

MARKS = {
    "shipped": ("<!-- shipped: made by scripts/encoder_speed.py -->", "<!-- end of what ships -->"),
    "fits": ("<!-- fits: made by scripts/encoder_speed.py -->", "<!-- end of the fits -->"),
    "raw": ("<!-- raw: made by scripts/encoder_speed.py -->", "<!-- end of raw -->"),
}
SHOWN = (8, 16, 24, 32)  # of the lengths that were measured, in tokens


def find(lm: pt.FrozenLM, folder: Path | None, layout: str) -> Encoder:
    """The encoder of the options, or the one that ships."""
    encoder = Encoder.load(folder) if folder else shipped(lm, pt.Layout.named(layout))
    if encoder is None:
        raise SystemExit(f"no encoder for {lm.name!r} and layout {layout} ships: name a folder with --encoder")
    return encoder


def fits(lm: pt.FrozenLM, encoder: Encoder, args: argparse.Namespace) -> list[dict]:
    texts, rows = Texts(lm, [args.texts], args.seed), []
    recipe = pt.Recipe.named(args.recipe, **({} if args.lr is None else {"lr": args.lr}))

    def said(words: str) -> None:
        print(words, file=sys.stderr, flush=True)

    if args.record:
        others = [one.ids for one in texts.passages(args.passages + args.tuned, max(args.lengths))][args.passages :]
        found = [tune(lm, encoder, [ids[:length] for ids in others], recipe, said) for length in args.lengths]
        encoder.config["rates"] = found
        held_out = [one.ids for one in texts.passages(args.measured, encoder.shape.max_length)]
        encoder.config["held_out"] = of_encoder(lm, encoder, held_out, args.texts)
    for length in args.lengths:
        passages = [passage.ids for passage in texts.passages(args.passages, length)]
        row = prove(lm, encoder, passages, recipe, said)
        rows.append({**row, "lr": recipe.lr, "rate": encoder.rate(length)})
    return rows


def raw_against_fits(lm: pt.FrozenLM, encoder: Encoder, args: argparse.Namespace) -> list[dict]:
    texts, rows = Texts(lm, [args.texts], args.seed), []
    for length in args.lengths:
        passages = [list(passage.ids) for passage in texts.passages(args.passages, length)]
        part = passages[: args.fitted]
        wait(lm.device)
        began = time.monotonic()
        fitted = pt.fit(lm, part, layout=encoder.layout, recipe=args.recipe)
        wait(lm.device)
        seconds = time.monotonic() - began
        for refinements in args.refinements if encoder.shape.refinements else (0,):
            encoder.encodings(lm, passages[:8], refinements)  # the first pass is slower
            wait(lm.device)
            began = time.monotonic()
            encodings = encoder.encodings(lm, passages, refinements)
            wait(lm.device)
            encoding = time.monotonic() - began
            solutions = judged(lm, encoder, passages, encodings)
            wait(lm.device)
            began = time.monotonic()
            decoded = pt.decode_ids(lm, solutions).ids
            wait(lm.device)
            decoding = time.monotonic() - began
            looks = sum(one.looks for one in encodings) / len(passages)
            row = _raw_row(passages, decoded, args.recipe, encoding, decoding, fitted, seconds)
            rows.append({**row, "refinements": refinements, "looks": round(looks, 3)})
        print(f"{length} tokens: {len(passages)} raw, {len(part)} fitted", file=sys.stderr, flush=True)
    return rows


def _raw_row(
    passages: list[list[int]], decoded: list[list[int]], recipe: str, encoding: float, decoding: float,
    fitted: list[pt.Solution], fitting: float,
) -> dict:  # fmt: skip
    """What came out, and the seconds that each way took."""
    length = len(passages[0])
    right = sum(a == b for ids, got in zip(passages, decoded, strict=True) for a, b in zip(ids, got, strict=True))
    return {
        "length": length,
        "texts": len(passages),
        "recipe": recipe,
        "accuracy": right / (len(passages) * length),
        "exact": sum(got == ids for ids, got in zip(passages, decoded, strict=True)),
        "encode_seconds": encoding / len(passages),
        "decode_seconds": decoding / len(passages),
        "fitted": len(fitted),
        "fitted_exact": sum(solution.exact for solution in fitted),
        "fit_seconds": fitting / len(fitted),
    }


def report(rows: list[dict], page: Path) -> None:
    """The tables of the page: of the encoders that ship, from their folders, and of the rows."""
    columns = {
        "shipped": (
            "layout", "vectors", "refinements in training", "trained on, million tokens", "hours", "tokens of a text",
            "feedback passes", "tokens right", "texts exact",
        ),
        "fits": (
            "layout", "tokens", "texts", "recipe", "rate", "row-steps, random", "row-steps, encoder", "share", "exact, random",
            "exact, encoder", "solved a minute, random", "solved a minute, encoder", "times",
            "processor, threads",
        ),
        "raw": (
            "layout", "tokens", "texts", "source", "feedback passes", "token accuracy", "exact", "encode, ms", "decode, ms",
            "fit, ms", "times", "processor, threads",
        ),
    }  # fmt: skip
    cells: dict[str, list[list]] = {"shipped": [], "fits": [], "raw": []}
    for place in sorted(SHIPPED.rglob(CONFIG)):
        encoder = Encoder.load(place.parent)
        shape, trained = encoder.shape, encoder.config["trained"]
        about = [shape.layout, shape.vectors, shape.refinements, trained["tokens"] / 1e6, trained["seconds"] / 3600]
        cells["shipped"] += [
            [
                *about, row["length"], f"{row.get('looks', 0):.1f}", f"{row['accuracy']:.1%}",
                share(round(row["exact"] * row["texts"]), row["texts"]),
            ]
            for row in encoder.config["held_out"]["rows"] if row["length"] in SHOWN
        ]  # fmt: skip
    for row in rows:
        if row["what"] == "fits":
            one, other = row["random"], row["encoder"]
            pace = [60 * side["exact"] / side["seconds"] for side in (one, other)]
            cells["fits"].append([
                row["layout"], row["length"], row["texts"], row["recipe"], row.get("rate", 1.0), one["row_steps"],
                other["row_steps"], other["row_steps"] / one["row_steps"], one["exact"], other["exact"], *pace,
                pace[1] / pace[0] if pace[0] else None, machine(row),
            ])  # fmt: skip
        else:
            whole = row["encode_seconds"] + row["decode_seconds"]
            cells["raw"].append([
                row["layout"], row["length"], row["texts"], row["source"], f"{row.get('looks', 0):.1f}",
                f"{row['accuracy']:.1%}", share(row["exact"], row["texts"]), 1000 * row["encode_seconds"],
                1000 * row["decode_seconds"], 1000 * row["fit_seconds"], row["fit_seconds"] / whole, machine(row),
            ])  # fmt: skip
    put_between(page, {marks: Table(name, columns[name], cells[name]).markdown() for name, marks in MARKS.items()})


def machine(row: dict) -> str:
    """The processor and the number of threads that a row was measured with: rates of two machines are not compared."""
    return f"{row['machine']['processor']}, {row['machine']['threads']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=["fits", "raw"], default="fits")
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--encoder", type=Path, help="its folder; by default the one that ships")
    parser.add_argument("--layout", default="mixed:4", help="of the one that ships")
    parser.add_argument("--texts", default="sample")
    parser.add_argument("--lengths", nargs="+", type=int, default=[8, 16, 32])
    parser.add_argument("--passages", type=int, default=128)
    parser.add_argument("--tuned", type=int, default=32, help="with --record: passages on which the rate is chosen")
    parser.add_argument("--fitted", type=int, default=128, help="with raw: of the passages, how many are fitted too")
    parser.add_argument(
        "--refinements", nargs="+", type=int, default=[0, 3, 12], help="with raw: most of a text, one row for each number"
    )
    parser.add_argument("--measured", type=int, default=256, help="with --record: texts that tell how right the encoder is")
    parser.add_argument("--recipe", default="fast")
    parser.add_argument("--lr", type=float, help="in place of the recipe's, both ways")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", action="store_true", help="write the fits into the encoder's config and card")
    parser.add_argument("--rows", type=Path, default=Path("results/encoder/speed.jsonl"))
    parser.add_argument("--report", action="store_true", help="write the page's tables from the rows; nothing is run")
    parser.add_argument("--page", type=Path, default=Path("results/encoder/README.md"))
    args = parser.parse_args()
    if args.report:
        report(read_rows(args.rows), args.page)
        return
    lm = pt.FrozenLM.from_pretrained(args.model, dtype=args.dtype)
    encoder = find(lm, args.encoder, args.layout)
    found = fits(lm, encoder, args) if args.what == "fits" else raw_against_fits(lm, encoder, args)
    about = {
        "what": args.what, "layout": encoder.shape.layout, "fingerprint": lm.fingerprint, "source": args.texts.split("/")[-1],
        "encoder": encoder.config["weights_sha256"], "trained": encoder.config["trained"], **stamp(lm.device),
    }  # fmt: skip
    file = RowFile(args.rows, ())
    for row in found:
        file.append({**about, **row})
    if args.record and args.what == "fits" and encoder.path:
        encoder.config["proof"] = found
        encoder.save(encoder.path, write_card(encoder))


if __name__ == "__main__":
    main()
