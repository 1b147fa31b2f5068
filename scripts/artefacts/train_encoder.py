"""Train the encoders that ship for the built-in model.

Of five vectors, refined (mixed:4), and of nine, in one pass (tiled:8).

    python scripts/artefacts/train_encoder.py --data 'data/books_train-*.parquet' --held-out
    data/books_val.parquet --hours 8 python scripts/artefacts/train_encoder.py ... --only mixed:4
    --out build/encoder

`--hours` is shared between them by `SHARES`: the pace of a few trial steps tells how many steps
that makes. Each is then a plain run of `prototokens train-encoder`, whose command is printed first,
so it can be taken up again, or made longer, by that command alone. The finished folders are to be
copied into src/prototokens/builtin/encoder/, where they are found by the model's fingerprint.
"""

from __future__ import annotations

import argparse
import glob
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import prototokens as pt
from prototokens.encoder.config import Shape
from prototokens.lm.devices import bfloat16_pays
from prototokens.training.config import Running, Training
from prototokens.training.train import Trainer

TRIAL_STEPS = 6
# For each layout, what is passed on to train-encoder: a first choice, of which
# studies/encoder_variants.py is to judge.
ENCODERS = {
    "mixed:4": {
        "max-length": 32,
        "width": 256,
        "layers": 4,
        "heads": 16,
        "refinements": 3,
        "rows": 64,
        "rate": 0.003,
        "matrix-rate": 0.02,
        "curriculum": 800,
    },
    "tiled:8": {
        "max-length": 32,
        "width": 256,
        "layers": 4,
        "heads": 4,
        "refinements": 0,
        "rows": 64,
        "rate": 0.003,
        "matrix-rate": 0.02,
        "curriculum": 2000,
    },
}
SHARES = {"mixed:4": 0.6, "tiled:8": 0.4}  # of the hours


def one_folder(patterns: list[str], work: Path) -> str:
    """A source of all files that the patterns name: a folder with a link to each."""
    files = sorted(Path(found).resolve() for pattern in patterns for found in glob.glob(pattern))
    if not files:
        raise SystemExit(f"{' '.join(patterns)}: there is no such file")
    if len(files) == 1:
        return f"file:{files[0]}"
    folder = work / "texts"
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        (folder / file.name).unlink(missing_ok=True)
        (folder / file.name).symlink_to(file)
    return f"file:{folder}"


def steps_for(lm: pt.FrozenLM, layout: str, seconds: float, compiled: bool) -> int:
    """How many steps fit into so many seconds, by a trial on texts that need no reading."""
    own = ENCODERS[layout]
    shape = Shape(
        layout=layout,
        max_length=own["max-length"],
        width=own["width"],
        layers=own["layers"],
        heads=own["heads"],
        feed_forward=4 * own["width"],
        refinements=own["refinements"],
    )
    dtype = "bfloat16" if bfloat16_pays(lm.device) else "float32"
    training = Training(texts="random-tokens", pool=20_000, dtype=dtype, rows=own["rows"])
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(lm, shape, training, Running(Path(folder), measured=1, compile=compiled))
        for step in range(
            TRIAL_STEPS
        ):  # the first ones are slower: memory is taken, or the network compiled
            trainer.step(step)
        began = time.monotonic()
        for step in range(TRIAL_STEPS):
            trainer.step(step)
    return max(100, round(seconds * TRIAL_STEPS / (time.monotonic() - began)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        nargs="+",
        required=True,
        help="files to train on, as train-encoder's file: takes them",
    )
    parser.add_argument("--held-out", required=True, help="a file that is measured on")
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--hours", type=float, required=True, help="of training, in all")
    parser.add_argument("--only", choices=list(ENCODERS), help="one of them, with all the hours")
    parser.add_argument("--steps", type=int, help="in place of what --hours makes; needs --only")
    parser.add_argument("--out", type=Path, default=Path("build/encoder"))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--dry-run", action="store_true", help="print the commands, and run none")
    args = parser.parse_args()
    if args.steps and not args.only:
        parser.error("--steps is for one encoder: name it with --only")
    args.out.mkdir(parents=True, exist_ok=True)
    texts = one_folder(args.data, args.out)
    lm = pt.FrozenLM.from_pretrained(args.model)
    for layout in [args.only] if args.only else ENCODERS:
        hours = args.hours * (1.0 if args.only else SHARES[layout])
        steps = args.steps or steps_for(lm, layout, 3600 * hours, args.compile)
        command = [
            sys.executable,
            "-m",
            "prototokens",
            "train-encoder",
            "--model",
            args.model,
            "--layout",
            layout,
        ]
        command += [
            word for name, value in ENCODERS[layout].items() for word in (f"--{name}", str(value))
        ]
        command += [
            "--texts",
            texts,
            "--held-out",
            f"file:{args.held_out}",
            "--steps",
            str(steps),
            "--force",
        ]
        command += [
            "-o",
            str(args.out / layout.replace(":", "-")),
            *(["--compile"] if args.compile else []),
        ]
        print(shlex.join(command), flush=True)
        if not args.dry_run:
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
