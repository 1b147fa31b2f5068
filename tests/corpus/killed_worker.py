"""A corpus on Ray Data of which an actor is killed: run by test_killed_corpora as a program.

python killed_worker.py MODEL FOLDER
"""

import os
import signal
import sys
from pathlib import Path

import psutil
import torch

from prototokens.corpus.options import CorpusOptions
from prototokens.corpus.run import make
from prototokens.corpus.runners import Local, RayData
from prototokens.lab import models
from prototokens.lab.cluster import Cluster


def actors():
    """The processes of actors that hold a model, of this program's own cluster."""
    return [
        one
        for one in psutil.Process().children(recursive=True)
        if " ".join(one.cmdline()).startswith("ray::MapWorker")
    ]


def main():
    torch.set_num_threads(1)
    lm = models.load(sys.argv[1], dtype="float32", device="cpu")
    folder = Path(sys.argv[2])
    options = CorpusOptions(
        layout="keyed:4", start="random", steps=40, length=6, limit=60, shard_rows=4
    )
    killed = []

    def kill_one(progress):
        if progress.made.rows and not killed:
            killed.append(actors()[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    summary = make(lm, "sample", folder, options, RayData(Cluster(actors=2)), kill_one)
    assert (summary.totals.rows, summary.shards) == (60, 15)
    make(lm, "sample", folder.with_name("undisturbed"), options, Local(lm))
    assert len(killed) == 1
    sys.stdout.write("one actor killed\n")


if __name__ == "__main__":
    main()
