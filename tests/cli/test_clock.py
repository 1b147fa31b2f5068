"""The machine's clock goes backwards: somebody sets it, or the network does.

Nothing is measured by it, or depends on it.
"""

import itertools
import time

import pytest

TEXT = "The tide went out while the clock was set."


@pytest.fixture
def backwards(monkeypatch):
    """A clock that loses a minute at every look."""
    now = itertools.count(int(time.time()), -60)
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    monkeypatch.setattr(time, "time_ns", lambda: next(now) * 10**9)
    assert time.time() > time.time()


def test_the_same_file_and_times_that_make_sense(encode, decode, tmp_path, request):
    undisturbed = encode("--text", TEXT, "-o", tmp_path / "x.ptok", "--json")
    request.getfixturevalue("backwards")
    made = encode("--text", TEXT, "-o", tmp_path / "y.ptok", "--json")
    assert (made.status, made.json["exact"]) == (0, True)
    assert (tmp_path / "y.ptok").read_bytes() == (tmp_path / "x.ptok").read_bytes()
    assert 0 < made.json["seconds"] < 60
    assert made.json["steps_median"] == undisturbed.json["steps_median"]
    back = decode(tmp_path / "y.ptok", "--json")
    assert (back.json["text"], back.json["matches"]) == (TEXT, True)
    assert 0 < back.json["seconds"] < 60
    assert back.json["tokens_per_second"] > 0


@pytest.mark.usefixtures("backwards")
def test_a_sweep_ends_with_its_rows_and_times_that_make_sense(run, folder, tmp_path):
    options = [
        "--model",
        folder,
        "--out",
        tmp_path / "out",
        "--count",
        1,
        "--lengths",
        "4",
        "--steps",
        40,
        "--quiet",
    ]
    assert run("reproduce", "length", *options).status == 0
    from prototokens.lab.records import Records

    rows = [row for row in Records(tmp_path / "out").rows() if "seconds" in row]
    assert rows
    assert all(0 <= row["seconds"] < 60 for row in rows)
