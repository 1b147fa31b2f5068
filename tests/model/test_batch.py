"""Rows that enter, leave, and are set aside: nobody's way depends on it."""

from collections import deque

import pytest
import torch

import prototokens as pt
from prototokens.engine import batch as batch_module
from prototokens.engine.batch import Batch
from prototokens.engine.inputs import OneStep
from prototokens.engine.memory import bytes_per_position, free_bytes, is_out_of_memory
from prototokens.engine.rows import groups_of
from prototokens.errors import DeviceMemoryError

TARGETS = [[3, 1, 4, 1, 5], [9, 2, 6], [5, 3, 5, 8, 9, 7, 9], [3, 2], [3, 8, 4], [7] * 20, [1]]
FAILURE = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1099511627776 bytes"


def fails_above(monkeypatch, most_rows):
    """A machine whose memory holds so many rows of a step, and no more."""
    step, seen = Batch.step, []

    def limited(self):
        seen.append(len(self))
        if len(self) > most_rows:
            raise RuntimeError(FAILURE)
        step(self)

    monkeypatch.setattr(Batch, "step", limited)
    return seen


@pytest.mark.parametrize("most_rows", [1, 2, 3])
def test_where_memory_runs_out_rows_are_set_aside_and_nothing_is_lost(tiny_llama, monkeypatch, most_rows):
    recipe = pt.Recipe.named("fast", steps=30, margin=1e3)
    expected = pt.fit(tiny_llama, TARGETS, recipe=recipe)
    seen = fails_above(monkeypatch, most_rows)
    got = pt.fit(tiny_llama, TARGETS, recipe=recipe)
    assert max(seen) > most_rows
    for one, other in zip(got, expected, strict=True):
        assert (one.ids, one.steps, one.row_steps) == (other.ids, other.steps, other.row_steps)
        torch.testing.assert_close(one.protos, other.protos, rtol=1e-3, atol=1e-3)


def test_what_is_set_aside_goes_on_with_its_own_state(tiny_llama, monkeypatch):
    """Memory shrinks in the middle of a fit: the rows in work keep their age, their moments and their best."""
    recipe = pt.Recipe.named("fast", steps=24, margin=1e3)
    expected = pt.fit(tiny_llama, TARGETS, recipe=recipe)
    step, calls = Batch.step, []

    def shrinking(self):
        calls.append(len(self))
        if len(calls) > 10 and len(self) > 2:
            raise RuntimeError(FAILURE)
        step(self)

    monkeypatch.setattr(Batch, "step", shrinking)
    for one, other in zip(pt.fit(tiny_llama, TARGETS, recipe=recipe), expected, strict=True):
        assert (one.steps, one.row_steps, one.correct) == (other.steps, other.row_steps, other.correct)
        torch.testing.assert_close(one.protos, other.protos, rtol=1e-3, atol=1e-3)


def test_memory_that_does_not_hold_one_row_is_said(tiny_llama, monkeypatch):
    fails_above(monkeypatch, 0)
    with pytest.raises(DeviceMemoryError, match="with 1 rows of 20 positions alone"):
        pt.fit(tiny_llama, TARGETS)


def test_other_errors_are_not_taken_for_a_lack_of_memory(tiny_llama, monkeypatch):
    def broken(self):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(Batch, "step", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        pt.fit(tiny_llama, TARGETS)
    assert not is_out_of_memory(ValueError("out of memory"))
    assert is_out_of_memory(RuntimeError(FAILURE))
    assert is_out_of_memory(MemoryError())


def test_what_a_position_costs_is_counted(tiny_llama):
    """At least the inputs of every matrix product; more layers cost more."""
    cost = bytes_per_position(tiny_llama, 16)
    config = tiny_llama.model.config
    assert cost > 4 * config.hidden_size * config.num_hidden_layers
    assert cost < 1e5
    assert free_bytes(tiny_llama.device) > 1 << 20


def test_scarce_memory_makes_a_small_batch(tiny_llama, monkeypatch):
    from prototokens.engine import memory

    monkeypatch.setattr(memory, "free_bytes", lambda device: int(2 * 40 * bytes_per_position(tiny_llama, 20)))
    method = OneStep(pt.Layout.named("paper"))
    waiting = deque(sorted(groups_of(tiny_llama, TARGETS, method, 0, None), key=lambda group: -group.positions))
    batch = Batch(tiny_llama, pt.Recipe.named("fast"), method, waiting, None)
    assert 20 <= batch.room <= 40
    assert batch.fill()
    assert len(batch) * max(group.positions for group in batch.groups) <= 40


def test_rows_of_one_token_and_of_the_whole_context_share_a_batch(tiny_gpt2):
    longest = tiny_gpt2.max_context
    targets = [[5], [1, 2] * (longest // 2)]
    recipe = pt.Recipe.named("fast", steps=60)
    together = pt.fit(tiny_gpt2, targets, recipe=recipe)
    assert together[0].correct == 1
    assert together[1].length == longest
    alone = pt.fit(tiny_gpt2, targets[1:], recipe=recipe)[0]
    torch.testing.assert_close(together[1].protos, alone.protos, rtol=1e-3, atol=1e-3)


def test_a_look_every_few_steps_finds_what_a_look_every_step_finds(tiny_llama, monkeypatch):
    """On a GPU the host looks every tenth step: steps, vectors and outcome of a row are the same, only its row-steps grow."""
    from prototokens.engine import fit as fit_module

    recipe = pt.Recipe.named("fast", steps=200, whiten=False)  # rounding grows least
    each = pt.fit(tiny_llama, TARGETS, recipe=recipe)
    monkeypatch.setattr(fit_module, "LOOK_EVERY", {"cpu": 7})
    every = pt.fit(tiny_llama, TARGETS, recipe=recipe)
    for one, other in zip(every, each, strict=True):
        assert one.exact == other.exact
        if one.exact:  # of a row that stays unsolved the best step is a matter of the last bit
            assert one.steps == other.steps
            torch.testing.assert_close(one.protos, other.protos, rtol=1e-3, atol=1e-3)
        assert other.row_steps <= one.row_steps < other.row_steps + 7


def test_compiled_widths_come_in_few_sizes(tiny_llama, monkeypatch):
    monkeypatch.setattr(tiny_llama, "compiled", True)
    method = OneStep(pt.Layout.named("paper"))
    batch = Batch(tiny_llama, pt.Recipe.named("fast"), method, deque(groups_of(tiny_llama, TARGETS, method, 0, None)), None)
    batch.fill()
    assert batch.arranged is not None
    assert batch.arranged.spread.shape[1] % batch_module.BUCKET == 0
