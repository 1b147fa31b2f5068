"""Rows to a tracker: what it receives, and when its run ends."""

import sys
from types import ModuleType

import pytest
from experiment_runs import settings

from prototokens.errors import MissingExtraError, UsageError
from prototokens.lab import experiments
from prototokens.lab.records import Records
from prototokens.lab.sweep import Local, sweep
from prototokens.lab.tracking import PROJECT, Remote, Tracker


class Fake(ModuleType):
    """A library with the three functions that both trackers share."""

    def __init__(self):
        super().__init__("trackio")
        self.opened, self.logged, self.finished = [], [], 0

    def init(self, *, project, config):
        self.opened.append((project, config))

    def log(self, numbers):
        self.logged.append(numbers)

    def finish(self):
        self.finished += 1


@pytest.fixture
def library(monkeypatch):
    fake = Fake()
    monkeypatch.setitem(sys.modules, "trackio", fake)
    return fake


def test_a_tracker_gets_the_numbers_of_every_row_once(tiny_llama, library, tmp_path):
    config = settings(tiny_llama, steps=2, sources=("random-tokens",), most_texts=1, grid=(1,))
    jobs = experiments.load("length").jobs(config)
    remote = Remote("trackio", {"model": "tiny"})
    assert isinstance(remote, Tracker)
    rows = sweep(jobs, Records(tmp_path), Local(tiny_llama), tracker=remote)
    remote.finish()
    assert library.opened == [(PROJECT, {"model": "tiny"})]
    (numbers,), (row,) = library.logged, rows
    assert (numbers["length/steps"], numbers["length/accuracy"]) == (row["steps"], row["accuracy"])
    assert all(type(value) in (int, float) for value in numbers.values())
    assert library.finished == 1
    # Rows that were there already are not sent again.
    sweep(jobs, Records(tmp_path), Local(tiny_llama), tracker=remote)
    assert len(library.logged) == 1


def test_any_callable_with_an_end_is_a_tracker(tiny_llama, tmp_path):
    calls = []

    class Mine:
        def __call__(self, job, rows):
            calls.append((job.key, len(rows)))

        def finish(self):
            calls.append("end")

    assert isinstance(Mine(), Tracker)
    jobs = experiments.load("table4").jobs(settings(tiny_llama, steps=1, most_texts=2, grid=(1,)))
    sweep(jobs, Records(tmp_path), Local(tiny_llama), tracker=Mine())
    assert calls == [(jobs[0].key, 2)]


def test_trackers_that_there_are_not(monkeypatch):
    with pytest.raises(UsageError, match="choose one of trackio, wandb"):
        Remote("tensorboard", {})
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError, match=r"prototokens\[wandb\]"):
        Remote("wandb", {})
