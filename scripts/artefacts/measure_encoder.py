r"""Measure an encoder again and write what was found into its folder.

Held-out accuracy, rates by kind of text, rates of fits, and proof.

    python scripts/artefacts/measure_encoder.py build/encoder/mixed-4 \
        --texts file:books_val.parquet --lengths 4 8 16 24 32 --words vocab_100k.txt
    python scripts/artefacts/measure_encoder.py src/prototokens/builtin/encoder/mixed-4 \
        --texts file:books_val.parquet --words vocab_100k.txt --only kinds

The rate at which fits go on from the encoder's vectors is chosen on other passages than the proof.
The proof fits the same passages from both starts, the encoder's own passes counted; `auto` decides
by it. The machine should do nothing else meanwhile. `--only kinds` measures the kinds of text
alone, which needs no quiet machine, and leaves everything else as it is.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from prototokens.encoder.encoder import Encoder
from prototokens.lab.texts import Texts
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.recipe import Recipe
from prototokens.training.card import write_card
from prototokens.training.evaluate import by_kind, of_encoder
from prototokens.training.proof import prove, tune


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("encoder", type=Path, help="its folder, which is changed")
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--texts", default="sample")
    parser.add_argument("--lengths", nargs="+", type=int, default=[8, 16, 32])
    parser.add_argument("--passages", type=int, default=128, help="of each length, for the proof")
    parser.add_argument("--tuned", type=int, default=32, help="passages that the rate is chosen on")
    parser.add_argument("--measured", type=int, default=256, help="texts for the accuracy")
    parser.add_argument("--words", help="a list of words, one a line, for the kind random words")
    parser.add_argument("--each", type=int, default=200, help="texts of each kind")
    parser.add_argument("--only", choices=["kinds"], help="measure these alone")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    lm = FrozenLM.from_pretrained(args.model, dtype=args.dtype)
    encoder = Encoder.load(args.encoder)
    encoder.check(lm)
    encoder.config["model"]["response"] = lm.response
    sources = {"held-out books": args.texts, "uniform ids": "random-tokens"}
    if args.words:
        sources["random words"] = f"random-words:{args.words}"
    longest = encoder.shape.max_length
    lengths = [longest // 2, longest] if longest > 1 else [longest]
    encoder.config["kinds"] = by_kind(lm, encoder, sources, args.each, lengths, args.seed)
    if args.only is None:
        measure_fits(lm, encoder, args)
    encoder.save(args.encoder, write_card(encoder))


def measure_fits(lm: FrozenLM, encoder: Encoder, args: argparse.Namespace) -> None:
    """Held-out accuracy, the rates of fits, and the proof."""
    texts, recipe = Texts(lm, [args.texts], args.seed), Recipe.named("fast")

    def log(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    passages = texts.passages(args.passages + args.tuned, max(args.lengths))
    others = [passage.ids for passage in passages[args.passages :]]
    rates = [tune(lm, encoder, [ids[:n] for ids in others], recipe, log) for n in args.lengths]
    encoder.config["rates"] = rates
    held_out = texts.passages(args.measured, encoder.shape.max_length)
    encoder.config["held_out"] = of_encoder(lm, encoder, [one.ids for one in held_out], args.texts)
    encoder.config["proof"] = [
        prove(lm, encoder, [one.ids for one in texts.passages(args.passages, n)], recipe, log)
        for n in args.lengths
    ]


if __name__ == "__main__":
    main()
