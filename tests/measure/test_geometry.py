"""Distances, lines, curves and balls of noise, where the right answer is known."""

import math

import numpy as np
import pytest
import torch

from prototokens.measure import geometry


def points(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_cosine_distances_pair_by_pair():
    vectors = points(7, 5)
    found = geometry.cosine_distances(vectors)
    for one in range(7):
        for other in range(7):
            a, b = vectors[one].double().numpy(), vectors[other].double().numpy()
            slow = 1 - sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(
                sum(a * a) * sum(b * b)
            )
            assert float(found[one, other]) == pytest.approx(slow, abs=1e-12)
    assert float(geometry.cosine_distances(torch.tensor([[1.0, 0.0], [-2.0, 0.0]]))[0, 1]) == 2
    with pytest.raises(ValueError, match="no direction"):
        geometry.cosine_distances(torch.zeros(2, 3))


def test_a_curve_begins_and_ends_where_it_should_and_bends_to_its_control_point():
    start, control, end = points(3, 2, 4, seed=1), points(3, 2, 4, seed=2), points(3, 2, 4, seed=3)
    torch.testing.assert_close(geometry.bezier(start, control, end, 0.0), start)
    torch.testing.assert_close(geometry.bezier(start, control, end, 1.0), end)
    each = geometry.bezier(start, control, end, torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(each[1], (start[1] + 2 * control[1] + end[1]) / 4)
    middle = (start + end) / 2
    torch.testing.assert_close(
        geometry.bezier(start, middle, end, 0.3), geometry.line(start, end, 0.3)
    )


def test_length_against_a_polyline_of_many_pieces():
    start, control, end = (points(4, 2, 3, seed=seed).double() for seed in range(3))
    grid = np.linspace(0, 1, 20001)
    path = torch.stack([geometry.bezier(start, control, end, float(t)) for t in grid])
    slow = (path[1:] - path[:-1]).flatten(2).norm(dim=2).sum(0)
    torch.testing.assert_close(geometry.length(start, control, end), slow, rtol=1e-7, atol=0)


def test_length_ratio_of_known_curves():
    start, end = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    assert float(geometry.length_ratio(start, (start + end) / 2, end)) == pytest.approx(
        1, abs=1e-12
    )
    # y = 2x(1-x) from 0 to 1: its length is (sqrt(5) + asinh(2) / 2) / 2.
    control = torch.tensor([[0.5, 1.0]])
    assert float(geometry.length_ratio(start, control, end)) == pytest.approx(
        (math.sqrt(5) + math.asinh(2) / 2) / 2, rel=1e-9
    )
    # There and back on one line: the speed is not smooth where it turns.
    beyond = torch.tensor([[2.0, 0.0]])
    assert float(geometry.length_ratio(start, beyond, end)) == pytest.approx(5 / 3, rel=1e-3)
    with pytest.raises(ValueError, match="one point"):
        geometry.length_ratio(start, control, start)


def test_a_trained_curve_goes_round_where_the_line_does_not():
    """Solutions: the unit circle. The line between opposite points passes its centre.

    A curve need not.
    """

    def gradient(at):
        radius = at.norm(dim=1, keepdim=True).clamp(min=1e-6)
        return 2 * (radius - 1) * at / radius

    start = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    end = torch.tensor([[-0.8, 0.6], [0.6, -0.8]])
    control = geometry.fit_control(start, end, gradient, steps=800, lr=0.05)
    worst = {"line": 0.0, "curve": 0.0}
    for t in np.linspace(0, 1, 41):
        at_line, at_curve = (
            geometry.line(start, end, float(t)),
            geometry.bezier(start, control, end, float(t)),
        )
        worst["line"] = max(worst["line"], float((at_line.norm(dim=1) - 1).abs().max()))
        worst["curve"] = max(worst["curve"], float((at_curve.norm(dim=1) - 1).abs().max()))
    assert worst["line"] > 0.6
    assert worst["curve"] < 0.45
    assert bool((geometry.length_ratio(start, control, end) > 1.1).all())
    # A curve is the same in whatever company.
    torch.testing.assert_close(
        geometry.fit_control(start[:1], end[:1], gradient, steps=0, lr=1.0),
        (start[:1] + end[:1]) / 2,
    )


@pytest.mark.parametrize("draws", [1, 3])
def test_the_step_of_the_control_point_is_the_derivative_along_the_curve(draws):
    """The chain rule against autograd, at the same grid."""
    start, end, target = points(3, 2, 4, seed=4), points(3, 2, 4, seed=5), points(3, 2, 4, seed=6)
    seen = []

    def gradient(at):
        seen.append(at.view(3, draws, 2, 4))
        return 2 * (at.view(3, draws, 2, 4) - target[:, None]).view(at.shape)

    moved = geometry.fit_control(start, end, gradient, steps=1, lr=0.01, draws=draws, seed=7)
    drawn = torch.rand(3, draws, generator=torch.Generator().manual_seed(7))
    control = ((start + end) / 2).requires_grad_()
    loss = 0.0
    for number in range(draws):
        at = geometry.bezier(start, control, end, (number + drawn[:, number]) / draws)
        torch.testing.assert_close(at, seen[0][:, number])
        loss = loss + ((at - target) ** 2).sum() / draws
    loss.backward()
    torch.optim.Adam([control], lr=0.01).step()
    torch.testing.assert_close(moved, control.detach())


def test_noise_radius_of_a_ball():
    """Solutions: a ball of radius 2 about the origin."""
    centres = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    found = geometry.noise_radius(
        centres, lambda at: at.norm(dim=1) < 2, directions=50, at_most=10.0, halvings=20
    )
    assert float((found.radius[0] - 2).abs().max()) < 1e-4
    assert 1 <= float(found.radius[1].min()) < 1.5
    assert 2.5 < float(found.radius[1].max()) <= 3
    # From off the centre, along direction u: the root of |c + r u| = 2, by hand.
    generator = torch.Generator().manual_seed(0)
    way = torch.nn.functional.normalize(torch.randn(50, 3, generator=generator), dim=1)
    slow = -way[:, 0] + (way[:, 0] ** 2 + 3).sqrt()
    torch.testing.assert_close(found.radius[1], slow, atol=1e-4, rtol=0)


def test_noise_radius_at_its_ends():
    centre = torch.zeros(1, 2, 3)
    everywhere = geometry.noise_radius(
        centre, lambda at: torch.ones(len(at), dtype=torch.bool), directions=3, at_most=4.0
    )
    assert everywhere.radius.tolist() == [[4.0] * 3]
    nowhere = geometry.noise_radius(
        centre, lambda at: torch.zeros(len(at), dtype=torch.bool), directions=3, at_most=4.0
    )
    assert float(nowhere.radius.max()) == 0
