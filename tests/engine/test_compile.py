"""A compiled body in fits: few shapes, each compiled once, and the same fits.

All else runs the body as it is.
"""

import copy
from collections import deque

import pytest
import torch
from torch._dynamo.utils import counters

import prototokens as pt
from prototokens.engine.inputs import OneStep
from prototokens.engine.rows import groups_of
from prototokens.engine.scheduler import BUCKET, Scheduler

# The tracer looks at a gradient that is not there, and hides the warning: unless warnings are
# errors.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
TARGETS = [
    [3, 1, 4, 1, 5],
    [9, 2, 6],
    [5, 3, 5, 8, 9, 7, 9],
    [3, 2],
    [3, 8, 4],
    [7] * 20,
    [1],
    [2, 7],
    [1, 8, 2],
]


@pytest.fixture
def compiled(tiny_llama, monkeypatch):
    """The tiny Llama, traced as for any compiler, but run as it is: no C++ compiler is needed.

    Counts the shapes it meets.
    """
    real, shapes = torch.compile, []

    def traced(body, **options):
        def run(graph, inputs):
            shapes.append(
                next(
                    tuple(one.shape)
                    for one in inputs
                    if isinstance(one, torch.Tensor) and one.ndim == 3
                )
            )
            return graph.forward

        assert options.pop("mode") is None
        return real(body, backend=run, **options)

    monkeypatch.setattr(torch, "compile", traced)
    torch._dynamo.reset()
    counters.clear()
    lm = copy.copy(tiny_llama)
    lm.compile()
    yield lm, shapes
    torch._dynamo.reset()


def test_as_rows_leave_few_shapes_are_compiled(compiled):
    lm, shapes = compiled
    recipe = pt.Recipe.named("fast", steps=200, margin=1.0)
    targets = [target for target in TARGETS if len(target) < BUCKET]
    rows = set()
    solutions = pt.fit(
        lm, targets, recipe=recipe, progress=lambda now: rows.add(now.total - now.done)
    )
    assert len(rows) > 4  # they left one after another
    # A full batch, a quarter of it, and a quarter of that.
    assert {shape[0] for shape in shapes} <= {8, 2, 1}
    assert {shape[1] for shape in shapes} == {BUCKET}
    assert counters["stats"]["unique_graphs"] == len(shapes) <= 3
    before = len(shapes)
    pt.decode_ids(lm, solutions)
    lm.surprisal(targets[0])
    assert len(shapes) == before
    pt.fit(lm, targets, recipe=recipe, seed=1)
    assert len(set(shapes)) == len(shapes) <= 3


def test_a_compiled_fit_gives_the_same_result(compiled, tiny_llama):
    recipe = pt.Recipe.named("fast", steps=12, margin=1e3)
    for rows in (None, 3):
        pairs = zip(
            pt.fit(compiled[0], TARGETS, recipe=recipe, rows=rows),
            pt.fit(tiny_llama, TARGETS, recipe=recipe, rows=rows),
            strict=True,
        )
        for one, other in pairs:
            assert (one.steps, one.row_steps, one.correct) == (
                other.steps,
                other.row_steps,
                other.correct,
            )
            torch.testing.assert_close(one.protos, other.protos, rtol=1e-3, atol=1e-3)


def test_padding_stays_within_max_positions_and_context(compiled):
    lm = compiled[0]
    method = OneStep(pt.Layout.named("paper"))
    waiting = deque(groups_of(lm, [[7] * lm.max_context, *[[5] * 17] * 40], method))
    scheduler = Scheduler(lm, pt.Recipe.named("fast"), method, waiting, None)
    assert scheduler.fill()
    batch, most = scheduler.batch, scheduler.max_positions
    assert batch.arranged.spread.shape[1] == lm.max_context
    assert len(batch) * lm.max_context <= batch.height * lm.max_context <= most
    scheduler.leave([False] + [True] * (len(batch) - 1))
    scheduler.fill()
    batch = scheduler.batch
    assert batch.arranged.spread.shape[1] == 2 * BUCKET
    assert len(batch) == batch.height == most // (2 * BUCKET)


def test_padding_rows_stay_within_the_memory_found(compiled):
    lm = compiled[0]
    method = OneStep(pt.Layout.named("paper"))
    scheduler = Scheduler(
        lm,
        pt.Recipe.named("fast"),
        method,
        deque(groups_of(lm, [[5] * 3] * 12, method)),
        None,
    )
    scheduler.fill()
    assert (len(scheduler.batch), scheduler.batch.height) == (12, 12)
    for expected in (6, 3, 2, 1):
        scheduler.preempt()
        assert len(scheduler.batch) == scheduler.batch.height == expected


def test_compiling_twice_is_compiling_once(compiled):
    body = compiled[0]._compiled
    compiled[0].compile()
    assert compiled[0]._compiled is body
