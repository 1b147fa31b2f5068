"""How much faster two actors of a Ray cluster are than one, each on a core of its own: rows a second of the same sweep.

Both sweeps are of the same jobs, into folders of their own, with the cluster started beforehand; the start of the actors and
the loading of the model are counted, as a user waits for them too. Every fit takes its whole budget, so both do the same work.
The machine should have nothing else to do: two busy cores and a third process say nothing about actors.

    python scripts/two_actors.py                 # the built-in model; needs the extra [ray]
    python scripts/two_actors.py --jobs 64 --steps 20
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from prototokens.lab import experiments, models
from prototokens.lab.cluster import Cluster
from prototokens.lab.job import Config
from prototokens.lab.records import Records
from prototokens.lab.sweep import sweep
from prototokens.lab.texts import Texts
from prototokens.recipe import Recipe


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--jobs", type=int, default=256, help="texts, one job each")
    parser.add_argument("--length", type=int, default=16, help="tokens of a text")
    parser.add_argument("--steps", type=int, default=60, help="of each fit")
    args = parser.parse_args()
    lm = models.load(args.model, device="cpu")
    # A margin that no fit reaches: none ends before its budget does.
    recipe = Recipe.named("fast", steps=args.steps, margin=1e6)
    config = Config(models.facts(lm), Texts(lm, ["random-tokens"]), recipe=recipe, most_texts=args.jobs, grid=(args.length,))
    jobs = experiments.named("length").jobs(config)
    cluster = Cluster(actors=2)
    cluster.connect()
    seconds = {}
    try:
        for actors in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                began = time.monotonic()
                rows = sweep(jobs, Records(Path(folder)), Cluster(actors=actors))
                seconds[actors] = time.monotonic() - began
            print(f"{actors} actor(s): {len(rows)} rows in {seconds[actors]:.1f} s", file=sys.stderr)
    finally:
        cluster.ray.shutdown()
    found = {"jobs": len(jobs), "seconds": seconds, "ratio": seconds[1] / seconds[2], "load": os.getloadavg()[2]}
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
