"""The runner on Ray gives the same rows as the local runner.

No row is lost with an actor that is killed, and a missing Ray gives a clear message.
"""

import sys
from collections import Counter
from pathlib import Path

import pytest

from programs import run_program
from prototokens.errors import MissingExtraError, UsageError
from prototokens.lab.cluster import Cluster, _Crew, _Hand

PROGRAM = Path(__file__).with_name("killed_actor.py")


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"prototokens\[ray\]"):
        Cluster()


def test_a_killed_actor_loses_nothing(tiny_folder, tmp_path):
    """Two actors, one killed after the first row.

    All rows are there once, and are those of a sweep in one process.
    """
    pytest.importorskip("ray", reason="needs the extra [ray]")
    out = run_program(PROGRAM, tiny_folder, tmp_path / "rows")
    assert "one actor killed" in out


def test_the_jobs_of_a_lost_actor_come_again_and_are_counted(monkeypatch):
    """Whatever it held when it died: none, one or many.

    A job that loses actor after actor ends the sweep.
    """
    crew = object.__new__(_Crew)
    crew.again, crew.deaths = [], Counter()
    jobs = {key: object() for key in ("a", "b")}
    for held in ({}, {"a": jobs["a"]}, jobs):
        crew._give_back(_Hand(None, 0, dict(held), None), RuntimeError())
    assert crew.again == [jobs["a"], jobs["a"], jobs["b"]]
    assert crew.deaths == {"a": 2, "b": 1}
    monkeypatch.setattr("prototokens.lab.cluster.TRIES", 3)
    with pytest.raises(UsageError, match="job a was lost with its actor 3 times"):
        crew._give_back(_Hand(None, 0, {"b": jobs["b"], "a": jobs["a"]}, None), RuntimeError())
