"""Rows enter, leave and are preempted, and no row's result depends on it."""

import gc
from collections import deque

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import prototokens as pt
from prototokens.engine import batch as batch_module
from prototokens.engine import optimizer
from prototokens.engine.batch import Batch
from prototokens.engine.inputs import OneStep
from prototokens.engine.memory import bytes_per_position, free_bytes, is_out_of_memory
from prototokens.engine.optimizer import bytes_per_vector
from prototokens.engine.rows import groups_of
from prototokens.engine.scheduler import Scheduler
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
        return step(self)

    monkeypatch.setattr(Batch, "step", limited)
    return seen


@pytest.mark.parametrize("most_rows", [1, 2, 3])
def test_out_of_memory_preempts_rows_and_loses_none(tiny_llama, monkeypatch, most_rows):
    recipe = pt.Recipe.named("fast", steps=30, margin=1e3)
    expected = pt.fit(tiny_llama, TARGETS, recipe=recipe)
    seen = fails_above(monkeypatch, most_rows)
    got = pt.fit(tiny_llama, TARGETS, recipe=recipe)
    assert max(seen) > most_rows
    for one, other in zip(got, expected, strict=True):
        assert (one.ids, one.steps, one.row_steps) == (other.ids, other.steps, other.row_steps)
        torch.testing.assert_close(one.protos, other.protos, rtol=1e-3, atol=1e-3)


def test_preempted_groups_resume_with_their_own_state(tiny_llama, monkeypatch):
    """Memory shrinks in the middle of a fit.

    The rows in work keep their age, their moments and their best.
    """
    recipe = pt.Recipe.named("fast", steps=24, margin=1e3)
    expected = pt.fit(tiny_llama, TARGETS, recipe=recipe)
    step, calls = Batch.step, []

    def shrinking(self):
        calls.append(len(self))
        if len(calls) > 10 and len(self) > 2:
            raise RuntimeError(FAILURE)
        return step(self)

    monkeypatch.setattr(Batch, "step", shrinking)
    for one, other in zip(pt.fit(tiny_llama, TARGETS, recipe=recipe), expected, strict=True):
        assert (one.steps, one.row_steps, one.correct) == (
            other.steps,
            other.row_steps,
            other.correct,
        )
        torch.testing.assert_close(one.protos, other.protos, rtol=1e-3, atol=1e-3)


def test_memory_too_small_for_one_row_is_reported(tiny_llama, monkeypatch):
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


def test_the_memory_of_a_position_is_measured(tiny_llama):
    """At least the inputs of every matrix product; more layers cost more."""
    cost = bytes_per_position(tiny_llama, 16)
    config = tiny_llama.model.config
    assert cost > 4 * config.hidden_size * config.num_hidden_layers
    assert cost < 1e5
    assert free_bytes(tiny_llama.device) > 1 << 20


def test_nothing_is_left_in_memory_when_a_position_was_measured(tiny_llama):
    """No garbage collector finds a graph that refers to itself, and every fit would leave one."""

    def tensors():
        gc.collect()
        return sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())

    bytes_per_position(tiny_llama, 16)
    before = tensors()
    for _ in range(5):
        bytes_per_position(tiny_llama, 16)
    assert tensors() <= before  # fewer: what earlier tests have left


def test_matrices_are_counted_into_what_a_row_costs(tiny_llama, monkeypatch):
    from prototokens.engine import memory

    plain, preconditioned = (
        pt.Recipe.named("fast", precondition=precondition) for precondition in (False, True)
    )
    width = tiny_llama.d_model
    assert bytes_per_vector(plain, width) == 16 * width
    assert bytes_per_vector(preconditioned, width) == 16 * width + 8 * width**2
    monkeypatch.setattr(memory, "free_bytes", lambda device: 4_000_000)
    activations = bytes_per_position(tiny_llama, 20)
    method = OneStep(pt.Layout.named("tiled:4"))
    for recipe in (plain, preconditioned):
        waiting = deque(groups_of(tiny_llama, [[7] * 20], method))
        row = 20 * activations + 5 * bytes_per_vector(recipe, width)
        expected = int(2_000_000 * 20 / row)
        assert Scheduler(tiny_llama, recipe, method, waiting, None).max_positions == expected


def test_where_measuring_runs_out_of_memory_one_row_is_tried(tiny_llama, monkeypatch):
    from prototokens.engine import memory

    def too_large(lm, width):
        raise RuntimeError(FAILURE)

    monkeypatch.setattr(memory, "bytes_per_position", too_large)
    assert memory.max_positions(tiny_llama, 20) == 20
    solutions = pt.fit(tiny_llama, TARGETS, recipe=pt.Recipe.named("fast", steps=2))
    assert [one.row_steps for one in solutions] == [3] * len(TARGETS)


class Scarce(TorchDispatchMode):
    """Within it memory runs out at chosen operations, counted from the first.

    Operations that work in place take none.
    """

    def __init__(self, *failing):
        super().__init__()
        self.failing, self.count, self.failed = set(failing), 0, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not func._schema.is_mutable:
            self.count += 1
            if self.count in self.failing:
                self.failed.append(str(func))
                raise RuntimeError(FAILURE)
        return func(*args, **(kwargs or {}))


def scarce_in(monkeypatch, *failing, methods=("step", "_enter")):
    """Memory that runs out at these operations of all that a batch's methods do."""
    scarce = Scarce(*failing)
    for name in methods:
        owner = Batch if hasattr(Batch, name) else Scheduler
        real = getattr(owner, name)

        def within(self, *arguments, real=real):
            with scarce:
                return real(self, *arguments)

        monkeypatch.setattr(owner, name, within)
    return scarce


def same(got, expected):
    for one, other in zip(got, expected, strict=True):
        assert (one.ids, one.steps, one.row_steps, one.correct) == (
            other.ids,
            other.steps,
            other.row_steps,
            other.correct,
        )
        torch.testing.assert_close(one.protos, other.protos, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("precondition", [True, False])
def test_out_of_memory_within_a_step_changes_no_result(tiny_llama, monkeypatch, precondition):
    """At every call of it in turn, spread over runs.

    No gradient is counted twice, and none is lost.
    """
    recipe = pt.Recipe.named("fast", steps=22, margin=1e3, precondition=precondition)
    targets = TARGETS[:4]
    expected = pt.fit(tiny_llama, targets, recipe=recipe)
    with monkeypatch.context() as patch:
        counted = scarce_in(patch, methods=("step",))
        pt.fit(tiny_llama, targets, recipe=recipe)
    a_step = counted.count // 23
    failed = set()
    for run in range(8):
        with monkeypatch.context() as patch:
            # Two failures, so that a batch of four shrinks to one row; in later steps the next
            # places of a step.
            first = a_step * (run + 1) + run * (a_step // 8)
            scarce = scarce_in(patch, first, first + a_step + a_step // 2, methods=("step",))
            same(pt.fit(tiny_llama, targets, recipe=recipe), expected)
            assert len(scarce.failed) == 2
            failed |= set(scarce.failed)
    assert len(failed) > 5


@pytest.mark.parametrize("name", ["fast", "paper"])
def test_out_of_memory_in_the_optimizer_counts_no_gradient_twice(tiny_llama, monkeypatch, name):
    """The last operation that takes memory before the vectors move is among them."""
    recipe = pt.Recipe.named(name, steps=8, margin=1e3)
    expected = pt.fit(tiny_llama, TARGETS[:4], recipe=recipe)
    real, calls = optimizer.move, []

    def count(*arguments):
        with Scarce() as mode:
            real(*arguments)
        calls.append(mode.count)

    monkeypatch.setattr(batch_module, "move", count)
    pt.fit(tiny_llama, TARGETS[:4], recipe=recipe)
    for call in {*range(1, calls[0], 2), calls[0]}:
        tried = []

        def short_of(*arguments, call=call, tried=tried):
            tried.append(None)
            with Scarce(*[call] * (len(tried) == 1)):
                real(*arguments)

        monkeypatch.setattr(batch_module, "move", short_of)
        same(pt.fit(tiny_llama, TARGETS[:4], recipe=recipe), expected)


def test_out_of_memory_as_rows_enter_loses_none(tiny_llama, monkeypatch):
    """Wherever it happens while the first rows enter, and while later ones join those in work."""
    recipe = pt.Recipe.named("fast", steps=6, margin=1e3)
    targets = [*TARGETS, *TARGETS[::-1]]
    expected = pt.fit(tiny_llama, targets, recipe=recipe, rows=4)
    with monkeypatch.context() as patch:
        entered = scarce_in(patch, methods=("_enter",))
        pt.fit(tiny_llama, targets, recipe=recipe, rows=4)
    for call in range(1, entered.count, 23):
        with monkeypatch.context() as patch:
            scarce = scarce_in(patch, call, methods=("_enter",))
            same(pt.fit(tiny_llama, targets, recipe=recipe, rows=4), expected)
            assert len(scarce.failed) == 1


def test_memory_that_admits_no_row_is_reported(tiny_llama, monkeypatch):
    scarce_in(monkeypatch, *range(1, 100), methods=("_enter",))
    with pytest.raises(DeviceMemoryError, match="with 1 rows of 20 positions alone"):
        pt.fit(tiny_llama, TARGETS)


def test_scarce_memory_makes_a_small_batch(tiny_llama, monkeypatch):
    from prototokens.engine import memory

    monkeypatch.setattr(
        memory, "free_bytes", lambda device: int(2 * 40 * bytes_per_position(tiny_llama, 20))
    )
    method = OneStep(pt.Layout.named("paper"))
    waiting = deque(
        sorted(groups_of(tiny_llama, TARGETS, method), key=lambda group: -group.positions)
    )
    scheduler = Scheduler(tiny_llama, pt.Recipe.named("fast"), method, waiting, None)
    assert 20 <= scheduler.max_positions <= 40
    assert scheduler.fill()
    batch = scheduler.batch
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


def test_checking_every_few_steps_finds_the_same_solutions(tiny_llama, monkeypatch):
    """On a GPU the host looks every tenth step.

    Steps, vectors and outcome of a row are the same, only its row-steps grow.
    """
    from prototokens.engine import fit as fit_module

    recipe = pt.Recipe.named("fast", steps=200, precondition=False)  # rounding grows least
    each = pt.fit(tiny_llama, TARGETS, recipe=recipe)
    monkeypatch.setattr(fit_module, "CHECK_EVERY", {"cpu": 7})
    every = pt.fit(tiny_llama, TARGETS, recipe=recipe)
    for one, other in zip(every, each, strict=True):
        assert one.exact == other.exact
        if one.exact:  # of a row that stays unsolved the best step is a matter of the last bit
            assert one.steps == other.steps
            torch.testing.assert_close(one.protos, other.protos, rtol=1e-3, atol=1e-3)
        assert other.row_steps <= one.row_steps < other.row_steps + 7
