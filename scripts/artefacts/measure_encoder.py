r"""Measure an encoder again and write what was found into its folder.

Held-out accuracy, rates and proof.

    python scripts/artefacts/measure_encoder.py build/encoder/mixed-4 --texts file:books_val.parquet
    \
        --lengths 4 8 16 24 32

The rate at which fits go on from the encoder's vectors is chosen on other passages than the proof.
The proof fits the same passages from both starts, the encoder's own passes counted; `auto` decides
by it. The machine should do nothing else meanwhile.
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
from prototokens.training.evaluate import of_encoder
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
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    lm, encoder = FrozenLM.from_pretrained(args.model), Encoder.load(args.encoder)
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
    encoder.save(args.encoder, write_card(encoder))


if __name__ == "__main__":
    main()
