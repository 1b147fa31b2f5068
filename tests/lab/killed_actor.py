"""A sweep on Ray of which an actor is killed: run by test_cluster as a program of its own.

python killed_actor.py MODEL FOLDER
"""

import json
import os
import signal
import sys
from pathlib import Path

import psutil
import torch

from prototokens.lab import experiments, models
from prototokens.lab.cluster import Cluster
from prototokens.lab.job import Config
from prototokens.lab.records import Records
from prototokens.lab.sweep import Local, sweep
from prototokens.lab.texts import Texts
from prototokens.recipe import Recipe

WHERE_FROM = ("seconds", "when", "machine", "versions", "git", "margin")


def actors():
    """The processes of actors that hold a model, of this program's own cluster."""
    return [
        one
        for one in psutil.Process().children(recursive=True)
        if " ".join(one.cmdline()).startswith("ray::_Actor")
    ]


def main():
    torch.set_num_threads(1)
    lm = models.load(sys.argv[1], dtype="float32", device="cpu")
    config = Config(
        models.facts(lm),
        Texts(lm, ["random-tokens"]),
        recipe=Recipe.named("paper", steps=40),
        most_texts=8,
        grid=(1, 2, 3),
    )
    jobs = experiments.load("length").jobs(config)
    killed = []

    def kill_one(job, rows):
        if not killed:
            killed.append(actors()[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    folder = Path(sys.argv[2])
    ended = sweep(jobs, Records(folder), Cluster(actors=2), tracker=kill_one)
    whole = sweep(jobs, Records(folder.with_name("whole")), Local(lm))
    assert [row["key"] for row in ended] == [row["key"] for row in whole]
    assert len(ended) == len(jobs)
    for one, other in zip(ended, whole, strict=True):
        assert {k: v for k, v in one.items() if k not in WHERE_FROM} == {
            k: v for k, v in other.items() if k not in WHERE_FROM
        }
    keys = [json.loads(line)["key"] for line in (folder / "rows.jsonl").read_text().splitlines()]
    assert len(keys) == len(set(keys))
    assert len(killed) == 1
    sys.stdout.write("one actor killed\n")


if __name__ == "__main__":
    main()
