"""A source that breaks off under Ray Data: run by test_killed_corpora as a program.

python failing_worker.py MODEL SOURCE FOLDER
"""

import sys
from pathlib import Path

import torch

from prototokens.corpus.options import CorpusOptions
from prototokens.corpus.run import make
from prototokens.corpus.runners import RayData
from prototokens.errors import TextError
from prototokens.lab import models
from prototokens.lab.cluster import Cluster


def main():
    torch.set_num_threads(1)
    lm = models.load(sys.argv[1], dtype="float32", device="cpu")
    options = CorpusOptions(layout="keyed:4", start="random", steps=2, length=6, shard_rows=2)
    try:
        make(lm, sys.argv[2], Path(sys.argv[3]), options, RayData(Cluster(actors=1)))
    except TextError as error:
        sys.stdout.write(f"TextError: {error}\n")


if __name__ == "__main__":
    main()
