"""The serial loop is the engine's own fit, one text at a time.

What the two differ in is how the work is done.
"""

import pytest
import torch

import prototokens as pt
from prototokens.bench.compare import compare
from prototokens.bench.serial import fit_serial
from prototokens.engine.inputs import OneStep
from prototokens.engine.rows import Init, Starts, groups_of

IDS = [8, 1, 4, 6, 12, 2]


def start_of(lm, recipe, ids, seed):
    (group,) = groups_of(lm, [ids], OneStep(pt.Layout.named("paper")), Init(seed))
    return Starts(lm, recipe, 2).draw(group.rows[0], group)


# Rounding grows with every step, most where the steps are preconditioned. The second root of the
# matrices is taken at step 20.
@pytest.mark.parametrize(("steps", "tolerance"), [(0, 0.0), (1, 1e-5), (8, 1e-4), (30, 5e-3)])
@pytest.mark.parametrize("name", ["paper", "fast"])
@pytest.mark.parametrize("family", ["tiny_llama", "tiny_neox"])
def test_the_serial_fit_equals_the_engines(request, family, name, steps, tolerance):
    lm = request.getfixturevalue(family)
    recipe = pt.Recipe.named(name, steps=steps, margin=1e3)  # never reached: all steps are taken
    seen = []
    pt.fit(
        lm,
        [IDS],
        layout="paper",
        recipe=recipe,
        seed=5,
        progress=lambda now: seen.append(now.vectors_of(0)),
    )
    serial = fit_serial(lm, IDS, recipe, start_of(lm, recipe, IDS, 5))
    assert (serial.exact, serial.steps) == (False, steps)
    torch.testing.assert_close(serial.protos, seen[-1], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("width", [32, 16])
def test_wide_vectors_take_adamws_steps(tiny_llama, monkeypatch, width):
    from prototokens.engine import optimizer

    monkeypatch.setattr(optimizer, "MAX_WIDTH", width)
    recipe = pt.Recipe.named("fast", steps=8, margin=1e3)
    seen = []
    pt.fit(
        tiny_llama,
        [IDS],
        layout="paper",
        recipe=recipe,
        progress=lambda now: seen.append(now.vectors_of(0)),
    )
    serial = fit_serial(tiny_llama, IDS, recipe, start_of(tiny_llama, recipe, IDS, 0))
    torch.testing.assert_close(serial.protos, seen[-1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["paper", "fast"])
def test_it_stops_where_the_engine_does(tiny_llama, name):
    recipe = pt.Recipe.named(name, steps=2000)
    ids = [3, 1, 4]
    serial = fit_serial(tiny_llama, ids, recipe, start_of(tiny_llama, recipe, ids, 0))
    solution = pt.fit(tiny_llama, [ids], layout="paper", recipe=recipe)[0]
    assert serial.exact
    assert solution.exact
    assert serial.steps == solution.steps


def test_the_ratio_is_to_the_published_way_even_where_it_solves_nothing(tiny_llama):
    result = compare(tiny_llama, tiny_llama, [[3, 1, 4], [1, 5, 9]], 0, 30.0)
    ways = {way["name"]: way for way in result["ways"]}
    assert list(ways) == [
        "serial, paper",
        "serial, fast",
        "engine, paper",
        "engine, fast, keyed:2",
        "engine, fast, keyed:5",
    ]
    assert all(
        (way["tried"], way["solved"], way["row_steps"]) == (2, 0, 2) for way in ways.values()
    )
    assert all(way["times_serial_paper"] == 0 for way in ways.values())
    assert ways["serial, paper"]["row_steps_times_serial_paper"] == 1.0
