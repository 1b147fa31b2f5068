"""Fits on tiny random models: what is frozen, what is independent, what is returned."""

import copy
import math
from dataclasses import replace

import pytest
import torch

import prototokens as pt
from prototokens.engine.decode import decode_ids, generate_from
from prototokens.engine.head import score
from prototokens.engine.inputs import Cramming
from prototokens.errors import TextError, UsageError

IDS = [[5, 9, 2, 7], [11, 3, 3], [8, 1, 4, 6, 12, 2], [7]]


def state(lm):
    return {name: tensor.clone() for name, tensor in lm.model.state_dict().items()}


def test_after_a_fit_every_tensor_of_the_model_is_what_it_was(any_lm):
    before, digest = state(any_lm), any_lm.weights_hash()
    pt.fit(any_lm, IDS[:2], recipe=pt.Recipe.named("fast", steps=3))
    after = state(any_lm)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert any_lm.weights_hash() == digest
    assert all(parameter.grad is None for parameter in any_lm.model.parameters())


def test_short_targets_become_exact_and_decode_in_one_pass(any_lm):
    solutions = pt.fit(any_lm, IDS, layout="tiled:4", recipe=pt.Recipe.named("fast", steps=600))
    assert [solution.exact for solution in solutions] == [True] * len(IDS)
    decoded = decode_ids(any_lm, solutions)
    assert decoded.ids == IDS
    assert decoded.forward_passes == 1


def test_the_vectors_returned_are_the_ones_that_were_scored(tiny_llama):
    for solution in pt.fit(
        tiny_llama, IDS, layout="paper", recipe=pt.Recipe.named("fast", steps=25)
    ):
        inputs = solution.protos[solution.layout.index(solution.length)][None]
        hidden = tiny_llama.hidden(inputs)[0][solution.layout.scored(solution.length)]
        scores = score(tiny_llama, hidden.detach(), torch.tensor(solution.ids))
        assert int(scores.right.sum()) == solution.correct
        assert scores.margin.min().item() == pytest.approx(solution.margin, abs=1e-4)


def test_a_row_gets_the_same_result_alone_and_in_a_batch(any_lm):
    recipe = pt.Recipe.named(
        "fast", steps=15, margin=1e3
    )  # never solved: all fifteen steps are taken
    target = IDS[0]
    alone = pt.fit(any_lm, [target], recipe=recipe)[0]
    crowd = pt.fit(any_lm, [*IDS, target, IDS[2] * 3], recipe=recipe)
    for other in (crowd[0], crowd[4]):
        torch.testing.assert_close(other.protos, alone.protos, rtol=1e-3, atol=1e-3)
        assert (other.correct, other.steps) == (alone.correct, alone.steps)


@pytest.mark.parametrize("method", [None, Cramming(2)], ids=["one-step", "cramming"])
def test_padding_harms_no_row_where_norms_have_no_epsilon(tiny_llama, method):
    """A norm without an epsilon (Gemma 3n) makes NaN of zeros, and zero times NaN is NaN."""
    config = copy.deepcopy(tiny_llama.model.config)
    config.rms_norm_eps = 0.0
    model = type(tiny_llama.model)(config)
    model.load_state_dict(tiny_llama.model.state_dict())
    lm = pt.FrozenLM(model, name="no-epsilon")
    assert lm.hidden(torch.zeros(1, 3, lm.d_model)).isnan().all()
    recipe = pt.Recipe.named("fast", steps=15, margin=1e3)
    crowd = pt.fit(lm, IDS, recipe=recipe, method=method)
    for ids, in_company in zip(IDS, crowd, strict=True):
        (alone,) = pt.fit(lm, [ids], recipe=recipe, method=method)
        assert in_company.failure is None
        assert (in_company.correct, in_company.steps) == (alone.correct, alone.steps)
        torch.testing.assert_close(in_company.protos, alone.protos, rtol=1e-3, atol=1e-3)
    if method is None:
        together, singly = decode_ids(lm, crowd), [decode_ids(lm, [row]).ids[0] for row in crowd]
        assert together.ids == singly


def test_waiting_rows_get_the_same_results(tiny_llama):
    recipe = pt.Recipe.named("fast", steps=300)
    targets = [[3, 1, 4, 1, 5], [9, 2, 6], [5, 3, 5, 8, 9, 7, 9], [3, 2], [3, 8, 4]]
    together = pt.fit(tiny_llama, targets, recipe=recipe)
    queued = pt.fit(tiny_llama, targets, recipe=recipe, rows=2)
    assert [solution.ids for solution in queued] == [tuple(target) for target in targets]
    assert [solution.exact for solution in queued] == [solution.exact for solution in together]


def test_seeds_give_other_starts_and_the_same_seed_the_same(tiny_llama):
    recipe = pt.Recipe.named("fast", steps=0)
    first, again, other = pt.fit(tiny_llama, [IDS[0]] * 3, seed=[1, 1, 2], recipe=recipe)
    assert torch.equal(first.protos, again.protos)
    assert not torch.equal(first.protos, other.protos)


def test_the_papers_step_is_torchs_adamw(tiny_llama):
    """One row of recipe `paper`, against a plain loop with torch.optim.AdamW and full logits."""
    recipe = pt.Recipe.named("paper", steps=12, margin=1e3)
    layout = pt.Layout.named("paper")
    target = torch.tensor(IDS[2])
    start = pt.fit(tiny_llama, [IDS[2]], layout="paper", recipe=replace(recipe, steps=0))[0].protos
    seen = []
    pt.fit(
        tiny_llama,
        [IDS[2]],
        layout="paper",
        recipe=recipe,
        progress=lambda now: seen.append(now.vectors_of(0)),
    )

    protos = start.clone().requires_grad_()
    optimiser = torch.optim.AdamW([protos], lr=0.01, betas=(0.9, 0.9), weight_decay=0.01)
    for ours in seen:
        torch.testing.assert_close(ours, protos.detach(), rtol=1e-4, atol=1e-4)
        logits = tiny_llama.logits(tiny_llama.hidden(protos[layout.index(len(target))][None]))[0]
        loss = torch.nn.functional.cross_entropy(logits, target, reduction="sum")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert len(seen) == 13


@pytest.mark.parametrize("share", ["e", "m"])
def test_a_shared_vector_is_one_vector(tiny_llama, share):
    solutions = pt.fit(
        tiny_llama, [[3, 5], [4, 9], [6, 2]], share=share, recipe=pt.Recipe.named("fast", steps=400)
    )
    index = 0 if share == "e" else 1
    assert all(
        torch.equal(solution.protos[index], solutions[0].protos[index]) for solution in solutions
    )
    assert not torch.equal(solutions[0].protos[1 - index], solutions[1].protos[1 - index])
    assert len({solution.steps for solution in solutions}) == 1
    assert decode_ids(tiny_llama, solutions).ids == [list(s.ids) for s in solutions] or not all(
        s.exact for s in solutions
    )


def test_a_budget_that_runs_out_gives_the_best_that_was_seen(tiny_llama):
    seen = []
    recipe = pt.Recipe.named("fast", steps=40, margin=1e3)
    solution = pt.fit(
        tiny_llama,
        [IDS[2]],
        recipe=recipe,
        progress=lambda now: seen.append(round(now.accuracy * len(IDS[2]))),
    )[0]
    assert solution.correct == max(seen)
    assert seen.index(solution.correct) <= solution.steps <= 40
    assert solution.row_steps == 41


def test_a_restart_has_other_initial_vectors_and_the_better_fit_wins(tiny_llama):
    recipe = pt.Recipe.named("fast", steps=2, restarts=3, margin=1e3)
    attempts = [
        pt.fit(tiny_llama, [IDS[2]], recipe=replace(recipe, restarts=n))[0] for n in range(4)
    ]
    assert [attempt.row_steps for attempt in attempts] == [3, 6, 9, 12]
    assert [attempt.correct for attempt in attempts] == sorted(
        attempt.correct for attempt in attempts
    )


def test_a_row_without_a_finite_loss_ends_and_changes_no_other(tiny_llama, monkeypatch):
    recipe = pt.Recipe.named("fast", steps=10, margin=1e3)
    undisturbed = pt.fit(tiny_llama, [IDS[0], IDS[2]], recipe=recipe)
    from prototokens.engine.rows import Starts

    draw = Starts.draw
    monkeypatch.setattr(
        Starts,
        "draw",
        lambda self, row, group: (
            draw(self, row, group) * (math.nan if row.ids == tuple(IDS[1]) else 1.0)
        ),
    )
    disturbed = pt.fit(tiny_llama, IDS[:3], recipe=recipe)
    assert disturbed[1].failure is not None
    assert disturbed[1].correct == 0
    assert "not finite" in disturbed[1].failure
    for before, after in zip(undisturbed, (disturbed[0], disturbed[2]), strict=True):
        assert after.failure is None
        torch.testing.assert_close(after.protos, before.protos, rtol=1e-3, atol=1e-3)


def test_a_restart_recovers_from_a_bad_start(tiny_llama, monkeypatch):
    from prototokens.engine.rows import Starts

    draw = Starts.draw
    monkeypatch.setattr(
        Starts,
        "draw",
        lambda self, row, group: draw(self, row, group) * (math.nan if group.attempt == 0 else 1.0),
    )
    solution = pt.fit(tiny_llama, [[4, 2]], recipe=pt.Recipe.named("fast", steps=400))[0]
    assert solution.exact
    assert solution.failure is None
    assert solution.restarts == 1


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"targets": [[]]}, TextError, "target 1 of 1 is empty"),
        ({"targets": [[1], [10**6]]}, TextError, "target 2 of 2 has ids outside"),
        ({"targets": [[1] * 4000]}, TextError, "takes 4000 positions"),
        ({"targets": [[1]], "seed": [1, 2]}, UsageError, "2 seeds for 1 targets"),
        ({"targets": [[1]], "share": "x"}, UsageError, "share must be"),
        (
            {"targets": [[1]], "share": "e", "layout": "tiled:3"},
            UsageError,
            "needs a layout of two vectors",
        ),
        ({"targets": [[1]], "rows": 0}, UsageError, "rows must be at least 1"),
        ({"targets": [[1]], "recipe": "quick"}, UsageError, "no recipe 'quick'"),
        ({"targets": [[1]], "layout": "spiral"}, UsageError, "no layout 'spiral'"),
    ],
)
def test_invalid_options_have_a_clear_message(tiny_llama, options, error, words):
    with pytest.raises(error, match=words):
        pt.fit(tiny_llama, options.pop("targets"), **options)


def test_no_targets_give_no_solutions(tiny_llama):
    assert pt.fit(tiny_llama, []) == []


def test_cramming_is_the_plain_teacher_forced_loop(any_lm):
    """K vectors before the text, next-token loss over all of it.

    Against a loop with torch's AdamW and full logits.
    """
    recipe = pt.Recipe.named("paper", steps=6, margin=1e3)
    target = torch.tensor(IDS[2])
    start = pt.fit(any_lm, [IDS[2]], method=Cramming(2), recipe=replace(recipe, steps=0))[0].protos
    seen = []
    pt.fit(
        any_lm,
        [IDS[2]],
        method=Cramming(2),
        recipe=recipe,
        progress=lambda now: seen.append(now.vectors_of(0)),
    )
    protos = start.clone().requires_grad_()
    optimiser = torch.optim.AdamW([protos], lr=0.01, betas=(0.9, 0.9), weight_decay=0.01)
    for ours in seen:
        torch.testing.assert_close(ours, protos.detach(), rtol=2e-4, atol=2e-4)
        inputs = torch.cat([protos, any_lm.embed(target[:-1]).float()])[None]
        logits = any_lm.logits(any_lm.hidden(inputs))[0, 1:]
        loss = torch.nn.functional.cross_entropy(logits, target, reduction="sum")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert len(seen) == 7


def test_generation_is_right_as_far_as_the_teacher_forced_outputs_are(any_lm):
    target = IDS[2]
    solution = pt.fit(
        any_lm, [target], method=Cramming(3), recipe=pt.Recipe.named("fast", steps=150)
    )[0]
    inputs = torch.cat([solution.protos, any_lm.embed(torch.tensor(target[:-1])).float()])[None]
    forced = any_lm.logits(any_lm.hidden(inputs))[0, 2:].argmax(-1).tolist()
    assert sum(a == b for a, b in zip(forced, target, strict=True)) == solution.correct > 0
    first_wrong = next(
        (i for i, (a, b) in enumerate(zip(forced, target, strict=True)) if a != b), len(target)
    )
    generated = generate_from(any_lm, [solution, solution])
    assert generated[0] == generated[1]
    assert generated[0][: first_wrong + 1] == forced[: first_wrong + 1]
    with pytest.raises(UsageError, match="decoded token by token"):
        decode_ids(any_lm, [solution])
