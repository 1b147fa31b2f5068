"""Choose the certificate's reserve from rows of certified texts: how far their margins fell.

    python scripts/artefacts/fit_reserve.py --measure     # write engine/reserve.json
    python scripts/artefacts/fit_reserve.py --check       # from the rows alone, write nothing

Rows are those of `studies/certificate.py` that stopped at the certificate's margin, and those of
`studies/reserve.py`, in which settings of the instruction set are among the ways of decoding. For
each text, how far its least margin fell in all of the ways is divided by the movement that is
measured on vectors at random in its layout. The reserve is the quantile that `SHARE` of the texts
of a model, dtype and layout do not exceed, where it is highest: kinds of texts are not mixed, or
many easy ones would hide a hard one. Its 95% interval stands beside it. The certificate itself
finds a text that falls further, and patches it.

Rows of before 27 November 2026 had the movement measured in layout `tiled:4`, whatever their own.
`--measure` measures it in theirs, on this machine, and keeps it in the file.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from prototokens.engine.certify import threshold
from prototokens.layout import Layout
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.measure.quantiles import quantile_interval

ROOT = Path(__file__).parents[2]
HOME = ROOT / "src/prototokens/engine/reserve.json"
ROWS = [ROOT / "results/certificate/rows.jsonl", ROOT / "results/reserve/rows.jsonl"]
SHARE, LEVEL = 0.99, 0.95
MIN_TEXTS = 100  # of a model, dtype and layout, below which its quantile is ignored


def certified(paths: list[Path]) -> list[dict[str, Any]]:
    """The rows of texts that were fitted until the certificate's margin, and solved."""
    lines = [line for path in paths if path.exists() for line in path.read_text().splitlines()]
    rows = [json.loads(line) for line in lines]
    return [row for row in rows if row["solved"] and row.get("rule", "standard") == "standard"]


def fall(row: dict[str, Any]) -> float:
    """How far the least margin of a text fell in any way of decoding, in logits."""
    if "least_anywhere" in row:
        return row["margin"] - row["least_anywhere"]
    return max(row["fall"], *row["falls"].values())


def group(row: dict[str, Any]) -> str:
    """Where the movement at random is measured: model, dtype and layout."""
    return f"{row['model']} {row['dtype']} {row['layout']}"


def own(row: dict[str, Any]) -> bool:
    """Whether the row's movement was measured in its own layout."""
    return row["experiment"] == "reserve" or row.get("probes", "tiled:4") == row["layout"]


def measured(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The movement at random for the rows that have it of another layout."""
    found: dict[str, float] = {}
    for row in rows:
        if group(row) not in found and not own(row):
            lm = FrozenLM.from_pretrained(row["model"], dtype=row["dtype"])
            shift = threshold(lm, "standard", Layout.named(row["layout"])).shift
            found[group(row)] = round(shift, 5)
    return found


def fitted(rows: list[dict[str, Any]], shifts: dict[str, float]) -> dict[str, Any]:
    """What `reserve.json` holds."""
    ratios = defaultdict(list)
    for row in rows:
        shift = row["shift"] if own(row) else shifts[group(row)]
        ratios[group(row)].append(fall(row) / shift)
    quantiles = {
        name: quantile_interval(part, SHARE, LEVEL)
        for name, part in sorted(ratios.items())
        if len(part) >= MIN_TEXTS
    }
    highest = max(quantiles, key=lambda name: quantiles[name].value)
    return {
        "reserve": round(quantiles[highest].value, 2),
        "share": SHARE,
        "level": LEVEL,
        "highest": highest,
        "places": {
            name: {
                "texts": len(ratios[name]),
                "quantile": round(found.value, 2),
                "interval": [_finite(found.low), _finite(found.high)],
                "most": round(max(ratios[name]), 2),
            }
            for name, found in quantiles.items()
        },
        "shifts": shifts,
    }


def _finite(value: float) -> float | None:
    """An end of an interval, None where the texts are too few to give it."""
    return round(value, 2) if math.isfinite(value) else None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", type=Path, default=ROWS)
    parser.add_argument("--measure", action="store_true", help="measure the movement anew")
    parser.add_argument("--check", action="store_true", help="fail if the file is another; no file")
    args = parser.parse_args()
    rows = certified(args.rows)
    before = json.loads(HOME.read_text(encoding="utf-8")) if HOME.exists() else {"shifts": {}}
    found = fitted(rows, measured(rows) if args.measure else before["shifts"])
    print(json.dumps(found, indent=2))
    if not args.check:
        HOME.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    elif found != before:
        raise SystemExit(f"{HOME} is not what the rows give: run this without --check")


if __name__ == "__main__":
    main()
