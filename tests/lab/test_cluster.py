"""The runner on Ray: the same rows as here, nothing lost with an actor that is killed, a sentence where Ray is missing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from prototokens.errors import MissingExtraError
from prototokens.lab.cluster import Cluster

PROGRAM = Path(__file__).with_name("killed_actor.py")


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"prototokens\[ray\]"):
        Cluster()


def test_a_killed_actor_loses_nothing(tiny_folder, tmp_path):
    """Two actors, one killed after the first row: all rows are there once, and are those of a sweep in one process."""
    pytest.importorskip("ray", reason="needs the extra [ray]")
    # A program of its own, in a group of its own: what Ray leaves behind goes with it.
    program = subprocess.Popen(
        [sys.executable, PROGRAM, tiny_folder, tmp_path / "rows"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"},
    )  # fmt: skip
    try:
        out, _ = program.communicate(timeout=900)
    finally:
        if program.poll() is None:
            os.killpg(program.pid, signal.SIGKILL)
            program.communicate()
    assert program.returncode == 0, out
    assert "one actor killed" in out
