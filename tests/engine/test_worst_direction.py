"""The worst direction: a far smaller change does harm there than noise does.

The change that does harm is about as large as is reported.
"""

from dataclasses import replace

import pytest
import torch

import prototokens as pt
from prototokens.engine import certify
from prototokens.engine.matrix import margins
from prototokens.engine.worst_direction import worst_direction_radius

TEXTS = ["abcd", "call me", "xyz"]


@pytest.fixture(scope="module")
def solutions(tiny_llama):
    recipe = pt.Recipe.named("fast", margin=0.5)
    solutions = pt.fit(tiny_llama, TEXTS, layout="tiled:4", recipe=recipe)
    assert all(solution.exact for solution in solutions)
    return solutions


def everywhere(rows):
    return [torch.ones(len(row.ids), dtype=torch.bool) for row in rows]


def along_the_gradient(lm, row, position, share):
    """The row after a step, so long, against the gradient of the margin of a position."""
    protos = row.protos.clone().requires_grad_()
    index, scored = row.layout.index(row.length), row.layout.scored(row.length)
    logits = lm.logits(lm.hidden(protos[index][None])[0, scored[position]])
    true = logits[row.ids[position]]
    others = torch.cat([logits[: row.ids[position]], logits[row.ids[position] + 1 :]])
    (gradient,) = torch.autograd.grad(true - others.max(), protos)
    return replace(row, protos=row.protos - share * row.protos.norm() * gradient / gradient.norm())


def test_a_step_of_the_radius_takes_a_token_away_and_much_less_does_not(tiny_llama, solutions):
    radius = worst_direction_radius(tiny_llama, solutions, everywhere(solutions))
    assert 0 < radius < 1

    def survives(share):
        moved = [
            along_the_gradient(tiny_llama, row, position, share)
            for row in solutions
            for position in range(row.length)
        ]
        return all((margin > 0).all() for margin in margins(tiny_llama, moved))

    assert survives(0.5 * radius)
    assert not survives(1.5 * radius)


def test_the_radius_is_the_least_of_all_rows_in_any_batch(tiny_llama, solutions):
    alone = [worst_direction_radius(tiny_llama, [row], everywhere([row])) for row in solutions]
    assert worst_direction_radius(tiny_llama, solutions, everywhere(solutions)) == pytest.approx(
        min(alone), rel=1e-3
    )


def test_the_radius_without_scored_positions_and_with_wrong_tokens(tiny_llama, solutions):
    nowhere = [torch.zeros(len(row.ids), dtype=torch.bool) for row in solutions]
    assert worst_direction_radius(tiny_llama, solutions, nowhere) is None
    wrong = [replace(solutions[0], ids=(solutions[0].ids[0] + 1, *solutions[0].ids[1:]))]
    assert worst_direction_radius(tiny_llama, wrong, everywhere(wrong)) == 0.0


def test_only_the_strict_certificate_takes_the_time(tiny_llama, solutions, monkeypatch):
    monkeypatch.setattr(certify, "all_cells", certify.few_cells)
    monkeypatch.setattr(certify, "_MEASURED", {})
    assert certify.certify(tiny_llama, solutions, "standard")[0].worst_radius is None
    assert certify.certify(tiny_llama, solutions, "strict")[0].worst_radius > 0
