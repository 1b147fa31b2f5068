"""The whitened step against its definition in float64, and when it is taken."""

import pytest
import torch

from prototokens.engine import optimiser
from prototokens.engine.optimiser import _inverse_root, move, side, whitens
from prototokens.engine.state import Groups, Vectors
from prototokens.recipe import Recipe


def states(count, width, rate=0.1):
    flat, whole = torch.zeros(count, width), torch.arange(count)
    matrices = torch.zeros(count, width, width)
    vectors = Vectors(torch.ones(count, width), flat, flat.clone(), flat.clone(), whole, matrices, matrices.clone())
    flag = torch.zeros(count, dtype=torch.bool)
    return vectors, Groups(whole * 0, torch.full((count,), rate), whole, flat[:, 0], whole, flag, flag)


def gradients(steps, count, width):
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(count, width, width, generator=generator)
    return [torch.einsum("cij,cj->ci", mix, torch.randn(count, width, generator=generator)) for _ in range(steps)]


def test_whitened_steps_are_those_of_the_definition(monkeypatch):
    """After ten steps of AdamW, C^(-1/2) a at a root mean square of 1, with C taken anew every third step."""
    monkeypatch.setattr(optimiser, "REFRESH", 3)
    recipe = Recipe(whiten_after=10, whiten_rate=0.5, schedule="constant")
    vectors, state = states(2, 5)
    slopes = gradients(18, 2, 5)
    fast, slow = recipe.betas
    mean, square = torch.zeros(2, 5, dtype=torch.float64), torch.zeros(2, 5, dtype=torch.float64)
    outer, where = torch.zeros(2, 5, 5, dtype=torch.float64), torch.ones(2, 5, dtype=torch.float64)
    for age, slope in enumerate(slopes):
        move(recipe, vectors, state, [age, age], slope)
        g = slope.double()
        mean, square = fast * mean + (1 - fast) * g, slow * square + (1 - slow) * g * g
        outer = slow * outer + (1 - slow) * g[:, :, None] * g[:, None, :]
        if age < 10:
            step = mean / (1 - fast ** (age + 1)) / (square / (1 - slow ** (age + 1))).sqrt()
        else:
            if (age - 10) % 3 == 0:
                values, axes = torch.linalg.eigh(outer)
                values = values + optimiser.FLOOR * values.mean(1, keepdim=True)
                root = torch.stack([axes[i] @ torch.diag(values[i] ** -0.5) @ axes[i].T for i in range(2)])
            step = (root @ mean[:, :, None])[:, :, 0]
            step = 0.5 * step / step.square().mean(1, keepdim=True).sqrt()
        where = where - 0.1 * step
        torch.testing.assert_close(vectors.now.double(), where, rtol=2e-3, atol=2e-3)


def test_each_vector_goes_by_its_own_age():
    """One old, one young, side by side: each moves as it would alone."""
    recipe = Recipe(whiten_after=4, schedule="constant")
    slopes = gradients(8, 2, 4)
    together, state = states(2, 4)
    alone, own_state = states(1, 4)
    for age, slope in enumerate(slopes):
        move(recipe, together, state, [age, age - 5], slope)
        move(recipe, alone, own_state, [age], slope[:1])
    torch.testing.assert_close(together.now[:1], alone.now)
    plain, plain_state = states(1, 4)
    for slope in slopes:
        move(Recipe(whiten_after=None, schedule="constant"), plain, plain_state, [0], slope[1:])
    torch.testing.assert_close(together.now[1:], plain.now)


def test_a_matrix_that_is_not_finite_spoils_no_other():
    matrices = torch.stack([torch.full((3, 3), torch.nan), torch.diag(torch.tensor([1.0, 4.0, 9.0]))])
    roots = _inverse_root(matrices)
    torch.testing.assert_close(roots[1], torch.diag(torch.tensor([1.0, 0.5, 1 / 3])), rtol=1e-4, atol=1e-4)
    assert roots.isfinite().all()
    assert _inverse_root(torch.zeros(1, 3, 3)).isfinite().all()


@pytest.mark.parametrize(("after", "width", "expected"), [(None, 8, False), (0, 8, True), (5, optimiser.WIDEST + 1, False)])
def test_matrices_are_kept_only_where_they_are_used(after, width, expected):
    recipe = Recipe(whiten_after=after)
    assert whitens(recipe, width) is expected
    assert side(recipe, width) == (width if expected else 0)
