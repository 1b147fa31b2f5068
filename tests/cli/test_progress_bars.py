"""Progress bars on a terminal of 80 columns: nothing is cut, and a bar is left to look at."""

import io
import re
import sys

from prototokens.cli.sweeping import display
from prototokens.cli.train_encoder import _bar
from prototokens.engine.progress import Progress
from prototokens.lab.sweep import SweepProgress


class Terminal(io.StringIO):
    """Standard error as a terminal that keeps what it was sent."""

    def isatty(self):
        return True

    def line(self, word):
        """The first drawn line that holds a word, without control sequences."""
        drawn = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.getvalue())
        return next(line for line in re.split(r"[\r\n]", drawn) if word in line)


def of_80_columns(monkeypatch):
    """Called in the test itself: pytest puts its own standard error back after fixtures."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    return terminal


def cells(line):
    return sum(letter in "━╸╺" for letter in line)


def test_jobs_of_a_sweep(monkeypatch):
    terminal = of_80_columns(monkeypatch)
    fits = Progress(12, 12, 30, 0.9, 0.1, 123_400, 100.0, lambda _: None)
    with display(False) as show:
        show(SweepProgress(110, 240, 1e6, 2e6, 190.0, fits, "figure3"))
    line = terminal.line("jobs")
    assert "110/240 jobs (figure3), 12/30 fits, 1,234 steps/s, 3.17 minutes left" in line
    assert len(line) <= 80
    assert cells(line) >= 8


def test_steps_of_a_training(monkeypatch):
    terminal = of_80_columns(monkeypatch)
    with _bar(False, 20_000) as show:
        show(
            {
                "step": 12_000,
                "nats": 0.1234,
                "accuracy": 0.981,
                "held_out": [{"accuracy": 0.972}],
            }
        )
    line = terminal.line("nats")
    assert "60% 0.123 nats, 98.1% right, held-out 97.2%" in line
    assert " left " in line
    assert len(line) <= 80
    assert cells(line) >= 8
