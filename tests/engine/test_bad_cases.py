"""Fits that go wrong, and rows that have nothing in common.

Each ends as it should, and none spoils another.
"""

import math

import pytest
import torch
from tests.conftest import SPREAD, make
from transformers import PhiConfig, PhiForCausalLM

import prototokens as pt
from prototokens.engine import batch as batch_module
from prototokens.engine import fit as fit_module
from prototokens.engine.batch import Batch
from prototokens.engine.head import argmax, score
from prototokens.engine.scheduler import MAX_DIVERGENCES, MAX_STALLS, RETRY_LR_SCALE, Scheduler
from prototokens.lm.frozen_lm import FrozenLM

RECIPE = pt.Recipe.named("fast", steps=12, margin=1e3)  # never solved: all steps are taken
TARGETS = [[5, 9, 2, 7], [11, 3, 3], [8, 1, 4, 6, 12, 2]]


@pytest.fixture(scope="module")
def large_vocabulary():
    """A tiny Phi: GPT-2's 50,257 tokens, and a bias in the head."""
    shape = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    model = make(
        PhiForCausalLM,
        PhiConfig(vocab_size=50257, max_position_embeddings=64, initializer_range=SPREAD, **shape),
    )
    with torch.no_grad():
        model.lm_head.bias.normal_(generator=torch.Generator().manual_seed(1))
    return FrozenLM(model)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_a_large_vocabulary_with_a_bias(large_vocabulary, temperature):
    lm = large_vocabulary
    assert lm.head.bias is not None
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(90, lm.hidden_size, generator=generator)
    targets = torch.randint(0, lm.vocab_size, (90,), generator=generator)  # in more chunks than one
    scores = score(lm, hidden, targets, temperature)

    leaf = hidden.double().requires_grad_()
    logits = leaf @ lm.head.weight.double().T + lm.head.bias.double()
    loss = torch.nn.functional.cross_entropy(logits / temperature, targets, reduction="none")
    loss.sum().backward()
    true = logits.gather(1, targets[:, None])[:, 0]
    others = logits.detach().scatter(1, targets[:, None], -torch.inf).amax(1)
    torch.testing.assert_close(scores.loss.double(), loss.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        scores.margin.double(), (true - others).detach(), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(scores.gradient.double(), leaf.grad, rtol=1e-4, atol=1e-6)
    assert torch.equal(argmax(lm, hidden), logits.argmax(1))


def test_a_large_vocabulary_is_fitted_and_decoded(large_vocabulary):
    """Of so many tokens a narrow model can say but some: those that it says to random vectors."""
    lm = large_vocabulary
    likeliest = argmax(
        lm,
        lm.hidden(
            torch.randn(1, 5, lm.d_model, generator=torch.Generator().manual_seed(4))
        ).detach()[0],
    ).tolist()
    targets = [likeliest[:3], likeliest[3:]]
    solutions = pt.fit(lm, targets, layout="tiled:8", recipe=pt.Recipe.named("fast", steps=600))
    assert [solution.exact for solution in solutions] == [True, True]
    assert pt.decode_ids(lm, solutions).ids == targets


class Breaks:
    """Makes the loss of one target's tokens NaN at the given steps of the batch."""

    def __init__(self, monkeypatch, token, steps):
        self.calls, self.rates = 0, []
        real = batch_module.score

        def broken(lm, hidden, targets, temperature):
            scores = real(lm, hidden, targets, temperature)
            self.calls += 1
            if self.calls not in steps:
                return scores
            wrong = targets == token
            return scores._replace(
                loss=scores.loss.masked_fill(wrong, math.nan),
                gradient=scores.gradient.masked_fill(wrong[:, None], math.nan),
            )

        begin = Scheduler._begin

        def noted(scheduler, groups):
            state = begin(scheduler, groups)
            self.rates += [
                (group.rows[0].ids, lr / scheduler.lr / scheduler.recipe.start_scale)
                for group, lr in zip(groups, state.of_groups.lr.tolist(), strict=True)
            ]
            return state

        monkeypatch.setattr(batch_module, "score", broken)
        monkeypatch.setattr(Scheduler, "_begin", noted)


@pytest.mark.parametrize("check_every", [1, 5])
def test_a_loss_that_breaks_in_the_middle_starts_its_row_again_at_a_lower_rate(
    tiny_llama, monkeypatch, check_every
):
    undisturbed = pt.fit(tiny_llama, TARGETS, recipe=RECIPE)
    monkeypatch.setattr(fit_module, "CHECK_EVERY", {"cpu": check_every})
    breaks = Breaks(monkeypatch, 11, steps={6})  # 11 stands in the second target alone
    solutions = pt.fit(tiny_llama, TARGETS, recipe=RECIPE)
    assert [rate for ids, rate in breaks.rates if ids == (11, 3, 3)] == pytest.approx(
        [1.0, RETRY_LR_SCALE]
    )
    assert solutions[1].failure is None
    assert solutions[1].restarts in (0, 1)  # the attempt that was the better one
    assert solutions[1].row_steps > RECIPE.steps + 1
    assert solutions[1].protos.isfinite().all()
    for number in (0, 2):
        assert solutions[number].failure is None
        assert (solutions[number].steps, solutions[number].correct) == (
            undisturbed[number].steps,
            undisturbed[number].correct,
        )
        torch.testing.assert_close(
            solutions[number].protos, undisturbed[number].protos, rtol=1e-3, atol=1e-3
        )


def test_a_loss_that_breaks_again_and_again_is_reported(tiny_llama, monkeypatch):
    undisturbed = pt.fit(tiny_llama, TARGETS, recipe=RECIPE)
    breaks = Breaks(monkeypatch, 11, steps=range(4, 1000))
    solutions = pt.fit(tiny_llama, TARGETS, recipe=RECIPE)
    rates = [rate for ids, rate in breaks.rates if ids == (11, 3, 3)]
    assert rates == pytest.approx(
        [RETRY_LR_SCALE**attempt for attempt in range(MAX_DIVERGENCES + 1)]
    )
    assert solutions[1].failure == f"the loss was not finite in {MAX_DIVERGENCES + 1} attempts"
    assert solutions[1].protos.isfinite().all()
    assert solutions[1].margin > -math.inf  # of the steps before it broke
    for number in (0, 2):
        torch.testing.assert_close(
            solutions[number].protos, undisturbed[number].protos, rtol=1e-3, atol=1e-3
        )


def test_one_token_and_the_whole_context_decode_from_one_batch(tiny_gpt2):
    """Many vectors reproduce so wide a row: both are exact, and both come out of one pass."""
    longest = tiny_gpt2.max_context
    targets = [[5], [1, 2] * (longest // 2)]
    solutions = pt.fit(
        tiny_gpt2, targets, layout="tiled:8", recipe=pt.Recipe.named("fast", steps=1500)
    )
    assert [solution.exact for solution in solutions] == [True, True]
    decoded = pt.decode_ids(tiny_gpt2, solutions)
    assert decoded.ids == targets
    assert decoded.forward_passes == 1


def test_an_unsolved_row_ends_with_its_budget_and_delays_no_other(tiny_llama):
    """Sixty random tokens in one vector: it cannot reproduce them."""
    hopeless = torch.randint(0, 256, (60,), generator=torch.Generator().manual_seed(0)).tolist()
    recipe = pt.Recipe.named("fast", steps=150, restarts=1, stall=0)
    ended = []
    targets = [hopeless, [3], [4], [5], [6]]
    solutions = pt.fit(
        tiny_llama,
        targets,
        layout="one",
        recipe=recipe,
        rows=2,
        finished=lambda order, solution: ended.append(order),
    )
    assert ended[-1] == 0
    assert not solutions[0].exact
    assert solutions[0].failure is None
    assert solutions[0].row_steps == 2 * (recipe.steps + 1)
    assert solutions[0].steps <= recipe.steps
    assert all(solution.exact for solution in solutions[1:])


def test_a_row_that_stalls_starts_again_within_its_budget(tiny_llama, monkeypatch):
    begun, begin = [], Scheduler._begin
    monkeypatch.setattr(
        Scheduler, "_begin", lambda self, groups: begun.extend(groups) or begin(self, groups)
    )
    hopeless = torch.randint(0, 256, (60,), generator=torch.Generator().manual_seed(0)).tolist()
    recipe = pt.Recipe.named("fast", steps=150, stall=20)
    stalled, easy = pt.fit(tiny_llama, [hopeless, [3]], layout="one", recipe=recipe)
    assert easy.exact
    assert not stalled.exact
    assert stalled.failure is None
    assert stalled.row_steps == recipe.steps + 1
    assert 2 < len(begun) <= 2 + MAX_STALLS
    begun.clear()
    never = pt.fit(
        tiny_llama, [hopeless], layout="one", recipe=pt.Recipe.named("fast", steps=150, stall=0)
    )[0]
    assert never.row_steps == 151
    assert len(begun) == 1


def test_an_interrupt_ends_a_fit_and_what_was_solved_is_known(tiny_llama, monkeypatch):
    """Ctrl-C is not taken for a lack of memory and leaves the model as it was.

    The next fit begins as ever.
    """
    before = tiny_llama.weights_hash()
    recipe = pt.Recipe.named("fast", steps=60)
    targets = [[4], [3, 1, 4, 1, 5, 9, 2, 6]]
    expected = pt.fit(tiny_llama, targets, recipe=recipe)
    assert expected[0].exact
    assert expected[0].row_steps < expected[1].row_steps
    known = {}

    def stop(now):
        if now.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pt.fit(tiny_llama, targets, recipe=recipe, progress=stop, finished=known.__setitem__)
    assert list(known) == [0]
    assert torch.equal(known[0].protos, expected[0].protos)

    def stopped(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Batch, "step", stopped)
        with pytest.raises(KeyboardInterrupt):
            pt.fit(tiny_llama, targets, recipe=recipe)
    assert tiny_llama.weights_hash() == before
    for one, other in zip(pt.fit(tiny_llama, targets, recipe=recipe), expected, strict=True):
        assert torch.equal(one.protos, other.protos)
