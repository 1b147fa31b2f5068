"""The chunked head against the plain definition, in float64."""

import pytest
import torch

from prototokens.engine import head as head_module
from prototokens.engine.head import argmax, score


def reference(lm, hidden, targets, temperature):
    """Loss, margin and gradient as their definitions read, through autograd, in float64."""
    head = lm.head
    leaf = hidden.double().requires_grad_()
    logits = leaf @ head.weight.double().T
    if head.bias is not None:
        logits = logits + head.bias.double()
    logits = logits * head.scale
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    loss = torch.nn.functional.cross_entropy(logits / temperature, targets, reduction="none")
    loss.sum().backward()
    true = logits.gather(1, targets[:, None])[:, 0]
    others = logits.detach().clone().scatter_(1, targets[:, None], -torch.inf)
    return loss.detach(), (true - others.amax(1)).detach(), leaf.grad


@pytest.mark.parametrize("temperature", [1.0, 0.25])
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_scores_are_those_of_the_definition(any_lm, temperature, chunk, monkeypatch):
    monkeypatch.setattr(head_module, "chunk_positions", lambda lm, vocabulary=None: chunk)
    generator = torch.Generator().manual_seed(3)
    hidden = 2 * torch.randn(23, any_lm.hidden_size, generator=generator)
    targets = torch.randint(0, any_lm.vocab_size, (23,), generator=generator)
    scores = score(any_lm, hidden, targets, temperature)
    loss, margin, gradient = reference(any_lm, hidden, targets, temperature)
    torch.testing.assert_close(scores.loss.double(), loss, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scores.margin.double(), margin, rtol=1e-4, atol=1e-4)
    assert scores.gradient is not None
    torch.testing.assert_close(scores.gradient.double(), gradient, rtol=1e-3, atol=1e-5)
    assert torch.equal(scores.right, argmax(any_lm, hidden) == targets)


def test_the_loss_is_finite_where_the_true_token_is_hopeless(tiny_llama):
    hidden = 1e4 * tiny_llama.head.weight[:1].clone()
    worst = tiny_llama.logits(hidden).argmin(-1)
    scores = score(tiny_llama, hidden, worst, temperature=0.1)
    assert scores.loss.isfinite().all()
    assert scores.gradient is not None
    assert scores.gradient.isfinite().all()
    assert not scores.right.any()


def test_without_a_gradient_the_rest_is_the_same(tiny_llama):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(5, tiny_llama.hidden_size, generator=generator)
    targets = torch.arange(5)
    with_one, without = (
        score(tiny_llama, hidden, targets),
        score(tiny_llama, hidden, targets, gradient=False),
    )
    assert without.gradient is None
    assert torch.equal(with_one.margin, without.margin)
    assert torch.equal(with_one.loss, without.loss)


def test_a_tie_is_not_counted_as_right(tiny_llama):
    scores = score(tiny_llama, torch.zeros(2, tiny_llama.hidden_size), torch.tensor([0, 3]))
    assert scores.margin.tolist() == [0.0, 0.0]
    assert not scores.right.any()


def test_not_finite_hidden_states_give_a_loss_that_says_so(tiny_llama):
    hidden = torch.full((1, tiny_llama.hidden_size), torch.nan)
    scores = score(tiny_llama, hidden, torch.tensor([1]))
    assert not scores.loss.isfinite().any()
    assert not scores.right.any()
