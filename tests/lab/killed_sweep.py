"""A sweep that is killed and started again.

Run by test_sweep as a program of its own, so that forking is safe.

    python killed_sweep.py MODEL FOLDER KILLS

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

from prototokens.lab import experiments, models
from prototokens.lab.job import Config
from prototokens.lab.records import Records
from prototokens.lab.sweep import Local, sweep
from prototokens.lab.texts import Texts
from prototokens.recipe import Recipe


def made(folder):
    """How much a sweep has left: rows' bytes, and solutions."""
    rows = folder / "rows.jsonl"
    return (rows.stat().st_size if rows.exists() else 0) + sum(
        1 for _ in folder.glob("solutions/*/*.safetensors")
    )


def jobs_of(model, kills):
    """More of them where more runs are to be killed."""
    lm = models.load(model, dtype="float32", device="cpu")
    config = Config(
        models.facts(lm),
        Texts(lm, ["random-tokens"]),
        recipe=Recipe.named("paper", steps=6),
        most_texts=1 + kills // 6,
        grid=(1, 2, 3),
    )
    return lm, [job for name in ("table1", "length") for job in experiments.load(name).jobs(config)]


def main():
    torch.set_num_threads(1)
    folder, kills = Path(sys.argv[2]), int(sys.argv[3])
    lm, jobs = jobs_of(sys.argv[1], kills)
    folder.mkdir(parents=True, exist_ok=True)
    chance, killed = random.Random(0), 0
    for _ in range(kills):
        before, child = made(folder), os.fork()
        if child == 0:
            sweep(jobs, Records(folder), Local(lm, most=2))
            os._exit(0)
        while made(folder) == before and os.waitpid(child, os.WNOHANG)[0] == 0:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.02))
        try:
            os.kill(child, signal.SIGKILL)
            killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        except (ProcessLookupError, ChildProcessError):
            continue  # it was done
    sys.stdout.write(json.dumps({"killed": killed, "jobs": len(jobs)}))


if __name__ == "__main__":
    main()
