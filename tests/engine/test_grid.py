"""Vectors on a grid, and fits that begin from given vectors."""

import pytest
import torch

import prototokens as pt
from prototokens.engine.grid import levels_of, nearest_grid, on_grid, values_of
from prototokens.engine.rows import Start
from prototokens.errors import UsageError


@pytest.fixture(scope="module")
def solved(tiny_llama):
    targets = [tiny_llama.tokenize(text) for text in ("abcd", "efg")]
    return targets, pt.fit(tiny_llama, targets, layout="tiled:2")


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_a_number_takes_one_of_the_levels_and_the_nearest(bits):
    protos = torch.randn(3, 50, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [[0.01], [1.0], [30.0]]
    )
    scale, levels = nearest_grid(protos, bits)
    codes = levels_of(protos, scale, levels)
    assert codes.min() >= 0
    assert codes.max() <= 2**bits - 1
    assert torch.equal(codes, codes.round())
    rounded = on_grid(protos, scale, levels)
    assert torch.equal(rounded, values_of(codes, scale, levels))
    assert torch.equal(on_grid(rounded, scale, levels), rounded)
    every = (2 * torch.arange(2**bits) + 1 - 2**bits)[None, None] * scale[:, None, None]
    best = (every - protos[:, :, None]).abs().amin(2)
    assert torch.allclose((rounded - protos).abs(), best, atol=1e-5)


def test_more_bits_lie_nearer():
    protos = torch.randn(4, 256, generator=torch.Generator().manual_seed(1))
    errors = [
        (on_grid(protos, *nearest_grid(protos, bits)) - protos).square().mean().item()
        for bits in range(1, 9)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] < 0.4  # one bit of a normal number leaves 0.363 (Max, 1960)
    assert errors[3] == pytest.approx(0.0115, rel=0.15)  # four bits


def test_a_vector_without_a_grid_stays_as_it_is():
    protos = torch.randn(2, 8)
    assert torch.equal(on_grid(protos, torch.zeros(2), torch.full((2,), 16.0)), protos)


def test_a_fit_that_begins_at_a_solution_is_over_at_once(tiny_llama, solved):
    targets, solutions = solved
    assert all(one.exact for one in solutions)
    again = pt.fit(
        tiny_llama, targets, layout="tiled:2", start=[Start(one.protos) for one in solutions]
    )
    for before, after in zip(solutions, again, strict=True):
        assert after.steps == 0
        assert torch.equal(after.protos, before.protos)


def test_a_fit_on_a_grid_gives_vectors_on_it(tiny_llama, solved):
    targets, solutions = solved
    starts = [Start(one.protos, nearest_grid(one.protos, 4)) for one in solutions]
    polished = pt.fit(
        tiny_llama, targets, layout="tiled:2", start=[starts[0], Start(solutions[1].protos)]
    )
    assert all(one.exact for one in polished)
    assert torch.equal(on_grid(polished[0].protos, *starts[0].grid), polished[0].protos)
    assert len(polished[0].protos.unique()) <= 3 * 16
    assert torch.equal(polished[1].protos, solutions[1].protos)  # its neighbour is free
    alone = pt.fit(tiny_llama, targets[:1], layout="tiled:2", start=starts[:1])[0]
    assert torch.equal(alone.protos, polished[0].protos)


def test_steps_on_a_grid_make_right_what_rounding_broke(tiny_llama, solved):
    targets, solutions = solved
    starts = [Start(one.protos, nearest_grid(one.protos, 1)) for one in solutions]
    rounded = pt.fit(tiny_llama, targets, layout="tiled:2", start=starts, recipe=pt.Recipe(steps=0))
    polished = pt.fit(tiny_llama, targets, layout="tiled:2", start=starts)
    assert sum(one.correct for one in rounded) < sum(one.correct for one in polished) == 7


def test_a_start_keeps_its_own_learning_rate_in_any_batch(tiny_llama, solved):
    """Steps of `fast` have the size of the rate, so a tenth of the rate goes a tenth of the way."""
    targets, solutions = solved
    recipe = pt.Recipe.named("fast", steps=1, margin=1e6)
    seen = []
    slow, quick = (
        Start(one.protos, lr_scale=rate) for one, rate in zip(solutions, (0.1, 1.0), strict=True)
    )
    pt.fit(
        tiny_llama,
        targets,
        layout="tiled:2",
        start=[slow, quick],
        recipe=recipe,
        progress=lambda now: seen.append([now.vectors_of(order) for order in (0, 1)]),
    )
    moved = [
        (now - one.protos).square().mean().sqrt().item()
        for now, one in zip(seen[-1], solutions, strict=False)
    ]
    assert moved[0] == pytest.approx(moved[1] / 10, rel=1e-3)


def test_starts_that_do_not_fit_are_refused(tiny_llama, solved):
    targets, solutions = solved
    with pytest.raises(UsageError, match="factor on the recipe's rate, above zero, not 0"):
        pt.fit(
            tiny_llama,
            targets,
            layout="tiled:2",
            start=[Start(solutions[0].protos, lr_scale=0.0), None],
        )
    with pytest.raises(UsageError, match="vectors for 1 targets, and there are 2"):
        pt.fit(tiny_llama, targets, start=[None])
    with pytest.raises(UsageError, match=r"shape \(3, 32\) was given, and \(2, 32\) is needed"):
        pt.fit(tiny_llama, targets, start=[Start(solutions[0].protos), None])
