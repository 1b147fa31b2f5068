"""A corpus that is killed and started again.

Run by test_killed_corpora as a program of its own, so that forking is safe.

    python killed_corpus.py MODEL FOLDER KILLS

Each run is a fork of this process; it is killed with SIGKILL once it has left something new on disk
and a random while has passed. Prints, as JSON, how many runs were killed before they were done.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from prototokens.corpus.options import CorpusOptions
from prototokens.corpus.run import make
from prototokens.corpus.runners import Local
from prototokens.lab import models

SLOWLY = 0.05  # seconds in which a run is killed after it has left something new


def left(folder):
    """What a run has left: the names of the files, litter among them."""
    return {path.name for path in folder.glob("data/*")}


def main():
    torch.set_num_threads(1)
    folder, kills = Path(sys.argv[2]), int(sys.argv[3])
    lm = models.load(sys.argv[1], dtype="float32", device="cpu")
    options = CorpusOptions(
        layout="keyed:4", start="random", steps=2, length=6, limit=3 * kills, shard_rows=2
    )

    def run(where):
        make(lm, "sample", where, options, Local(lm))

    chance, killed = random.Random(0), 0
    for _ in range(kills):
        before, child = left(folder), os.fork()
        if child == 0:
            run(folder)
            os._exit(0)
        while left(folder) == before and os.waitpid(child, os.WNOHANG)[0] == 0:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, SLOWLY))
        try:
            os.kill(child, signal.SIGKILL)
            killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        except (ProcessLookupError, ChildProcessError):
            continue  # it was done
    run(folder)
    run(folder.with_name("undisturbed"))
    sys.stdout.write(json.dumps({"killed": killed, "rows": 3 * kills}))


if __name__ == "__main__":
    main()
