"""Fit the forecast's coefficients to rows of real fits, and judge it on rows that were left out.

    python scripts/artefacts/fit_forecast.py --rows results/{keyed,one-vector,real-llm}/rows.jsonl
    python scripts/artefacts/fit_forecast.py --rows results/keyed/rows.jsonl --check
    python scripts/artefacts/fit_forecast.py --report

The first writes the package's forecast.json, the second judges it on these rows and writes nothing,
the third writes the table of results/keyed/README.md. Rows are those of `studies/front.py`. Models
should be well trained: one that reproduces next to nothing (early snapshots of a training run) is
far from what an offset can tell, and would bend the weights for all. Recipes that the rows do not
have are left unchanged in the file.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from prototokens.lab import forecasting
from prototokens.lab.report import fill
from prototokens.planning.forecast import Curve
from prototokens.recipe import Recipe

HOME = Path(__file__).parents[2] / "src/prototokens/planning/forecast.json"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", type=Path, default=[])
    parser.add_argument("--check", action="store_true", help="judge the package's coefficients")
    parser.add_argument("--out", type=Path, default=HOME)
    parser.add_argument("--report", action="store_true", help="write the table of the page")
    parser.add_argument("--page", type=Path, default=Path("results/keyed/README.md"))
    args = parser.parse_args()
    if args.report:
        fill(args.page, [forecasting.judgement(json.loads(args.out.read_text())["recipes"])])
        return
    made = {}
    for name, rows in forecasting.read(args.rows).items():
        if args.check:
            some = forecasting.tensors(rows)
            found = forecasting.predicted(some, Curve.of(Recipe.named(name)))
            print(json.dumps({"recipe": name, **forecasting.judge(some, *found)}))
            continue
        made[name] = forecasting.fitted_record(rows, args.rows)
        shown = {key: made[name][key] for key in ("weights", "held_out", "unseen_models")}
        print(json.dumps({"recipe": name, **shown}, indent=1))
    if made:
        before = json.loads(args.out.read_text())["recipes"] if args.out.exists() else {}
        whole = {
            "made_by": "scripts/artefacts/fit_forecast.py",
            "recipes": dict(sorted({**before, **made}.items())),
        }
        args.out.write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main()
