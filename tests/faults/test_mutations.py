"""A few hundred mutants of `.ptok` files.

A short run of tests/faults/mutate_files.py, of which docs/reliability.md reports.
"""

import time
from pathlib import Path

import mutate_files
import mutations
import pytest


@pytest.fixture(scope="module")
def files(tiny_llama):
    return mutations.valid_files(tiny_llama)


@pytest.fixture
def judge(tiny_llama, files, tmp_path):
    return mutate_files.Judge(tiny_llama, files, tmp_path)


def test_every_mutant_is_refused_or_right_or_reported_to_differ(judge, files):
    counts, faults = mutate_files.tally(
        judge, mutations.mutants(files, count=400, seed=1, whole=False)
    )
    assert not faults
    assert len(counts) == len(mutations.KINDS)
    assert {end for one in counts.values() for end in one} == {
        "refused",
        "right text",
        "reported to differ",
    }


def test_a_file_without_damage_gives_the_right_text(judge, files):
    assert {judge.end(one.raw)[0] for one in files} == {"right text"}
    assert {judge.end(mutations.forged(one.header, one.tensors))[0] for one in files} == {
        "right text"
    }
    assert {judge.end(one.raw[:-1])[0] for one in files} == {"refused"}


def opens():
    Path("/dev/null").read_bytes()


def fails():
    raise ZeroDivisionError("by zero")


def hangs():
    with mutate_files.timed():
        time.sleep(10)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (opens, "touched ['open /dev/null']"),
        (fails, "ZeroDivisionError"),
        (hangs, "Hang: more than"),
    ],
)
def test_faults_are_seen(judge, files, monkeypatch, fault, words):
    monkeypatch.setattr(mutate_files, "SECONDS", 0.2)
    monkeypatch.setattr(judge, "read", fault)
    end, why = judge.end(files[0].raw)
    assert end == "fault"
    assert words in why


def test_a_wrong_text_reported_to_match_is_a_fault(judge, files):
    judge.texts = {b"another"}
    assert judge.end(files[0].raw) == ("fault", f"gave {files[0].text!r}")
