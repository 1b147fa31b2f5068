"""The preconditioned step against its definition in float64, and when it is taken."""

import pytest
import torch

from prototokens.engine import optimizer
from prototokens.engine.optimizer import _power, move, preconditions, side
from prototokens.engine.state import GroupState, VectorState
from prototokens.recipe import Recipe


def states(count, width, rate=0.1):
    whole = torch.arange(count)
    vectors = VectorState.begin(
        torch.ones(count, width), torch.arange(count), torch.zeros(2, count), width
    )
    flag = torch.zeros(count, dtype=torch.bool)
    return vectors, GroupState.begin(torch.full((count,), rate), flag, whole, whole)


def gradients(steps, count, width):
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(count, width, width, generator=generator)
    return [
        torch.einsum("cij,cj->ci", mix, torch.randn(count, width, generator=generator))
        for _ in range(steps)
    ]


def test_preconditioned_steps_equal_the_definition(monkeypatch):
    """Each step is C^(-p) a at a root mean square of 1, with C computed anew every third step.

    The learning rate falls with the loss.
    """
    monkeypatch.setattr(optimizer, "REFRESH", 3)
    recipe = Recipe(
        precondition_rate=0.5, precondition_power=0.4, slow_below=2.0, schedule="constant"
    )
    vectors, state = states(2, 5)
    fast, slow = recipe.betas
    mean = torch.zeros(2, 5, dtype=torch.float64)
    second_moment = torch.zeros(2, 5, 5, dtype=torch.float64)
    where = torch.ones(2, 5, dtype=torch.float64)
    preconditioner = torch.zeros(0)
    for step, gradient in enumerate(gradients(18, 2, 5)):
        loss = 4 * 0.8**step  # beyond which the rate does not fall, and below which no further
        move(recipe, vectors, state, [step, step], gradient, torch.full((2,), loss))
        g = gradient.double()
        mean = fast * mean + (1 - fast) * g
        second_moment = slow * second_moment + (1 - slow) * g[:, :, None] * g[:, None, :]
        if step % 3 == 0:
            values, axes = torch.linalg.eigh(second_moment)
            values = values.clamp_min(0) + max(1e-4, 10 * 0.1 ** (step // 3)) * values.mean(
                1, keepdim=True
            )
            preconditioner = torch.stack(
                [axes[i] @ torch.diag(values[i] ** -0.4) @ axes[i].T for i in range(2)]
            )
        direction = (preconditioner @ mean[:, :, None])[:, :, 0]
        where = (
            where
            - 0.1
            * min(1, max(0.1, loss / 2))
            * 0.5
            * direction
            / direction.square().mean(1, keepdim=True).sqrt()
        )
        torch.testing.assert_close(vectors.value.double(), where, rtol=1e-3, atol=1e-3)


def test_the_rate_of_a_given_start_does_not_fall_with_the_loss():
    recipe, gradient = Recipe(slow_below=2.0, schedule="constant"), gradients(1, 1, 5)[0]
    moved = []
    for warm_started in (False, True):
        vectors, state = states(1, 5)
        state.warm_started = torch.tensor([warm_started])
        move(recipe, vectors, state, [0], gradient, torch.ones(1))
        moved.append(1 - vectors.value)
    torch.testing.assert_close(moved[1], 2 * moved[0])


def test_each_vector_goes_by_its_own_age():
    """Two of different ages side by side: each moves as it would alone."""
    recipe = Recipe(schedule="constant")
    all_gradients = gradients(30, 2, 4)
    together, state = states(2, 4)
    alone = [states(1, 4) for _ in range(2)]
    for step, gradient in enumerate(all_gradients):
        move(recipe, together, state, [step, step + 7], gradient, torch.ones(2))
        for row, shift in enumerate((0, 7)):
            move(recipe, *alone[row], [step + shift], gradient[row : row + 1], torch.ones(1))
    for row in range(2):
        torch.testing.assert_close(together.value[row], alone[row][0].value[0])
    assert not torch.equal(together.preconditioner[0], together.preconditioner[1])


def test_a_matrix_that_is_not_finite_spoils_no_other():
    matrices = torch.stack(
        [torch.full((3, 3), torch.nan), torch.diag(torch.tensor([1.0, 4.0, 9.0]))]
    )
    roots = _power(matrices, torch.full((2,), 1e-6), -0.5)
    torch.testing.assert_close(
        roots[1], torch.diag(torch.tensor([1.0, 0.5, 1 / 3])), rtol=1e-4, atol=1e-4
    )
    assert roots.isfinite().all()
    assert _power(torch.zeros(1, 3, 3), torch.full((1,), 1e-6), -0.35).isfinite().all()


@pytest.mark.parametrize(
    ("precondition", "width", "expected"), [(False, 8, False), (True, 8, True), (True, 1025, False)]
)
def test_matrices_are_kept_only_where_they_are_used(precondition, width, expected):
    recipe = Recipe(precondition=precondition)
    assert preconditions(recipe, width) is expected
    assert side(recipe, width) == (width if expected else 0)
