"""The reader of 120 lines checks hashes and little more: no fault makes it give another text."""

import copy
from pathlib import Path

import ptok_reader
import pytest
from tests.format.test_golden_files import (
    BUILTIN,
    HEADER_FAULTS,
    MODEL_FAULTS,
    OUTER_FAULTS,
    inner_faults,
    rewritten,
)
from transformers import AutoModelForCausalLM

HERE = Path(__file__).parent


@pytest.fixture
def loaded_once(monkeypatch):
    """A reader that gets copies of one model, as loading it takes most of the time."""
    load, known = AutoModelForCausalLM.from_pretrained, {}

    def from_pretrained(folder, dtype):
        if dtype not in known:
            known[dtype] = load(folder, dtype=dtype)
        return copy.deepcopy(known[dtype])

    monkeypatch.setattr(ptok_reader.AutoModelForCausalLM, "from_pretrained", from_pretrained)


def text_or_none(raw):
    """What the reader makes of a file; None where it ends with an error."""
    try:
        return ptok_reader.decode(raw, BUILTIN)
    except Exception:
        return None


def golden(name):
    return (HERE / "files" / f"{name}.txt").read_bytes()


def test_a_damaged_container_or_header_is_an_error(loaded_once):
    for name, (raw, _) in OUTER_FAULTS.items():
        assert text_or_none(raw) is None, name


@pytest.mark.filterwarnings("ignore")  # of casts that damaged numbers lead to
def test_no_fault_gives_another_text(loaded_once):
    files = {name: ("keyed-2-bits-4", changes, {}) for name, changes in HEADER_FAULTS.items()}
    files |= {
        name: ("keyed-1-prefix-patches", changes, {})
        for name, (changes, _) in MODEL_FAULTS.items()
        if "text.sha256" not in changes
    }
    files |= {name: fault[:3] for name, fault in inner_faults().items()}
    refused = 0
    for name, (source, changes, tensors) in files.items():
        found = text_or_none(rewritten(source, changes, tensors))
        assert found in (None, golden(source)), name
        refused += found is None
    assert refused > len(files) / 2


def test_another_hash_of_the_text_is_an_error(loaded_once):
    raw = rewritten("keyed-1-prefix-patches", {"text.sha256": "0" * 64})
    with pytest.raises(ValueError, match="text"):
        ptok_reader.decode(raw, BUILTIN)
