"""Ways from hidden states to loss and gradient, against the definition of the head in float64."""

import copy
from dataclasses import replace

import pytest
import torch

from prototokens.bench.head_memory import Work, head_memory
from prototokens.bench.heads import WAYS, compare_heads, in_float64, ways_of
from prototokens.bench.peak import PeakMemory

HEADS = {
    "plain": {},
    "bias": {"bias": True},
    "scale and bias": {"bias": True, "scale": 0.25},
    "scale, bias and soft cap": {"bias": True, "scale": 0.5, "softcap": 3.0},
}


@pytest.fixture(params=HEADS.values(), ids=HEADS)
def lm(request, tiny_llama):
    """The tiny Llama with another head."""
    more = dict(request.param)
    if more.pop("bias", False):
        more["bias"] = torch.randn(
            tiny_llama.vocab_size, generator=torch.Generator().manual_seed(1)
        )
    changed = copy.copy(tiny_llama)
    changed.head = replace(tiny_llama.head, **more)
    return changed


def states(lm, positions):
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(positions, lm.hidden_size, generator=generator)
    return hidden, torch.randint(0, lm.vocab_size, (positions,), generator=generator)


def test_the_reference_is_the_definition(lm):
    """Token by token, written out once more: the loss in nats, and its gradient by differences."""
    hidden, targets = states(lm, 2)
    temperature, head = 0.5, lm.head

    def loss_of(state, target):
        logits = (head.weight.double() * state).sum(1)
        if head.bias is not None:
            logits = logits + head.bias.double()
        logits = head.scale * logits
        if head.softcap is not None:
            logits = head.softcap * torch.tanh(logits / head.softcap)
        likely = torch.exp(logits / temperature)
        return -torch.log(likely[target] / likely.sum())

    found = in_float64(lm, hidden, targets, temperature)
    for state, target, loss, gradient in zip(
        hidden.double(), targets.tolist(), *found, strict=True
    ):
        torch.testing.assert_close(loss, loss_of(state, target))
        for step, own in zip(
            1e-6 * torch.eye(len(state), dtype=torch.float64), gradient, strict=True
        ):
            difference = (loss_of(state + step, target) - loss_of(state - step, target)) / 2e-6
            torch.testing.assert_close(own, difference, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_every_way_gives_the_same(lm, temperature):
    hidden, targets = states(lm, 19)
    true = in_float64(lm, hidden, targets, temperature)
    assert ("fused" in ways_of(lm)) == (lm.head.softcap is None)
    for name in ways_of(lm):
        loss, gradient = WAYS[name](lm, hidden, targets, temperature)
        torch.testing.assert_close(loss.sum().double(), true.loss.sum(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(gradient.double(), true.gradient, rtol=1e-4, atol=1e-5)


def test_the_table_holds_every_way_and_its_error(any_lm):
    rows = compare_heads(any_lm, 12, tries=1)
    assert [row["way"] for row in rows] == ways_of(any_lm)
    assert all(row["gradient_error"] < 1e-4 for row in rows)


@pytest.mark.skipif(
    torch.cuda.is_available(), reason="counts the memory of a process, not of a GPU"
)
def test_a_peak_is_seen_though_it_is_gone_at_the_end():
    with PeakMemory(torch.device("cpu")) as memory:
        torch.ones(25_000_000).sum()
    if memory.extra is None:
        pytest.skip("/proc tells no peak here: it needs Linux")
    assert 90e6 < memory.extra < 150e6
    with PeakMemory(torch.device("cpu")) as memory:
        pass
    assert memory.extra is not None
    assert memory.extra < 20e6


def test_the_chunked_head_takes_a_small_part_of_what_all_logits_take():
    """In processes of their own.

    The figure for a large vocabulary: `prototokens bench --what head-memory`.
    """
    (row,) = head_memory(torch.float32, torch.device("cpu"), Work(20_000, 64, 32, 64), ["chunked"])
    assert row["logits_bytes"] == 4 * 2048 * 20_000
    if row["peak_bytes"] is None:
        pytest.skip("/proc tells no peak here: it needs Linux")
    assert 0 < row["peak_bytes"] < row["logits_bytes"] / 2
