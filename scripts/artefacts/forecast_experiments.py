"""Write lab/catalogue.json: the position-steps of each experiment at --scale smoke, as forecast.

The list that `reproduce` prints takes its times from it, as sampling the texts of all jobs is too
slow for a list. To be run again when an experiment's sizes, the built-in model or the forecast of
fits change; `reproduce --plan` gives the forecast for any model, texts and scale.

    python scripts/artefacts/forecast_experiments.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from prototokens.cli.reproduce import DEFAULT_TEXTS
from prototokens.cli.sweeping import STEPS
from prototokens.lab import catalogue, experiments, models
from prototokens.lab.job import Config
from prototokens.lab.plan import measure_rate, total_work
from prototokens.lab.provenance import machine
from prototokens.lab.texts import Texts
from prototokens.recipe import Recipe


def main() -> int:
    lm = models.load("builtin")
    facts = models.facts(lm)
    recipe = Recipe.named("fast", steps=STEPS["smoke"])
    config = Config(
        facts,
        Texts(lm, DEFAULT_TEXTS),
        recipe=recipe,
        facts_of=lambda name: models.facts(models.load(name)),
    )
    jobs = {name: experiments.load(name).jobs(config) for name in catalogue.EXPERIMENTS}
    made = {
        "fingerprint": facts.fingerprint,
        "dtype": facts.dtype,
        "machine": machine(lm.device),
        "position_steps_per_second": round(measure_rate(lm, facts.flops).position_steps),
        "smoke": {name: round(total_work(some)) for name, some in jobs.items()},
        "smoke_all": round(total_work(job for some in jobs.values() for job in some)),
    }
    path = Path(catalogue.__file__).with_name("catalogue.json")
    path.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(
        f"{path.name}: {made['smoke_all'] / made['position_steps_per_second']:.0f} seconds for"
        " all\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
