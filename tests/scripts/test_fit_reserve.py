"""The certificate's reserve is what the command makes of the committed rows."""

import importlib.util
import json
from pathlib import Path

import pytest

from prototokens.engine.certify import reserve

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location(
        "fit_reserve", ROOT / "scripts/artefacts/fit_reserve.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_package_has_what_the_committed_rows_give(script):
    known = json.loads(script.HOME.read_text(encoding="utf-8"))
    assert script.fitted(script.certified(script.ROWS), known["shifts"]) == known
    highest = max(group["quantile"] for group in known["places"].values())
    assert reserve() == known["reserve"] == highest


def test_it_is_the_highest_quantile_and_easy_texts_do_not_hide_hard_ones(script):
    rows = [
        {
            "experiment": "reserve",
            "model": "m",
            "dtype": "float32",
            "layout": "paper",
            "shift": 0.5,
            "fall": 0.001 * number,
            "falls": {"MKL_CBWR=COMPATIBLE float32": 0.002 * number if number == 400 else 0.0},
        }
        for number in range(1, 401)
    ]
    easy = [{**row, "layout": "keyed:2", "fall": 0.0, "falls": {"x": 0.0}} for row in rows] * 3
    few = [{**row, "layout": "one", "fall": 9.0} for row in rows[:99]]
    found = script.fitted([*rows, *easy, *few], {})
    assert found["places"] == {
        "m float32 keyed:2": {"texts": 1200, "quantile": 0.0, "interval": [0.0, 0.0], "most": 0.0},
        "m float32 paper": {"texts": 400, "quantile": 0.79, "interval": [0.78, 1.6], "most": 1.6},
    }
    assert (found["reserve"], found["highest"]) == (0.79, "m float32 paper")


def test_rows_stopped_elsewhere_or_unsolved_do_not_count(script, tmp_path):
    lines = [
        {"solved": True, "rule": "standard"},
        {"solved": True, "rule": "argmax"},
        {"solved": False, "rule": "standard"},
        {"solved": True},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert script.certified([path, tmp_path / "absent.jsonl"]) == [lines[0], lines[3]]
