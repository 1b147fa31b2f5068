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
    assert reserve() == known["reserve"] == known["interval"][1]


def test_it_is_the_upper_end_of_the_quantiles_interval(script):
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
    found = script.fitted(rows, {})
    assert (found["quantile"], found["interval"]) == (0.79, [0.78, 1.6])
    assert (found["reserve"], found["texts"], found["most"]) == (1.6, 400, 1.6)


def test_rows_that_stopped_elsewhere_or_were_not_solved_say_nothing(script, tmp_path):
    lines = [
        {"solved": True, "rule": "standard"},
        {"solved": True, "rule": "argmax"},
        {"solved": False, "rule": "standard"},
        {"solved": True},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert script.certified([path, tmp_path / "absent.jsonl"]) == [lines[0], lines[3]]
